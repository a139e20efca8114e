"""A search from the command to the files, in this process; errors are in test_bad_input.py and test_bad_runs.py."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image
from safetensors.numpy import load_file

from ddpnas_ray import __version__, check, report, search
from ddpnas_ray.experiment.config import describe, load
from ddpnas_ray.runs.files import EVALUATIONS
from ddpnas_ray.runs.sealed import newest_epoch
from ddpnas_ray.storage.folder import Folder
from tests.commands import ENVIRONMENT, LOCAL, ONE_EPOCH, SEARCH, contents, options, run
from tests.conftest import TINY

FIRST_FILES = ("config.yaml", "environment.json", "space.json")
FILES = (
    *FIRST_FILES,
    "checkpoints",
    "evaluations.parquet",
    "ledger.parquet",
    "log.jsonl",
    "result.json",
    "theta.parquet",
)
FILES += ("weights.safetensors",)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A run directory, and the search's output."""
    out = tmp_path_factory.mktemp("finished") / "run"
    said = run(search.main, *LOCAL, "--out", out)
    assert (said.code, said.err) == (0, "")
    return out, said.out


@pytest.fixture
def run_dir(finished: tuple[Path, str], tmp_path: Path) -> Path:
    """A copy of the finished run."""
    return Path(shutil.copytree(finished[0], tmp_path / "copy"))


@pytest.fixture(scope="module")
def fingerprint(finished: tuple[Path, str]) -> str:
    return str(json.loads((finished[0] / "result.json").read_text())["fingerprint"])


# --- the result ---


def test_it_ends_with_genotype_costs_scores_and_fingerprint(finished: tuple[Path, str], fingerprint: str) -> None:
    out, printed = finished
    result = json.loads((out / "result.json").read_text())
    assert f"\n  normal: {json.dumps(result['genotype']['normal'])}\n" in printed
    assert "costs of the target network (3 cells, 4 channels, 8 px, 10 classes, cifar stem): " in printed
    assert "val split: best 0." in printed
    assert "33 architecture-epochs in 6 rounds, " in printed
    result_lines, *warnings = printed.split("\nwarning: ")
    assert result_lines.endswith(f"\nfingerprint {fingerprint}\nrun directory {out}")
    assert [warning.rstrip("\n") for warning in warnings] == result["warnings"]
    assert len(result["genotype"]["normal"]) == 4, "two inputs for each of two nodes"
    assert result["scores"]["split"] == "val"
    assert 0.1 < result["scores"]["best"] <= 1


def test_the_last_lines_report_confidence(tmp_path: Path) -> None:
    said = run(search.main, *LOCAL, *options("pruning.epochs_per_round=2"), "--out", tmp_path / "run")
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["confidence"]["stands_out"] is False, "66 evaluations of networks that have hardly learnt"
    assert "\nconfidence: " in said.out
    assert "E[alpha] leads the next network by " in said.out
    assert "one of several equals" in said.out


def test_the_score_with_inherited_weights_is_not_shown_as_the_accuracy(finished: tuple[Path, str]) -> None:
    out, printed = finished
    sheet = json.loads((out / "result.json").read_text())["score_sheet"]
    assert f"with inherited weights the network scores {sheet[0]['value']:.4f} (val), sampled architectures" in printed
    assert "this is not its accuracy; train it to know that (it keeps 8 of 10 edges" in printed
    assert "score sheet" not in printed, "nothing else is in it"


def test_with_one_epoch_per_round_confidence_is_unknown(finished: tuple[Path, str]) -> None:
    assert "\nconfidence: unknown: rounds of one epoch" in finished[1]


def test_without_a_terminal_progress_is_plain_lines(finished: tuple[Path, str]) -> None:
    progress, _, _ = finished[1].partition("genotype")
    warning, *lines = progress.splitlines()
    assert warning.startswith("warning: training makes 2 steps per epoch")
    assert lines
    assert all(" epochs, round " in line and "/33 architecture-epochs, " in line for line in lines)
    assert "\x1b" not in finished[1]


