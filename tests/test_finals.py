"""`generate --finals`: a search's best candidates are trained for real, and the best by validation wins."""

from __future__ import annotations

import itertools
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import ddpnas_ray as nas
from ddpnas_ray import generate, report, retrain, search
from ddpnas_ray.core import halving
from ddpnas_ray.core.errors import BudgetError, DivergedError, RunDirError
from ddpnas_ray.core.generation.budgets import Bound
from ddpnas_ray.core.generation.problem import evaluate
from ddpnas_ray.experiment.finished import FinishedRun
from ddpnas_ray.finals.candidates import candidates
from ddpnas_ray.finals.finals import Checkpoints, Finals
from ddpnas_ray.retraining.files import checkpoints
from ddpnas_ray.storage.folder import Folder
from ddpnas_ray.tasks.recipe import FinalsConfig
from ddpnas_ray.training.device import Device
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
    network = result_of(tmp_path / "net")
    assert (network["label"], network["genotype"]) == (winner["label"], winner["genotype"])


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

    monkeypatch.setattr(Finals, "train", some)
    said = finals(out, "3")
    assert said.code == 0
    result = result_of(out / "finals" / "unbounded")
    assert result["winner"] == "final-2"
    assert set(result["diverged"]) == {"final-1", "final-3"}
    assert "  final-1: diverged after 0 epochs, " in said.out


