"""The table of docs/measurements.md on smaller networks: every way to run gives one fingerprint."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.commands import options
from tests.conftest import ROOT, TINY
from tests.spaces.bert.making import saved
from tests.tasks.text.making import reviews, write

Rows = dict[str, dict[str, str]]


def rows_of(*words: str, only: Sequence[str] = ()) -> Rows:
    """Run the benchmark and return its table by the way to run."""
    script = str(ROOT / "benchmarks" / "fingerprints.py")
    done = subprocess.run(
        [sys.executable, script, *words, *(["--only", *only] if only else [])],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [line for line in done.stdout.splitlines() if line.startswith("| ")]
    head, *rows = ([cell.strip() for cell in line.split("|")[1:-1]] for line in lines)
    return {row[0]: dict(zip(head, row, strict=True)) for row in rows}


def assert_one_fingerprint(rows: Rows, other: str = "local, seed 1") -> None:
    fingerprints = {way: row["fingerprint"] for way, row in rows.items()}
    assert len(set(fingerprints.values())) == 2, fingerprints
    assert list(fingerprints.values()).count(fingerprints[other]) == 1


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(900)
def test_no_way_of_running_or_dying_changes_the_fingerprint() -> None:
    # Enough images for the kill to hit the intended epoch.
    rows = rows_of(*options(*TINY, "data.train_limit=256", "data.val_limit=128"))
    assert len(rows) == 9
    assert_one_fingerprint(rows)
    assert int(rows["ray, 2 workers"]["worker processes"]) == 2
    assert int(rows["ray, 4 workers"]["worker processes"]) >= 2
    assert int(rows["ray, the driver actor SIGKILLed"]["starts of the loop"]) >= 2
    assert int(rows["ray, the process group SIGKILLed, resumed"]["starts of the loop"]) >= 2


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(900)
def test_searches_of_texts_have_one_fingerprint_too(tmp_path: Path) -> None:
    data = write(tmp_path / "reviews.tsv", reviews(1500))
    model = saved(tmp_path / "model", vocab_size=200)  # of 4 layers; its heads are ordered by importance first
    keys = [
        f"space={{name: bert, model: {model}, importance: 64}}",
        "task={name: text, columns: [sentence], vocabulary: 200, max_length: 32}",
        f"data.path={data}",
        "data.val_fraction=0.2",
        "pruning.epochs_per_round=2",
    ]
    config = ["--config", str(ROOT / "configs" / "bert_tiny_cpu.yaml")]
    rows = rows_of(*config, *options(*keys), only=["local", "ray1", "ray2", "worker", "group", "seed1"])
    assert len(rows) == 6
    assert_one_fingerprint(rows)
    assert int(rows["ray, the process group SIGKILLed, resumed"]["starts of the loop"]) >= 2
