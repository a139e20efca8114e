"""The HTML report: its numbers are those of the run's files, it loads nothing, and no name in a run breaks it."""

from __future__ import annotations

import dataclasses
import json
import re
import shlex
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from ddpnas_ray import generate, report, search
from ddpnas_ray.core.ledger import LedgerRow
from ddpnas_ray.core.requests import EvalRequest, EvalResult
from ddpnas_ray.core.space import Edge, Op, SearchSpace
from ddpnas_ray.experiment.config import load
from ddpnas_ray.reporting import page as pages
from ddpnas_ray.runs.directory import existing_run, parsed
from ddpnas_ray.runs.files import (
    evaluations_table,
    ledger_table,
    read_evaluations,
    read_history,
    read_space,
    space_json,
    theta_table,
)
from ddpnas_ray.storage.parquet import parquet_bytes
from tests.commands import contents, options, run
from tests.reporting.pages import CELL, MOBILE, Element, Page, by_chance, page_of, records, searched, shown

HOSTILE = "<script>alert('edge')</script>"
HOSTILE_OP = "\"'><img src=x onerror=alert(1)>{{ 7 * 7 }}</script>"


@pytest.fixture(scope="module")
def cell(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = searched(tmp_path_factory.mktemp("cell") / "run", *CELL)
    assert run(generate.main, out, "--sweep", "macs=60%..100%:4").code == 0
    return out


@pytest.fixture(scope="module")
def mobile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return searched(tmp_path_factory.mktemp("mobile") / "run", *MOBILE)


@pytest.fixture(scope="module")
def cell_page(cell: Path) -> Element:
    return page_of(cell)


def test_scores_and_costs_are_those_of_the_result_each_with_its_split(cell: Path, cell_page: Element) -> None:
    result = json.loads((cell / "result.json").read_text())
    sheet = cell_page.find("score-sheet").rows()
    for row in result["score_sheet"]:
        assert [row["what"], row["split"], shown(row["value"])] in sheet
    assert ["mean of the last epoch", "val", shown(result["scores"]["last_epoch_mean"])] in sheet
    assert cell_page.find("costs").rows() == [[name, f"{value:,}"] for name, value in result["costs"].items()]
    assert "(3 cells, 4 channels, 8 px, 10 classes, cifar stem)".strip("()") in cell_page.find("costs").text
    assert result["fingerprint"] in cell_page.find("summary").text


def test_every_edge_shows_its_theta_of_every_round(cell: Path, cell_page: Element) -> None:
    data = json.loads(cell_page.find("data").text)["theta"]
    edges = {edge["name"]: edge for edge in data["edges"]}
    for row in records(cell, "theta.parquet"):
        edge = edges[row["edge"]]
        k = edge["operations"].index(row["operation"])
        assert edge["theta"][k][row["round"] + 1] == pytest.approx(row["theta"], abs=1e-6)
        if row["pruned_at"] == row["round"]:
            assert edge["pruned"][k] == row["round"] + 1
    assert data["rounds"] == list(range(7))
    (multiples,) = [e for e in cell_page.all("div") if e.attributes.get("class") == "multiples"]
    assert [a.children[0].text for a in multiples.all("a")] == list(edges)
    assert len(multiples.all("svg")) == 2 * len(edges)  # theta, and its distance from the mean


def test_an_edge_shows_what_explain_shows(cell: Path, cell_page: Element) -> None:
    stories = json.loads(run(report.main, cell, "--explain", "normal.1", "--json").out)
    tables = [t for t in cell_page.find("edge-1").all("table") if t.attributes["class"] == "story"]
    assert len(tables) == len(stories)
    for table, story in zip(tables, stories, strict=True):
        for cells, row in zip(table.rows(), story["operations"], strict=True):
            name, utility, momentum, theta, fate, scores = cells
            assert (name, fate) == (row["operation"], row["fate"])
            assert utility == shown(row["utility"])
            assert (momentum, theta) == (shown(row["momentum"], 5), shown(row["theta"], 5))
            assert scores == " ".join(shown(score, 3) for score in row["scores"])
        assert f"{story['ledger']['pruned']} was pruned" in cell_page.find("edge-1").text


@pytest.mark.parametrize(
    ("old", "new"), [("name: cell", "name: 'my_lab.tiny:make'"), ("seed: 0", "seed: 0\nlong_gone: {key: 1}")]
)
def test_explain_needs_as_little_as_the_page(cell: Path, tmp_path: Path, old: str, new: str) -> None:
    out = shutil.copytree(cell, tmp_path / "run")
    text = (out / "config.yaml").read_text()
    assert old in text
    (out / "config.yaml").write_text(text.replace(old, new))
    said = run(report.main, out, "--explain", "normal.1")
    assert (said.code, said.err) == (0, "")
    assert said.out == run(report.main, cell, "--explain", "normal.1").out


def test_the_ledger_is_the_file_with_both_probabilities(cell: Path, cell_page: Element) -> None:
    rows = [
        [
            str(row["round"] + 1),
            row["edge"],
            row["pruned"],
            "-" if np.isnan(row["margin"]) else shown(row["margin"], 6),
            shown(row["sigma"]),
            *("unknown" if np.isnan(p) else shown(p, 3) for p in (row["p_worst_two_confused"], row["p_best_pruned"])),
        ]
        for row in records(cell, "ledger.parquet")
    ]
    table = cell_page.find("ledger-table")
    assert table.rows() == rows
    assert [th.text for th in table.all("th")][-2:] == ["P(two worst confused)", "P(pruned is best)"]


def test_trainings_are_counted_by_edge_and_operation(cell: Path, cell_page: Element) -> None:
    space = json.loads((cell / "space.json").read_text())
    counts = {row[0]: row[1:] for row in cell_page.find("trainings").rows()}
    alphas = [row["alpha"] for row in records(cell, "evaluations.parquet") if row["trained"]]
    for e, edge in enumerate(space["edges"]):
        assert counts[edge["name"]] == [str(sum(a[e] == k for a in alphas)) for k in range(len(edge["candidates"]))]
    assert "did so in every round here" in cell_page.find("fairness").text


def test_work_is_summed_by_worker_and_epoch(cell: Path, cell_page: Element) -> None:
    rows = records(cell, "evaluations.parquet")
    for (worker, _, done, work, _), node in zip(cell_page.find("workers").rows(), "01", strict=True):
        own = [row["seconds"] for row in rows if row["node"] == node]
        assert worker == f"ddpnas-worker-{node}, node {int(node) + 1}"
        assert (done, work) == (str(len(own)), f"{sum(own):.2f} s")
    epochs = cell_page.find("epochs").rows()
    first = [row["score"] for row in rows if row["epoch"] == 0]
    assert epochs[0][2:5] == [str(len(first)), shown(sum(first) / len(first)), shown(max(first))]
    assert len(epochs) == 12
    bars = [e for e in cell_page.find("time").all("rect") if e.attributes["class"].startswith("bar")]
    assert len(bars) == len(rows)


def test_evaluations_are_drawn_when_they_began(tmp_path: Path) -> None:
    def later(request: EvalRequest) -> EvalResult:  # one worker, a second of work every two seconds
        start_s = time.time() + 2.0 * request.architecture
        return dataclasses.replace(
            by_chance(request), seconds=1.0, start_s=start_s, worker="ddpnas-worker-0/7", node="0"
        )

    page = page_of(searched(tmp_path / "run", *CELL, script=later))
    bars = [e for e in page.find("time").all("rect") if e.attributes["class"].startswith("bar")]
    first = [float(e.attributes["x"]) for e in bars if ", epoch 1," in str(e.attributes["data-tip"])]
    width = float(str(bars[0].attributes["width"]))
    assert len(first) == 8
    steps = np.diff(first)
    assert np.allclose(steps, 2 * width, rtol=0.2), "the pauses are as long as the work"
    assert "but not its start" not in page.find("time").text


def test_generated_networks_stand_with_their_budgets(cell: Path, cell_page: Element) -> None:
    files = [json.loads(path.read_text()) for path in (cell / "generated").glob("*/genotype.json")]
    rows = {row[0]: row for row in cell_page.find("networks").rows()}
    assert set(rows) == {network["budget"] for network in files}
    for network in files:
        assert rows[network["budget"]][1] == shown(network["expectation"], 8)
        assert f"{network['costs']['macs']:,}" in rows[network["budget"]]
    (front,) = [f for f in cell_page.all("figure") if f.attributes.get("data-name") == "macs"]
    assert len(front.all("circle")) == len(files)


def test_cells_are_drawn_with_every_operation_of_the_genotype(cell: Path, cell_page: Element) -> None:
    genotype = json.loads((cell / "result.json").read_text())["genotype"]
    for kind, svg in zip(("normal", "reduce"), cell_page.find("network").all("svg"), strict=True):
        drawn = [text.text for text in svg.all("text")]
        assert sorted(t for t in drawn if "_" in t) == sorted(name for name, _ in genotype[kind])


def test_commands_of_a_run_by_its_uri_work(cell: Path, tmp_path: Path) -> None:
    file = tmp_path / "page.html"
    assert run(report.main, cell.as_uri(), "--html", file).code == 0
    commands = [shlex.split(code.text) for code in Page(file.read_bytes()).root.find("repeat").all("code")]
    (again,) = [words for words in commands if "ddpnas_ray.search" in words]
    assert load(again[again.index("--config") + 1]) == load(str(cell / "config.yaml"))


def test_a_chain_is_drawn_stage_by_stage(mobile: Path) -> None:
    page = page_of(mobile)
    stages = json.loads((mobile / "result.json").read_text())["genotype"]["stages"]
    (chain,) = [e for e in page.all("ol") if e.attributes.get("class") == "chain"]
    drawn = [[li.text for li in stage.all("ol")[0].children] for stage in chain.children]
    assert drawn == [["left out" if name == "zero" else name for name in stage] for stage in stages]
    assert "stage 1, 16 channels, stride 2" not in chain.text
    assert "stage 1, 8 channels, stride 2" in chain.text


def test_a_benchmark_cell_and_a_table_of_scores_without_working_time(test_data: Path, tmp_path: Path) -> None:
    table = test_data / "nasbench201" / "nasbench201_cifar10.parquet"
    keys = ["space.name=nasbench201", "evaluation.kind=table", f"evaluation.table={table}", "strategy=pruning"]
    config = tmp_path / "table.yaml"
    config.write_text("space: {name: nasbench201}\n")
    out = tmp_path / "run"
    assert run(search.main, "--config", config, *options(*keys[1:]), "--out", out).code == 0
    page = page_of(out)
    assert "Scores were read from a table" in page.find("time").text
    result = json.loads((out / "result.json").read_text())
    rows = page.find("score-sheet").rows()
    assert [[r["what"], r["split"], shown(r["value"])] for r in result["score_sheet"]] == rows[: len(rows) - 2]
    operations = re.findall(r"[a-z]\w+(?=~)", result["genotype"]["arch_str"])
    drawn = [text.text for text in page.find("network").all("text")]
    assert sorted(t for t in drawn if "_" in t or t == "none") == sorted(operations)


def test_the_probe_shows_tau_by_epoch(cell: Path, tmp_path: Path) -> None:
    out = shutil.copytree(cell, tmp_path / "run")
    pairs = [(0.1, 0.1), (0.2, 0.3), (0.3, 0.2)]
    rows = [
        {"epoch": epoch, "architecture": n, "alpha": [0], "score": sign * a, "table_score": b}
        for epoch, sign in ((1, 1), (2, -1))
        for n, (a, b) in enumerate(pairs)
    ]
    (out / "probe.parquet").write_bytes(parquet_bytes(pa.Table.from_pylist(rows)))
    page = page_of(out)
    assert page.find("tau").rows() == [["1", "0.3333"], ["2", "-0.3333"]]
    assert len(page.find("probe").all("svg")) == 2


def test_equal_files_give_equal_pages(cell: Path, tmp_path: Path) -> None:
    page_of(cell, file=tmp_path / "a.html")
    page_of(cell, file=tmp_path / "b.html")
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()


def test_only_the_page_is_written(mobile: Path, tmp_path: Path) -> None:
    out = shutil.copytree(mobile, tmp_path / "run", ignore=shutil.ignore_patterns("report.html"))
    before = contents(tmp_path)
    page_of(out)
    assert contents(tmp_path).keys() - before.keys() == {"run/report.html"}
    assert before.items() <= contents(tmp_path).items()


def test_what_only_adds_to_a_page_may_be_missing(cell: Path, tmp_path: Path) -> None:
    out = shutil.copytree(cell, tmp_path / "run")
    for name in ("ledger.parquet", "log.jsonl", "environment.json"):
        (out / name).unlink()
    text = (out / "config.yaml").read_text().replace("seed: 0", "seed: 0\nlong_gone: {key: 1}")
    (out / "config.yaml").write_text(text)
    page, new = page_of(out), page_of(cell)
    assert page.find("ledger-table").rows() == new.find("ledger-table").rows()
    assert "whose end is not in the log is as long as its busiest worker" in page.find("time").text


def test_an_unreadable_part_is_named_and_the_rest_shown(cell: Path, tmp_path: Path) -> None:
    out = shutil.copytree(cell, tmp_path / "run")
    (out / "environment.json").write_text("{")
    with open(out / "log.jsonl", "a") as log:
        log.write('{"time": 1, "ev')
    broken = next((out / "generated").glob("*/genotype.json"))
    broken.write_text("[]")
    page = page_of(out)
    notes = [p.text for p in page.all("p") if p.attributes.get("role") == "note"]
    warnings = json.loads((out / "result.json").read_text())["warnings"]
    assert notes[: len(warnings)] == warnings
    assert len(notes) == len(warnings) + 2
    assert notes[-2].startswith("environment.json cannot be read")
    assert notes[-1].startswith(f"generated/{broken.parent.name}/genotype.json cannot be read")
    assert len(page.find("networks").rows()) == 3


def hostile(cell: Path, out: Path) -> Path:
    """A run of a space whose names are markup."""
    shutil.copytree(cell, out)
    folder = existing_run(str(out))
    old = parsed(folder, "space.json", read_space)
    history = parsed(folder, "theta.parquet", lambda data: read_history(data, old))
    edges = tuple(
        Edge(
            f"{HOSTILE}{e}",
            tuple(
                Op(HOSTILE_OP if k == 1 else op.name, op.group, op.generable) for k, op in enumerate(edge.candidates)
            ),
        )
        for e, edge in enumerate(old.edges)
    )
    space = SearchSpace(HOSTILE, edges, old.blocks)
    folder.write("space.json", space_json(space, {}, {}))
    folder.write("theta.parquet", theta_table(history, space))
    (out / "ledger.parquet").unlink()
    result = json.loads((out / "result.json").read_text())
    result |= {"space": HOSTILE, "strategy": HOSTILE, "genotype": {HOSTILE: HOSTILE_OP}}
    result["score_sheet"] = [{"what": HOSTILE, "split": HOSTILE_OP, "value": None}]
    result["costs"] = {HOSTILE: 3, "macs": 4}
    (out / "result.json").write_text(json.dumps(result))
    (out / "config.yaml").write_text(json.dumps({"data": {"name": HOSTILE}, "note": HOSTILE_OP}))
    (out / "environment.json").write_text(json.dumps({HOSTILE: HOSTILE_OP, "git_commit": "$(reboot) <b>"}))
    rows = parsed(folder, "evaluations.parquet", read_evaluations)
    rows = tuple(dataclasses.replace(row, worker=HOSTILE_OP, node=HOSTILE) for row in rows)
    folder.write("evaluations.parquet", evaluations_table(rows))
    for path in (out / "generated").glob("*/genotype.json"):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"budget": HOSTILE_OP, "flags": [HOSTILE]}))
    return out


