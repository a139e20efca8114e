"""Reports of a finished run. Errors are in test_bad_runs.py."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ddpnas_ray import report, search
from tests.commands import LOCAL, contents, needs_neither_torch_nor_ray, run


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("finished") / "run"
    assert run(search.main, *LOCAL, "--out", out).code == 0
    return out


def test_a_summary_names_split_and_target_of_every_number(finished: Path) -> None:
    said = run(report.main, finished)
    result = json.loads((finished / "result.json").read_text())
    assert (said.code, said.err) == (0, "")
    assert "  normal: [[" in said.out
    assert "(3 cells, 4 channels, 8 px, 10 classes, cifar stem): " in said.out
    assert f"{result['costs']['params']:,} params, {result['costs']['macs']:,} macs" in said.out
    assert f"val split: best {result['scores']['best']:.4f}" in said.out
    assert "33 architecture-epochs in 6 rounds" in said.out
    assert f"fingerprint {result['fingerprint']}" in said.out


def test_json_is_the_result_as_it_is(finished: Path) -> None:
    said = run(report.main, finished, "--json")
    assert json.loads(said.out) == json.loads((finished / "result.json").read_text())


def test_the_fingerprint_of_untouched_files_agrees(finished: Path) -> None:
    before = contents(finished)
    said = run(report.main, finished, "--verify-fingerprint")
    assert (said.code, said.err) == (0, "")
    assert json.loads((finished / "result.json").read_text())["fingerprint"] in said.out
    assert contents(finished) == before


def test_it_needs_neither_torch_nor_ray(finished: Path) -> None:
    needs_neither_torch_nor_ray(
        "from ddpnas_ray.report import main; code = main(sys.argv[1:]) or main(sys.argv[1:2]) or "
        "main([sys.argv[1], '--html', sys.argv[1] + '.html'])",
        finished,
        "--verify-fingerprint",
    )
