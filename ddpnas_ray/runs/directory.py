"""Create, find and read run directories.

A run directory is self-contained: ``report`` and ``generate`` need nothing else. Imports neither torch nor ray.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
from safetensors import SafetensorError

from ddpnas_ray.core.errors import RunDirError
from ddpnas_ray.storage.folder import Folder, writing

T = TypeVar("T")
_REWRITE = "delete result.json, and --resume rewrites it and the tables from the latest checkpoint"


def create_run(out: str, files: Mapping[str, bytes]) -> Folder:
    """Create a new run directory atomically, by rename.

    Args:
        out: Path that does not exist, or an empty folder.
        files: Initial files; in an existing folder, the last one makes it a run.

    Raises:
        RunDirError: It exists and is not empty, or cannot be written.
    """
    folder = Folder.open(out)
    refuse_existing(folder)
    target = Path(folder.path)
    if not folder.is_local or target.is_dir():
        folder.make()
        _fill(folder, files)
        return folder
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    with writing(out):
        try:
            temporary.mkdir(parents=True)
            for name, data in files.items():
                Folder(folder.filesystem, str(temporary), out).write(name, data)
            os.replace(temporary, target)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return folder


def _fill(folder: Folder, files: Mapping[str, bytes]) -> None:
    """Write all files or none to an existing folder, which may be a mount point or the working directory."""
    written: list[str] = []
    try:
        for name, data in files.items():
            folder.write(name, data)
            written.append(name)
    except BaseException:
        for name in written:
            folder.filesystem.delete_file(f"{folder.path}/{name}")
        raise


def free_name(name: str) -> str:
    """Return ``name``, or the first of ``name-2``, ``name-3``, ... that does not exist."""
    candidates = (name, *(f"{name}-{n}" for n in range(2, 10_000)))
    return next(candidate for candidate in candidates if not Path(candidate).exists())


def refuse_existing(folder: Folder) -> None:
    """Refuse to create a run over existing files.

    Raises:
        RunDirError: The folder is not empty, or a file of that name exists.
    """
    if folder.is_local and Path(folder.path).is_file():
        raise RunDirError(f"{folder.uri}: is a file; --out needs a new folder")
    if names := folder.names():
        what = "run" if "config.yaml" in names else "sweep"
        hint = f"add --resume to resume that {what}, or choose another --out"
        raise RunDirError(
            f"{folder.uri}: exists and is not empty ({len(names)} entries, such as {names[0]}); "
            + (hint if {"config.yaml", "sweep.yaml"} & set(names) else "choose another --out")
        )


def existing_run(out: str) -> Folder:
    """Open the directory of an existing run.

    Raises:
        RunDirError: There is no run.
    """
    folder = Folder.open(out)
    if folder.has("networks.json"):
        raise RunDirError(
            f"{out}: is the folder of finals of a search, not its run directory; give RUN, two folders up"
        )
    if not folder.has("config.yaml"):
        raise RunDirError(f"{out}: is not a run directory (no config.yaml in it); give the --out of a search")
    return folder


def refuse_other_data(folder: Folder, digest: str, *, task_only: bool = False) -> None:
    """Refuse data other than the run's.

    Args:
        folder: The run directory.
        digest: SHA-256 of the data.
        task_only: Whether it is that of the task's examples, without the run's table of scores.

    Raises:
        RunDirError: The data differ.
    """

    def recorded(data: bytes) -> str:
        content = json.loads(data)
        return str(content.get("task_digest", content["data_digest"]) if task_only else content["data_digest"])

    before = parsed(folder, "environment.json", recorded)
    if before != digest:
        raise RunDirError(
            f"{folder.uri}: the data differ from those of the run (SHA-256 {digest[:12]}, then {before[:12]}); point "
            "data.path, evaluation.table or a path of the task to the original data, or start a new run with another "
            "--out"
        )


def read_config(folder: Folder) -> str:
    """Return the text of ``config.yaml``, whose last key is ``seed``: cut at the end of a line, it is still YAML.

    Raises:
        RunDirError: The file is missing, unreadable or truncated.
    """

    def whole(data: bytes) -> str:
        if not re.search(rb"^seed: \d+\n", data, re.MULTILINE):
            raise ValueError("it is truncated: the key seed is missing")
        return data.decode()

    return parsed(folder, "config.yaml", whole)


def read_result(folder: Folder) -> dict[str, Any]:
    """Read ``result.json`` of a finished run.

    Raises:
        RunDirError: The run has not finished, or the file is damaged.
    """
    if not folder.has("result.json"):
        raise RunDirError(
            f"{folder.uri}: the run has not finished; resume with: "
            f"python -m ddpnas_ray.search --out {shlex.quote(folder.uri)} --resume"
        )
    result: dict[str, Any] = parsed(folder, "result.json", json.loads)
    if not isinstance(result, dict) or "fingerprint" not in result:
        raise RunDirError(f"{folder.uri}: result.json is not the result of a search; {_REWRITE}")
    return result


def parsed(folder: Folder, name: str, parse: Callable[[bytes], T]) -> T:
    """Read and parse a file of a run.

    Raises:
        RunDirError: It is missing or damaged.
    """
    try:
        return parse(folder.read(name))
    except FileNotFoundError:
        reason = "no such file"
    except KeyError as error:
        reason = f"it has no {error}"
    except (OSError, ValueError, TypeError, pa.ArrowException, SafetensorError) as error:
        reason = str(error)
    written_at_the_end = ("theta.parquet", "evaluations.parquet", "weights.safetensors", "result.json")
    hint = _REWRITE if name in written_at_the_end else "restore it from a backup, or start a new run with another --out"
    raise RunDirError(f"{folder.uri}: {name} cannot be read: {reason}; {hint}")
