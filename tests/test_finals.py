"""`generate --finals`: a search's best candidates are trained for real, and the best by validation wins."""

from __future__ import annotations

import itertools
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ddpnas_ray as nas
from ddpnas_ray import generate, retrain, search
from ddpnas_ray.core.errors import BudgetError, DivergedError
from ddpnas_ray.core.generation.budgets import Bound
from ddpnas_ray.core.generation.problem import evaluate
from ddpnas_ray.experiment.finished import FinishedRun
from ddpnas_ray.finals import finals as finals_module
from ddpnas_ray.finals.candidates import candidates
from ddpnas_ray.finals.finals import Finals
from ddpnas_ray.retraining.files import checkpoints
from ddpnas_ray.storage.folder import Folder
from ddpnas_ray.tasks.recipe import FinalsConfig
from tests.commands import LOCAL, Said, contents, options, run
from tests.score_tables import write_table

QUICK = options("finals.epochs=4", "finals.first_epochs=1", "retraining.batch_size=32", "retraining.lr=0.1")


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("searched") / "run"
    assert run(search.main, *LOCAL, "--out", out).code == 0
    return out


@pytest.fixture(scope="module")
def trained(searched: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Said]:
    out = Path(shutil.copytree(searched, tmp_path_factory.mktemp("trained") / "run"))
    return out, finals(out, "5")


@pytest.fixture(scope="module")
def by_table(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    table = write_table(tmp_path_factory.mktemp("table") / "made.parquet", long=True)
    keys = ["space={name: nasbench201}", "evaluation.kind=table", f"evaluation.table={table}", "evaluation.budget=40"]
    return options(*keys, "target={cells: 5, channels: 16}", "execution.backend=local")


def finals(out: Path, count: str, *words: str) -> Said:
    return run(generate.main, out, "--finals", count, *QUICK, *words)


def result_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "result.json").read_text())  # type: ignore[no-any-return]


# --- which networks ---


def test_candidates_are_the_most_probable_networks_exactly(searched: Path) -> None:
    finished = FinishedRun.load(str(searched))
    live, space = finished.problem.choosable_EK, finished.problem.space
    choices = [[k for k in range(space.shape[1]) if live[e, k]] for e in range(len(space.edges))]
    found = candidates(finished, {}, FinalsConfig(networks=6))
    assert len(set(found)) == 6
    values = [evaluate(finished.problem, alpha)[0] for alpha in found]
    assert values == sorted(values, reverse=True)
    rng = np.random.default_rng(0)
    for _ in range(300):  # no other network is more probable than the last one
        alpha = list(found[rng.integers(6)])
        for e in rng.choice(len(alpha), 2):
            if not space.op(int(e), alpha[e]).generable:
                continue
            alpha[e] = int(rng.choice([k for k in choices[e] if space.op(int(e), k).generable] or [alpha[e]]))
        assert tuple(alpha) in found or evaluate(finished.problem, alpha)[0] <= values[-1] + 1e-12


def test_with_a_distance_they_differ_in_as_many_edges_and_the_first_is_the_best(searched: Path) -> None:
    finished = FinishedRun.load(str(searched))
    found = candidates(finished, {}, FinalsConfig(networks=4, distance=3))
    assert found[0] == candidates(finished, {}, FinalsConfig(networks=2))[0]
    for a, b in itertools.combinations(found, 2):
        assert sum(x != y for x, y in zip(a, b, strict=True)) >= 3


def test_within_a_budget_all_of_them_meet_it(searched: Path) -> None:
    finished = FinishedRun.load(str(searched))
    limit = finished.unbounded()[1]["macs"] * 9 // 10
    found = candidates(finished, {"macs": Bound(None, limit)}, FinalsConfig(networks=5))
    assert len(found) == 5
    assert all(evaluate(finished.problem, alpha)[1]["macs"] <= limit for alpha in found)


# --- trained for real ---


