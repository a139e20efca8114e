"""Folders on local disks and object stores, with atomic writes."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pyarrow import fs

from ddpnas_ray.core.errors import RunDirError

HINT = "choose another --out, or correct its permissions"


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder on any file system that Arrow supports.

    Args:
        filesystem: Arrow file system.
        path: Path on it.
        uri: Path or URI as the user typed it, for messages.
    """

    filesystem: Any
    path: str
    uri: str

    @classmethod
    def open(cls, uri: str) -> Folder:
        """Open a local path or a URI such as ``s3://bucket/runs/a``.

        Raises:
            RunDirError: The URI's scheme is unknown or its credentials are missing.
        """
        if "://" not in uri:
            return cls(fs.LocalFileSystem(), str(Path(uri).absolute()), uri)
        try:
            filesystem, path = fs.FileSystem.from_uri(uri)
        except (ValueError, OSError) as error:
            raise RunDirError(f"{uri}: {error}; give a local path or a URI such as s3://bucket/run") from error
        return cls(filesystem, path.rstrip("/"), uri)

    @property
    def is_local(self) -> bool:
        """Whether it is on a disk of this machine."""
        return isinstance(self.filesystem, fs.LocalFileSystem)

    def __truediv__(self, name: str) -> Folder:
        uri, question, query = self.uri.partition("?") if "://" in self.uri else (self.uri, "", "")
        return Folder(self.filesystem, f"{self.path}/{name}", f"{uri.rstrip('/')}/{name}{question}{query}")

    def names(self) -> list[str]:
        """Return the sorted names of its entries; empty if it does not exist.

        Raises:
            RunDirError: It is not a folder, or cannot be reached.
        """
        selector = fs.FileSelector(self.path, allow_not_found=True)
        try:
            return sorted(info.base_name for info in self.filesystem.get_file_info(selector))
        except OSError as error:
            raise RunDirError(f"{self.uri}: cannot be listed: {error.strerror or error}; is it a folder?") from error

    def has(self, name: str) -> bool:
        """Return whether it holds a file or folder of that name.

        Raises:
            RunDirError: It cannot be reached.
        """
        with _reaching(self.uri):
            return bool(self.filesystem.get_file_info(f"{self.path}/{name}").type != fs.FileType.NotFound)

    def read(self, name: str) -> bytes:
        """Read a file.

        Raises:
            FileNotFoundError: It does not exist.
            RunDirError: It cannot be reached.
        """
        with _reaching(self.uri), self.filesystem.open_input_stream(f"{self.path}/{name}") as stream:
            return bytes(stream.read())

    def write(self, name: str, data: bytes, *, hint: str = HINT) -> None:
        """Write a file atomically.

        Args:
            name: File name.
            data: Its whole content.
            hint: What the user can do if writing fails.

        Raises:
            RunDirError: The disk is full, or the folder is not writable.
        """
        with writing(self.uri, hint):
            if not self.is_local:
                with self.filesystem.open_output_stream(f"{self.path}/{name}") as stream:
                    stream.write(data)
                return
            target = Path(self.path) / name
            temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
            try:
                with open(temporary, "wb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                os.replace(temporary, target)
            except BaseException:  # Ctrl-C too
                temporary.unlink(missing_ok=True)
                raise
            _sync_folder(target.parent)

    def append(self, name: str, line: bytes) -> None:
        """Append a line to a file; a kill may truncate the last one, so readers skip incomplete lines."""
        if self.is_local:
            with writing(self.uri), open(Path(self.path) / name, "ab") as file:
                file.write(line + b"\n")
                file.flush()
                os.fsync(file.fileno())
        else:  # object stores cannot append
            self.write(name, (self.read(name) if self.has(name) else b"") + line + b"\n")

    def make(self) -> None:
        """Create it and its parents."""
        with writing(self.uri):
            self.filesystem.create_dir(self.path, recursive=True)

    def delete(self) -> None:
        """Remove it and its content."""
        self.filesystem.delete_dir(self.path)


def place(path: str) -> tuple[Folder, str]:
    """Split a file's local path or URI into folder and name."""
    above, slash, name = path.rpartition("/")
    return Folder.open(above or slash or "."), name


@contextmanager
def _reaching(where: str) -> Iterator[None]:
    """Turn permission and connection errors into one-line ``RunDirError``s."""
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        reason = error.strerror or error
        raise RunDirError(f"{where}: cannot be read: {reason}; correct the address, or its permissions") from error


@contextmanager
def writing(where: str, hint: str = HINT) -> Iterator[None]:
    """Turn the errors of a full or read-only disk into one-line ``RunDirError``s."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise RunDirError(f"{where}: {reason}; earlier files are intact; free some space, then --resume") from error
        raise RunDirError(f"{where}: cannot be written: {reason}; {hint}") from error


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
