"""Finals as Ray tasks give the result of one process, whatever happens to the tasks' processes and the command."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from ddpnas_ray import generate, search
from ddpnas_ray.core.errors import WorkerLostError
from ddpnas_ray.distributed import ray_finals
from ddpnas_ray.finals.finals import Finals
from tests.commands import ENVIRONMENT, LOCAL, options, run

FINALS = ["--finals", "4", *options("finals.epochs=3", "retraining.batch_size=32", "retraining.lr=0.1")]
epoch = ray_finals._epoch


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("searched") / "run"
    assert run(search.main, *LOCAL, "--out", out).code == 0
    return out


@pytest.fixture(scope="module")
def here(searched: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The result of one process."""
    out = Path(shutil.copytree(searched, tmp_path_factory.mktemp("here") / "run"))
    assert run(generate.main, out, *FINALS).code == 0
    return result_of(out)


@pytest.fixture
def out(searched: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(searched, tmp_path / "run"))


def result_of(run_: Path) -> dict[str, Any]:
    result: dict[str, Any] = json.loads((run_ / "finals" / "unbounded" / "result.json").read_text())
    del result["seconds"]
    return result


def _die_once(finals: Finals, i: int, *rest: Any) -> Any:
    """The body of a task whose process dies in an epoch of one network, unless it did before."""
    flag = Path(finals.trainings[0].run["folder"]) / "died"
    if i == 1 and not flag.exists():
        flag.write_text("")
        os.kill(os.getpid(), signal.SIGKILL)
    return epoch(finals, i, *rest)


def _lose_the_gpu_once(finals: Finals, i: int, *rest: Any) -> Any:
    """The body of a task whose GPU fails in one epoch, unless it did before."""
    flag = Path(finals.trainings[0].run["folder"]) / "lost"
    if i == 1 and not flag.exists():
        flag.write_text(str(os.getpid()))

        def failing(*_: Any) -> Any:
            raise RuntimeError("CUDA error: an illegal memory access was encountered")

        with mock.patch.object(Finals, "train", failing):
            return epoch(finals, i, *rest)
    return epoch(finals, i, *rest)


def _noting(finals: Finals, i: int, *rest: Any) -> Any:
    """The body of a task that notes when it ran."""
    begin, found = time.time(), epoch(finals, i, *rest)
    with open(Path(finals.trainings[0].run["folder"]) / "times", "a") as file:
        file.write(f"{begin} {time.time()}\n")
    return found


def _always_die(*rest: Any) -> Any:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
def test_a_lost_task_is_repeated_and_the_result_is_that_of_one_process(
    out: Path, here: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_finals, "_epoch", _die_once)
    said = run(generate.main, out, *FINALS, "--backend", "ray")
    assert said.code == 0, said.err
    assert (out / "died").exists()
    assert result_of(out) == here


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
def test_a_lost_gpu_ends_the_process_and_the_task_is_repeated(
    out: Path, here: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_finals, "_epoch", _lose_the_gpu_once)
    said = run(generate.main, out, *FINALS, "--backend", "ray")
    assert said.code == 0, said.err
    assert not Path(f"/proc/{(out / 'lost').read_text()}").exists()
    assert result_of(out) == here


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
def test_one_worker_trains_one_network_at_a_time(
    out: Path, here: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_finals, "_epoch", _noting)
    said = run(generate.main, out, *FINALS, "--backend", "ray", *options("execution.workers=1"))
    assert said.code == 0, said.err
    assert result_of(out) == here
    rows = sorted(line.split() for line in (out / "times").read_text().splitlines())
    assert len(rows) == here["training_epochs"]
    assert all(float(before[1]) <= float(after[0]) for before, after in pairwise(rows))


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
def test_tasks_that_keep_dying_end_it_and_what_is_saved_stays(
    out: Path, here: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(ray_finals, "_epoch", _always_die)
        patched.setattr(ray_finals, "RETRIES", 1)
        said = run(generate.main, out, *FINALS, "--backend", "ray")
    assert said.code == 1 and WorkerLostError.__name__ in said.err
    assert "a task's process kept dying; check its node's memory" in said.err
    assert run(generate.main, out, *FINALS, "--backend", "ray").code == 0
    assert result_of(out) == here


@pytest.fixture
def command(out: Path) -> Iterator[list[str]]:
    code = "import sys; from ddpnas_ray.generate import main; sys.exit(main())"
    yield [sys.executable, "-c", code, str(out), *FINALS, "--backend", "ray"]


@pytest.mark.slow
def test_the_whole_command_killed_and_repeated_ends_as_if_never_killed(
    out: Path, here: dict[str, Any], command: list[str]
) -> None:
    log = out / "finals" / "unbounded" / "log.jsonl"
    process = subprocess.Popen(command, env=ENVIRONMENT, start_new_session=True, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not (log.exists() and log.read_text().count('"epoch"') >= 3) and time.monotonic() < deadline:
        assert process.poll() is None
        time.sleep(0.05)
    assert log.read_text().count('"epoch"') >= 3, "it is killed in the middle"
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not (out / "finals" / "unbounded" / "result.json").exists()
    again = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr
    assert result_of(out) == here
