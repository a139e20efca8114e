"""Lock of a run directory: at most one process writes to it."""

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

LOOK_S = 0.2  # readers hold the lock for less than this


class Lock:
    """Held lock of a run directory; its file describes the holder to other processes."""

    def __init__(self, folder: Folder, descriptor: int | None) -> None:
        self._folder, self._descriptor = folder, descriptor
        self._metadata: dict[str, Any] = {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "start": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        }

    def add(self, **metadata: str) -> None:
        """Add metadata about the holder, atomically."""
        self._metadata |= metadata
        content = json.dumps(self._metadata).encode()
        if self._descriptor is None:
            self._folder.write("LOCK", content)
            return
        path = Path(self._folder.path) / "LOCK"
        temporary = path.with_name(f".LOCK.{os.getpid()}.tmp")
        with writing(self._folder.uri):
            descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o644)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)  # before it replaces the locked file
                os.write(descriptor, content)
                os.replace(temporary, path)
            except BaseException:
                temporary.unlink(missing_ok=True)
                os.close(descriptor)
                raise
        os.close(self._descriptor)
        self._descriptor = descriptor

    def release(self) -> None:
        """Release the lock."""
        if self._descriptor is None:
            with suppress(FileNotFoundError):  # another process removed it, or it could not be written
                if _metadata(self._folder.read("LOCK")) == self._metadata:  # no other process took it
                    self._folder.filesystem.delete_file(f"{self._folder.path}/LOCK")
            return
        (Path(self._folder.path) / "LOCK").unlink(missing_ok=True)
        os.close(self._descriptor)


@contextmanager
def locked(folder: Folder, *, wait_s: float = LOOK_S) -> Iterator[Lock]:
    """Hold the lock for the duration of the block. The operating system releases a local lock when its process ends.

    On an object store the lock is a file that names host and process; a lock of a dead process of this host is taken
    over.

    Args:
        folder: The run directory.
        wait_s: Seconds to wait for another process of this host to release the lock of a local folder; at least
            ``LOOK_S``, since a reader may hold it for a moment.

    Raises:
        RunDirError: Another process writes to the run.
    """
    if folder.is_local:
        with writing(folder.uri):
            lock = Lock(folder, _lock_file(Path(folder.path) / "LOCK", folder.uri, time.monotonic() + wait_s))
    else:
        if (holder := lock_holder(folder)) is not None:
            raise RunDirError(
                f"{folder.uri}: {holder_text(holder)} is writing to this run; "
                "wait for it, or remove LOCK if that process has ended"
            )
        lock = Lock(folder, None)
    try:
        lock.add()
        yield lock
    finally:
        lock.release()


def lock_holder(folder: Folder) -> dict[str, Any] | None:
    """Return the metadata of the process that writes to a run.

    Returns:
        ``host``, ``pid``, ``start`` and what ``Lock.add`` added; empty if the file cannot be parsed; None if no process
        holds the lock. On an object store, the lock of a dead process of another host still counts.
    """
    if folder.is_local:
        return _local_holder(Path(folder.path) / "LOCK")
    try:
        holder = _metadata(folder.read("LOCK"))
    except FileNotFoundError:
        return None
    pid = str(holder.get("pid", ""))
    dead = holder.get("host") == socket.gethostname() and pid.isdecimal() and not Path(f"/proc/{pid}").exists()
    return None if dead else holder


def holder_text(holder: Mapping[str, Any]) -> str:
    """Describe the holder of a lock."""
    if {"host", "pid", "start"} <= holder.keys():
        return f"process {holder['pid']} on {holder['host']} (since {holder['start']})"
    return "another process"


def _lock_file(path: Path, uri: str, until_s: float) -> int:
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = _metadata(os.pread(descriptor, 2**16, 0))
            os.close(descriptor)
            if time.monotonic() < until_s:
                time.sleep(0.01)
                continue
            raise RunDirError(f"{uri}: {holder_text(holder)} is writing to this run; wait for it, or end it") from None
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
            return _metadata(os.pread(descriptor, 2**16, 0))
        finally:
            os.close(descriptor)


def _is_at(descriptor: int, path: Path) -> bool:
    """Return whether ``path`` is still this file: its holder may have removed or replaced it since it was opened."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False


def _metadata(content: bytes) -> dict[str, Any]:
    try:
        metadata = json.loads(content)
    except ValueError:
        return {}
    return metadata if isinstance(metadata, dict) else {}
