"""Prove that every exported file computes what the network does, in a process that cannot import this package.

Axes: N examples, O outputs.
"""

from __future__ import annotations

import inspect
import json
import os
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ddpnas_ray.core.errors import ExportError
from ddpnas_ray.data.batches import Float32Array
from ddpnas_ray.deploy.interface import BATCH, TOLERANCE, Interface
from ddpnas_ray.deploy.questions import Arrays
from ddpnas_ray.deploy.registry import Form

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """Comparison of one form with the network.

    Args:
        form: Its name.
        file: Its principal file.
        file_bytes: Size of its files.
        load_s: Seconds to load it, imports of packages aside.
        examples: N.
        largest_difference: Largest absolute difference of a logit.
        largest_logit: Largest absolute logit of the network.
        labels: Labels that were compared: one per example, or per pixel.
        labels_agree: Those that are the same.
    """

    form: str
    file: str
    file_bytes: int
    load_s: float
    examples: int
    largest_difference: float
    largest_logit: float
    labels: int
    labels_agree: int


def logits_of(network: nn.Module, *inputs: npt.NDArray[Any]) -> Float32Array:
    """Compute the logits of a network of tensors, shape (N, O) or (N, O, H, W), in batches.

    Raises:
        ExportError: One is not finite.
    """
    import torch

    with torch.inference_mode():
        parts = [
            network(*(torch.from_numpy(array[i : i + BATCH]) for array in inputs)).numpy()
            for i in range(0, len(inputs[0]), BATCH)
        ]
    logits_NO: Float32Array = np.concatenate(parts)
    if not np.isfinite(logits_NO).all():
        raise ExportError("the network's own logits are not finite: its training diverged; train it with a smaller lr")
    return logits_NO