def test_names_that_are_markup_stay_text(cell: Path, tmp_path: Path) -> None:
    out = hostile(cell, tmp_path / "run")
    page = page_of(out)
    compared = page_of(out, cell, file=tmp_path / "compared.html")
    for root in (page, compared):
        assert [len(root.all(tag)) for tag in ("script", "img", "b")] == [2, 0, 0]
        assert HOSTILE in root.all("h1")[0].text or root is compared
        assert HOSTILE_OP in root.text
        assert "{{" in root.text and "49</script>" not in root.text
    assert page.find("choices").rows()[0][0] == f"{HOSTILE}0"
    assert json.loads(page.find("data").text)["theta"]["edges"][0]["name"] == f"{HOSTILE}0"
    assert "git checkout '$(reboot) <b>'" in page.find("repeat").text


def test_runs_are_compared_side_by_side(cell: Path, mobile: Path, tmp_path: Path) -> None:
    other = shutil.copytree(cell, tmp_path / "other")
    config = (other / "config.yaml").read_text().replace("gamma: 0.9", "gamma: 0.8")
    (other / "config.yaml").write_text(config)
    result = json.loads((other / "result.json").read_text())
    (other / "result.json").write_text(json.dumps(result | {"seed": 7, "alpha": [0, *result["alpha"][1:]]}))
    page = page_of(cell, other, file=tmp_path / "compared.html")
    assert page.find("differing").rows() == [["pruning.gamma", "0.9", "0.8"]]
    sheet = page.find("score-sheets").rows()
    assert sheet[0][2:] == [shown(result["score_sheet"][0]["value"])] * 2
    assert ["seed", "0", "7"] in page.find("searches").rows()
    assert ["params", *[f"{result['costs']['params']:,}"] * 2] in page.find("cost-table").rows()
    same = len(result["alpha"]) - (result["alpha"][0] != 0)
    assert page.find("agreement").rows()[0][1:] == [str(len(result["alpha"])), str(same)]
    entropies = page.find("entropies").rows()
    assert entropies[0] == ["0", *["1.000000"] * 4]
    assert all(row[1] == row[2] and row[3] == row[4] for row in entropies)
    third = page_of(cell, mobile, file=tmp_path / "spaces.html")
    assert "different spaces" in third.find("architectures").text
    assert [th.text for th in third.find("differing").all("th")][1:3] == ["cell0/run", "mobile0/run"]