def test_the_run_directory_stands_alone(finished: tuple[Path, str]) -> None:
    out, _ = finished
    assert sorted(path.name for path in out.iterdir()) == sorted(FILES)
    config = load(str(out / "config.yaml"))
    assert (config.training.batch_size, config.pruning.gamma, dict(config.space.options)["nodes"]) == (32, 0.9, 2)
    assert set(yaml.safe_load((out / "config.yaml").read_text())["execution"]) >= {"backend", "workers"}
    space = json.loads((out / "space.json").read_text())
    assert space["name"] == "cell"
    assert [len(edge["candidates"]) for edge in space["edges"]] == [8] * 10
    assert {op["group"] for op in space["edges"][0]["candidates"]} == {"parameter", "non_parameter"}
    assert set(space["costs"]) == {"params", "macs", "macs_bn_relu"} | {
        f"{cost}.{cell}" for cost in ("height", "nonparametric") for cell in ("normal", "reduce")
    }
    assert space["target"]["image_size"] == 8
    environment = json.loads((out / "environment.json").read_text())
    assert environment["ddpnas_ray"] == __version__
    assert environment["seed"] == 0
    assert len(environment["data_digest"]) == 64
    assert environment["packages"]["torch"]


def test_evaluations_have_the_columns_of_the_design(finished: tuple[Path, str]) -> None:
    table = pq.ParquetFile(finished[0] / "evaluations.parquet").read(use_threads=False)
    assert table.schema.equals(EVALUATIONS)
    assert min(table["train_s"].to_pylist()) > 0 and min(table["validate_s"].to_pylist()) > 0
    rows = table.to_pylist()
    keys = [(row["round"], row["epoch"], row["architecture"]) for row in rows]
    assert keys == [(e, e, i) for e, n in enumerate((8, 7, 6, 5, 4, 3)) for i in range(n)]
    assert all(len(row["alpha"]) == 10 and row["split"] == "val" and row["ok"] and row["trained"] for row in rows)
    assert all(0 <= row["score"] <= 1 and row["loss"] > 0 for row in rows)


def test_theta_has_a_row_a_round_edge_and_operation(finished: tuple[Path, str]) -> None:
    table = pq.ParquetFile(finished[0] / "theta.parquet").read(use_threads=False)
    assert {field.name: str(field.type) for field in table.schema} == {
        "round": "int32",
        "edge": "string",
        "operation": "string",
        "theta": "double",
        "utility": "double",
        "momentum": "double",
        "live": "bool",
        "pruned_at": "int32",
    }
    assert table.num_rows == 6 * 10 * 8
    theta = table["theta"].to_numpy().reshape(6, 10, 8)
    np.testing.assert_allclose(theta.sum(axis=2), 1.0)
    live = table["live"].to_numpy(zero_copy_only=False).reshape(6, 10, 8)
    assert live.sum(axis=2).tolist() == [[7 - r] * 10 for r in range(6)]


def test_checkpoints_weights_and_log_are_kept(finished: tuple[Path, str], fingerprint: str) -> None:
    out, _ = finished
    assert sorted(path.name for path in (out / "checkpoints").iterdir()) == ["ckpt-4", "ckpt-5", "ckpt-6"]
    tensors = load_file(out / "weights.safetensors")
    assert {tensor.dtype.name for tensor in tensors.values()} == {"float32"}
    assert sum(tensor.size for tensor in tensors.values()) > 5_000
    log = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert [line["event"] for line in log] == ["start", *["epoch"] * 6, "finished"]
    assert log[-1]["fingerprint"] == fingerprint


def test_json_is_one_object_and_progress_goes_to_stderr(tmp_path: Path, fingerprint: str) -> None:
    said = run(search.main, *LOCAL, "--out", tmp_path / "run", "--json")
    assert (said.code, said.out.count("\n")) == (0, 1)
    assert json.loads(said.out) == json.loads((tmp_path / "run" / "result.json").read_text())
    assert json.loads(said.out)["fingerprint"] == fingerprint
    assert "/33 architecture-epochs" in said.err