def test_the_winner_has_the_best_validation_score_of_the_last_rung(trained: tuple[Path, Said]) -> None:
    out, said = trained
    assert said.code == 0, said.err
    folder = out / "finals" / "unbounded"
    result = result_of(folder)
    assert result["rungs"] == [
        {"networks": 5, "epochs": 1},
        {"networks": 3, "epochs": 2},
        {"networks": 2, "epochs": 4},
    ]
    assert sorted(len(row["val"]) for row in result["networks"]) == [1, 1, 2, 4, 4]
    assert result["training_epochs"] == 12 == sum(len(row["val"]) for row in result["networks"])
    first, second = result["networks"][:2]
    assert first["label"] == result["winner"] and first["val"][-1] >= second["val"][-1]
    assert result["split"] == "val" and result["train_examples"] == 64
    assert f"winner {result['winner']}: {out}/finals/unbounded/genotype.json" in said.out
    assert "after 1 epochs: 5 networks, best final-" in said.out
    assert all(f"  {row['label']}: val {row['val'][-1]:.4f} after" in said.out for row in result["networks"])
    assert (folder / "curves.png").read_bytes()[:4] == b"\x89PNG"
    assert result["winner"] in (folder / "curves.svg").read_text()


def test_a_finished_one_is_read_and_its_winner_can_be_retrained(trained: tuple[Path, Said], tmp_path: Path) -> None:
    out, _ = trained
    before = contents(out / "finals")
    again = finals(out, "5", "--json")
    assert again.code == 0 and contents(out / "finals") == before
    (result,) = json.loads(again.out)
    winner = json.loads((out / "finals" / "unbounded" / "genotype.json").read_text())
    assert (winner["label"], winner["genotype"]) == (result["winner"], result["networks"][0]["genotype"])
    words = options("retraining.epochs=1", "retraining.batch_size=32")
    file = out / "finals" / "unbounded" / "genotype.json"
    said = run(retrain.main, out, "--genotype", file, *words, "--out", tmp_path / "net")
    assert said.code == 0, said.err
    assert result_of(tmp_path / "net")["genotype"] == winner["genotype"]


