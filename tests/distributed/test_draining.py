"""Nodes drained in the middle of an epoch: the table of benchmarks/drain.py, on a smaller network."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.commands import options
from tests.conftest import ROOT, TINY


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(600)
def test_a_drained_node_gets_nothing_new_and_the_fingerprint_stays() -> None:
    # Enough images for an architecture to outlast a drain and a kill.
    keys = [*TINY, "data.train_limit=512", "data.val_limit=128"]
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / "drain.py"), *options(*keys)],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    table = [line for line in done.stdout.splitlines() if line.startswith("| ")][1:]
    rows = {way: figures for way, *figures in ([cell.strip() for cell in line.split("|")[1:-1]] for line in table)}
    assert len(rows) == 5
    assert len({fingerprint for fingerprint, *_ in rows.values()}) == 1
    for way in ("drained, room on the other node", "drained, no room"):
        _, retries, ended_there, repeated_s, *_ = rows[way]
        assert (retries, repeated_s) == ("0", "0.0"), "what was being trained was finished"
        assert ended_there in ("0", "1"), "none where the notice came between two architectures"
    _, retries, ended_there, repeated_s, *_ = rows["drained and killed, room on the other node"]
    assert int(retries) >= 1 and ended_there == "0" and float(repeated_s) > 0, "it was trained again elsewhere"