def test_keys_lists_every_key_with_default_and_meaning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    said = run(search.main, "--keys")
    assert (said.code, said.err) == (0, "")
    assert [line.split()[0] for line in said.out.splitlines()] == [key for key, _, _ in describe()]
    assert "\npruning.gamma " in said.out
    assert contents(tmp_path) == {}


# --- output directories and resumes ---


def test_runs_without_out_get_names_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("cell-digits-s0", "cell-digits-s0-2"):
        said = run(search.main, *LOCAL, *ONE_EPOCH)
        assert said.code == 0
        assert f"--out runs/{name} --resume" in said.err
        assert (tmp_path / "runs" / name / "config.yaml").is_file()


def test_the_working_directory_can_be_the_run_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fingerprint: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(search.main, *LOCAL, "--out", ".", *ONE_EPOCH).code == 0
    said = run(search.main, "--out", ".", "--resume")
    assert said.code == 0
    assert f"fingerprint {fingerprint}" in said.out
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(FILES)


def test_the_time_limit_ends_a_search_well_and_it_goes_on(tmp_path: Path, fingerprint: str) -> None:
    out = tmp_path / "my run"
    said = run(search.main, *LOCAL, "--out", out, *ONE_EPOCH)
    command = f"python -m ddpnas_ray.search --out '{out}' --resume"
    assert said.code == 0
    assert said.err == f"time limit reached; 1 of 6 epochs are saved. Resume with: {command}\n"
    assert not (out / "result.json").exists()
    said = run(search.main, "--out", out, "--resume", *ONE_EPOCH)
    assert (said.code, said.err) == (0, f"time limit reached; 2 of 6 epochs are saved. Resume with: {command}\n")
    said = run(search.main, "--out", out, "--resume")
    assert said.code == 0
    assert f"fingerprint {fingerprint}" in said.out
    assert "agrees" in run(report.main, out, "--verify-fingerprint").out


def test_a_finished_run_resumed_prints_its_result(run_dir: Path, fingerprint: str) -> None:
    before = contents(run_dir)
    said = run(search.main, "--out", run_dir, "--resume")
    assert (said.code, said.err) == (0, "")
    assert said.out.startswith("genotype")
    assert f"fingerprint {fingerprint}" in said.out
    assert json.loads(run(search.main, "--out", run_dir, "--resume", "--json").out)["fingerprint"] == fingerprint
    assert contents(run_dir) == before


def test_a_run_without_a_checkpoint_yet_starts_from_epoch_0(run_dir: Path, fingerprint: str) -> None:
    for path in run_dir.iterdir():
        if path.name not in FIRST_FILES:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    said = run(search.main, "--out", run_dir, "--resume")
    assert (said.code, said.err) == (0, "")
    assert f"fingerprint {fingerprint}" in said.out
    assert json.loads((run_dir / "log.jsonl").read_text().splitlines()[0])["epoch"] == 0


def test_only_execution_may_change_when_a_run_goes_on(run_dir: Path, fingerprint: str) -> None:
    (run_dir / "result.json").unlink()
    said = run(search.main, "--out", run_dir, "--resume", *options("execution.workers=3", "execution.max_crashes=1"))
    assert said.code == 0
    assert f"fingerprint {fingerprint}" in said.out


def test_overlapped_checkpoints_are_at_most_one_epoch_old_when_killed_and_end_with_the_same_bits(
    tmp_path: Path, fingerprint: str
) -> None:
    out, words = tmp_path / "run", [*LOCAL, *options("execution.overlap_checkpoints=true")]
    process = subprocess.Popen([*SEARCH, *words, "--out", str(out)], env=ENVIRONMENT, stderr=subprocess.DEVNULL)
    try:
        logged, end = 0, time.monotonic() + 120
        while logged < 3 and process.poll() is None and time.monotonic() < end:
            time.sleep(0.01)
            lines = (out / "log.jsonl").read_text().splitlines() if (out / "log.jsonl").exists() else []
            logged = sum('"epoch_s"' in line for line in lines)
    finally:
        process.kill()
        process.wait()
    assert logged >= 3
    assert newest_epoch(Folder.open(str(out / "checkpoints"))) >= logged - 1
    said = run(search.main, "--out", out, "--resume")  # it may warn of the checkpoint that was being written
    assert said.code == 0
    assert f"fingerprint {fingerprint}" in said.out