def test_one_that_diverges_late_ranks_by_its_last_epoch_below_those_that_ended_with_it(
    searched: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = Path(shutil.copytree(searched, tmp_path / "run"))
    train = Finals.train

    def some(self: Finals, i: int, snapshot: Any, until: int, *rest: Any) -> Any:
        if until == 2 and i == 0:
            raise DivergedError("the loss of epoch 2 is not finite")
        return train(self, i, snapshot, until, *rest)

    monkeypatch.setattr(Finals, "train", some)
    monkeypatch.setattr(halving, "kept", lambda scores, count: [i for i, s in enumerate(scores) if s][:count])
    said = finals(out, "5")
    assert said.code == 0, said.err
    rows = result_of(out / "finals" / "unbounded")["networks"]
    assert [(row["label"], len(row["val"])) for row in rows[:2]] == [("final-2", 4), ("final-3", 4)]
    assert (rows[-1]["label"], len(rows[-1]["val"])) == ("final-1", 1)
    assert "  final-1: diverged after 1 epochs, " in said.out


def test_if_all_diverge_the_way_out_works(searched: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = Path(shutil.copytree(searched, tmp_path / "run"))
    folder, train = out / "finals" / "unbounded", Finals.train

    def diverging(self: Finals, i: int, snapshot: Any, until: int, *rest: Any) -> Any:
        if until == 2:
            raise DivergedError("the loss of epoch 2 is not finite")
        return train(self, i, snapshot, until, *rest)

    with monkeypatch.context() as patched:
        patched.setattr(Finals, "train", diverging)
        said = finals(out, "2")
    assert said.code == 1
    assert (
        f"{folder}: all 2 networks of a rung diverged; move that folder away, and start again with a lower" in said.err
    )
    assert "other values of retraining.lr" in finals(out, "2", *options("retraining.lr=0.01")).err
    folder.rename(tmp_path / "away")
    assert finals(out, "2", *options("retraining.lr=0.01")).code == 0


def test_without_a_finished_epoch_it_may_start_again_with_other_settings(
    searched: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = Path(shutil.copytree(searched, tmp_path / "run"))
    folder = out / "finals" / "unbounded"

    def full(*_: Any) -> Any:
        raise RuntimeError("CUDA error: out of memory")

    with monkeypatch.context() as patched:
        patched.setattr(Finals, "train", full)
        said = finals(out, "3")
    assert (said.code, said.err.count("\n")) == (2, 1)
    assert "does not fit into the GPU's memory" in said.err and "free the GPU and repeat the command, or" in said.err
    for name in ("config.yaml", "log.jsonl"):  # as if killed while the first files were written
        (folder / name).unlink()
    assert finals(out, "2", *options("finals.epochs=1")).code == 0
    assert result_of(folder)["rungs"] == [{"networks": 2, "epochs": 1}]


def test_a_network_of_a_lost_gpu_takes_one_line(
    searched: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = Path(shutil.copytree(searched, tmp_path / "run"))

    def lost(*_: Any) -> Any:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(Finals, "train", lost)
    said = finals(out, "2")
    assert (said.code, said.err.count("\n")) == (2, 1)
    assert "the GPU failed" in said.err and "then repeat the command" in said.err


def test_several_kinds_of_device_are_refused_or_a_warning(
    searched: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kinds = itertools.cycle([Device("cpu a"), Device("cpu b")])
    monkeypatch.setattr("ddpnas_ray.training.fit.find_device", lambda where: next(kinds))
    words = options("finals.epochs=1")
    for policy, code in (("refuse", 2), ("warn", 0)):
        out = Path(shutil.copytree(searched, tmp_path / policy))
        said = finals(out, "2", *words, *options(f"execution.mixed_devices={policy}"))
        assert said.code == code, said.err
        assert ("execution.mixed_devices is refuse, but there are 2 kinds" in said.err) == (policy == "refuse")
        assert ("warning: trained on 2 kinds of device (cpu a; cpu b): the" in said.out) == (policy == "warn")


def linear() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(TEACHER_SEED)
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))


TEACHER_SEED = 0


def test_they_go_on_only_with_the_same_teacher_and_data(
    searched: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = Path(shutil.copytree(searched, tmp_path / "run"))
    words = options("finals.epochs=1", f"retraining.teacher={__name__}:linear")
    save = Checkpoints.save

    def killed(*words: Any) -> None:
        save(*words)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Checkpoints, "save", killed)
        assert finals(out, "2", *words).code == 130
    recorded = json.loads((out / "finals" / "unbounded" / "networks.json").read_text())["teacher"]
    assert recorded["name"] == f"{__name__}:linear" and recorded["fingerprint"]
    before = contents(out)
    with monkeypatch.context() as patched:
        patched.setattr(sys.modules[__name__], "TEACHER_SEED", 1)
        said = finals(out, "2", *words)
    assert said.code == 2 and "other weights than when the finals were started" in said.err
    assert contents(out) == before
    environment = json.loads((out / "environment.json").read_text())
    (out / "environment.json").write_text(json.dumps(environment | {"data_digest": "0" * 64}))
    said = finals(out, "2", *words)
    assert said.code == 2 and "the data differ from those of the run" in said.err
    shutil.rmtree(out / "finals")
    said = finals(out, "2", *words)
    assert said.code == 2 and "the data differ from those of the run" in said.err
    assert not (out / "finals").exists()


def test_what_finished_is_printed_when_a_later_budget_fails(
    searched: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = Path(shutil.copytree(searched, tmp_path / "run"))
    train, trained = Finals.train, set()

    def once(self: Finals, i: int, *rest: Any) -> Any:
        trained.add(self.networks[i].label)
        if len(trained) > 2:
            raise KeyboardInterrupt
        return train(self, i, *rest)

    monkeypatch.setattr(Finals, "train", once)
    budgets = ["--budget", "macs=100%", "--budget", "macs=90%"]
    said = finals(out, "2", *options("finals.epochs=1"), *budgets, "--json")
    assert said.code == 130
    (result,) = json.loads(said.out)
    assert {row["label"] for row in result["networks"]} < trained


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


def test_a_supernet_that_was_compared_with_a_table_has_finals_and_can_be_retrained(tmp_path: Path) -> None:
    """Without sharing, so that the answer is a prediction; the table is no part of the images."""
    table, out = write_table(tmp_path / "made.parquet"), tmp_path / "run"
    keys = ["space={name: nasbench201, cells: 1, channels: 4}", f"evaluation.table={table}", "evaluation.budget=12"]
    keys += ["training.merge=none", "strategy=surrogate", "surrogate={initial: 12, noise: 3.0, result: predicted}"]
    words = [*LOCAL, *options(*keys, "target={cells: 1, channels: 4}"), *QUICK, *options("finals.networks=2")]
    said = run(search.main, *words, "--out", out, "--then", "finals,retrain", "--json")
    assert said.code == 0, said.err
    found, result, network = map(json.loads, said.out.splitlines())
    assert found["scores"]["of"] == "architectures trained alone for an epoch"
    assert found["score_sheet"][0]["what"] == "result architecture, made_val_e12"
    assert network["label"] == result["winner"]
    said = run(generate.main, out, "--verify", "2")
    assert said.code == 2 and said.err.count("\n") == 1


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
        (["--finals", "4", "--budget", "macs=100%", "--budget", "macs=1"], "no architecture of space 'cell' meets"),
        (["--finals", "4", "--method", "mip"], "--method is for budgets; --finals chooses its networks"),
        (
            ["--finals", "4", *options("retraining.epochs=9", "retraining.workers=2")],
            "--set: retraining.epochs, retraining.workers: finals train each network once",
        ),
        (["--finals", "4", *options("retraining.accumulate=64")], "and BatchNorm needs 2"),
        (["--finals", "4", "--address", "127.0.0.1:1"], "127.0.0.1:1: no Ray cluster answers"),
    ],
)
def test_bad_input_takes_one_line_and_writes_nothing(words: list[str], says: str, searched: Path) -> None:
    before = contents(searched)
    said = run(generate.main, searched, *words)
    assert (said.code, said.out) == (2, "")
    assert says in said.err
    assert contents(searched) == before


def test_the_folder_of_finals_is_no_run(trained: tuple[Path, Said]) -> None:
    folder = trained[0] / "finals" / "unbounded"
    for command, words in (
        (report.main, [folder]),
        (generate.main, [folder]),
        (search.main, ["--out", folder, "--resume"]),
    ):
        said = run(command, *words)
        assert (said.code, said.err.count("\n")) == (2, 1)
        assert f"{folder}: is the folder of finals of a search, not its run directory; give RUN" in said.err
    with pytest.raises(RunDirError, match="is the folder of finals"):
        nas.load(folder)


def test_other_settings_than_those_it_was_started_with_are_refused(trained: tuple[Path, Said]) -> None:
    out, _ = trained
    before = contents(out)
    said = finals(out, "5", *options("finals.epochs=8"))
    assert said.code == 2
    assert "finals were started with other values of finals.epochs; repeat them" in said.err
    said = finals(out, "4")
    assert said.code == 2 and "other values of finals.networks" in said.err
    assert contents(out) == before
