"""Retrainings in text: the summary of one, the list of a run's, what is not finished, and the check of the weights."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.numpy import load_file, save_file

from ddpnas_ray import report
from ddpnas_ray.reporting.retrained_files import logged_snapshot, read_retraining, resume_command
from ddpnas_ray.runs.lock import locked
from ddpnas_ray.storage.folder import Folder
from tests.commands import contents, needs_neither_torch_nor_ray, run
from tests.reporting.retrainings import retrained, searched, stopped


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A published network, trained with two seeds."""
    return retrained(tmp_path_factory.mktemp("known") / "known", "retraining.seeds=2")


@pytest.fixture(scope="module")
def searched_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A search with its result trained."""
    out = searched(tmp_path_factory.mktemp("searched") / "run")
    retrained(out / "retrained" / "result", run=out)
    return out


@pytest.fixture
def out(known: Path, tmp_path: Path) -> Path:
    return shutil.copytree(known, tmp_path / "known")


def test_a_summary_names_split_and_seeds_of_every_score(known: Path) -> None:
    said = run(report.main, known)
    result = json.loads((known / "result.json").read_text())
    assert (said.code, said.err) == (0, "")
    for score in result["scores"]:
        spread = f"{score['value']:.4f} +- {score['std']:.4f} (trained from scratch, 2 seeds)"
        assert f"{score['split']} accuracy {spread}" in said.out
    assert json.loads(run(report.main, known, "--json").out) == result


def test_a_run_lists_its_trained_networks(searched_run: Path, tmp_path: Path) -> None:
    out = shutil.copytree(searched_run, tmp_path / "run")
    result = json.loads((out / "retrained" / "result" / "result.json").read_text())
    stopped(shutil.copytree(out / "retrained" / "result", out / "retrained" / "small"), epochs=1)
    broken = shutil.copytree(out / "retrained" / "result", out / "retrained" / "torn")
    (broken / "network.json").write_text("{}")
    said = run(report.main, out)
    assert said.code == 0
    header, first, second = said.out.splitlines()[-3:]
    assert header == "retrained networks"
    assert f"{result['costs']['params']:,} params, {result['costs']['macs']:,} macs): val accuracy " in first
    assert first.endswith(", 2 epochs")
    assert second.endswith("not finished, 1 of 2 epochs are saved")
    assert f"{broken}: network.json cannot be read: it has no 'label'" in said.err
    assert json.loads(run(report.main, out, "--json").out) == json.loads((out / "result.json").read_text())


def test_it_needs_neither_torch_nor_ray(out: Path) -> None:
    needs_neither_torch_nor_ray(
        "from ddpnas_ray.report import main; one, = sys.argv[1:]; code = main([one]) or "
        "main([one, '--verify-fingerprint']) or main([one, '--html']) or main([one, one, '--html', one + '.html'])",
        out,
    )


@pytest.mark.parametrize("words", [[], ["--html"], ["--json"], ["--verify-fingerprint"]])
def test_of_an_unfinished_one_it_says_what_is_saved_and_how_to_resume(out: Path, words: list[str]) -> None:
    stopped(out, epochs=1)
    before = contents(out)
    said = run(report.main, out, *words)
    assert (said.code, said.out, said.err.count("\n")) == (2, "", 1)
    says = f"{out}: the training has not finished: 1 of 4 epochs (2 seeds of 2) are saved; resume with: "
    assert said.err == f"RunDirError: {says}python -m ddpnas_ray.retrain --out {out} --resume\n"
    assert contents(out) == before


def test_of_a_running_one_it_says_how_to_follow_it(out: Path) -> None:
    stopped(out, epochs=1)
    with locked(Folder.open(str(out))):
        said = run(report.main, out)
    assert said.err.endswith(f"are saved; it is running, follow it with: python -m ddpnas_ray.attach {out}\n")


def test_a_resume_below_a_run_names_the_run(searched_run: Path) -> None:
    folder = searched_run / "retrained" / "result"
    command = f"python -m ddpnas_ray.retrain {searched_run} --out {folder} --resume"
    assert resume_command(Folder.open(str(folder))) == command


def test_the_fingerprint_is_that_of_the_weights(out: Path) -> None:
    said = run(report.main, out, "--verify-fingerprint")
    found = [row["fingerprint"] for row in json.loads((out / "result.json").read_text())["trainings"]]
    assert said.out == "".join(f"{one} agrees with the weights of seed {seed}\n" for seed, one in enumerate(found))
    tensors = load_file(out / "seed-1" / "weights.safetensors")
    name = next(name for name, tensor in tensors.items() if tensor.ndim)
    save_file({**tensors, name: tensors[name] + 1}, out / "seed-1" / "weights.safetensors")
    said = run(report.main, out, "--verify-fingerprint")
    assert (said.code, said.out.count("\n")) == (1, 1)
    assert f"{out}: result.json says {found[1]}, seed-1/weights.safetensors gives " in said.err
    (out / "seed-0" / "weights.safetensors").unlink()
    said = run(report.main, out, "--verify-fingerprint")
    assert (said.code, said.out, said.err.count("\n")) == (2, "", 1)
    assert f"{out}/seed-0: weights.safetensors cannot be read: no such file; delete result.json, and" in said.err


@pytest.mark.parametrize(
    ("break_it", "fragment"),
    [
        (lambda out: (out / "result.json").write_text("[]"), "result.json cannot be read: it is not the result of a"),
        (lambda out: (out / "result.json").write_text("{}"), "result.json cannot be read: it has no 'scores'"),
        (lambda out: (out / "network.json").write_text("{"), "network.json cannot be read: "),
        (lambda out: (out / "config.yaml").write_text("seed: 0\n"), "config.yaml cannot be read: it has no 'retrain"),
        (lambda out: (out / "config.yaml").write_text("a: [1"), "config.yaml: line"),
    ],
)
def test_a_damaged_one_takes_one_line(out: Path, break_it: Callable[[Path], None], fragment: str) -> None:
    break_it(out)
    for words in ([], ["--html"]):
        said = run(report.main, out, *words)
        assert (said.code, said.out, said.err.count("\n")) == (2, "", 1)
        assert fragment in said.err


def test_what_is_of_searches_only_is_refused(known: Path, searched_run: Path, tmp_path: Path) -> None:
    for words, fragment in [
        ([known, "--explain", "normal.0"], "--explain normal.0 shows an edge of a search"),
        ([searched_run, known, "--html", tmp_path / "a.html"], "a search and a retrained network cannot be compared"),
    ]:
        said = run(report.main, *words)
        assert (said.code, said.out, said.err.count("\n")) == (2, "", 1)
        assert fragment in said.err


def test_a_log_tells_what_the_driver_would(out: Path) -> None:
    files = read_retraining(Folder.open(str(out)))
    epochs = [event for event in files.log if event["event"] == "epoch"]
    assert logged_snapshot(files, [event for event in files.log if event["event"] == "start"]) is None
    now = logged_snapshot(files, files.log[: files.log.index(epochs[2]) + 1])
    assert now is not None
    assert (now["phase"], now["seed"], now["training"], now["seeds"]) == ("retraining", 1, 2, 2)
    assert (now["epochs_done"], now["done"], now["of"]) == (1, 3, 4)
    assert now["loss"] == epochs[2]["loss"]
    assert now["seconds_left"] == pytest.approx(epochs[2]["train_s"] + epochs[2]["score_s"])


def test_lost_lines_of_the_log_are_in_the_checkpoint(out: Path) -> None:
    whole = read_retraining(Folder.open(str(out))).histories
    stopped(out, epochs=1)
    (out / "log.jsonl").write_text("")
    kept = read_retraining(Folder.open(str(out))).histories
    assert [row["loss"] for row in kept[0]] == [whole[0][0]["loss"]]
    assert kept[1] == []
