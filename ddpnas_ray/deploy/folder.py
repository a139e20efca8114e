"""Write and read model folders: all forms of one network, its card, and a manifest of every file.

A folder appears only when every form in it was verified; the SHA-256 sums in ``MANIFEST.json`` tell what was edited.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ddpnas_ray import __version__
from ddpnas_ray.core.errors import ConfigError, ExportError, ModelError
from ddpnas_ray.deploy.card import model_card
from ddpnas_ray.deploy.questions import Arrays
from ddpnas_ray.deploy.registry import Form, choose, writable
from ddpnas_ray.deploy.trained import TrainedNetwork
from ddpnas_ray.deploy.verify import Row, fresh_process, logits_of, rows_of
from ddpnas_ray.deploy.weights import NAME as WEIGHTS
from ddpnas_ray.deploy.weights import write_weights

MANIFEST = "MANIFEST.json"
FORMAT = "ddpnas model folder"
IGNORED = ("__pycache__", ".DS_Store", ".ipynb_checkpoints")  # of Python, macOS and Jupyter
UNFINISHED = re.compile(r"-(writing|replaced)-(\d+)$")  # folders beside a model that a process is putting in place


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """A model folder that was written.

    Args:
        folder: Where it is.
        rows: Each form's comparison with the network.
        seconds: Time to write each form, by name; the first of onnx and pt2 traces the network for both.
        notes: A line about each form that was left out.
        kind: The word for the examples that were compared, such as images.
    """

    folder: Path
    rows: tuple[Row, ...]
    seconds: dict[str, float]
    notes: tuple[str, ...]
    kind: str = "images"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFolder:
    """A model folder that was read.

    Args:
        folder: Where it is.
        forms: Names of its forms.
        files: SHA-256 of every file, by name.
        weights: Fingerprint of the trained weights; empty if the network had none.
    """

    folder: Path
    forms: tuple[str, ...]
    files: dict[str, str]
    weights: str = ""


def write_model(
    network: TrainedNetwork,
    folder: str | Path,
    *,
    examples: Arrays | npt.NDArray[Any],
    forms: Sequence[str] | None = None,
) -> Written:
    """Write a network to a model folder, verify every form in a fresh process, and put the folder in place.

    Args:
        network: The trained network.
        folder: New or empty, or a model folder as it was written, which is replaced.
        examples: Real examples, prepared, to compare the forms on: the network's inputs, or its only one.
        forms: Names of forms; None: all that the space and the installed packages allow.

    Raises:
        ConfigError: A form is unknown, or the space lacks it.
        ResourceError: A form's package is missing.
        ModelError: The folder holds other files, or cannot be written.
        ExportError: A form cannot be written, or does not compute what the network does.
    """
    names, notes = writable(network.spec) if forms is None else (list(forms), [])
    chosen = choose(network.spec, names)
    data, inputs = network.preprocessing, examples if isinstance(examples, tuple) else (examples,)
    try:
        data.check(inputs)
        if not len(inputs[0]):
            raise ValueError
    except ValueError:
        raise ConfigError(
            f"{data.one}s of shape {inputs[0].shape} to verify with; the network takes (N, "
            f"{', '.join(map(str, network.input_shape))}), one or more"
        ) from None
    check_replaceable(folder)
    target = Path(os.path.abspath(folder))
    seconds = {}
    failed = {form.name: "" for form in chosen if form.optional and forms is None}  # why, if any does
    with _errors(target), fresh_process(chosen) as process, _beside(target) as building:
        for form in chosen:
            began = time.perf_counter()
            try:
                form.write(network, building)
            except ExportError as error:
                if form.name not in failed:
                    raise
                failed[form.name] = str(error)
            seconds[form.name] = time.perf_counter() - began
        module = network.module()
        data.write(building)
        if not (building / WEIGHTS).exists():  # no form brought it
            write_weights(building, module.state_dict(), network.metadata)
        _write_json(building / "genotype.json", network.genotype)
        called = data.positional(module)
        expected_NO = np.concatenate([rows_of(logits_of(called, *batch)) for batch in data.trials(inputs)])
        rows = process.check(building, inputs, expected_NO, data, failed)
        for form in [form for form in chosen if failed.get(form.name)]:
            notes.append(f"no form {form.name}: {failed[form.name]}")
            chosen.remove(form)
            for name in form.files:
                (building / name).unlink(missing_ok=True)
        (building / "README.md").write_text(model_card(network, chosen, rows), encoding="utf-8")
        _write_json(building / MANIFEST, _manifest(building, chosen, str(network.facts.get("fingerprint", ""))))
        check_replaceable(target)
        _put_in_place(building, target)
    return Written(folder=Path(folder), rows=tuple(rows), seconds=seconds, notes=tuple(notes), kind=f"{data.one}s")


def read_model(folder: str | Path, *, verify: bool = True) -> ModelFolder:
    """Read a model folder's manifest and compare its files with it.

    Args:
        folder: Model folder.
        verify: False accepts edited and missing files.

    Raises:
        ModelError: It is not a model folder, or a file was edited, removed or added.
    """
    path = Path(folder)
    with reading(path):
        if not path.is_dir():
            raise ModelError(f"{path}: not a folder; give a model folder, which has {MANIFEST}")
        found = _read_manifest(path)
        if verify and (change := changed(found)):
            raise ModelError(f"{path}: {change} since it was written; export the network again, or use --force")
    return found


def _read_manifest(path: Path) -> ModelFolder:
    try:
        manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        if manifest["format"] != FORMAT or not isinstance(manifest["files"], dict):
            raise ValueError
        if not all(isinstance(name, str) for name in manifest["forms"]):
            raise ValueError
        return ModelFolder(
            folder=path,
            forms=tuple(manifest["forms"]),
            files=dict(manifest["files"]),
            weights=str(manifest.get("weights", "")),
        )
    except FileNotFoundError:
        raise ModelError(f"{path}: not a model folder: it has no {MANIFEST}; export the network again") from None
    except (ValueError, KeyError, TypeError):
        raise ModelError(f"{path}/{MANIFEST}: damaged; export the network again") from None


def changed(model: ModelFolder, *, hidden: bool = False) -> str | None:
    """Say which file of a model folder was edited, removed or added, if any; ``hidden``: a hidden one, such as .git."""
    for name, digest in model.files.items():
        path = model.folder / name
        if not path.is_file():
            return f"{name} was removed"
        if sha256(path) != digest:
            return f"{name} was edited"
    known = {*model.files, MANIFEST, *IGNORED}
    names = (path.name for path in model.folder.iterdir())
    added = sorted(name for name in names if name not in known and (hidden or not name.startswith(".")))
    return f"{added[0]} was added" if added else None


def check_replaceable(folder: str | Path) -> None:
    """Check that a folder can be written: new, empty, or a model folder as it was written.

    Raises:
        ModelError: It holds anything else, which would be lost, is a URI or a file, or cannot be reached.
    """
    if "://" in str(folder):
        raise ModelError(
            f"{folder}: model folders are written to local disks; give a local path and copy it from there"
        )
    path = Path(folder)
    with _errors(path):
        if path.is_symlink() or (path.exists() and not path.is_dir()):
            raise ModelError(f"{path}: exists and is not a folder; choose another --out")
        if not path.exists() or not any(path.iterdir()):
            return
        if not (path / MANIFEST).is_file():
            raise ModelError(f"{path}: not empty, and not a model folder; choose another --out")
        if change := changed(read_model(path, verify=False), hidden=True):
            raise ModelError(
                f"{path}: {change} since it was written, and would be lost; move it, or choose another --out"
            )


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn the errors of a folder or file that cannot be read into one line."""
    try:
        yield
    except OSError as error:
        raise ModelError(
            f"{path}: cannot be read: {error.strerror or error}; correct the path, or permissions"
        ) from None


