"""Folders on local disks and elsewhere: writes are atomic."""

from __future__ import annotations

import errno
import os
import pickle
from pathlib import Path

import pytest
from pyarrow import fs

from ddpnas_ray.core.errors import RunDirError
from ddpnas_ray.storage.folder import Folder, writing


@pytest.fixture(params=["path", "file-uri", "subtree", "mock"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Folder:
    """An existing, empty folder on several file systems."""
    kind = request.param
    if kind == "path":
        made = Folder.open(str(tmp_path / "run"))
    elif kind == "file-uri":
        made = Folder.open(f"file://{tmp_path}/run")
    elif kind == "subtree":
        made = Folder(fs.SubTreeFileSystem(str(tmp_path), fs.LocalFileSystem()), "run", "store://bucket/run")
    else:
        made = Folder.open("mock:///run")
    made.make()
    return made


def test_what_was_written_is_read(folder: Folder) -> None:
    assert folder.names() == []
    folder.write("b", b"two")
    folder.write("a", b"")
    assert folder.names() == ["a", "b"]
    assert folder.read("b") == b"two"
    assert folder.read("a") == b""
    assert folder.has("a")
    assert not folder.has("c")


def test_a_file_is_replaced_as_a_whole(folder: Folder) -> None:
    folder.write("a", b"a long first version")
    folder.write("a", b"short")
    assert folder.read("a") == b"short"
    assert folder.names() == ["a"]


def test_folders_below_are_made_and_deleted(folder: Folder) -> None:
    below = folder / "checkpoints" / "ckpt-1"
    assert below.names() == []
    below.make()
    below.make()
    below.write("DONE", b"x")
    assert folder.names() == ["checkpoints"]
    assert folder.has("checkpoints")
    assert (folder / "checkpoints").names() == ["ckpt-1"]
    below.delete()
    assert (folder / "checkpoints").names() == []


def test_a_folder_that_does_not_exist_holds_nothing(folder: Folder) -> None:
    absent = folder / "absent"
    assert absent.names() == []
    assert not absent.has("a")


def test_a_file_that_does_not_exist_cannot_be_read(folder: Folder) -> None:
    with pytest.raises(FileNotFoundError):
        folder.read("a")


def test_messages_name_what_the_user_typed() -> None:
    assert (Folder.open("runs/a/") / "checkpoints").uri == "runs/a/checkpoints"
    assert Folder.open("mock:///bucket/a/").uri == "mock:///bucket/a/"
    assert Folder.open("mock:///bucket/a/").path == "bucket/a"


def test_the_options_of_a_uri_stay_at_its_end() -> None:
    below = Folder.open("s3://bucket/a?region=us-east-1&scheme=http") / "trials" / "x"
    assert below.uri == "s3://bucket/a/trials/x?region=us-east-1&scheme=http"
    again = Folder.open(below.uri)
    assert again.path == "bucket/a/trials/x" and again.filesystem.region == "us-east-1"
    assert (Folder.open("runs/why?") / "x").uri == "runs/why?/x"


def test_a_store_that_cannot_be_reached_takes_one_line() -> None:
    class Down:
        def get_file_info(self, path: str) -> None:
            raise OSError(f"When getting information for key '{path}': AWS Error NETWORK_CONNECTION")

        open_input_stream = get_file_info

    store = Folder(Down(), "bucket/run", "s3://bucket/run")
    for look in (store.has, store.read):
        with pytest.raises(RunDirError, match=r"^s3://.*: cannot be read: .*; correct the address, or its permissions"):
            look("config.yaml")


def test_paths_and_file_uris_are_local(tmp_path: Path) -> None:
    assert Folder.open(str(tmp_path)).is_local
    assert Folder.open(f"file://{tmp_path}").is_local
    assert not Folder.open("mock:///run").is_local


def test_a_relative_path_stays_where_it_was_meant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = Folder.open("run")
    monkeypatch.chdir("/")
    folder.make()
    assert (tmp_path / "run").is_dir()


def test_a_local_folder_can_be_sent_to_another_process(tmp_path: Path) -> None:
    folder = Folder.open(str(tmp_path))
    copy = pickle.loads(pickle.dumps(folder))
    copy.write("a", b"1")
    assert folder.read("a") == b"1"


@pytest.mark.parametrize("uri", ["nonsense://bucket/run", "s4://bucket/run"])
def test_an_unknown_scheme_is_refused(uri: str) -> None:
    with pytest.raises(RunDirError, match="give a local path or a URI such as s3://bucket/run") as error:
        Folder.open(uri)
    assert str(error.value).startswith(uri)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    folder = Folder.open(str(tmp_path))
    folder.write("a", b"old")
    (tmp_path / "taken").mkdir()  # a folder of that name: the last step, the rename, fails
    with pytest.raises(RunDirError, match="cannot be written"):
        folder.write("taken", b"new")
    with pytest.raises(RunDirError, match="cannot be written"):
        folder.write("no/such/folder", b"new")
    assert folder.names() == ["a", "taken"]
    assert folder.read("a") == b"old"


def test_a_file_larger_than_allowed_leaves_the_old_one(tmp_path: Path) -> None:
    import resource
    import signal

    folder = Folder.open(str(tmp_path))
    folder.write("a", b"old")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        with pytest.raises(RunDirError, match="free some space, then --resume"):
            folder.write("a", bytes(10_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert folder.names() == ["a"]
    assert folder.read("a") == b"old"


@pytest.mark.parametrize(
    ("number", "hint"),
    [
        (errno.ENOSPC, "earlier files are intact; free some space, then --resume"),
        (errno.EDQUOT, "earlier files are intact; free some space, then --resume"),
        (errno.EACCES, "choose another --out, or correct its permissions"),
        (errno.EROFS, "choose another --out, or correct its permissions"),
    ],
)
def test_errors_of_the_disk_give_a_hint(number: int, hint: str) -> None:
    with pytest.raises(RunDirError) as error, writing("runs/a"):
        raise OSError(number, os.strerror(number))
    assert str(error.value).startswith("runs/a: ")
    assert os.strerror(number) in str(error.value)
    assert str(error.value).endswith(hint)


def test_lines_are_added_one_after_the_other(folder: Folder) -> None:
    folder.append("lines", b"one")
    folder.append("lines", b"two")
    assert folder.read("lines") == b"one\ntwo\n"
