"""Fingerprints: what changes them, what does not, and how they are recomputed from the files."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ddpnas_ray.core.errors import RunDirError
from ddpnas_ray.core.state import Evaluation
from ddpnas_ray.runs.files import (
    evaluations_table,
    json_file,
    space_json,
    theta_table,
    weights_file,
)
from ddpnas_ray.runs.fingerprint import search_fingerprint, verify_fingerprint
from ddpnas_ray.storage.folder import Folder
from tests.runs.made import EXISTS_EK, SPACE, evaluation, record


@dataclass(frozen=True)
class Found:
    """Arguments of a fingerprint."""

    theta_EK: np.ndarray
    momentum_EK: np.ndarray
    pruned_at_EK: np.ndarray
    evaluations: tuple[Evaluation, ...]
    tensors: dict[str, np.ndarray]

    def fingerprint(self) -> str:
        return search_fingerprint(self.theta_EK, self.momentum_EK, self.pruned_at_EK, self.evaluations, self.tensors)

    def with_row(self, **changes: Any) -> Found:
        first, *others = self.evaluations
        return replace(self, evaluations=(replace(first, **changes), *others))

    def with_tensor(self, name: str, tensor: np.ndarray) -> Found:
        return replace(self, tensors=self.tensors | {name: tensor})


def found() -> Found:
    last = record(1)
    rng = np.random.default_rng(5)
    return Found(
        last.theta_EK,
        last.momentum_EK,
        last.pruned_at_EK,
        tuple(evaluation(i) for i in range(6)),
        {"a.weight": rng.random((2, 3), dtype=np.float32), "b.weight": rng.random(4, dtype=np.float32)},
    )


def next_float(array: np.ndarray, at: tuple[int, ...]) -> np.ndarray:
    """Return the next float."""
    other = array.copy()
    other[at] = np.nextafter(other[at], np.array(np.inf, dtype=array.dtype))
    return other


def one_more(array: np.ndarray, at: tuple[int, ...]) -> np.ndarray:
    other = array.copy()
    other[at] += 1
    return other


CHANGES: dict[str, Callable[[Found], Found]] = {
    "theta": lambda f: replace(f, theta_EK=next_float(f.theta_EK, (0, 1))),
    "V": lambda f: replace(f, momentum_EK=next_float(f.momentum_EK, (1, 0))),
    "pruned_at": lambda f: replace(f, pruned_at_EK=one_more(f.pruned_at_EK, (0, 0))),
    "alpha": lambda f: f.with_row(alpha_E=(1, 0)),
    "score": lambda f: f.with_row(score=math.nextafter(f.evaluations[0].score, 1.0)),
    "loss": lambda f: f.with_row(loss=math.nextafter(f.evaluations[0].loss, 1.0)),
    "loss that diverged": lambda f: f.with_row(loss=math.nan),
    "round": lambda f: f.with_row(round=9),
    "epoch": lambda f: f.with_row(epoch=9),
    "architecture": lambda f: f.with_row(architecture=9),
    "an evaluation less": lambda f: replace(f, evaluations=f.evaluations[:-1]),
    "a weight": lambda f: f.with_tensor("b.weight", next_float(f.tensors["b.weight"], (3,))),
    "a weight's name": lambda f: replace(
        f, tensors={"a.weight": f.tensors["a.weight"], "c.weight": f.tensors["b.weight"]}
    ),
    "a weight's shape": lambda f: f.with_tensor("a.weight", f.tensors["a.weight"].reshape(3, 2)),
    "a weight's type": lambda f: f.with_tensor("a.weight", f.tensors["a.weight"].view(np.int32)),
    "a weight more": lambda f: f.with_tensor("c.weight", np.zeros(0, dtype=np.float32)),
    "weights swapped": lambda f: replace(
        f, tensors={"a.weight": f.tensors["a.weight"][::-1], "b.weight": f.tensors["b.weight"]}
    ),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_the_fingerprint_changes_with(change: Callable[[Found], Found]) -> None:
    assert change(found()).fingerprint() != found().fingerprint()


SAME: dict[str, Callable[[Found], Found]] = {
    "nothing": lambda f: f,
    "the order of evaluations": lambda f: replace(f, evaluations=f.evaluations[::-1]),
    "the order of weights": lambda f: replace(f, tensors=dict(reversed(f.tensors.items()))),
    "the worker": lambda f: f.with_row(worker="ddpnas-worker-3/17"),
    "the node": lambda f: f.with_row(node="ab12"),
    "the time": lambda f: f.with_row(seconds=99.0),
    "the memory order": lambda f: replace(
        f.with_tensor("a.weight", np.asfortranarray(f.tensors["a.weight"])), theta_EK=np.asfortranarray(f.theta_EK)
    ),
    "the byte order": lambda f: replace(
        f.with_tensor("a.weight", f.tensors["a.weight"].astype(">f4")), theta_EK=f.theta_EK.astype(">f8")
    ),
}


@pytest.mark.parametrize("change", SAME.values(), ids=SAME.keys())
def test_the_fingerprint_does_not_depend_on(change: Callable[[Found], Found]) -> None:
    assert change(found()).fingerprint() == found().fingerprint()


def test_every_nan_has_one_fingerprint() -> None:
    negative = float(np.frombuffer(np.uint64(0xFFF8000000000001).tobytes(), dtype="<f8")[0])
    assert found().with_row(loss=math.nan).fingerprint() == found().with_row(loss=negative).fingerprint()


def test_the_fingerprint_is_64_hexadecimal_digits() -> None:
    assert len(found().fingerprint()) == 64
    int(found().fingerprint(), 16)


@pytest.fixture
def finished(tmp_path: Path) -> Folder:
    """Write the files of a finished run that the fingerprint is recomputed from."""
    f = found()
    folder = Folder.open(str(tmp_path))
    folder.write("space.json", space_json(SPACE, {}, {}))
    folder.write("theta.parquet", theta_table([record(0), record(1)], SPACE))
    folder.write("evaluations.parquet", evaluations_table(f.evaluations))
    folder.write("weights.safetensors", weights_file(f.tensors))
    # Padding in the files is as in the algorithm: theta and V are 0, pruned_at is -1.
    pruned_at_EK = np.where(EXISTS_EK, f.pruned_at_EK, -1)
    folder.write("result.json", json_file({"fingerprint": replace(f, pruned_at_EK=pruned_at_EK).fingerprint()}))
    return folder


def test_the_fingerprint_is_recomputed_from_the_files(finished: Folder) -> None:
    assert verify_fingerprint(finished).agrees


def test_a_changed_file_is_found(finished: Folder) -> None:
    finished.write("theta.parquet", theta_table([record(0)], SPACE))
    assert not verify_fingerprint(finished).agrees


def test_an_unfinished_run_has_no_fingerprint(finished: Folder) -> None:
    (Path(finished.path) / "result.json").unlink()
    with pytest.raises(
        RunDirError, match=r"has not finished; resume with: python -m ddpnas_ray.search --out .* --resume"
    ):
        verify_fingerprint(finished)


@pytest.mark.parametrize("name", ["space.json", "theta.parquet", "evaluations.parquet", "weights.safetensors"])
def test_a_missing_file_is_said(finished: Folder, name: str) -> None:
    (Path(finished.path) / name).unlink()
    with pytest.raises(RunDirError, match="cannot be read"):
        verify_fingerprint(finished)


@pytest.mark.parametrize(
    "name",
    [
        "space.json",
        "theta.parquet",
        "evaluations.parquet",
        "weights.safetensors",
        "result.json",
    ],
)
def test_a_truncated_file_is_said(finished: Folder, name: str) -> None:
    data = finished.read(name)
    finished.write(name, data[: len(data) // 2])
    with pytest.raises(RunDirError, match=r"cannot be read|damaged"):
        verify_fingerprint(finished)
