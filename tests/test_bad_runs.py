"""Run directories, checkpoints, clusters and disks that a command cannot use: one line on stderr.

What is left of interrupted, damaged and half-written runs must be enough to resume.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ddpnas_ray import check, report, search, sweep
from ddpnas_ray.runs.sealed import newest_epoch
from ddpnas_ray.storage.folder import Folder
from tests.commands import ENVIRONMENT, LOCAL, ONE_EPOCH, SEARCH, Command, Refused, options, run
from tests.conftest import TINY
from tests.data.making import write_folder

# --- where the run goes ---


@pytest.mark.parametrize(
    ("name", "hint"),
    [("config.yaml", "add --resume to resume that run, or choose another --out"), ("thesis.tex", "choose another")],
)
def test_existing_files_are_not_touched(refused: Refused, tmp_path: Path, name: str, hint: str) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / name).write_text("mine")
    refused(search.main, [*LOCAL, "--out", "run"], f"run: exists and is not empty (1 entries, such as {name})", hint)


@pytest.mark.parametrize(
    ("out", "fragments"),
    [
        ("file", ["file: is a file; --out needs a new folder"]),
        ("file/run", ["file/run: ", "choose another --out"]),
        ("/proc/x/run", ["/proc/x/run: cannot be written", "choose another --out"]),
        ("/sys/run", ["/sys/run: cannot be written", "choose another --out"]),
        ("ftp://host/run", ["ftp://host/run: ", "give a local path or a URI such as s3://bucket/run"]),
        ("locked/run", ["locked/run: cannot be written: Permission denied", "or correct its permissions"]),
    ],
)
def test_a_run_directory_that_cannot_be_made(refused: Refused, tmp_path: Path, out: str, fragments: list[str]) -> None:
    if out == "locked/run" and os.geteuid() == 0:
        pytest.skip("root may write everywhere; run this test as another user")
    (tmp_path / "file").write_text("mine")
    (tmp_path / "locked").mkdir(0o555)
    refused(search.main, [*LOCAL, "--out", out], *fragments)


# --- machine and cluster ---


@pytest.mark.parametrize("command", [search.main, check.main])
def test_gpus_that_this_machine_does_not_have(
    refused: Refused, monkeypatch: pytest.MonkeyPatch, command: Command
) -> None:
    import torch

    def capability(where: str) -> None:
        raise RuntimeError("Found no NVIDIA driver on your system.")

    monkeypatch.setattr(torch.cuda, "get_device_capability", capability)
    words = [*LOCAL, *options("execution.gpus_per_worker=1")]
    refused(command, words, "the GPU cannot be used by PyTorch", "no NVIDIA driver", "set execution.gpus_per_worker=0")


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
def test_gpus_and_cpus_that_the_cluster_does_not_have(refused: Refused, monkeypatch: pytest.MonkeyPatch) -> None:
    from ddpnas_ray.console import ray_connect

    monkeypatch.setattr(ray_connect, "connected", lambda *_: nullcontext(""))  # the session's cluster
    for key in ("gpus_per_worker", "cpus_per_worker"):
        words = [*options(*TINY, f"execution.{key}=64"), "--out", "run"]
        refused(search.main, words, "one worker needs ", "64", "the cluster has 4 CPU", f"execution.{key}")


@pytest.mark.parametrize("by", ["option", "variable"])
def test_an_address_where_no_cluster_is(refused: Refused, monkeypatch: pytest.MonkeyPatch, by: str) -> None:
    with socket.socket() as taken:  # bound, but not listening
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        if by == "variable":
            monkeypatch.setenv("RAY_ADDRESS", address)
            monkeypatch.setattr("ddpnas_ray.console.cluster.is_connected", lambda: False)  # to the session's cluster
        words = options(*TINY) + (["--address", address] if by == "option" else [])
        start = time.monotonic()
        refused(search.main, words, f"{address}: no Ray cluster answers", "without --address and RAY_ADDRESS")
        assert time.monotonic() - start < 10


def test_the_client_port_is_for_looking(refused: Refused) -> None:
    words = [*options(*TINY), "--address", "ray://127.0.0.1:10001"]
    refused(search.main, words, "ray://127.0.0.1:10001: a search runs inside its cluster", "ray job submit")
    refused(sweep.main, [*words, "--grid", "pruning.gamma=0.5"], "a search runs inside its cluster")


@pytest.mark.parametrize("address", ["127.0.0.1:99999", "no host:1"])
def test_an_address_that_is_none(refused: Refused, address: str) -> None:
    refused(search.main, [*options(*TINY), "--address", address], f"{address}: no Ray cluster answers")


# --- runs that were started ---


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run."""
    out = tmp_path_factory.mktemp("finished") / "run"
    assert run(search.main, *LOCAL, "--out", out).code == 0
    return out


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run stopped after three of six epochs."""
    out = tmp_path_factory.mktemp("stopped") / "run"
    assert run(search.main, *LOCAL, "--out", out, *ONE_EPOCH).code == 0
    for _ in range(2):
        assert run(search.main, "--out", out, "--resume", *ONE_EPOCH).code == 0
    return out


@pytest.fixture(scope="module")
def fingerprint(finished: Path) -> str:
    return str(json.loads((finished / "result.json").read_text())["fingerprint"])


def copied(run_dir: Path, to: Path) -> Path:
    return Path(shutil.copytree(run_dir, to / "run"))


def test_what_is_no_run(refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    refused(search.main, ["--resume"], "--resume needs the run directory; give it with --out")
    for name in ("absent", "empty", "file"):
        for command, words in ((search.main, ["--resume", "--out", name]), (report.main, [name])):
            refused(
                command, words, f"{name}: is not a run directory (no config.yaml in it)", "give the --out of a search"
            )


@pytest.mark.parametrize(
    ("more", "fragments"),
    [
        (
            options("pruning.gamma=0.8", "seed=1"),
            ["other values of pruning.gamma, seed; only execution.*, finals.*, retraining.*"],
        ),
        (options("space.nodes=3"), ["other values of space.nodes"]),
        (options("data.val_limit=32"), ["other values of data.val_limit", "start a new run with another --out"]),
        (["--config", "other.yaml"], ["other values of ", "training.batch_size", "omit them"]),
        (
            options("pruning.gama=0.8"),
            ["--set pruning.gama=0.8: pruning.gama is not a key; did you mean pruning.gamma?"],
        ),
        (options("seed=one"), ["--set seed=one: seed is 'one'", "valid integer"]),
    ],
)
def test_a_run_does_not_resume_with_another_configuration(
    refused: Refused, stopped: Path, tmp_path: Path, more: list[str], fragments: list[str]
) -> None:
    copied(stopped, tmp_path)
    (tmp_path / "other.yaml").write_text("training: {batch_size: 16}")
    refused(search.main, ["--out", "run", "--resume", *more], *fragments)


def test_a_run_goes_on_with_its_own_data_only_wherever_they_are(refused: Refused, tmp_path: Path) -> None:
    write_folder(tmp_path / "photos", {"cat": 8, "dog": 8})
    write_folder(tmp_path / "others", {"cat": 8, "dog": 8}, seed=1)
    words = [*LOCAL, *options("data.name=folder", "data.path=photos"), "--out", "run"]
    assert run(search.main, *words, *ONE_EPOCH).code == 0
    hint = "point data.path, evaluation.table or a path of the task to the original data, or start a new run with"
    resume = ["--out", "run", "--resume"]
    refused(search.main, [*resume, *options("data.path=others")], "run: the data differ from those of the run", hint)
    (tmp_path / "photos").rename(tmp_path / "moved")
    refused(search.main, resume, "photos: no such folder; set data.path")
    said = run(search.main, *resume, *options("data.path=moved"))
    assert (said.code, said.err) == (0, "")
    assert "agrees" in run(report.main, "run", "--verify-fingerprint").out


@pytest.mark.parametrize("name", ["config.yaml", "environment.json"])
@pytest.mark.parametrize("content", [b"\xff", b"{", b"[]", None])
def test_a_run_whose_first_files_are_damaged(
    refused: Refused, stopped: Path, tmp_path: Path, name: str, content: bytes | None
) -> None:
    path = copied(stopped, tmp_path) / name
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)
    refused(search.main, ["--out", "run", "--resume"], "run", name)


HOLDER = """
import sys
from ddpnas_ray.runs.lock import locked
from ddpnas_ray.storage.folder import Folder
with locked(Folder.open(sys.argv[1])):
    print("locked", flush=True)
    sys.stdin.read()
