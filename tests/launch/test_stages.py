"""``search --then``: stages after a search, in order, each going on where it stopped."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ddpnas_ray import search
from ddpnas_ray.core.errors import BudgetError, ConfigError, DataError, ModelError, RunDirError
from ddpnas_ray.deploy.folder import Written
from ddpnas_ray.experiment.config import TaskConfig, load, set_key
from ddpnas_ray.launch import stages
from ddpnas_ray.launch.stages import Searched, check_stages, parse_stages, run_stages
from ddpnas_ray.retraining.run import Keeper
from ddpnas_ray.spaces.base import find_space
from ddpnas_ray.testing.strategy_contract import SPACES
from tests.commands import ENVIRONMENT, LOCAL, ONE_EPOCH, contents, options, run
from tests.conftest import TINY
from tests.score_tables import write_table

RECIPE = options("retraining.epochs=2")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("retrian", "'retrian' is not a stage; did you mean retrain?"),
        ("retrain,", "'' is not a stage; allowed: "),
        ("retrain,retrain", "stages run once each and in this order; give --then retrain"),
    ],
)
def test_stages_are_known_and_in_order(text: str, says: str) -> None:
    assert parse_stages("retrain") == ("retrain",)
    with pytest.raises(ConfigError) as raised:
        parse_stages(text)
    assert says in str(raised.value)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--then", "retrian"], "--then retrian: 'retrian' is not a stage"),
        (["--then", "retrain", "--out", "none"], "--then needs a run directory"),
        (["--then", "retrain", *options("retraining.budgets=[mac=3M]")], "mac is not a cost of this space; did you"),
        (["--then", "retrain", *options("retraining.budgets=[macs=1M..3M:3]")], "macs=1M..3M:3 is a sweep; give each"),
        (
            ["--then", "retrain", *options("retraining.budgets=[macs=3M]", "strategy=random")],
            "strategy random has no theta, so only its result can be retrained",
        ),
        (
            ["--then", "finals,export"],
            "is exported once it is retrained; give --then finals,retrain,export",
        ),
        (["--then", "export"], "--then export: no network was retrained yet; give --then retrain,export"),
    ],
)
def test_what_no_stage_could_use_is_refused_before_the_search(
    words: list[str], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    said = run(search.main, *LOCAL, *words)
    assert (said.code, said.out, said.err.count("\n")) == (2, "", 1)
    assert says in said.err
    assert contents(tmp_path) == {}


def test_an_export_that_cannot_succeed_is_refused_before_the_search(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, both = load(None, ()), ("retrain", "export")
    check_stages(both, config, str(tmp_path / "run"))
    with pytest.raises(RunDirError, match="mock:///run: --then export writes to local disks; give a local --out"):
        check_stages(both, config, "mock:///run")
    monkeypatch.setattr(stages, "prepare_task", lambda config: (object(), object()))
    other = replace(config, task=TaskConfig(name="my:sizes"))
    with pytest.raises(ConfigError, match=r"task my:sizes cannot be exported: it lacks .* leave out export"):
        check_stages(both, other, str(tmp_path / "run"))
    (tmp_path / "run" / "model").mkdir(parents=True)
    (tmp_path / "run" / "model" / "mine.txt").write_text("mine")
    with pytest.raises(ModelError, match="run/model: not empty, and not a model folder"):
        check_stages(both, config, str(tmp_path / "run"))


def test_finals_that_could_not_begin_are_refused_before_the_search(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = str(tmp_path / "run")
    keys = ["space={name: nasbench201}", "evaluation.kind=table", "target={cells: 5, channels: 16}"]
    for long in (True, False):
        table = write_table(tmp_path / f"{long}.parquet", long=long)
        config = load(None, [*keys, f"evaluation.table={table}"])
        with nullcontext() if long else pytest.raises(DataError, match="no val column of made has the scores of all"):
            check_stages(("finals",), config, out)
    check_stages(("finals",), load(None, ["retraining.budgets=[macs=1M..3M:3]"]), out)
    with pytest.raises(BudgetError, match="mac is not a cost"):
        check_stages(("finals",), load(None, ["retraining.budgets=[mac=3M]"]), out)
    spec = find_space("cell")()
    conditional = replace(spec, space=SPACES["conditional"])
    monkeypatch.setattr(stages, "find_space", lambda name: lambda **options: conditional)
    for keys in ((), ("strategy=random",)):
        check_stages(("finals",), load(None, keys), out)


def test_the_export_reads_the_data_where_the_user_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Any] = []
    written = Written(folder=tmp_path, rows=(), seconds={}, notes=())
    monkeypatch.setattr(stages, "export", lambda *words, overrides: given.extend(overrides) or written)
    (tmp_path / "retrained" / "result").mkdir(parents=True)
    monkeypatch.setattr(stages, "label_of", lambda wish: "result")
    monkeypatch.setattr(stages, "is_exported", lambda *words: False)
    config = load(None, ('data.path="moved: h\u00e4her"', "data.test_path=null"))
    list(run_stages(("export",), Searched(run=str(tmp_path), config=config, lines=io.StringIO())))
    values: dict[str, Any] = {}
    for override in given:
        set_key(values, override)
    assert values == {"data": {"path": "moved: h\u00e4her", "val_path": None, "test_path": None}}


def test_the_result_is_retrained_after_the_search(tmp_path: Path) -> None:
    said = run(search.main, *LOCAL, *RECIPE, "--out", tmp_path / "run", "--then", "retrain")
    assert (said.code, said.err) == (0, "")
    printed, _, trained = said.out.partition(f"run directory {tmp_path / 'run'}\n")
    assert "\ngenotype (E[alpha] " in printed
    assert trained.index("/2 epochs") < trained.index("\nnetwork result (3 cells, ")
    assert trained.endswith(f"retrained network {tmp_path / 'run' / 'retrained' / 'result'}\n")
    before = contents(tmp_path)
    said = run(search.main, "--out", tmp_path / "run", "--resume", "--then", "retrain", "--json")
    found, scores = map(json.loads, said.out.splitlines())
    assert (said.code, said.err) == (0, "")
    assert found["fingerprint"] in printed and scores["fingerprint"] in trained
    assert contents(tmp_path) == before, "what has finished is not repeated"


def test_every_budget_of_the_configuration_is_retrained(tmp_path: Path) -> None:
    budgets = options("retraining.budgets=[macs=100%, params=90%]", "retraining.epochs=1")
    said = run(search.main, *LOCAL, *budgets, "--out", tmp_path / "run", "--then", "retrain", "--json")
    result, first, second = map(json.loads, said.out.splitlines())
    assert first["genotype"] == result["genotype"]
    assert second["costs"]["params"] <= 0.9 * result["costs"]["params"]
    assert len(list((tmp_path / "run" / "retrained").iterdir())) == 2


def test_interrupted_in_any_stage_it_resumes_to_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run(search.main, *LOCAL, *RECIPE, "--out", tmp_path / "whole", "--then", "retrain", "--json")
    out = tmp_path / "run"
    resume = ["--out", out, "--resume", "--then", "retrain"]
    command = f"Resume with: python -m ddpnas_ray.search --out {out} --resume --then retrain\n"

    said = run(search.main, *LOCAL, *RECIPE, "--out", out, "--then", "retrain", *ONE_EPOCH)
    assert (said.code, said.err) == (0, f"time limit reached; 1 of 6 epochs are saved. {command}")
    assert not (out / "retrained").exists()

    save = Keeper.save

    def interrupted(*arguments: object) -> None:
        save(*arguments)  # type: ignore[arg-type]
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Keeper, "save", interrupted)
        said = run(search.main, *resume)
    assert (said.code, said.err) == (130, f"interrupted; finished epochs are saved. {command}")
    assert (out / "result.json").exists() and not (out / "retrained" / "result" / "result.json").exists()

    said = run(search.main, *resume, "--json")
    assert (said.code, said.out.count("\n")) == (0, 2)
    assert [json.loads(line)["fingerprint"] for line in said.out.splitlines()] == [
        json.loads(line)["fingerprint"] for line in whole.out.splitlines()
    ]
    events = [json.loads(line) for line in (out / "retrained" / "result" / "log.jsonl").read_text().splitlines()]
    assert [event["event"] for event in events].count("epoch") == 2, "none was trained twice"


@pytest.mark.slow
@pytest.mark.ray
def test_all_stages_share_one_cluster(tmp_path: Path) -> None:
    keys = options(*TINY, "retraining.epochs=1", "execution.workers=1")
    words = [sys.executable, "-m", "ddpnas_ray.search", *keys, "--out", "run", "--then", "retrain"]
    done = subprocess.run(words, cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("starting Ray on this machine") == 1
    assert done.stdout.startswith("starting Ray on this machine to train and score architectures ...\n")
    dashboards = [line.partition(", ")[2] for line in done.stdout.splitlines() if " CPU and 0 GPU, " in line]
    assert len(dashboards) == 2 and len(set(dashboards)) == 1
    assert done.stdout.endswith("retrained network run/retrained/result\n")


@pytest.mark.slow
def test_the_export_is_a_stage_and_is_not_repeated(tmp_path: Path) -> None:
    words = ["--out", tmp_path / "run", "--then", "retrain,export"]
    said = run(search.main, *LOCAL, *RECIPE, *words)
    assert said.code == 0, said.err
    assert said.out.splitlines()[-1] == f"model {tmp_path / 'run' / 'model'}"
    before = contents(tmp_path / "run")
    again = run(search.main, *words, "--resume")
    assert again.code == 0 and again.out.splitlines()[-1] == f"model {tmp_path / 'run' / 'model'} (written before)"
    assert contents(tmp_path / "run") == before
    (tmp_path / "run" / "model" / "config.json").write_text("{}")
    edited = run(search.main, *words, "--resume")
    assert edited.code == 2 and "config.json was edited since it was written" in edited.err
