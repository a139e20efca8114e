"""Prove that every exported file computes what the network does, in a process that cannot import this package.

Axes: N images, C channels, H height, W width, O classes.
"""

from __future__ import annotations

import inspect
import io
import json
import os
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from ddpnas_ray.core.errors import ExportError
from ddpnas_ray.data.batches import Float32Array
from ddpnas_ray.data.decoding import EXIF_ORIENTATION, open_image
from ddpnas_ray.deploy.registry import Form
from ddpnas_ray.deploy.trained import Preprocessing

if TYPE_CHECKING:
    from torch import nn

TOLERANCE = 1e-5  # of the largest logit
BATCH = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """Comparison of one form with the network.

    Args:
        form: Its name.
        file: Its principal file.
        file_bytes: Size of its files.
        load_s: Seconds to load it, imports of packages aside.
        images: N.
        largest_difference: Largest absolute difference of a logit.
        largest_logit: Largest absolute logit of the network.
        labels_agree: Images with the same label.
    """

    form: str
    file: str
    file_bytes: int
    load_s: float
    images: int
    largest_difference: float
    largest_logit: float
    labels_agree: int


def logits_of(network: nn.Module, images_NCHW: Float32Array) -> Float32Array:
    """Compute a network's logits, shape (N, O), in batches.

    Raises:
        ExportError: One is not finite.
    """
    import torch

    with torch.inference_mode():
        parts = [
            network(torch.from_numpy(images_NCHW[i : i + BATCH])).numpy() for i in range(0, len(images_NCHW), BATCH)
        ]
    logits_NO: Float32Array = np.concatenate(parts)
    if not np.isfinite(logits_NO).all():
        raise ExportError("the network's own logits are not finite: its training diverged; train it with a smaller lr")
    return logits_NO


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
    difference = float(np.abs(found_NO.astype(np.float64) - expected_NO).max())
    differs_N = found_NO.argmax(axis=1) != expected_NO.argmax(axis=1)
    first_N, second_N = expected_NO.max(axis=1), np.sort(expected_NO, axis=1)[:, -2:][:, 0]
    clear_N = differs_N & (first_N - second_N > TOLERANCE * largest)
    agree = len(expected_NO) - int(differs_N.sum())
    if not difference <= TOLERANCE * largest or clear_N.any():  # a NaN differs
        raise ExportError(
            f"form {form} does not compute what the network does: logits differ by up to {difference:.3g} "
            f"({TOLERANCE * largest:.3g} is allowed at a largest logit of {largest:.3g}), "
            f"{agree} of {len(expected_NO)} labels agree; nothing was written: leave out {form}, and report this"
        )
    return difference, largest, agree


class FreshProcess:
    """A process that has imported the forms' packages but not this one, and waits for a folder."""

    def __init__(self, process: subprocess.Popen[str], job: Path, forms: Sequence[Form]) -> None:
        self._process, self._job, self._forms = process, job, forms

    def check(
        self,
        folder: Path,
        images_NCHW: Float32Array,
        expected_NO: Float32Array,
        preprocessing: Preprocessing,
        *,
        timeout_s: float = 600,
    ) -> list[Row]:
        """Load every form from a folder, run it on images and compare, and so its preprocessing; once per process.

        Args:
            folder: Model folder.
            images_NCHW: Prepared images.
            expected_NO: The network's logits.
            preprocessing: What ``preprocess`` of ``network.py`` must do, if it is there.
            timeout_s: Limit of all forms together.

        Returns:
            A row per form.

        Raises:
            ExportError: A form cannot be loaded or differs, or the process dies or takes too long.
        """
        np.save(self._job / "images.npy", images_NCHW)
        for name, stored in pictures().items():
            (self._job / f"picture-{name}").write_bytes(stored)
        names = ", ".join(form.name for form in self._forms)
        try:
            _, errors = self._process.communicate(json.dumps({"folder": str(folder.resolve())}) + "\n", timeout_s)
        except subprocess.TimeoutExpired:
            raise ExportError(f"forms {names} did not load and run in {timeout_s:.0f} s; try fewer forms") from None
        if not (self._job / "found.json").is_file():
            last = (errors.strip().splitlines() or [f"exit code {self._process.returncode}"])[-1]
            raise ExportError(f"the process that loads the forms {names} died: {last}; try them one by one")
        rows = []
        for number, found in enumerate(json.loads((self._job / "found.json").read_text(encoding="utf-8"))):
            form = self._forms[number]
            if found["error"]:
                raise ExportError(
                    f"form {form.name} cannot be loaded without ddpnas_ray: {found['error']}; leave out {form.name}"
                )
            difference, largest, agree = compare(form.name, np.load(self._job / f"{number}.npy"), expected_NO)
            rows.append(
                Row(
                    form=form.name,
                    file=form.files[0],
                    file_bytes=sum((folder / name).stat().st_size for name in form.files),
                    load_s=found["load_s"],
                    images=len(expected_NO),
                    largest_difference=difference,
                    largest_logit=largest,
                    labels_agree=agree,
                )
            )
        if (folder / "network.py").is_file():
            self._check_preprocessing(preprocessing, errors)
        return rows

    def _check_preprocessing(self, preprocessing: Preprocessing, errors: str) -> None:
        if not (self._job / "prepared.npy").is_file():
            last = (errors.strip().splitlines() or ["it died"])[-1]
            raise ExportError(f"network.py cannot prepare images: {last}; leave out torch and huggingface")
        for (name, stored), found_CHW in zip(
            sorted(pictures().items()), np.load(self._job / "prepared.npy"), strict=True
        ):
            expected_CHW = preprocessing.prepare(open_image(stored, name))
            if not np.allclose(found_CHW, expected_CHW, rtol=0, atol=TOLERANCE * float(np.abs(expected_CHW).max())):
                raise ExportError(
                    f"network.py does not prepare an image ({name}) as in training; nothing was written: leave out "
                    "torch and huggingface, and report this"
                )


def pictures() -> dict[str, bytes]:
    """Encode images as users have them: turned by EXIF or by XMP, transparent, with a palette, or a long strip."""
    pixels = np.random.default_rng(0).integers(0, 256, (12, 20, 4), dtype=np.uint8)
    picture, exif = Image.fromarray(pixels), Image.Exif()
    exif[EXIF_ORIENTATION] = 6
    xmp = b'<x xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"/>'
    files: dict[str, tuple[Image.Image, dict[str, Any]]] = {
        "exif.jpg": (picture.convert("RGB"), {"exif": exif}),
        "xmp.jpg": (picture.convert("RGB"), {"xmp": xmp}),
        "rgba.png": (picture, {}),
        "palette.png": (picture.convert("P"), {"transparency": 0}),
        "grey.png": (picture.convert("LA"), {}),
        "strip.png": (picture.resize((200, 1)), {}),
    }
    found = {}
    for name, (image, options) in files.items():
        buffer = io.BytesIO()
        image.save(buffer, format=Image.registered_extensions()[Path(name).suffix], **options)
        found[name] = buffer.getvalue()
    return found


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