"""


@contextmanager
def another_process_holding(run_dir: Path) -> Iterator[int]:
    words = [sys.executable, "-c", HOLDER, str(run_dir)]
    with subprocess.Popen(words, env=ENVIRONMENT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "locked\n"
        yield process.pid


def test_a_run_that_another_process_writes_to(
    refused: Refused, stopped: Path, tmp_path: Path, fingerprint: str
) -> None:
    with another_process_holding(copied(stopped, tmp_path)) as pid:
        refused(search.main, ["--out", "run", "--resume"], f"run: process {pid} on ", "wait for it, or end it")
    assert f"fingerprint {fingerprint}" in run(search.main, "--out", "run", "--resume").out


# --- damaged checkpoints ---


def truncate(checkpoint: Path) -> None:
    path = checkpoint / "arrays.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def flip_a_bit(checkpoint: Path) -> None:
    path = checkpoint / "evaluations.parquet"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def not_sealed(checkpoint: Path) -> None:
    (checkpoint / "DONE").unlink()


def half_there(checkpoint: Path) -> None:
    (checkpoint / "state.json").unlink()


@pytest.mark.parametrize("damage", [truncate, flip_a_bit, not_sealed, half_there])
def test_a_damaged_checkpoint_falls_back_to_the_one_before(
    stopped: Path, tmp_path: Path, fingerprint: str, damage: Callable[[Path], None]
) -> None:
    out = copied(stopped, tmp_path)
    damage(out / "checkpoints" / "ckpt-3")
    said = run(search.main, "--out", out, "--resume")
    assert said.code == 0
    assert said.err.count("\n") == 1
    assert f"{out}/checkpoints/ckpt-3 is damaged (" in said.err
    assert "falling back to the previous one" in said.err
    assert json.loads((out / "log.jsonl").read_text().splitlines()[-6])["epoch"] == 2, "it resumed from epoch 2"
    assert f"fingerprint {fingerprint}" in said.out
    assert "agrees" in run(report.main, out, "--verify-fingerprint").out


def test_when_all_checkpoints_are_damaged_it_starts_over(stopped: Path, tmp_path: Path, fingerprint: str) -> None:
    out = copied(stopped, tmp_path)
    for checkpoint in (out / "checkpoints").iterdir():
        truncate(checkpoint)
    said = run(search.main, "--out", out, "--resume")
    assert said.code == 0
    assert all(f"ckpt-{epoch} is damaged (" in said.err for epoch in (1, 2, 3))
    assert f"fingerprint {fingerprint}" in said.out
    assert sorted(path.name for path in (out / "checkpoints").iterdir()) == ["ckpt-4", "ckpt-5", "ckpt-6"]


# --- reports ---


@pytest.mark.parametrize("words", [["run"], ["run", "--verify-fingerprint"], ["run", "--json"]])
def test_a_run_that_has_not_finished(refused: Refused, stopped: Path, tmp_path: Path, words: list[str]) -> None:
    copied(stopped, tmp_path)
    refused(report.main, words, "run: the run has not finished", "python -m ddpnas_ray.search --out run --resume")


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00", b"{}", b"[]", b"3", b'{"genotype": {"nor'])
def test_a_damaged_result_can_be_written_again(
    refused: Refused, finished: Path, tmp_path: Path, fingerprint: str, content: bytes
) -> None:
    path = copied(finished, tmp_path) / "result.json"
    path.write_bytes(content)
    for command, words in (
        (report.main, ["run"]),
        (report.main, ["run", "--verify-fingerprint"]),
        (search.main, ["--out", "run", "--resume"]),
    ):
        refused(command, words, "run: result.json ", "delete result.json, and --resume rewrites it")
    path.unlink()
    assert f"fingerprint {fingerprint}" in run(search.main, "--out", "run", "--resume").out


@pytest.mark.parametrize("name", ["weights.safetensors", "theta.parquet", "evaluations.parquet", "space.json"])
@pytest.mark.parametrize("how", ["missing", "truncated", "empty", "another"])
def test_a_file_that_the_fingerprint_needs(
    refused: Refused, finished: Path, tmp_path: Path, name: str, how: str
) -> None:
    path = copied(finished, tmp_path) / name
    data = path.read_bytes()
    path.unlink()
    if how == "another":
        tables = ["theta.parquet", "evaluations.parquet"]
        other = tables[1 - tables.index(name)] if name in tables else "environment.json"
        shutil.copy(path.with_name(other), path)
    elif how != "missing":
        path.write_bytes(data[: len(data) // 2] if how == "truncated" else b"")
    hint = "restore it from a backup" if name == "space.json" else "delete result.json, and --resume rewrites it"
    refused(report.main, ["run", "--verify-fingerprint"], f"run: {name} cannot be read: ", hint)


def test_a_tampered_evaluation_is_found(refused: Refused, finished: Path, tmp_path: Path, fingerprint: str) -> None:
    path = copied(finished, tmp_path) / "evaluations.parquet"
    table = pq.ParquetFile(path).read(use_threads=False)
    scores = table["score"].to_pylist()
    scores[5] += 0.01
    pq.write_table(table.set_column(table.schema.get_field_index("score"), "score", pa.array(scores)), path)
    words = ["run", "--verify-fingerprint"]
    refused(report.main, words, f"run: result.json says {fingerprint}, the files give ", code=1)


# --- disks that fill up, and Ctrl-C ---


def test_files_that_may_not_grow_leave_what_was_saved(finished: Path, tmp_path: Path, fingerprint: str) -> None:
    limit = (finished / "checkpoints" / "ckpt-4" / "arrays.safetensors").stat().st_size  # the fifth is larger
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        said = run(search.main, *LOCAL, "--out", tmp_path / "run")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (said.code, said.err.count("\n")) == (2, 1)
    assert "ckpt-5: File too large; earlier files are intact; free some space, then --resume" in said.err
    said = run(search.main, "--out", tmp_path / "run", "--resume")
    assert said.code == 0
    assert f"fingerprint {fingerprint}" in said.out


FULL_DISK = """
import contextlib, io, json, os, subprocess, sys
from ddpnas_ray import search