def sha256(path: Path) -> str:
    """Return a file's SHA-256 in hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def _manifest(folder: Path, forms: Sequence[Form], weights: str) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "weights": weights,
        "written_by": f"ddpnas_ray {__version__}",
        "forms": [form.name for form in forms],
        "files": {path.name: sha256(path) for path in sorted(folder.iterdir())},
    }


@contextmanager
def _beside(target: Path) -> Iterator[Path]:
    """Make a folder beside the target, on the same disk; removed at the end if it is still there."""
    target.parent.mkdir(parents=True, exist_ok=True)
    _clean_up(target)
    building = target.parent / f"{target.name}-writing-{os.getpid()}"
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir()
    try:
        yield building
    finally:
        shutil.rmtree(building, ignore_errors=True)


def _clean_up(target: Path) -> None:
    """Undo what killed processes left beside a model: the one that was being replaced returns, others are removed."""
    for path in list(target.parent.iterdir()):
        found = UNFINISHED.search(path.name)
        if found is None or path.name[: found.start()] != target.name or _runs(int(found[2])):
            continue
        if found[1] == "replaced" and not target.exists():
            os.rename(path, target)
        else:
            shutil.rmtree(path, ignore_errors=True)


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # another user's
        return True
    return True


def _put_in_place(building: Path, target: Path) -> None:
    """Rename the finished folder to its place; a model folder there is moved away first and removed after."""
    old = target.parent / f"{target.name}-replaced-{os.getpid()}"
    if target.exists():
        os.rename(target, old)
    try:
        os.rename(building, target)
    except OSError:
        if old.exists():
            os.rename(old, target)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


@contextmanager
def _errors(folder: Path) -> Iterator[None]:
    """Turn the errors of a full or read-only disk into one line."""
    try:
        yield
    except OSError as error:
        raise ModelError(
            f"{folder}: cannot be written: {error.strerror or error}; choose another --out, or free some space"
        ) from error