# --- own data, and Ray ---


@pytest.fixture
def photos(test_data: Path, tmp_path: Path) -> Path:
    """16 CIFAR-10 images of each of three classes, one folder per class, of several sizes and formats."""
    table = pq.ParquetFile(test_data / "cifar10-small" / "train-00000-of-00001.parquet").read(use_threads=False)
    kept = {0: "airplane", 3: "cat", 8: "ship"}
    sizes = [(32, 32), (48, 40), (40, 64)]
    numbers = dict.fromkeys(kept, 0)
    for row in table.to_pylist():
        label = row["label"]
        if label not in kept or numbers[label] == 16:
            continue
        number = numbers[label] = numbers[label] + 1
        folder = tmp_path / "photos" / kept[label]
        folder.mkdir(parents=True, exist_ok=True)
        image = Image.open(io.BytesIO(row["image"]["bytes"])).resize(sizes[number % 3])
        image.save(folder / f"{number}.{('jpg', 'png')[number % 2]}")
    return tmp_path / "photos"


def test_own_images_of_several_sizes_take_one_command(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = [*LOCAL, *options("data.name=folder", "data.path=photos", "data.image_size=32", "data.train_limit=24")]
    said = run(check.main, *words)
    assert (said.code, said.err) == (0, "")
    assert "24 training and 24 validation examples of 3x32x32, 3 outputs" in said.out
    said = run(search.main, *words)
    assert (said.code, said.err) == (0, "")
    assert "(3 cells, 4 channels, 32 px, 3 classes, cifar stem)" in said.out
    result = json.loads((tmp_path / "runs" / "cell-folder-s0" / "result.json").read_text())
    assert result["target"]["input_channels"] == 3
    assert "agrees" in run(report.main, "runs/cell-folder-s0", "--verify-fingerprint").out


@pytest.mark.ray
def test_a_cache_of_images_changes_no_fingerprint(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ray_cluster: None
) -> None:
    monkeypatch.chdir(tmp_path)
    keys = options(
        "data.name=folder", "data.path=photos", "data.image_size=32", "data.train_limit=24", "data.channels=3"
    )
    on_ray = options(*TINY, "execution.workers=2")
    cached = options("data.cache=cache")
    found = {}
    for name, words in {
        "plain": LOCAL,
        "cold": [*on_ray, *cached],
        "warm": [*LOCAL, *cached],
    }.items():
        said = run(search.main, *words, *keys, "--out", name)
        assert said.code == 0, said.err
        assert ("once, by Ray tasks" in said.err) == (name == "cold"), said.err
        result = json.loads((tmp_path / name / "result.json").read_text())
        environment = json.loads((tmp_path / name / "environment.json").read_text())
        found[name] = (result["fingerprint"], environment["data_digest"])
    assert len(set(found.values())) == 1, found

    said = run(search.main, "--resume", *options("data.cache=null"), "--out", "warm")
    assert said.code == 0, "where images are cached may change"


@pytest.mark.slow
@pytest.mark.ray
def test_the_command_of_the_readme_searches_on_a_cluster_of_its_own(tmp_path: Path, fingerprint: str) -> None:
    words = [sys.executable, "-m", "ddpnas_ray.search", *options(*TINY), "--out", "run"]
    done = subprocess.run(words, cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    starting, first, warning, *lines = done.stdout.splitlines()
    assert starting == "starting Ray on this machine to train and score architectures ..."
    assert first.startswith("run: ")
    assert "worker" in first
    assert warning.startswith("warning: training makes 2 steps per epoch")
    assert any("/6 epochs, round " in line for line in lines)
    assert "\x1b" not in done.stdout
    assert f"\nfingerprint {fingerprint}\nrun directory run\n" in done.stdout
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == sorted(FILES)
