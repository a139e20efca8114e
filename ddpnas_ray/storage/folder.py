"""Folders on local disks and object stores alike, with writes that are whole or absent."""

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

WAY_OUT = "choose another --out, or correct its permissions"


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder on any file system that Arrow knows.

    Args:
        filesystem: Arrow's file system.
        path: The folder on it.
        uri: What the user typed, for messages.
    """

    filesystem: Any
    path: str
    uri: str

    @classmethod
    def open(cls, uri: str) -> Folder:
        """A local path, or a URI such as ``s3://bucket/runs/a``.

        Raises:
            RunDirError: The URI's scheme is unknown or its credentials are missing.
        """
        if "://" not in uri:
            return cls(fs.LocalFileSystem(), str(Path(uri).absolute()), uri)
        try:
            filesystem, path = fs.FileSystem.from_uri(uri)
        except (ValueError, OSError) as error:
            raise RunDirError(f"{uri}: {error}; a local path or a URI such as s3://bucket/run is needed") from error
        return cls(filesystem, path.rstrip("/"), uri)

    @property
    def is_local(self) -> bool:
        """Whether it lies on a disk of this machine."""
        return isinstance(self.filesystem, fs.LocalFileSystem)

    def __truediv__(self, name: str) -> Folder:
        uri, question, query = self.uri.partition("?") if "://" in self.uri else (self.uri, "", "")
        return Folder(self.filesystem, f"{self.path}/{name}", f"{uri.rstrip('/')}/{name}{question}{query}")

    def names(self) -> list[str]:
        """What lies in it, sorted; nothing where it does not exist.

        Raises:
            RunDirError: It is no folder, or cannot be reached.
        """
        selector = fs.FileSelector(self.path, allow_not_found=True)
        try:
            return sorted(info.base_name for info in self.filesystem.get_file_info(selector))
        except OSError as error:
            raise RunDirError(f"{self.uri}: cannot be listed: {error.strerror or error}; is it a folder?") from error

    def has(self, name: str) -> bool:
        """Whether it holds a file or folder of that name.

        Raises:
            RunDirError: It cannot be reached.
        """
        with _reaching(self.uri):
            return bool(self.filesystem.get_file_info(f"{self.path}/{name}").type != fs.FileType.NotFound)

    def read(self, name: str) -> bytes:
        """The bytes of a file.

        Raises:
            FileNotFoundError: There is none.
            RunDirError: It cannot be reached.
        """
        with _reaching(self.uri), self.filesystem.open_input_stream(f"{self.path}/{name}") as stream:
            return bytes(stream.read())

    def write(self, name: str, data: bytes, *, way_out: str = WAY_OUT) -> None:
        """Write a file: afterwards it is there in full, or as it was before.

        Args:
            name: Of the file.
            data: All of it.
            way_out: What the user can do where it cannot be written.

        Raises:
            RunDirError: The disk is full, or the folder may not be written to.
        """
        with writing(self.uri, way_out):
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
        """Add a line to a file; after a kill the last one may be cut short, so readers skip what is no line."""
        if self.is_local:
            with writing(self.uri), open(Path(self.path) / name, "ab") as file:
                file.write(line + b"\n")
                file.flush()
                os.fsync(file.fileno())
        else:  # object stores cannot append
            self.write(name, (self.read(name) if self.has(name) else b"") + line + b"\n")

    def make(self) -> None:
        """Create it, and the folders above it."""
        with writing(self.uri):
            self.filesystem.create_dir(self.path, recursive=True)

    def delete(self) -> None:
        """Remove it and all it holds."""
        self.filesystem.delete_dir(self.path)


def place(path: str) -> tuple[Folder, str]:
    """Folder and name of a file, local or by URI."""
    above, slash, name = path.rpartition("/")
    return Folder.open(above or slash or "."), name


@contextmanager
def _reaching(where: str) -> Iterator[None]:
    """Turn the errors of a forbidden disk or an absent store into one line for the user."""
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        reason = error.strerror or error
        raise RunDirError(f"{where}: cannot be read: {reason}; correct the address, or its permissions") from error


@contextmanager
def writing(where: str, way_out: str = WAY_OUT) -> Iterator[None]:
    """Turn the errors of a full or forbidden disk into one line for the user."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise RunDirError(
                f"{where}: {reason}; what was written before is intact; free space, then --resume"
            ) from error
        raise RunDirError(f"{where}: cannot be written: {reason}; {way_out}") from error


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
