"""The table of docs/measurements.md on a smaller network: every way to run gives one fingerprint."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.conftest import ROOT, TINY


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(900)
def test_no_way_of_running_or_dying_changes_the_fingerprint() -> None:
    # Enough images for the kill to hit the intended epoch.
    overrides = [*TINY, "data.train_limit=256", "data.val_limit=128"]
    sets = [word for override in overrides for word in ("--set", override)]
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / "fingerprints.py"), *sets],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        check=False,
    )
    rows = [line.split("|")[1:-1] for line in done.stdout.splitlines() if line.startswith("| ")][1:]
    assert done.returncode == 0, done.stdout + done.stderr
    fingerprints = {way.strip(): fingerprint.strip() for way, fingerprint, *_ in rows}
    assert len(fingerprints) == 9
    assert len(set(fingerprints.values())) == 2, fingerprints
    assert list(fingerprints.values()).count(fingerprints["local, seed 1"]) == 1
    workers = {way.strip(): int(count) for way, _, count, *_ in rows}
    assert workers["ray, 2 workers"] == 2 and workers["ray, 4 workers"] >= 2
    starts = {way.strip(): int(count) for way, _, _, _, count, _ in rows}
    assert starts["ray, the driver actor SIGKILLed"] >= 2
    assert starts["ray, the process group SIGKILLed, resumed"] >= 2