@pytest.mark.parametrize(
    ("break_it", "fragment"),
    [
        (lambda out: (out / "result.json").unlink(), "the run has not finished"),
        (lambda out: (out / "result.json").write_text('{"fingerprint": ""}'), "result.json has no 'space'"),
        (lambda out: (out / "theta.parquet").write_bytes(b"PAR1"), "theta.parquet cannot be read"),
        (lambda out: (out / "evaluations.parquet").unlink(), "evaluations.parquet cannot be read: no such file"),
        (lambda out: (out / "space.json").write_text("{}"), "space.json cannot be read: it has no 'edges'"),
        (lambda out: (out / "config.yaml").write_text("a: [1"), "config.yaml: line"),
        (lambda out: (out / "config.yaml").unlink(), "is not a run directory"),
    ],
)
def test_a_broken_run_is_refused_in_one_line(cell: Path, tmp_path: Path, break_it: Any, fragment: str) -> None:
    out = shutil.copytree(cell, tmp_path / "run", ignore=shutil.ignore_patterns("generated", "*.html"))
    break_it(out)
    before = contents(tmp_path)
    said = run(report.main, out, "--html")
    assert (said.code, said.out, said.err.count("\n")) == (2, "", 1)
    assert fragment in said.err
    assert contents(tmp_path) == before


