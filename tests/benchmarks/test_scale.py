"""``benchmarks/scale.py`` as a command: a table and JSON without training, and what it refuses."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from ddpnas_ray import search
from ddpnas_ray.runs.files import evaluations_table, read_evaluations
from tests.commands import ENVIRONMENT, LOCAL, Said, options, run
from tests.conftest import ROOT, TINY
from tests.test_check import GPU


def scale(*words: str | Path) -> Said:
    command = [sys.executable, str(ROOT / "benchmarks" / "scale.py"), *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT)
    return Said(done.returncode, done.stdout, done.stderr)


def test_time_and_cost_up_to_1024_are_drawn_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "gpu.json").write_text(json.dumps(GPU | {"train_step_s": 60.0}))
    words = ["--config", "digits", *options(*TINY), "--constants", tmp_path / "gpu.json", "--searches", "2"]
    said = scale("draw", *words, "--plot", tmp_path, "--json", tmp_path / "scale.json")
    assert said.code == 0, said.err
    numbers = json.loads((tmp_path / "scale.json").read_text())
    alone, best = numbers["alone"], numbers["best"]
    assert [row["gpus"] for row in alone] == [2**i for i in range(11)]
    assert [row["idle"] for row in alone] == [max(0, 2**i - 8) for i in range(11)]
    assert all(two["seconds"] <= one["seconds"] for one, two in zip(alone, best, strict=True))
    calm = {row["gpus"]: row for row in numbers["failures"] if row["what"] == "calm"}
    assert calm[64]["seconds"] == calm[1024]["seconds"] < calm[1]["seconds"]
    assert calm[1]["seconds"] == pytest.approx(alone[0]["seconds"], rel=0.2), "effort moves the mean a little"
    stragglers = [row for row in numbers["failures"] if row["what"].startswith("5 %")]
    assert any(row["seconds"] > calm[row["gpus"]]["seconds"] for row in stragglers)
    assert said.out.count("\n| ") == 2 + 11 + 20
    assert (tmp_path / "scale.svg").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["draw", "--constants", "none.json"], "ConfigError: none.json: No such file or directory; give a JSON file"),
        (["draw", "--config", "nowhere"], "nowhere"),
        (["compare", "--run", "nowhere"], "RunDirError: nowhere has no result.json; give the run directory of a"),
        (["compare", "--workers", "0"], "'0' is not an integer of at least 1"),
        (["driver", "--seconds", "-1"], "'-1' is not a number of at least 0"),
    ],
)
def test_bad_input_is_refused_before_anything_starts(words: list[str], message: str) -> None:
    said = scale(*words)
    assert (said.code, said.out) == (2, "")
    assert message in said.err
    assert "Traceback" not in said.err


def test_a_recording_needs_one_worker(tmp_path: Path) -> None:
    assert run(search.main, *LOCAL, "--out", tmp_path / "run").code == 0
    file = tmp_path / "run" / "evaluations.parquet"
    rows = read_evaluations(file.read_bytes())
    file.write_bytes(evaluations_table([replace(row, worker=f"w{i % 2}") for i, row in enumerate(rows)]))
    said = scale("compare", "--run", tmp_path / "run")
    assert (said.code, said.out) == (2, "")
    assert "was searched by 2 workers; record with execution.workers=1" in said.err


@pytest.mark.slow
@pytest.mark.ray
def test_many_workers_in_few_processes_are_fed_by_the_real_loop(tmp_path: Path) -> None:
    words = ["--workers", "1", "30", "--seconds", "0.5", "--rounds", "2", "--processes", "2"]
    said = scale("driver", *words, "--json", tmp_path / "driver.json")
    assert said.code == 0, said.err
    one, many = json.loads((tmp_path / "driver.json").read_text())["rows"]
    assert (one["architectures"], many["architectures"]) == (10, 60)
    assert one["per_s"] <= 2.0
    assert one["per_s"] < many["per_s"] <= 60.0


@pytest.mark.slow
@pytest.mark.ray
def test_sleeping_workers_take_what_the_simulator_predicts(tmp_path: Path) -> None:
    said = scale("compare", *options(*TINY), "--workers", "1", "3", "--json", tmp_path / "compare.json")
    assert said.code == 0, said.err
    rows = json.loads((tmp_path / "compare.json").read_text())["rows"]
    assert [(row["workers"], row["kind"]) for row in rows][:2] == [(1, "sleeping"), (3, "sleeping")]
    assert rows[0]["simulated_s"] == pytest.approx(rows[0]["measured_s"], rel=0.5), "milliseconds, on a busy machine"