def rows_of(logits: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return logits with a row per label: (N, O) as they are, (N, O, H, W) as (N H W, O).

    ``alone.py`` does the same.
    """
    count, outputs = logits.shape[:2]
    return np.moveaxis(logits.reshape(count, outputs, -1), 1, 2).reshape(-1, outputs)


def compare(form: str, found_NO: Float32Array, expected_NO: Float32Array) -> tuple[float, float, int]:
    """Compare a form's logits with the network's.

    Args:
        form: Its name, for messages.
        found_NO: Its logits.
        expected_NO: The network's.

    Returns:
        Largest difference, largest logit, number of equal labels.

    Raises:
        ExportError: A difference exceeds ``TOLERANCE`` times the largest logit, or a label differs although the
            margin between the network's two largest logits exceeds that.

    Example:
        >>> compare("onnx", np.array([[1.0, 2.0]]), np.array([[1.0, 2.0]]))
        (0.0, 2.0, 1)
    """
    if found_NO.shape != expected_NO.shape:
        raise ExportError(f"form {form} returns shape {found_NO.shape}, the network {expected_NO.shape}; report this")
    largest = float(np.abs(expected_NO).max())
    difference = float(np.abs(found_NO - expected_NO).max())
    differs_N = found_NO.argmax(axis=1) != expected_NO.argmax(axis=1)
    margins = np.sort(expected_NO[differs_N], axis=1)[:, -2:]
    clear_N = margins[:, -1] - margins[:, 0] > TOLERANCE * largest
    agree = len(expected_NO) - int(differs_N.sum())
    if not difference <= TOLERANCE * largest or clear_N.any():  # a NaN differs
        raise ExportError(
            f"form {form} does not compute what the network does: logits differ by up to {difference:.3g} "
            f"({TOLERANCE * largest:.3g} is allowed at a largest logit of {largest:.3g}), "
            f"{agree} of {len(expected_NO)} labels agree; nothing was written: leave out {form}, and report this"
        )
    return difference, largest, agree


def compare_labels(form: Form, alike: int, examples: int) -> None:
    """Check that a form that computes nearly what the network does gives enough of its labels.

    Raises:
        ExportError: It does not.
    """
    assert form.labels is not None
    if alike < form.labels * examples:
        raise ExportError(
            f"form {form.name} gives {100 * alike / examples:.1f} % of the network's labels, of {examples}; "
            f"{100 * form.labels:g} % are needed: leave out {form.name}"
        )


class FreshProcess:
    """A process that has imported the forms' packages but not this one, and waits for a folder."""

    def __init__(self, process: subprocess.Popen[str], job: Path, forms: Sequence[Form]) -> None:
        self._process, self._job, self._forms = process, job, forms

    def check(
        self,
        folder: Path,
        inputs: Arrays | npt.NDArray[Any],
        expected_NO: Float32Array,
        preprocessing: Interface,
        failed: dict[str, str] | None = None,
        *,
        timeout_s: float = 600,
    ) -> list[Row]:
        """Load every form from a folder, run it on examples and compare, and so its preprocessing; once per process.

        Args:
            folder: Model folder.
            inputs: Prepared examples.
            expected_NO: The network's logits, a row per label; see ``rows_of``.
            preprocessing: What ``preprocess`` of ``network.py`` must do, if it is there; cuts the batches.
            failed: Of the forms that may fail, by name: why they have; empty: they have not. Those that fail are added.
            timeout_s: Limit of all forms together.

        Returns:
            A row per form that did not fail.

        Raises:
            ExportError: A form cannot be loaded or differs, or the process dies or takes too long.
        """
        given = inputs if isinstance(inputs, tuple) else (inputs,)
        for number, batch in enumerate(preprocessing.trials(given)):
            np.savez(self._job / f"batch-{number:06}.npz", *batch)
        preprocessing.write_samples(self._job)
        names = ", ".join(form.name for form in self._forms)
        job = {"folder": str(folder.resolve()), "prepare": preprocessing.prepare_samples()}
        try:
            _, errors = self._process.communicate(json.dumps(job) + "\n", timeout_s)
        except subprocess.TimeoutExpired:
            raise ExportError(f"forms {names} did not load and run in {timeout_s:.0f} s; try fewer forms") from None
        if not (self._job / "found.json").is_file():
            last = (errors.strip().splitlines() or [f"exit code {self._process.returncode}"])[-1]
            raise ExportError(f"the process that loads the forms {names} died: {last}; try them one by one")
        rows = []
        for number, found in enumerate(json.loads((self._job / "found.json").read_text(encoding="utf-8"))):
            form = self._forms[number]
            if failed and failed.get(form.name):
                continue
            try:
                row = self._row(number, form, found, folder, expected_NO, preprocessing)
                rows.append(replace(row, examples=len(given[0])))
            except ExportError as error:
                if failed is None or form.name not in failed:
                    raise
                failed[form.name] = str(error)
        if (folder / "network.py").is_file():
            self._check_preprocessing(preprocessing, errors)
        return rows

    def _row(
        self,
        number: int,
        form: Form,
        found: Mapping[str, Any],
        folder: Path,
        expected_NO: Float32Array,
        preprocessing: Interface,
    ) -> Row:
        if found["error"]:
            raise ExportError(
                f"form {form.name} cannot be loaded without ddpnas_ray: {found['error']}; leave out {form.name}"
            )
        logits_NO = np.load(self._job / f"{number}.npy")
        if form.labels is None:
            difference, largest, agree = compare(form.name, logits_NO, expected_NO)
        else:
            agree = preprocessing.agree(logits_NO, expected_NO)
            compare_labels(form, agree, len(expected_NO))
            difference, largest = float(np.abs(logits_NO - expected_NO).max()), float(np.abs(expected_NO).max())
        return Row(
            form=form.name,
            file=form.files[0],
            file_bytes=form.file_bytes(folder),
            load_s=found["load_s"],
            examples=len(expected_NO),
            labels=len(expected_NO),
            largest_difference=difference,
            largest_logit=largest,
            labels_agree=agree,
        )

    def _check_preprocessing(self, preprocessing: Interface, errors: str) -> None:
        if not (self._job / "prepared.npz").is_file():
            last = (errors.strip().splitlines() or ["it died"])[-1]
            raise ExportError(
                f"network.py cannot prepare {preprocessing.one}s: {last}; leave out torch and huggingface"
            )
        with np.load(self._job / "prepared.npz") as found:
            preprocessing.check_samples([found[name] for name in found.files])


def isolated(folder: str) -> dict[str, str]:
    """Return the environment of a process that runs exported files: offline, on the CPU, with caches in a folder."""
    own = {"HF_HUB_OFFLINE": "1", "HF_HOME": folder, "HF_MODULES_CACHE": folder, "CUDA_VISIBLE_DEVICES": ""}
    return {**os.environ, **own}


@contextmanager
def fresh_process(forms: Sequence[Form]) -> Iterator[FreshProcess]:
    """Start a process that imports the forms' packages, to be asked for a check; it ends with the context.

    It takes the search path of this one, so that it finds the same packages, but none of this package's modules.
    """
    loaders = [(form.load.__name__, textwrap.dedent(inspect.getsource(form.load))) for form in forms]
    packages = list(dict.fromkeys(["numpy", "torch", *(package for form in forms for package in form.loading)]))
    start = {"loaders": loaders, "packages": packages, "path": [str(Path(p).resolve()) for p in sys.path if p]}
    with tempfile.TemporaryDirectory(prefix="ddpnas-verify-") as job:
        process = subprocess.Popen(
            [sys.executable, "-I", "-B", str(Path(__file__).with_name("alone.py").resolve())],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            cwd=job,
            env=isolated(job),
        )
        try:
            assert process.stdin is not None
            with suppress(BrokenPipeError):  # it died already: check() says of what
                process.stdin.write(json.dumps(start) + "\n")
                process.stdin.flush()
            yield FreshProcess(process, Path(job), forms)
        finally:
            process.kill()
            process.communicate()