def test_words_that_do_not_go_together_are_refused(cell: Path, tmp_path: Path) -> None:
    for words, fragment in [
        ([cell, cell], "several runs are compared on one page"),
        ([cell, cell, "--html"], "name its file"),
        ([cell, "--html", "--json"], "exclude each other"),
        ([cell, "--html", tmp_path / "a.html", "--explain", "normal.0"], "not allowed with"),
        ([cell, "--html", tmp_path], "is a folder"),
        ([cell, "--html", tmp_path / "absent" / "a.html"], "give --html another FILE"),
    ]:
        said = run(report.main, *words)
        assert (said.code, said.out, said.err.count("\n")) == (2, "", 1)
        assert fragment in said.err
    assert contents(tmp_path) == {}


def test_a_run_whose_file_does_not_say_which_edges_are_active_is_refused(cell: Path, tmp_path: Path) -> None:
    out = shutil.copytree(cell, tmp_path / "run")
    space = json.loads((out / "space.json").read_text())
    (out / "space.json").write_text(json.dumps(space | {"schema_version": 2, "conditional": True}))
    for words in (["--html"], ["--explain", "normal.1"]):
        said = run(report.main, out, *words)
        assert (said.code, said.err.count("\n")) == (2, 1)
        assert "conditional edges, which only schema version 3 and later describes" in said.err


