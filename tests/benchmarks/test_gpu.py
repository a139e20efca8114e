"""``benchmarks/gpu.py`` on a CPU: every block runs, so that a GPU's minutes are not spent on its mistakes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from ddpnas_ray.core.scaling import parse_constants

ROOT = Path(__file__).parents[2]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / "gpu.py"), *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
    )


@pytest.mark.slow
def test_every_block_runs_on_a_cpu_and_its_comparisons_hold(tmp_path: Path) -> None:
    file = tmp_path / "gpu.json"
    done = run("--device", "cpu", "--tiny", "--json", str(file))
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(file.read_text())
    assert list(found["blocks"]) == [
        "device", "operations", "step", "preparation", "epoch", "memory", "sharing", "correctness"
    ]  # fmt: skip
    for name, block in found["blocks"].items():
        assert not {"error", "cut"} & block.keys(), f"{name}: {block}"
    compared = {k: v for k, v in found["blocks"]["correctness"].items() if k != "seconds"}
    assert len(compared) == 7 and all(value is True for value in compared.values()), compared
    constants = asdict(parse_constants(found, "gpu.json"))
    assert all(constants[key] > 0 for key in ("train_step_s", "validation_batch_s", "merge_s", "checkpoint_s"))


@pytest.mark.gpu
def test_comparisons_hold_on_a_gpu(tmp_path: Path) -> None:
    """Whether cuDNN repeats its bits is for the figures to say."""
    file = tmp_path / "gpu.json"
    done = run("--tiny", "--blocks", "device,correctness", "--json", str(file))
    assert done.returncode == 0, done.stderr
    found = json.loads(file.read_text())["blocks"]["correctness"]
    assert found["gathered_is_numpys"]
    for name in ("fp32", "bf16", "dropout", "adamw", "reading"):
        assert found[f"{name}_replayed_is_plain"] or not found[f"{name}_repeated_is_equal"], name


def test_without_time_blocks_are_cut_and_the_file_says_so(tmp_path: Path) -> None:
    file = tmp_path / "gpu.json"
    assert run("--device", "cpu", "--tiny", "--seconds", "0", "--json", str(file)).returncode == 0
    blocks = json.loads(file.read_text())["blocks"]
    assert len(blocks) == 8 and all(block["cut"] == "no time left" for block in blocks.values())


def test_a_block_that_does_not_exist_is_refused() -> None:
    done = run("--device", "cpu", "--blocks", "step,spet")
    assert done.returncode == 2
    assert "there is no block spet; choose from device, operations, step" in done.stderr