def test_killed_anywhere_and_repeated_they_end_as_if_never_killed(
    trained: tuple[Path, Said], searched: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each attempt dies after two more epochs, between a checkpoint and the next."""
    out = Path(shutil.copytree(searched, tmp_path / "run"))
    train, trainings = Finals.train, []

    def dying(self: Finals, i: int, snapshot: Any, until: int, device: str, save: Any) -> Any:
        def saved(after: Any) -> None:
            save(after)
            trainings.append(i)
            if len(trainings) % 2 == 0:
                raise KeyboardInterrupt

        return train(self, i, snapshot, until, device, saved)

    monkeypatch.setattr(Finals, "train", dying)
    attempts = 0
    while not (out / "finals" / "unbounded" / "result.json").exists():
        finals(out, "5")
        attempts += 1
        assert attempts < 12
    assert attempts > 5 and len(trainings) == 12, "no epoch is trained twice"
    ended, undisturbed = (result_of(run / "finals" / "unbounded") for run in (out, trained[0]))
    for result in (ended, undisturbed):
        del result["seconds"]
    assert ended == undisturbed
    for label in ("final-1", result_of(trained[0] / "finals" / "unbounded")["winner"]):
        for run_ in (out, trained[0]):
            assert checkpoints(Folder.open(str(run_ / "finals" / "unbounded" / label)), 0).names()


def test_a_warm_start_begins_with_the_supernets_weights(searched: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(searched, tmp_path / "run"))
    cold = Path(shutil.copytree(searched, tmp_path / "cold"))
    warm = options("retraining.init=inherited", "finals.epochs=1", "retraining.lr=0.0001")
    assert finals(out, "2", *warm).code == 0
    assert finals(cold, "2", *warm, *options("retraining.init=scratch")).code == 0
    found = [{row["label"]: row for row in result_of(d / "finals" / "unbounded")["networks"]} for d in (out, cold)]
    assert found[0].keys() == found[1].keys()
    assert all(found[0][label]["loss"] != found[1][label]["loss"] for label in found[0])


def test_one_that_diverges_loses(searched: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = Path(shutil.copytree(searched, tmp_path / "run"))
    train = Finals.train

    def some(self: Finals, i: int, *rest: Any) -> Any:
        if i != 1:
            raise DivergedError("the loss of epoch 1 is not finite")
        return train(self, i, *rest)

    monkeypatch.setattr(finals_module.Finals, "train", some)
    assert finals(out, "3").code == 0
    result = result_of(out / "finals" / "unbounded")
    assert result["winner"] == "final-2"
    assert set(result["diverged"]) == {"final-1", "final-3"}


def test_then_finals_the_winner_is_what_is_retrained(tmp_path: Path) -> None:
    out = tmp_path / "run"
    words = [*LOCAL, *QUICK, *options("finals.networks=3", "finals.epochs=1", "retraining.epochs=1")]
    said = run(search.main, *words, "--out", out, "--then", "finals,retrain", "--json")
    assert said.code == 0, said.err
    _, result, network = map(json.loads, said.out.splitlines())
    assert network["label"] == result["winner"]
    assert network["genotype"] == result["networks"][0]["genotype"]
    again = run(search.main, *words, "--out", out, "--resume", "--then", "finals,retrain", "--json")
    assert again.code == 0 and again.out.splitlines()[1:] == said.out.splitlines()[1:]


def test_from_python_the_winner_is_a_network(trained: tuple[Path, Said]) -> None:
    run_ = nas.load(trained[0])
    overrides = [word for word in QUICK if word != "--set"]
    network = run_.finals(5, overrides=overrides, progress=False)
    result = result_of(trained[0] / "finals" / "unbounded")
    assert (network.label, network.genotype) == (result["winner"], result["networks"][0]["genotype"])
    assert network.costs == result["networks"][0]["costs"]
    with pytest.raises(BudgetError, match="is a sweep of 3; give one at a time"):
        run_.finals(budget="macs=50%..100%:3", progress=False)


# --- by a table ---


@pytest.mark.parametrize("strategy", ["pruning", "surrogate"])
def test_on_a_table_they_read_the_longer_trainings(strategy: str, by_table: list[str], tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert run(search.main, *by_table, *options(f"strategy={strategy}"), "--out", out).code == 0
    said = run(generate.main, out, "--finals", "6")
    assert said.code == 0, said.err
    result = result_of(out / "finals" / "unbounded")
    assert result["rungs"] == [{"networks": 6, "epochs": 12}, {"networks": 3, "epochs": 200}]
    assert result["training_epochs"] == 6 * 12 + 3 * 200
    last = [row["val"][-1] for row in result["networks"] if row["epochs"] == [12, 200]]
    assert len(last) == 3 and last[0] == max(last)
    if strategy == "surrogate":
        found = result_of(out)["alpha"]
        assert found in [row["alpha"] for row in result["networks"]], "the best score of the search takes part"
        assert all(row["search_score"] == row["val"][0] for row in result["networks"])


def test_a_table_without_longer_trainings_is_refused(tmp_path: Path) -> None:
    table = write_table(tmp_path / "made.parquet")
    keys = ["space={name: nasbench201}", "evaluation.kind=table", f"evaluation.table={table}", "strategy=pruning"]
    out = tmp_path / "run"
    assert run(search.main, *options(*keys, "target={cells: 5, channels: 16}"), "--out", out).code == 0
    said = run(generate.main, out, "--finals", "4")
    assert said.code == 2
    assert "no val column of made with more epochs than made_val_e12" in said.err
    assert not (out / "finals").exists()


# --- bad input ---


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--finals", "1"], "'1' is not an integer of at least 2"),
        (["--finals", "4", "--verify", "3"], "--finals trains and ranks networks itself: omit --verify"),
        (
            ["--finals", "4", *options("training.momentum=0.5")],
            "--set: training.momentum: the run has finished; only finals.*",
        ),
        (["--finals", "4", *options("finals.epochs=0")], "finals.epochs is 0; input should be greater than or equal"),
        (["--finals", "4", *options("finals.epoch=3")], "finals.epoch is not a key; did you mean finals.epochs?"),
        (["--finals", "4", "--budget", "macs=1"], "no architecture of space 'cell' meets macs=1"),
        (["--finals", "4", *options("finals.distance=99")], "finals need two networks or more, and there is 1 with"),
        (["--finals", "4", *options("data.train_limit=32")], "--set: data.train_limit: the run has finished"),
    ],
)
def test_bad_input_takes_one_line_and_writes_nothing(words: list[str], says: str, searched: Path) -> None:
    before = contents(searched)
    said = run(generate.main, searched, *words)
    assert (said.code, said.out) == (2, "")
    assert says in said.err
    assert contents(searched) == before


def test_other_settings_than_those_it_was_started_with_are_refused(trained: tuple[Path, Said]) -> None:
    out, _ = trained
    before = contents(out)
    said = finals(out, "5", *options("finals.epochs=8"))
    assert said.code == 2
    assert "finals were started with other values of finals.epochs, retraining.epochs; repeat them" in said.err
    said = finals(out, "4")
    assert said.code == 2 and "other values of finals.networks" in said.err
    assert contents(out) == before