@pytest.mark.slow
def test_long_searches_stay_small_and_say_what_is_left_out(
    cell: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = shutil.copytree(cell, tmp_path / "run", ignore=shutil.ignore_patterns("generated"))
    folder = existing_run(str(out))
    space = parsed(folder, "space.json", read_space)
    history = parsed(folder, "theta.parquet", lambda data: read_history(data, space))
    rows = parsed(folder, "evaluations.parquet", read_evaluations)
    live_EK, never_EK = space.exists_EK, np.full(space.shape, -1)
    rounds = [dataclasses.replace(history[i % 6], round=i, live_EK=live_EK, pruned_at_EK=never_EK) for i in range(120)]
    many = [dataclasses.replace(rows[i % len(rows)], round=i // 20, epoch=i // 10, architecture=i) for i in range(2400)]
    folder.write("theta.parquet", theta_table(rounds, space))
    folder.write("evaluations.parquet", evaluations_table(many))
    nothing = [LedgerRow(i, edge.name, None, *[np.nan] * 4) for i in range(120) for edge in space.edges]
    folder.write("ledger.parquet", ledger_table(nothing))
    monkeypatch.setattr(pages, "EPOCH_ROWS", 100)
    page, compared = page_of(out), page_of(out, out, file=tmp_path / "compared.html")
    assert "evenly spaced ones are drawn" in page.find("theta").text
    assert "adjacent evaluations are merged" in page.find("time").text
    assert re.search(r"The last \d+ of 120 rounds", page.find("edge-0").text)
    assert "Too many evaluations to draw; only the lines are shown." in page.find("scores").text
    assert "Each point is" not in page.find("scores").text
    assert [row[0] for row in page.find("epochs").rows()] == [str(epoch) for epoch in range(141, 241)]
    assert [row[0] for row in compared.find("entropies").rows()] == [str(rounds) for rounds in range(21, 121)]
    for section, rows in ((page.find("scores"), 240), (page.find("fairness"), 120), (compared.find("entropy"), 121)):
        assert f"The last 100 of {rows} rows." in section.text


def test_a_short_search_is_shown_whole(cell_page: Element) -> None:
    assert "Each point is an evaluation." in cell_page.find("scores").text
    assert "The last" not in cell_page.find("main").text


def browser() -> str:
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    found = next((path for name in names if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip(f"no browser on PATH; install one of {', '.join(names)}")
    return found


def dom_and_log(page: Path, profile: Path) -> tuple[str, str]:
    """Load a page in a browser; returns its text and the console messages."""
    words = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={profile}", "--enable-logging=stderr"]
    words += ["--virtual-time-budget=3000", "--dump-dom", page.as_uri()]
    done = subprocess.run([browser(), *words], capture_output=True, text=True, check=True, timeout=120)
    return done.stdout, done.stderr


@pytest.mark.slow
def test_a_browser_runs_the_pages_without_a_complaint(cell: Path, mobile: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.html"
    broken.write_text("<!doctype html><script>absent()</script>")
    assert "CONSOLE" in dom_and_log(broken, tmp_path / "profile")[1]  # errors are detected
    compared, pages = tmp_path / "compared.html", (tmp_path / "cell.html", tmp_path / "mobile.html")
    page_of(cell, mobile, file=compared)
    for run_folder, page in zip((cell, mobile), pages, strict=True):
        page_of(run_folder, file=page)
    for page in (compared, *pages):
        dom, log = dom_and_log(page, tmp_path / "profile")
        assert "CONSOLE" not in log
        assert '<html lang="en" class="js">' in dom
        if page != compared:
            assert "after round" in dom  # the script has written the values of the edge that it shows
            assert 'aria-current="true"' in dom


# --- confidence ---


def test_it_reports_confidence_with_the_share_of_every_edge(cell: Path, cell_page: Element) -> None:
    said = json.loads((cell / "result.json").read_text())["confidence"]
    rows = cell_page.find("stability").rows()
    assert rows == [
        [row["edge"], row["operation"] or "left out", f"{100 * row['stays']:.0f} %"]
        for row in said["resampling"]["edges"]
    ]
    assert "standard errors" in cell_page.find("sure").text
    assert f"of {said['prunings']['known']} prunings" in cell_page.find("sure").text


def test_the_score_with_inherited_weights_is_no_headline(cell: Path, cell_page: Element) -> None:
    (lead,) = [p.text for p in cell_page.all("p") if p.attributes.get("class") == "lead"]
    assert "inherited" not in lead
    assert "onfidence: " in lead
    assert "this is not its accuracy; train it to know that" in cell_page.find("summary").text


def test_a_result_that_says_nothing_of_it_has_no_section(cell: Path, tmp_path: Path) -> None:
    out = shutil.copytree(cell, tmp_path / "old")
    result = json.loads((out / "result.json").read_text())
    del result["confidence"]
    (out / "result.json").write_text(json.dumps(result))
    assert not [e for e in page_of(out).all("section") if e.attributes["id"] == "sure"]