disk, *options = sys.argv[1:]
out = disk + "/run"

def mount(*words):
    subprocess.run(["mount", *words, "tmpfs", disk], check=True)

def tell(*words):
    printed, errors = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(errors):
        code = search.main(["--out", out, *words])
    print(json.dumps([code, printed.getvalue(), errors.getvalue(), os.listdir(disk)]))

mount("-t", "tmpfs", "-o", "size=8k")
tell(*options)
mount("-o", "remount,ro")
tell(*options)
mount("-o", "remount,rw,size=200k")
tell(*options)
mount("-o", "remount,ro")
tell("--resume")
mount("-o", "remount,rw,size=20m")
tell("--resume")
"""


def epoch_of(printed: str) -> int:
    """Return the epoch at which a search began, by its first line of progress."""
    return int(printed.partition("/")[0])


@pytest.mark.slow
def test_a_full_disk_leaves_nothing_or_what_was_saved(tmp_path: Path, fingerprint: str) -> None:
    apart = ["unshare", "--mount", *(() if os.geteuid() == 0 else ("--user", "--map-root-user"))]
    try:
        subprocess.run([*apart, "mount", "-t", "tmpfs", "tmpfs", tmp_path], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no small file system can be mounted here; run as root, or allow user namespaces: {error}")
    words = [*apart, sys.executable, "-c", FULL_DISK, str(tmp_path), *LOCAL]
    done = subprocess.run(words, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    too_small, read_only, fills_up, stays_closed, grown = (json.loads(line) for line in done.stdout.splitlines())
    for code, printed, errors, there in (too_small, read_only):
        assert (code, printed, there) == (2, "", [])
        assert errors.count("\n") == 1
        assert f"{tmp_path}/run: " in errors
    assert "No space left on device" in too_small[2]
    assert "Read-only file system; choose another --out" in read_only[2]
    assert (fills_up[0], fills_up[2].count("\n")) == (2, 1)
    assert "earlier files are intact; free some space, then --resume" in fills_up[2]
    assert stays_closed[0] == 2
    assert "Read-only file system" in stays_closed[2]
    assert grown[0] == 0
    assert epoch_of(grown[1]) >= 1, "it resumed from a checkpoint"
    assert f"fingerprint {fingerprint}" in grown[1]


@pytest.mark.slow
def test_ctrl_c_saves_finished_epochs_and_says_how_to_go_on(tmp_path: Path) -> None:
    slower = [*LOCAL, *options("pruning.epochs_per_round=2")]
    out, log = tmp_path / "run", tmp_path / "run" / "log.jsonl"
    words = [*SEARCH, *slower, "--out", str(out)]
    with subprocess.Popen(words, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 120
        while not log.exists() or '"event": "epoch"' not in log.read_text():
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors.count("\n") == 1
    assert errors.startswith("interrupted; ")
    assert errors.endswith(f" saved. Resume with: python -m ddpnas_ray.search --out {out} --resume\n")
    assert 1 <= newest_epoch(Folder.open(str(out / "checkpoints"))) < 12
    assert not (out / "LOCK").exists()
    said = run(search.main, "--out", out, "--resume")
    assert said.code == 0
    undisturbed = run(search.main, *slower, "--out", tmp_path / "undisturbed", "--json")
    assert f"fingerprint {json.loads(undisturbed.out)['fingerprint']}" in said.out
