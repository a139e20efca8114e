"""The page of a trained network, its row in the run's page, and the comparison of several."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest

from ddpnas_ray import retrain
from ddpnas_ray.reporting.retrained_page import interruptions
from ddpnas_ray.runs.log import append_log
from ddpnas_ray.storage.folder import Folder
from tests.commands import run
from tests.reporting.pages import Element, page_of, shown
from tests.reporting.retrainings import retrained, searched, stopped

HOSTILE = "</script><img src=x onerror=alert(1)>{{ 7 * 7 }}"


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A published network, trained with two seeds."""
    return retrained(tmp_path_factory.mktemp("known") / "known", "retraining.seeds=2")


@pytest.fixture(scope="module")
def known_page(known: Path) -> Element:
    return page_of(known)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A search with its result trained on all images, which leaves none to score with."""
    out = searched(tmp_path_factory.mktemp("found") / "run")
    retrained(out / "retrained" / "result", "retraining.train_on=all", run=out)
    return out


def result_of(out: Path) -> dict[str, Any]:
    return json.loads((out / "result.json").read_text())  # type: ignore[no-any-return]


def test_scores_costs_and_curves_are_those_of_the_files(known: Path, known_page: Element) -> None:
    result = result_of(known)
    assert known_page.find("scores").rows() == [
        ["accuracy", score["split"], shown(score["value"]), shown(score["std"]), "2"] for score in result["scores"]
    ]
    assert known_page.find("trainings").rows() == [
        [str(row["seed"]), shown(row["loss"]), shown(row["val"]), shown(row["test"])] for row in result["trainings"]
    ]
    assert known_page.find("costs").rows() == [[name, f"{value:,}"] for name, value in result["costs"].items()]
    assert "3 cells, 4 channels, 8 px, 10 classes, cifar stem" in known_page.find("costs").text
    assert result["fingerprint"] in known_page.find("summary").text
    assert len(known_page.find("network").all("svg")) == 2, "both cells are drawn"
    events = [json.loads(line) for line in (known / "log.jsonl").read_text().splitlines()]
    epochs = [event for event in events if event["event"] == "epoch"]
    rows = known_page.find("epochs").rows()
    assert [row[:5] for row in rows] == [
        [str(e["seed"]), str(e["epoch"]), shown(e["loss"]), shown(e["val"]), shown(e["lr"], 6)] for e in epochs
    ]
    charts = known_page.find("curves").all("svg")
    assert len(charts) == 4, "loss, validation score, learning rate, examples per second"
    tips = [dot.attributes["data-tip"] for dot in charts[0].all("circle")]
    assert tips == [f"seed {e['seed']}, epoch {e['epoch']}: {e['loss']:.4f}" for e in epochs]


def test_the_recipe_shows_what_differs_from_the_defaults_and_all_keys(known_page: Element) -> None:
    changed = known_page.find("changed").rows()
    assert ["epochs", "2", "100"] in changed and ["seeds", "2", "1"] in changed
    assert "momentum" not in {row[0] for row in changed}
    assert ["momentum", "0.9"] in known_page.find("all-keys").rows()


def test_it_tells_where_the_network_comes_from_and_what_is_not_known(found: Path, known_page: Element) -> None:
    page = page_of(found / "retrained" / "result")
    search = result_of(found)
    origin = dict(page.find("origin").rows())
    (row,) = [row for row in search["score_sheet"] if row["what"].startswith("result architecture with")]
    assert origin["score in the search"] == f"{shown(row['value'])} (val; {row['what']})"
    assert origin["E[alpha] (Eq. 9)"] == shown(search["expectation"], 6)
    assert origin["fingerprint of the search"] == search["fingerprint"]
    said = page.find("limits").text
    assert "no validation score: it trained on the validation images too (retraining.train_on=all)." in said
    assert "One seed: the standard deviation is unknown" in said
    assert page.find("scores").rows()[0][3] == "unknown"
    assert len(page.find("curves").all("svg")) == 3, "there is no validation score to draw"
    assert "No search of this package" in known_page.find("origin").text
    assert "The weights to export are those of seed " in known_page.find("limits").text


def test_its_command_repeats_the_training(
    known: Path, known_page: Element, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    verify, repeat = [shlex.split(pre.text)[2:] for pre in known_page.find("repeat").all("dd")]
    assert verify == ["ddpnas_ray.report", str(known), "--verify-fingerprint"]
    assert repeat[0] == "ddpnas_ray.retrain"
    assert f"fingerprint {result_of(known)['fingerprint']}\n" in run(retrain.main, *repeat[1:]).out


def test_the_run_lists_its_trained_networks_with_links_to_their_pages(found: Path, tmp_path: Path) -> None:
    out = shutil.copytree(found, tmp_path / "run", ignore=shutil.ignore_patterns("*.html"))
    below = out / "retrained"
    stopped(shutil.copytree(below / "result", below / "macs=50k"), epochs=1)
    (shutil.copytree(below / "result", below / "torn") / "network.json").write_text("{}")
    page_of(below / "result")
    page, result = page_of(out), result_of(below / "result")
    unfinished, finished = page.find("retrainings").rows()
    (score,) = result["scores"]
    assert finished[:3] == ["result", f"{result['costs']['params']:,}", f"{result['costs']['macs']:,}"]
    assert finished[4].endswith(" (val)") and finished[5:9] == ["-", shown(score["value"]), "1", "2"]
    assert unfinished[8:] == ["1 so far", "not finished: 1 of 2 epochs are saved"]
    links = [a.attributes["href"] for a in page.find("retrainings").all("a")]
    assert links == ["retrained/result/report.html"]
    assert "torn: network.json cannot be read" in page.all("header")[0].text
    elsewhere = page_of(out, file=tmp_path / "elsewhere.html")
    assert elsewhere.find("retrainings").all("a") == [], "a link would lead nowhere"


def test_a_run_without_trained_networks_has_no_such_section(found: Path, tmp_path: Path) -> None:
    out = shutil.copytree(found, tmp_path / "run", ignore=shutil.ignore_patterns("retrained", "*.html"))
    assert not [e for e in page_of(out).all("") if e.attributes.get("id") == "retrainings"]


def test_several_are_compared(known: Path, found: Path, tmp_path: Path) -> None:
    other = found / "retrained" / "result"
    page = page_of(known, other, file=tmp_path / "compared.html")
    rows = {row[0]: row[1:] for row in page.find("score-table").rows()}
    (score,) = [score for score in result_of(known)["scores"] if score["split"] == "val"]
    assert rows["accuracy (val)"] == [f"{shown(score['value'])} \u00b1 {shown(score['std'])}", "-"]
    assert ["retraining.train_on", "train", "all"] in page.find("differing").rows()
    assert ["params", *[f"{result_of(out)['costs']['params']:,}" for out in (known, other)]] in page.find(
        "cost-table"
    ).rows()
    assert "The architectures differ." in page.all("header")[0].text
    names = [key.text for key in page.find("curves").all("span")]
    assert names == ["known, seed 0", "known, seed 1", "result"]


def test_names_in_a_folder_break_no_page(known: Path, tmp_path: Path) -> None:
    out = shutil.copytree(known, tmp_path / "known", ignore=shutil.ignore_patterns("*.html"))
    network = json.loads((out / "network.json").read_text()) | {"label": HOSTILE, "genotype": {"mine": [HOSTILE, 3]}}
    (out / "network.json").write_text(json.dumps(network))
    append_log(Folder.open(str(out)), "failed", error=HOSTILE)
    page = page_of(out)
    assert HOSTILE in page.find("network").text and HOSTILE in page.find("restarts").text
    assert page.all("img") == []


def test_files_that_are_missing_or_damaged_are_named(known: Path, tmp_path: Path) -> None:
    out = shutil.copytree(known, tmp_path / "known", ignore=shutil.ignore_patterns("*.html", "checkpoints"))
    (out / "environment.json").write_text("{")
    (out / "log.jsonl").unlink()
    page = page_of(out)
    assert "environment.json cannot be read" in page.all("header")[0].text
    assert "Not recorded." in page.find("curves").text and "None is recorded." in page.find("interruptions").text
    assert "log.jsonl lacks epochs of seed 0, 1" in page.find("limits").text


def events(*rows: tuple[float, str, dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"time": time, "event": name, **more} for time, name, more in rows]


def test_restarts_are_read_from_the_log() -> None:
    group = {"seed": 0, "rank": 0, "world": 2}
    log = events(
        (0, "driver", {"name": "a"}),
        (1, "start", {}),
        (2, "worker", group),
        (2, "worker", group | {"rank": 1}),
        (5, "epoch", {"seed": 0, "epoch": 1}),
        (9, "worker", group | {"world": 1}),  # a worker died
        (12, "epoch", {"seed": 0, "epoch": 2}),
        (20, "driver", {"name": "a"}),  # the driver died
        (21, "start", {}),
        (22, "worker", group),
        (30, "epoch", {"seed": 0, "epoch": 3}),
        (31, "worker", group | {"seed": 1}),  # the next seed, no restart
        (40, "failed", {"error": "no worker\ncame back"}),
        (90, "driver", {"name": "b"}),  # --resume
        (91, "start", {}),
        (92, "worker", group | {"seed": 1}),
    )
    assert [(row["what"], row["seed"], row["epoch"], row["pause"]) for row in interruptions(log)] == [
        ("workers restarted: now 1", 0, 1, 4),
        ("driver restarted by Ray", 0, 2, 8),
        ("failed: no worker came back", 0, 3, 9),
        ("command resumed", 0, 3, 50),
    ]


def test_a_resume_without_ray_is_read_from_the_log() -> None:
    log = events((0, "start", {}), (5, "epoch", {"seed": 0, "epoch": 1}), (65, "start", {}))
    (row,) = interruptions(log)
    assert (row["what"], row["epoch"], row["pause"], row["time"]) == (
        "command resumed",
        1,
        60,
        "1970-01-01 00:01:05 UTC",
    )
    assert interruptions(log[:2]) == []
