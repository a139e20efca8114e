"""Load a model folder, or one file of it, and run it: nothing of the search is needed.

Axes: N examples, O outputs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ddpnas_ray.core.errors import ConfigError, ModelError, did_you_mean
from ddpnas_ray.data.batches import Float32Array
from ddpnas_ray.deploy.folder import MANIFEST, read_model, reading, sha256
from ddpnas_ray.deploy.interface import BATCH, Interface, from_metadata
from ddpnas_ray.deploy.registry import Form, find_form, form_names

ORDER = ("torch", "pt2", "onnx")  # of preference where no form is named


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A network that is ready to predict.

    Args:
        path: Where it was loaded from.
        form: Name of the form that runs.
        preprocessing: How its inputs are prepared, and what its outputs mean.
    """

    path: Path
    form: str
    preprocessing: Interface
    _run: Callable[..., Float32Array] = field(repr=False)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the outputs, in the order of the logits."""
        return self.preprocessing.classes

    def logits(self, *inputs: npt.NDArray[Any]) -> Float32Array:
        """Compute logits of prepared examples, in batches: (N, O), or of every pixel (N, O, H, W).

        Raises:
            ValueError: The inputs have another shape than the network's.
            ModelError: The model fails, or returns another number of outputs than it has classes.
        """
        self.preprocessing.check(inputs)
        shape = self.preprocessing.logits_shape(inputs)
        try:
            parts = [self._run(*batch) for batch in self.preprocessing.batches(inputs, BATCH)]
            logits: Float32Array = np.concatenate(parts) if parts else np.zeros(shape, np.float32)
        except Exception as error:  # each form raises its own kinds
            raise ModelError(f"{self.path}: form {self.form} fails ({_reason(error)}); export it again") from error
        if logits.shape != shape:
            raise ModelError(
                f"{self.path}: {logits.shape[1:]} outputs for {len(self.classes)} classes; export the network again"
            )
        return logits


def load_model(path: str | Path, form: str | None = None, *, verify: bool = True) -> LoadedModel:
    """Load a model folder, or a single file of one: ``model.onnx``, ``model.pt2``, ``network.py``.

    ``network.py`` is run as Python code, and ``model.safetensors`` means it: load folders that you trust.

    Args:
        path: Model folder or file.
        form: Form to load; None: torch, else pt2, else onnx, or the file's.
        verify: False accepts files that were edited since they were written.

    Raises:
        ModelError: It is missing, damaged, edited, or has no such form.
        ConfigError: The form is unknown.
        ResourceError: A package is missing.
    """
    given = _existing(path)
    folder = given if given.is_dir() else given.parent
    chosen = _form_of_folder(folder, form, verify) if given.is_dir() else _form_of_file(given, form, verify)
    chosen.require(loading_only=True)
    preprocessing = preprocessing_of(folder, chosen)
    try:
        run = chosen.load(str(folder.resolve()))
    except (Exception, SystemExit) as error:  # an edited network.py may raise anything
        raise ModelError(
            f"{folder}: form {chosen.name} cannot be loaded ({_reason(error)}); export it again"
        ) from error
    return LoadedModel(given, chosen.name, preprocessing, run)


def preprocessing_of(folder: Path, form: Form) -> Interface:
    """Read how a form's inputs are prepared.

    Raises:
        ModelError: Its file is missing, damaged, or not one of ours.
    """
    return from_metadata(form.metadata(folder), str(folder / form.files[-1]))


def find_forms(path: str | Path, form: str | None = None, *, verify: bool = True) -> tuple[Path, list[Form]]:
    """Find the model folder and the forms that a path means, in the order of preference.

    Args:
        path: Model folder, which means all its forms, or a file of one.
        form: The form that is wanted; None: all.
        verify: See ``load_model``.

    Raises:
        ModelError: It is missing, edited, or has no such form.
        ConfigError: The form is unknown.
    """
    given = _existing(path)
    if not given.is_dir():
        return given.parent, [_form_of_file(given, form, verify)]
    if form is not None:
        return given, [_form_of_folder(given, form, verify)]
    names = read_model(given, verify=verify).forms
    known = [name for name in ORDER if name in names]
    return given, [find_form(name) for name in (*known, *(name for name in names if name not in known))]


def _existing(path: str | Path) -> Path:
    given = Path(path)
    with reading(given):
        if given.exists():
            return given
    raise ModelError(f"{given}: does not exist; give a model folder, or its model.onnx, model.pt2 or network.py")


def _reason(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


def _form_of_folder(folder: Path, name: str | None, verify: bool) -> Form:
    model = read_model(folder, verify=verify)
    if name is None:
        name = next((form for form in ORDER if form in model.forms), None) or next(iter(model.forms), "torch")
    form = find_form(name)
    if name not in model.forms:
        raise ModelError(f"{folder}: it has no form {name}{did_you_mean(name, model.forms)}")
    return form


def _form_of_file(file: Path, name: str | None, verify: bool) -> Form:
    forms = {form.files[0]: form for form in map(find_form, form_names())}
    forms["model.safetensors"] = forms["network.py"]
    if file.name not in forms:
        raise ModelError(f"{file}: not a file of a model folder; allowed: {', '.join(sorted(forms))}")
    form = forms[file.name]
    if name not in (None, form.name):
        raise ConfigError(f"form: {name!r}, but {file.name} is of form {form.name}; leave out one of them")
    if verify and (file.parent / MANIFEST).is_file():
        known = read_model(file.parent, verify=False).files
        for part in form.files:
            if part in known and (file.parent / part).is_file() and sha256(file.parent / part) != known[part]:
                raise ModelError(
                    f"{file.parent}: {part} was edited since it was written; export the network again, or use --force"
                )
    return form
