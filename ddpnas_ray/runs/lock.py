"""The lock of a run directory: who is its only writer."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ddpnas_ray.core.errors import RunDirError
from ddpnas_ray.storage.folder import Folder, writing

LOOK_S = 0.2  # what looking at a lock takes at most


class Lock:
    """The lock of a run directory while it is held. What its file says is for those who look at the run."""

    def __init__(self, folder: Folder, descriptor: int | None) -> None:
        self._folder, self._descriptor = folder, descriptor
        self._facts: dict[str, Any] = {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "start": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        }

    def add(self, **facts: str) -> None:
        """Say more about who holds it. A reader finds the file before or after, never half of it."""
        self._facts |= facts
        content = json.dumps(self._facts).encode()
        if self._descriptor is None:
            self._folder.write("LOCK", content)
            return
        path = Path(self._folder.path) / "LOCK"
        temporary = path.with_name(f".LOCK.{os.getpid()}.tmp")
        with writing(self._folder.uri):
            descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o644)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)  # before it takes the place of the file that we hold
                os.write(descriptor, content)
                os.replace(temporary, path)
            except BaseException:
                temporary.unlink(missing_ok=True)
                os.close(descriptor)
                raise
        os.close(self._descriptor)
        self._descriptor = descriptor

    def release(self) -> None:
        """Give it back."""
        if self._descriptor is None:
            with suppress(FileNotFoundError):  # somebody has removed it, or it could not be written
                if _facts(self._folder.read("LOCK")) == self._facts:  # or has taken it
                    self._folder.filesystem.delete_file(f"{self._folder.path}/LOCK")
            return
        (Path(self._folder.path) / "LOCK").unlink(missing_ok=True)
        os.close(self._descriptor)


@contextmanager
def locked(folder: Folder, *, wait_s: float = LOOK_S) -> Iterator[Lock]:
    """Be the only writer. The operating system gives a local lock back when its process ends, however it ends.

    On an object store the lock is a file that names host and process; one left behind by a dead process of this host is
    taken over.

    Args:
        folder: The run directory.
        wait_s: How long another process of this host is given to end, of a local folder; a moment at least, since
            somebody may just be looking.

    Raises:
        RunDirError: Another process writes to the run.
    """
    if folder.is_local:
        with writing(folder.uri):
            lock = Lock(folder, _lock_file(Path(folder.path) / "LOCK", folder.uri, time.monotonic() + wait_s))
    else:
        if (facts := lock_holder(folder)) is not None:
            raise RunDirError(
                f"{folder.uri}: {holder_text(facts)} writes to this run; "
                "wait for it, or remove LOCK there if it is gone"
            )
        lock = Lock(folder, None)
    try:
        lock.add()
        yield lock
    finally:
        lock.release()


def lock_holder(folder: Folder) -> dict[str, Any] | None:
    """Who writes to a run.

    Returns:
        What its lock says: ``host``, ``pid``, ``start`` and what ``Lock.add`` was given; nothing where the file cannot
        be understood. None where nobody writes. On an object store the lock of a dead process of another host counts.
    """
    if folder.is_local:
        return _local_holder(Path(folder.path) / "LOCK")
    try:
        facts = _facts(folder.read("LOCK"))
    except FileNotFoundError:
        return None
    pid = str(facts.get("pid", ""))
    dead = facts.get("host") == socket.gethostname() and pid.isdecimal() and not Path(f"/proc/{pid}").exists()
    return None if dead else facts


def holder_text(facts: Mapping[str, Any]) -> str:
    """Who holds a lock, in words."""
    if {"host", "pid", "start"} <= facts.keys():
        return f"process {facts['pid']} on {facts['host']} (since {facts['start']})"
    return "another process"


def _lock_file(path: Path, uri: str, until_s: float) -> int:
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            facts = _facts(os.pread(descriptor, 2**16, 0))
            os.close(descriptor)
            if time.monotonic() < until_s:
                time.sleep(0.01)
                continue
            raise RunDirError(f"{uri}: {holder_text(facts)} writes to this run; wait for it, or end it") from None
        if _is_at(descriptor, path):
            return descriptor
        os.close(descriptor)


def _local_holder(path: Path) -> dict[str, Any] | None:
    while True:
        try:
            descriptor = os.open(path, os.O_RDONLY)
        except FileNotFoundError:
            return None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
            if _is_at(descriptor, path):
                return None
        except BlockingIOError:
            return _facts(os.pread(descriptor, 2**16, 0))
        finally:
            os.close(descriptor)


def _is_at(descriptor: int, path: Path) -> bool:
    """Whether the file is still the one of that name: its holder may have removed or replaced it after our open."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False


def _facts(content: bytes) -> dict[str, Any]:
    try:
        facts = json.loads(content)
    except ValueError:
        return {}
    return facts if isinstance(facts, dict) else {}
