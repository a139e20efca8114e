"""Attach to a search or training of another process: where it is found, what is shown, how its end is reported."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest
from pyarrow import fs

from ddpnas_ray import attach, report, search
from ddpnas_ray.core.errors import DriverGoneError, ResourceError
from ddpnas_ray.runs.lock import Lock, locked
from ddpnas_ray.runs.log import append_log, read_log
from ddpnas_ray.storage.folder import Folder
from tests.commands import ENVIRONMENT, LOCAL, ONE_EPOCH, SEARCH, Said, contents, options, run
from tests.conftest import TINY
from tests.reporting.retrainings import KEYS as TRAINING
from tests.reporting.retrainings import retrained
from tests.reporting.retrainings import stopped as killed

ATTACH = [word.replace("ddpnas_ray.search", "ddpnas_ray.attach") for word in SEARCH]


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with one of six epochs saved."""
    out = tmp_path_factory.mktemp("stopped") / "run"
    assert run(search.main, *LOCAL, *ONE_EPOCH, "--out", out).code == 0
    return out


@pytest.fixture(scope="module")
def finished(stopped: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("finished") / "run"
    shutil.copytree(stopped, out)
    assert run(search.main, "--out", out, "--resume").code == 0
    return out


@pytest.fixture
def out(stopped: Path, tmp_path: Path) -> Path:
    shutil.copytree(stopped, tmp_path / "run")
    return tmp_path / "run"


def attached_while(
    out: Path, search_does: Callable[[Folder, Lock], None], follow: Path | None = None, *, wait_s: float = 1.5
) -> Said:
    """Return the output of attach to ``follow`` (default: ``out``) while another thread holds the lock and acts."""
    folder, held = Folder.open(str(out)), threading.Event()

    def hold() -> None:
        with locked(folder) as lock:
            append_log(folder, "start", epoch=1, pid=1)
            held.set()
            time.sleep(wait_s)
            search_does(folder, lock)

    searching = threading.Thread(target=hold)
    searching.start()
    held.wait(10)
    said = run(attach.main, follow or out)
    searching.join()
    return said


def test_of_a_finished_run_it_prints_the_result_at_once(finished: Path) -> None:
    said = run(attach.main, finished)
    assert (said.code, said.err) == (0, "")
    fingerprint = json.loads((finished / "result.json").read_bytes())["fingerprint"]
    assert said.out.startswith("genotype (E[alpha] ") and f"fingerprint {fingerprint}" in said.out


def test_a_run_without_a_search_names_its_epochs_and_how_to_resume(out: Path) -> None:
    (out / "LOCK").write_text(json.dumps({"host": socket.gethostname(), "pid": os.getpid(), "start": "then"}))
    before = contents(out)
    said = run(attach.main, out)
    assert (said.code, said.out, said.err.count("\n")) == (2, "", 1)
    assert said.err.startswith(
        f"RunDirError: {out}: no search is running there; 1 of 6 epochs are saved. Resume with: "
    )
    assert said.err.endswith(f"search --out {out} --resume\n")
    assert contents(out) == before, "the file of a dead process counts for nothing, and looking changes nothing"


def test_no_run_directory_takes_one_line(tmp_path: Path) -> None:
    said = run(attach.main, tmp_path / "nothing")
    assert (said.code, said.out, said.err.count("\n")) == (2, "", 1)
    assert "is not a run directory" in said.err


def test_a_search_in_process_is_followed_by_its_log_to_its_result(out: Path, finished: Path) -> None:
    def finish(folder: Folder, lock: Lock) -> None:
        folder.write("result.json", (finished / "result.json").read_bytes())
        time.sleep(0.5)

    said = attached_while(out, finish)
    assert said.code == 0
    assert f"following log.jsonl of process {os.getpid()} on " in said.err and "it uses no Ray cluster" in said.err
    assert said.out.startswith("1/6 epochs, round 2/6: 8/33 architecture-epochs, ")
    assert "\nfingerprint " in said.out


@pytest.mark.slow
def test_where_the_cluster_cannot_be_reached_the_log_is_followed(out: Path) -> None:
    def move(folder: Folder, lock: Lock) -> None:
        lock.add(address="127.0.0.1:1", driver="ddpnas-x")
        time.sleep(2)

    said = attached_while(out, move)
    assert said.code == 1
    assert "127.0.0.1:1: no Ray cluster answers" in said.err.splitlines()[1]
    other = {"host": "another", "address": "127.0.0.1:6379", "driver": "ddpnas-x"}
    with pytest.raises(ResourceError, match="can only be reached on another"):
        attach._address(other)


@pytest.mark.parametrize(
    ("event", "facts", "code", "says"),
    [
        ("failed", {"error": "no worker\ncame back"}, 1, "without a result (it failed: no worker came back); 1 of 6"),
        ("epoch", {"phase": "starting", "note": ""}, 1, "without a result (Ctrl-C, a kill or a lost machine); "),
        ("stopped", {"epoch": 1}, 0, "time limit reached; 1 of 6 epochs are saved. Resume with: "),
    ],
)
def test_how_a_search_without_a_result_ended(
    out: Path, event: str, facts: dict[str, object], code: int, says: str
) -> None:
    said = attached_while(out, lambda folder, lock: append_log(folder, event, **{"epochs": 6} | facts))
    assert said.code == code
    assert says in said.err.splitlines()[-1]
    assert said.err.endswith(f"search --out {out} --resume\n")


def test_a_driver_that_is_gone_from_its_cluster_ends_it_where_no_lock_can_tell(
    out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Folder(fs.SubTreeFileSystem(str(out), fs.LocalFileSystem()), "", "store://bucket/run")
    monkeypatch.setattr(Folder, "open", lambda uri: store)
    monkeypatch.setattr(attach, "STORE_S", 0.1)
    append_log(Folder.open(""), "start", epoch=1)
    (out / "LOCK").write_text('{"host": "another", "pid": 1, "start": "then", "address": "a:1", "driver": "ddpnas-x"}')

    def gone(*_: object) -> None:
        raise DriverGoneError("gone")

    monkeypatch.setattr(attach, "_source", gone)
    said = run(attach.main, "store://bucket/run")
    assert (said.code, said.err.count("\n")) == (1, 1), said.err
    assert "its driver is gone, but LOCK still names process 1 on another (since then): remove LOCK" in said.err


def test_an_error_of_a_search_is_kept_for_those_who_look(tmp_path: Path) -> None:
    words = [*LOCAL, *options("training.lr=1.0e+30", "training.grad_clip=0"), "--out", tmp_path / "run"]
    assert run(search.main, *words).code == 1
    events = read_log((tmp_path / "run" / "log.jsonl").read_bytes())
    assert [event["event"] for event in events] == ["start", "failed"] and "lower training.lr" in events[-1]["error"]


def test_a_driver_that_does_not_answer_is_waited_for_and_said_once(
    out: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Restarted:
        answers: ClassVar = iter([None, None, {"phase": "starting", "note": "from its checkpoint"}])

        def status(self) -> Mapping[str, Any] | None:
            return next(self.answers)

    class Shown:
        notes: ClassVar[list[str]] = []

        def show(self, snapshot: Mapping[str, Any]) -> None:
            self.notes.append(snapshot["note"])

    monkeypatch.setattr(attach, "_searching", lambda folder: None if len(Shown.notes) == 3 else {})
    monkeypatch.setattr(attach, "STORE_S", 0.0)
    store = Folder(fs.SubTreeFileSystem(str(out), fs.LocalFileSystem()), "", "store://bucket/run")
    attach._show(Restarted(), store, {}, Shown())  # type: ignore[arg-type]
    assert Shown.notes == ["the driver does not answer; waiting"] * 2 + ["from its checkpoint"]
    silent = "the driver does not answer: it is starting, or restarting after a crash; waiting\n"
    assert capsys.readouterr().err == silent


# --- trainings ---


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return retrained(tmp_path_factory.mktemp("trained") / "trained")


@pytest.fixture
def training(trained: Path, tmp_path: Path) -> Path:
    """A training with one of two epochs saved."""
    return killed(shutil.copytree(trained, tmp_path / "trained"), epochs=1)


def test_of_a_finished_training_it_prints_the_result_at_once(trained: Path) -> None:
    said = run(attach.main, trained)
    assert (said.code, said.err) == (0, "")
    assert said.out.startswith("network darts_v2 (") and "test accuracy 0." in said.out


def test_a_training_that_does_not_run_names_its_epochs_and_how_to_resume(training: Path) -> None:
    before = contents(training)
    said = run(attach.main, training)
    assert (said.code, said.out) == (2, "")
    assert said.err == (
        f"RunDirError: {training}: no training is running there; 1 of 2 epochs are saved. Resume with: "
        f"python -m ddpnas_ray.retrain --out {training} --resume\n"
    )
    assert contents(training) == before


def test_the_training_below_a_finished_search_is_followed_by_its_log(
    training: Path, trained: Path, finished: Path, tmp_path: Path
) -> None:
    searched = shutil.copytree(finished, tmp_path / "searched")
    below = shutil.copytree(training, searched / "retrained" / "darts_v2")

    def finish(folder: Folder, lock: Lock) -> None:
        folder.write("result.json", (trained / "result.json").read_bytes())
        time.sleep(0.5)

    said = attached_while(below, finish, follow=searched, wait_s=0.3)
    assert said.code == 0
    assert said.err.startswith(f"{below}: following log.jsonl of process {os.getpid()} on ")
    first, second = said.out.splitlines()[:2]
    assert first.startswith("1/2 epochs, loss ") and ", val 0." in first and first.endswith(" left")
    assert second.startswith("network darts_v2 (")
    said = run(attach.main, searched)
    assert said.out.startswith("genotype (E[alpha] "), "no training runs any more: the search's result"


def test_how_a_training_without_a_result_ended(training: Path) -> None:
    said = attached_while(
        training, lambda folder, lock: append_log(folder, "failed", error="no worker\ncame back"), wait_s=0.3
    )
    assert said.code == 1
    ended = f"{training}: the training ended without a result (it failed: no worker came back); 1 of 2 epochs are saved"
    assert said.err.splitlines()[-1].startswith(ended)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_training_in_another_process_is_followed_to_its_result(tmp_path: Path) -> None:
    out = tmp_path / "trained"
    keys = [*TRAINING, "retraining.epochs=60", "data.train_limit=256"]
    first = start(
        [*SEARCH[:2], SEARCH[2].replace("search", "retrain")], "--network", "darts_v2", *options(*keys), "--out", out
    )
    wait_for(lambda: epochs_done(out) >= 1, first)
    second = start(ATTACH, out)
    assert second.stdout is not None
    assert "/60 epochs, loss " in second.stdout.readline()
    second.send_signal(signal.SIGINT)
    _, errors = second.communicate(timeout=60)
    assert second.returncode == 130
    assert f"detached; the training continues. Attach again with: python -m ddpnas_ray.attach {out}\n" in errors
    third = start(ATTACH, out)
    shown, errors = third.communicate(timeout=120)
    said, _ = first.communicate(timeout=60)
    assert (first.returncode, third.returncode) == (0, 0), errors
    assert ": following log.jsonl of process " in errors
    assert shown[shown.index("network darts_v2") :] == said[said.index("network darts_v2") :]


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(400)
def test_a_training_on_ray_is_followed_through_its_driver_and_its_death(finished: Path, tmp_path: Path) -> None:
    searched = shutil.copytree(finished, tmp_path / "run")
    out = searched / "retrained" / "result"
    keys = ["execution.backend=ray", "retraining.epochs=60", "retraining.batch_size=16", "retraining.workers=2"]
    environment = {key: value for key, value in ENVIRONMENT.items() if key != "RAY_ADDRESS"}
    command = [*SEARCH[:2], SEARCH[2].replace("search", "retrain")]
    first = start(command, searched, *options(*keys), environment=environment)
    wait_for(lambda: epochs_done(out) >= 1, first)
    second = start(ATTACH, searched, environment=environment)
    assert second.stdout is not None
    assert "/60 epochs, loss " in second.stdout.readline()
    driver = next(e for e in read_log((out / "log.jsonl").read_bytes()) if e["event"] == "driver")
    os.kill(driver["pid"], signal.SIGKILL)
    shown, errors = second.communicate(timeout=300)
    said, _ = first.communicate(timeout=60)
    assert (first.returncode, second.returncode) == (0, 0), errors
    assert f"{out}: attached to ddpnas-retraining-" in errors
    assert shown[shown.index("network result") :] == said[said.index("network result") :]
    page = run(report.main, out, "--html")
    assert page.code == 0 and "driver restarted by Ray" in (out / "report.html").read_text()


# --- searches on Ray ---


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(400)
def test_a_second_terminal_shows_the_search_of_the_first_through_the_death_of_its_driver(tmp_path: Path) -> None:
    out = tmp_path / "run"
    keys = [*TINY, "execution.workers=2", "data.train_limit=256", "data.val_limit=128", "pruning.epochs_per_round=6"]
    first = start(SEARCH, *options(*keys), "--out", out)
    wait_for(lambda: epochs_done(out) >= 1, first)
    second = start(ATTACH, out)
    assert second.stdout is not None
    assert " epochs, round " in second.stdout.readline()
    second.send_signal(signal.SIGINT)
    _, errors = second.communicate(timeout=60)
    assert second.returncode == 130
    assert ": attached to ddpnas-" in errors.splitlines()[0]
    assert f"detached; the search continues. Attach again with: python -m ddpnas_ray.attach {out}\n" in errors

    third = start(ATTACH, out)
    assert third.stdout is not None
    assert " epochs, round " in third.stdout.readline()
    os.kill(read_log((out / "log.jsonl").read_bytes())[0]["pid"], signal.SIGKILL)
    shown, errors = third.communicate(timeout=200)
    said, _ = first.communicate(timeout=60)
    assert (first.returncode, third.returncode) == (0, 0), errors
    starts = [event for event in read_log((out / "log.jsonl").read_bytes()) if event["event"] == "start"]
    assert len(starts) == 2, "the search continued"
    result = shown[shown.index("genotype") :]
    assert result == said[said.index("genotype") :]
    assert " epochs, round " in shown[: shown.index("genotype")]


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(400)
def test_with_token_authentication_which_ray_turns_on_by_itself(tmp_path: Path) -> None:
    out, home, other = tmp_path / "run", tmp_path / "home", tmp_path / "other"
    home.mkdir()
    other.mkdir()
    default = {key: value for key, value in ENVIRONMENT.items() if not key.startswith("RAY_AUTH")} | {"HOME": str(home)}
    words = options(*TINY, "execution.workers=1", "pruning.epochs_per_round=600")
    first = start(SEARCH, *words, "--out", out, environment=default)
    try:
        wait_for(lambda: epochs_done(out) >= 1, first)
        assert (home / ".ray" / "auth_token").is_file(), "Ray wrote a token: authentication is on"

        attached = start(ATTACH, out, environment=default)
        assert attached.stderr is not None
        assert ": attached to ddpnas-" in attached.stderr.readline()
        attached.send_signal(signal.SIGINT)
        attached.communicate(timeout=60)
        assert attached.returncode == 130

        for wrong in ({"HOME": str(other)}, {"RAY_AUTH_TOKEN": "0" * 64}):
            refused = start(ATTACH, out, environment=default | wrong)
            assert refused.stderr is not None
            line = refused.stderr.readline()
            assert "following log.jsonl" in line
            assert "which this process lacks: set RAY_AUTH_TOKEN to what `ray get-auth-token` prints where" in line
            refused.kill()
            refused.communicate()

        address = json.loads((out / "LOCK").read_bytes())["address"]
        new = ["--address", address, "--out", tmp_path / "new"]
        second = start(SEARCH, *words, *new, environment=default)
        said, errors = second.communicate(timeout=60)
        assert (second.returncode, errors.count("\n")) == (2, 1)
        assert said.startswith(f"connecting to Ray at {address} ")
        assert "the cluster asks for a token: set RAY_AUTH_MODE=token" in errors
        assert not (tmp_path / "new").exists()
    finally:
        first.send_signal(signal.SIGINT)
        said, _ = first.communicate(timeout=60)
    assert " (for its token: ray get-auth-token)\n" in said
    command = Path(sys.executable).with_name("ray")
    token = subprocess.run([command, "get-auth-token"], env=default, capture_output=True, text=True, check=True).stdout
    assert token == (home / ".ray" / "auth_token").read_text(encoding="utf-8")


def start(
    command: list[str], *words: str | Path, environment: Mapping[str, str] = ENVIRONMENT
) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*command, *map(str, words)], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def epochs_done(out: Path) -> int:
    log = out / "log.jsonl"
    return log.read_text(encoding="utf-8").count('"event": "epoch"') if log.exists() else 0


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str], timeout_s: float = 120.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.1)
