"""Locks of a run directory: one writer at a time."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ddpnas_ray.core.errors import RunDirError
from ddpnas_ray.runs.lock import locked
from ddpnas_ray.storage.folder import Folder
from tests.conftest import ROOT

HOLDER = """
import sys
from ddpnas_ray.runs.lock import locked
from ddpnas_ray.storage.folder import Folder
with locked(Folder.open(sys.argv[1])):
    print("locked", flush=True)
    sys.stdin.read()
"""


@contextmanager
def another_process_holding(folder: Path) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder)], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "locked\n"
            yield process
        finally:
            process.kill()


def test_a_second_process_is_refused_until_the_first_was_killed(tmp_path: Path) -> None:
    folder = Folder.open(str(tmp_path))
    with another_process_holding(tmp_path) as holder:
        for _ in range(2):
            with (
                pytest.raises(RunDirError, match=rf"process {holder.pid} on .* is writing to this run"),
                locked(folder),
            ):
                pytest.fail("locked twice")
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    assert folder.has("LOCK"), "the file of a killed process stays, and counts for nothing"
    with locked(folder):
        assert json.loads(folder.read("LOCK"))["pid"] == os.getpid()
    assert folder.names() == []


def test_a_process_that_ends_well_gives_the_lock_back(tmp_path: Path) -> None:
    with another_process_holding(tmp_path) as holder:
        holder.communicate()
        assert holder.returncode == 0
    assert not os.listdir(tmp_path)
    with locked(Folder.open(str(tmp_path))):
        pass


def test_an_error_gives_the_lock_back(tmp_path: Path) -> None:
    folder = Folder.open(str(tmp_path))
    with pytest.raises(RuntimeError, match="inside"), locked(folder):
        raise RuntimeError("inside")
    with locked(folder), pytest.raises(RunDirError), locked(folder):
        pytest.fail("locked twice")


def test_who_can_wait_gets_the_lock_when_it_is_free(tmp_path: Path) -> None:
    folder = Folder.open(str(tmp_path))
    free = threading.Event()

    def hold_a_while() -> None:
        with locked(folder):
            held.set()
            free.wait(10)

    held, thread = threading.Event(), threading.Thread(target=hold_a_while)
    thread.start()
    assert held.wait(10)
    with pytest.raises(RunDirError, match="is writing to this run"), locked(folder):
        pytest.fail("locked twice")
    threading.Timer(0.3, free.set).start()
    with locked(folder, wait_s=30.0):
        assert folder.has("LOCK")
    thread.join()


def test_the_lock_says_who_holds_it(tmp_path: Path) -> None:
    folder = Folder.open(str(tmp_path))
    with locked(folder):
        assert set(json.loads(folder.read("LOCK"))) == {"host", "pid", "start"}


def test_on_an_object_store_a_removed_lock_is_no_error(store: Folder) -> None:
    with locked(store):
        store.filesystem.delete_file(f"{store.path}/LOCK")
    assert not store.has("LOCK")


def test_on_an_object_store_a_lock_taken_by_another_process_is_left(store: Folder) -> None:
    with locked(store):
        store.write("LOCK", b'{"host": "elsewhere", "pid": 1, "start": "then"}')
    assert store.read("LOCK") == b'{"host": "elsewhere", "pid": 1, "start": "then"}'


def test_on_an_object_store_the_lock_is_a_file(store: Folder) -> None:
    with locked(store):
        with pytest.raises(RunDirError, match=f"process {os.getpid()} on"), locked(store):
            pytest.fail("locked twice")
        assert store.has("LOCK")
    assert not store.has("LOCK")


def test_on_an_object_store_the_lock_of_a_dead_process_is_taken_over(store: Folder) -> None:
    import socket

    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    store.write("LOCK", json.dumps({"host": socket.gethostname(), "pid": dead.pid, "start": "then"}).encode())
    with locked(store):
        assert json.loads(store.read("LOCK"))["pid"] == os.getpid()


@pytest.mark.parametrize(
    "content", [b'{"host": "elsewhere", "pid": 1, "start": "then"}', b"", b"damaged", b"[]", b"{}"]
)
def test_on_an_object_store_a_lock_of_who_knows_whom_is_respected(store: Folder, content: bytes) -> None:
    store.write("LOCK", content)
    with pytest.raises(RunDirError, match="remove LOCK if that process has ended"), locked(store):
        pytest.fail("locked twice")
    assert store.read("LOCK") == content
