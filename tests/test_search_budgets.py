"""`search --budget`: networks of every budget in result, summary and page, and what can follow."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ddpnas_ray import report, search
from ddpnas_ray.core.errors import BudgetError
from ddpnas_ray.experiment.finished import FinishedRun
from ddpnas_ray.retraining.choice import of_search
from tests.commands import options, run
from tests.score_tables import write_table

BUDGETS = ("--budget", "macs=20%..100%:3", "--budget", "params=0.5M,height=2..3")


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    table = write_table(tmp_path_factory.mktemp("table") / "made.parquet")
    keys = ["space={name: nasbench201}", "evaluation.kind=table", f"evaluation.table={table}", "evaluation.budget=40"]
    return options(*keys, "target={cells: 5, channels: 16}", "execution.backend=local")


@pytest.fixture(scope="module")
def searched(words: list[str], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    out = tmp_path_factory.mktemp("budgets") / "run"
    said = run(search.main, *words, *BUDGETS, "--out", out)
    assert said.code == 0, said.err
    return out, said.out


def test_the_best_network_of_every_budget_is_in_the_result(searched: tuple[Path, str]) -> None:
    out, said = searched
    result = json.loads((out / "result.json").read_text())
    rows = result["budgets"]
    assert [row["budget"].partition("=")[0] for row in rows] == ["macs", "macs", "macs", "params"]
    for row in rows[:3]:
        limit = int(row["budget"].partition("=")[2])
        assert row["costs"]["macs"] <= limit
        assert f"  {row['budget']}: {row['costs']['macs']:,} macs; {row['score']['value']:.4f} (val)" in said
    assert rows[3]["costs"]["params"] <= 500_000 and 2 <= rows[3]["costs"]["height"] <= 3
    scores = [row["score"]["value"] for row in rows[:3]]
    assert scores == sorted(scores), "a larger budget has no worse network"
    assert result["alpha"] in [row["alpha"] for row in rows], "the result is the best of them"
    assert result["scores"]["best"] == max(row["score"]["value"] for row in rows)


def test_the_page_lists_them(searched: tuple[Path, str]) -> None:
    out, _ = searched
    assert run(report.main, out, "--html").code == 0
    page = (out / "report.html").read_text()
    section = page[page.index('<section id="within"') :].partition("</section>")[0]
    rows = json.loads((out / "result.json").read_text())["budgets"]
    assert all(f'<th scope="row">{row["budget"]}</th>' in section for row in rows)
    assert section.count("<tr>") == 1 + len(rows)


def test_each_of_them_can_be_retrained_and_no_other(searched: tuple[Path, str]) -> None:
    finished = FinishedRun.load(str(searched[0]))
    rows = json.loads((searched[0] / "result.json").read_text())["budgets"]
    for row, text in zip(rows, ("macs=20%", "macs=60%", "macs=100%", "params=500k,height=2..3"), strict=True):
        chosen = of_search(finished, text)
        assert (chosen.label, dict(chosen.genotype)) == (row["budget"], row["genotype"])
    with pytest.raises(BudgetError, match=r"searched within other budgets: macs=\d+, .*; give one of them"):
        of_search(finished, "macs=21%")


def test_equal_seeds_give_equal_searches_and_none_without_budgets_changes(
    words: list[str], searched: tuple[Path, str], tmp_path: Path
) -> None:
    assert run(search.main, *words, *BUDGETS, "--out", tmp_path / "again").code == 0
    prints = [json.loads((out / "result.json").read_text()) for out in (searched[0], tmp_path / "again")]
    assert prints[0]["fingerprint"] == prints[1]["fingerprint"]
    assert run(search.main, *words, "--out", tmp_path / "free").code == 0
    free = json.loads((tmp_path / "free" / "result.json").read_text())
    assert "budgets" not in free and free["fingerprint"] != prints[0]["fingerprint"]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--budget", "macs=1k"], "no architecture of space 'nasbench201' meets macs=1k; nearest feasible: 7,783,040"),
        (["--budget", "flop=1k"], "flop is not a cost of this space; did you mean flops?"),
        (["--budget", "macs=50%", *options("strategy=pruning")], "strategy pruning proposes networks of any cost"),
        (
            ["--budget", "macs=50%", *options("retraining.budgets=[macs=20%]"), "--then", "retrain"],
            "retraining.budgets: macs=20% is none of target.budgets",
        ),
    ],
)
def test_bad_input(more: list[str], said: str, words: list[str], tmp_path: Path) -> None:
    refused = run(search.main, *words, *more, "--out", tmp_path / "run")
    assert refused.code == 2 and said in refused.err and len(refused.err.splitlines()) == 1
    assert not (tmp_path / "run").exists()
