"""The command: what it trains, what it writes, how it resumes, and one line for whatever is wrong."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

from ddpnas_ray.core.errors import DataError
from ddpnas_ray.retrain import main
from ddpnas_ray.retraining.files import _by_task, checkpoints, read_trained
from ddpnas_ray.retraining.retraining import deploy_network
from ddpnas_ray.retraining.run import Keeper
from ddpnas_ray.runs.log import read_log
from ddpnas_ray.runs.sealed import newest_epoch
from ddpnas_ray.storage.folder import Folder
from ddpnas_ray.tasks.classification.task import ClassificationTask
from tests.commands import LOCAL, Said, contents, options, run
from tests.retraining.finished import RECIPE, searched, trained


def retrain(*words: str | Path) -> Said:
    return run(main, *words)


def done(*words: str | Path) -> dict[str, Any]:
    said = retrain(*words, "--json")
    assert said.code == 0, said.err
    return json.loads(said.out)  # type: ignore[no-any-return]


def refused(*words: str | Path) -> str:
    said = retrain(*words)
    assert said.code == 2, said.err
    (line,) = said.err.splitlines()
    return line


def test_it_trains_the_result_of_a_search_and_keeps_everything() -> None:
    out = Folder.open(str(trained()))
    result = json.loads(out.read("result.json"))
    search = json.loads((searched() / "result.json").read_text())
    assert result["genotype"] == search["genotype"] and result["costs"] == search["costs"]
    assert result["search"]["fingerprint"] == search["fingerprint"]
    assert [score["split"] for score in result["scores"]] == ["val", "test"]
    assert all(0 <= score["value"] <= 1 for score in result["scores"])
    chosen, tensors, _ = read_trained(out)
    network = deploy_network(chosen, tensors).eval()
    parameters = sum(p.numel() for p in network.parameters())
    assert parameters == result["costs"]["params"]
    events = [event["event"] for event in read_log(out.read("log.jsonl"))]
    assert events == ["start", "epoch", "test", "epoch", "done"]
    assert newest_epoch(checkpoints(out, 0)) == 2


def test_the_scores_are_those_of_the_weights_on_disk() -> None:
    from ddpnas_ray.experiment.config import check
    from ddpnas_ray.experiment.yaml_text import parse
    from ddpnas_ray.retraining.retraining import prepare_task
    from ddpnas_ray.training.fit import score

    folder = Folder.open(str(trained()))
    chosen, tensors, result = read_trained(folder)
    config = check(parse(folder.read("config.yaml").decode(), "x"), "x")
    searched_task, task = prepare_task(config)
    network = deploy_network(chosen, tensors)
    found = {
        split: score(network, on, config.retraining, 0, 1, "cpu")[0]
        for split, on in (("val", task), ("test", task.on_test()))
    }
    assert found == {row["split"]: row["value"] for row in result["scores"]}
    assert searched_task.digest == task.digest


def test_text_says_which_split_every_score_is_of(tmp_path: Path) -> None:
    said = retrain(searched(), "--out", tmp_path / "x", *RECIPE, *options("retraining.seeds=2"))
    assert said.code == 0, said.err
    lines = said.out.splitlines()
    assert any(line.startswith("seed 1 (2/2), 2/2 epochs, loss ") for line in lines)
    assert any(
        re.match(r"val accuracy 0\.\d{4} \+- 0\.\d{4} \(trained from scratch, 2 seeds\)", line) for line in lines
    )
    assert any(line.startswith("test accuracy 0.") for line in lines)
    assert lines[-1] == f"retrained network {tmp_path / 'x'}"


def test_a_budget_a_file_and_a_name_choose_other_networks(tmp_path: Path) -> None:
    run_folder = tmp_path / "run"
    shutil.copytree(searched(), run_folder)
    search = json.loads((run_folder / "result.json").read_text())
    budget = f"macs={search['costs']['macs']}"
    found = done(run_folder, "--budget", budget, *RECIPE)
    assert found["costs"]["macs"] <= search["costs"]["macs"]
    assert (run_folder / "retrained" / found["label"] / "result.json").is_file()
    genotype = tmp_path / "mine.json"
    genotype.write_text(json.dumps(search["genotype"]))
    assert done(run_folder, "--genotype", genotype, *RECIPE)["label"] == "mine"
    known = done("--network", "darts_v2", "--out", tmp_path / "v2", *LOCAL, *options("space.nodes=4"), *RECIPE)
    assert known["search"] == {} and known["target"]["cells"] == 3


def test_equal_commands_give_equal_weights_and_other_seeds_others(tmp_path: Path) -> None:
    again = done(searched(), "--out", tmp_path / "again", *RECIPE)
    first = json.loads((trained() / "result.json").read_text())
    assert again["fingerprint"] == first["fingerprint"]
    assert again["scores"] == first["scores"]
    two = done(searched(), "--out", tmp_path / "two", *RECIPE, *options("retraining.seeds=2"))
    assert two["trainings"][0]["fingerprint"] == first["fingerprint"] != two["trainings"][1]["fingerprint"]
    assert two["scores"][0]["std"] > 0 or two["scores"][0]["value"] == two["trainings"][0]["val"]


def test_resumed_after_any_epoch_it_ends_with_the_same_weights(tmp_path: Path) -> None:
    whole = json.loads((trained() / "result.json").read_text())
    for saved in (2, 1, 0):
        out = tmp_path / f"from-{saved}"
        shutil.copytree(trained(), out)
        (out / "result.json").unlink()
        for epoch in range(saved + 1, 3):
            shutil.rmtree(out / "seed-0" / "checkpoints" / f"ckpt-{epoch}")
        assert done(searched(), "--out", out, "--resume")["fingerprint"] == whole["fingerprint"]


def test_a_finished_one_is_printed_and_nothing_changes(tmp_path: Path) -> None:
    before = contents(trained())
    said = retrain(searched(), "--out", trained(), "--resume")
    assert said.code == 0 and "test accuracy" in said.out
    assert contents(trained()) == before


def interrupted(*words: str | Path) -> str:
    said = retrain(*words)
    assert said.code == 130
    return said.err.splitlines()[-1]


def test_after_ctrl_c_the_printed_command_resumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save, text = Keeper.save, "interrupted; finished epochs are saved. Resume with: python -m ddpnas_ray.retrain "

    def save_and_stop(*arguments: Any) -> None:
        save(*arguments)
        raise KeyboardInterrupt

    monkeypatch.chdir(tmp_path)
    shutil.copytree(searched(), "run")
    run_words = ("run", *RECIPE, *options("retraining.init=inherited"))
    for words, out in (
        (("--network", "darts_v2", *LOCAL, *options("space.nodes=4"), *RECIPE), "runs/retrained-darts_v2"),
        (run_words, "run/retrained/result"),
        ((*run_words, "--out", "x"), "x"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(Keeper, "save", save_and_stop)
            line = interrupted(*words)
        assert line.startswith(text) and f"--out {out}" in line and line.endswith("--resume")
        assert len(done(*shlex.split(line.removeprefix(text)))["trainings"]) == 1
    shutil.copytree("x", "y")
    (tmp_path / "y" / "result.json").unlink()
    assert done("--out", "y", "--resume")["scores"][0]["weights"].startswith("inherited (")


def test_before_the_folder_exists_there_is_nothing_to_resume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("ddpnas_ray.launch.retraining.make", stop)
    assert interrupted(searched(), "--out", tmp_path / "x", *RECIPE) == "interrupted; nothing was started"


def test_help_says_which_configuration_is_the_default() -> None:
    said = " ".join(retrain("--help").out.split())
    assert "default: that of RUN, or of the training to resume; else the digits quick start" in said


def test_a_damaged_checkpoint_falls_back_to_the_one_before(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    out = tmp_path / "x"
    shutil.copytree(trained(), out)
    (out / "result.json").unlink()
    damaged = out / "seed-0" / "checkpoints" / "ckpt-2" / "arrays.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:100])
    whole = json.loads((trained() / "result.json").read_text())
    assert done(searched(), "--out", out, "--resume")["fingerprint"] == whole["fingerprint"]
    assert "ckpt-2 is damaged" in caplog.text


def test_weights_of_the_supernet_are_a_start(tmp_path: Path) -> None:
    found = done(searched(), "--out", tmp_path / "x", *RECIPE, *options("retraining.init=inherited"))
    assert found["scores"][0]["weights"].startswith("inherited (")
    assert found["fingerprint"] != json.loads((trained() / "result.json").read_text())["fingerprint"]


def test_the_largest_network_of_the_run_teaches(tmp_path: Path) -> None:
    run_folder = tmp_path / "run"
    shutil.copytree(searched(), run_folder)
    assert "the run has no retrained network yet" in refused(
        run_folder, *RECIPE, *options("retraining.teacher=largest")
    )
    alone = done(run_folder, *RECIPE)
    taught = done(run_folder, "--out", tmp_path / "y", *RECIPE, *options("retraining.teacher=largest"))
    assert taught["teacher"] == {"name": "result", "folder": "result", "fingerprint": alone["fingerprint"]}
    assert json.loads((tmp_path / "y" / "network.json").read_text())["teacher"] == taught["teacher"]
    assert alone["teacher"] is None
    assert taught["fingerprint"] != alone["fingerprint"]
    assert "did you mean result?" in refused(
        run_folder, "--out", tmp_path / "z", *RECIPE, *options("retraining.teacher=results")
    )


def test_test_images_are_read_once_at_the_end_and_only_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reads = []
    original = ClassificationTask.on_test

    def on_test(self: ClassificationTask) -> ClassificationTask:
        reads.append(newest_epoch(checkpoints(Folder.open(str(tmp_path / "x")), 0)))
        return original(self)

    monkeypatch.setattr(ClassificationTask, "on_test", on_test)
    done(searched(), "--out", tmp_path / "x", *RECIPE, *options("retraining.seeds=2"))
    assert reads == [1], "after the epochs of the first seed, for both"


def test_damaged_test_images_do_not_cost_the_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def on_test(self: ClassificationTask) -> ClassificationTask:
        raise DataError("test: image 3 is damaged")

    monkeypatch.setattr(ClassificationTask, "on_test", on_test)
    found = done(searched(), "--out", tmp_path / "x", *RECIPE)
    assert [score["split"] for score in found["scores"]] == ["val"]
    assert found["test_note"] == "test: image 3 is damaged"


def test_a_class_that_only_some_seeds_score_has_the_mean_of_those() -> None:
    assert _by_task([{"a": 0.5, "b": 1.0}, {"a": 0.25}, None]) == {"by_task": {"a": 0.375, "b": 1.0}}
    assert _by_task([{"a": 0.5}, {"a": 0.5, "c": 0.0}]) == {"by_task": {"a": 0.5, "c": 0.0}}
    assert _by_task([None, {}]) == {}


# --- own images ---


def folder_of_images(root: Path, classes: dict[str, int], size: int = 8) -> Path:
    rng = np.random.default_rng(0)
    for number, (name, count) in enumerate(classes.items()):
        (root / name).mkdir(parents=True)
        for i in range(count):
            pixels = rng.integers(0, 80, (size, size, 3)) + 60 * number
            Image.fromarray(pixels.astype(np.uint8)).save(root / name / f"{i}.png")
    return root


OWN = [
    *options("data.name=folder", "target.cells=2", "target.channels=4", "execution.backend=local"),
    *options("retraining.epochs=1", "retraining.batch_size=8", "retraining.threads=1", "data.crop=1"),
]


def test_a_folder_without_test_images_gives_no_test_score(tmp_path: Path) -> None:
    images = folder_of_images(tmp_path / "photos", {"cat": 20, "dog": 12})
    words = ["--network", "darts_v1", *OWN, *options(f"data.path={images}")]
    said = retrain(*words, "--out", tmp_path / "x")
    assert said.code == 0, said.err
    assert "no test score: " in said.out and "no test data; set data.test_path" in said.out
    tests = folder_of_images(tmp_path / "tests", {"cat": 3, "dog": 3})
    found = done(*words, *options(f"data.test_path={tests}"), "--out", tmp_path / "y")
    assert [score["split"] for score in found["scores"]] == ["test"], "all images trained, so none validate"


# --- bad input ---


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ((), "ddpnas retrain: give RUN, --genotype FILE or --network NAME; see --help"),
        (("--budget", "macs=1M"), "ddpnas retrain: --budget needs RUN"),
        (("nowhere",), "RunDirError: nowhere: is not a run directory"),
        (("--network", "darts_v3"), "GenotypeError: 'darts_v3' is not a known network; did you mean darts_v"),
        (("--genotype", "none.json"), "GenotypeError: none.json: No such file or directory; give a JSON file"),
        (("--network", "darts_v2", "--resume", "--out", "nowhere"), "RunDirError: nowhere: is not a run directory"),
        (("--network", "darts_v2", *options("retraining.epoch=3")), "retraining.epoch is not a key; did you mean"),
        (
            ("--network", "darts_v2", *options("retraining.ema=1.0")),
            "retraining.ema is 1.0; input should be less than 1",
        ),
        (("--network", "darts_v2", *options("retraining.auxiliary=0.4")), "images of 8 px have 2x2 pixels"),
        (("--network", "darts_v2", *options("retraining.cutout=8")), "retraining.cutout=8 could blank whole images"),
        (("--network", "darts_v2", *options("retraining.init=inherited")), "needs the run of a search"),
        (("--network", "darts_v2", *options("target.image_size=32")), "but the data have 1x8x8, 10 outputs"),
        (("--network", "darts_v2", *options("target.classes=7")), "7 outputs, but the data have 1x8x8"),
        (
            ("--network", "mobilenet_v2", *options("retraining.auxiliary=0.4", "target={}")),
            "no auxiliary head: set it to 0",
        ),
        (("--network", "darts_v2", *options("retraining.teacher=os:nothing")), "retraining.teacher: os:nothing: "),
        (("--network", "darts_v2", *options("retraining.teacher=torch.nn:Linear")), "torch.nn:Linear: TypeError: "),
        (
            ("--network", "darts_v2", *options("retraining.teacher=torch.nn:Identity")),
            "have shape (2, 1, 8, 8), those of",
        ),
        (("--network", "darts_v2", *options("data.name=folder", "data.path=gone")), "gone"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, tuple) else "",
)
def test_bad_input_takes_one_line_and_writes_nothing(
    words: tuple[str, ...], wanted: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    out = [] if "--out" in words or not words or words[0] in ("nowhere", "--budget") else ["--out", "x"]
    assert wanted in refused(*words, *out, *([] if not words else ["--backend", "local"]))
    assert contents(tmp_path) == {}


def test_runs_that_cannot_be_retrained_are_refused(tmp_path: Path) -> None:
    unfinished = tmp_path / "unfinished"
    shutil.copytree(searched(), unfinished)
    (unfinished / "result.json").unlink()
    assert "the run has not finished; resume with: python -m ddpnas_ray.search" in refused(unfinished)
    assert "give one budget" in refused(searched(), "--budget", "macs=50%..100%:3", "--out", tmp_path / "x")
    assert "no architecture of space" in refused(searched(), "--budget", "macs=1", "--out", tmp_path / "x")
    mobile = tmp_path / "mobile.json"
    mobile.write_text('{"stages": [["zero"]]}')
    assert "mobile.json: " in refused(searched(), "--genotype", mobile, "--out", tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_another_recipe_or_other_data_cannot_resume(tmp_path: Path) -> None:
    out = tmp_path / "x"
    shutil.copytree(trained(), out)
    (out / "result.json").unlink()
    before = contents(out)
    resume = (searched(), "--out", out, "--resume")
    line = refused(*resume, *options("retraining.lr=0.5", "retraining.epochs=9"))
    assert "checkpoints are of another recipe: retraining.epochs, retraining.lr differ" in line
    assert "is the training of another network, result, than macs=" in refused(*resume, "--budget", "macs=90%")
    assert "exists and is not empty" in refused(searched(), "--out", out)
    assert contents(out) == before
    assert done(*resume, *options("retraining.max_failures=7"))["epochs"] == 2


def test_a_target_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "is a file; --out needs a new folder" in refused(searched(), "--out", tmp_path / "file", *RECIPE)
    assert "cannot be written" in refused(searched(), "--out", "/proc/x", *RECIPE)


def test_edited_weights_are_recognised(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    from ddpnas_ray.core.errors import RunDirError

    out = tmp_path / "x"
    shutil.copytree(trained(), out)
    weights = out / "seed-0" / "weights.safetensors"
    tensors = load_file(weights)
    tensors["classifier.bias"] = tensors["classifier.bias"] + 1
    save_file(tensors, weights)
    with pytest.raises(RunDirError, match="is not what the training wrote"):
        read_trained(Folder.open(str(out)))
