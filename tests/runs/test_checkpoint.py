"""Checkpoints are restored bit for bit, and damaged ones skipped.

Axes: E edges, K candidates.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pyarrow import fs

from ddpnas_ray.core.requests import EvalResult
from ddpnas_ray.core.sampling import rng_for
from ddpnas_ray.core.state import SearchState, initial_state
from ddpnas_ray.runs.checkpoint import restore, save
from ddpnas_ray.runs.sealed import newest_epoch
from ddpnas_ray.spaces.cell.space import make
from ddpnas_ray.storage.folder import Folder
from ddpnas_ray.strategies.pruning import Pruning
from ddpnas_ray.testing import assert_same_state

SPACE = make(nodes=1).space
STRATEGY = Pruning(epochs_per_round=2)
LAST = 7
FILES = ("arrays.safetensors", "evaluations.parquet", "state.json")


def searched(epochs: int, seed: int = 3) -> SearchState:
    """Return the state of a search with scripted scores after the given epochs; one architecture diverged in each."""
    state = initial_state(SPACE, seed)
    for epoch in range(epochs):
        plan = STRATEGY.ask(state, SPACE)
        assert plan is not None
        results = [EvalResult(score=float(rng_for(epoch, n).random()), loss=1.0 + n) for n in range(len(plan.requests))]
        results[1] = EvalResult(score=float("nan"), loss=float("nan"), ok=False)
        state = STRATEGY.tell(state, SPACE, plan, results)
    return state


def weights(epoch: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(epoch)
    return {
        "stem.weight": rng.standard_normal((3, 2), dtype=np.float32),
        "cells.0/odd name": rng.standard_normal(5, dtype=np.float32)[::2],
        "scalar": np.float32(epoch).reshape(()),
    }


def assert_restored(checkpoints: Folder, epoch: int) -> None:
    found = restore(checkpoints)
    assert found is not None
    state, tensors = found
    assert_same_state(state, searched(epoch))
    assert_same_weights(tensors, weights(epoch))


def assert_same_weights(one: Mapping[str, np.ndarray], other: Mapping[str, np.ndarray]) -> None:
    assert set(one) == set(other)
    for name, tensor in one.items():
        assert tensor.dtype == other[name].dtype
        np.testing.assert_array_equal(tensor, other[name])


@pytest.fixture(params=["path", "file-uri", "subtree", "mock"])
def anywhere(request: pytest.FixtureRequest, tmp_path: Path) -> Folder:
    """A folder for checkpoints that does not exist yet, on several file systems."""
    made: dict[str, Callable[[], Folder]] = {
        "path": lambda: Folder.open(str(tmp_path / "run")),
        "file-uri": lambda: Folder.open(f"file://{tmp_path}/run"),
        "subtree": lambda: Folder(fs.SubTreeFileSystem(str(tmp_path), fs.LocalFileSystem()), "run", "store://run"),
        "mock": lambda: Folder.open("mock:///run"),
    }
    return made[request.param]() / "checkpoints"


@pytest.fixture
def checkpoints(tmp_path: Path) -> Folder:
    """Three checkpoints on disk: after epochs 5, 6 and 7."""
    folder = Folder.open(str(tmp_path / "checkpoints"))
    for epoch in (5, 6, LAST):
        save(folder, searched(epoch), weights(epoch))
    return folder


def test_before_the_first_epoch_there_is_nothing_to_restore(anywhere: Folder) -> None:
    assert restore(anywhere) is None
    assert newest_epoch(anywhere) == 0


@pytest.mark.parametrize("epoch", [0, 1, 2, LAST])
def test_state_history_and_weights_come_back_bit_for_bit(anywhere: Folder, epoch: int) -> None:
    assert len(searched(epoch).history) == epoch // 2
    save(anywhere, searched(epoch), weights(epoch))
    assert_restored(anywhere, epoch)
    assert newest_epoch(anywhere) == epoch


def test_a_restored_search_goes_on_like_one_never_stopped(checkpoints: Folder) -> None:
    found = restore(checkpoints)
    assert found is not None
    ours, theirs = STRATEGY.ask(found[0], SPACE), STRATEGY.ask(searched(LAST), SPACE)
    assert ours is not None
    assert theirs is not None
    for one, other in zip(ours.requests, theirs.requests, strict=True):
        np.testing.assert_array_equal(one.alpha_E, other.alpha_E)
        assert (one.epoch, one.round, one.lr) == (other.epoch, other.round, other.lr)


def test_the_three_newest_are_kept(anywhere: Folder) -> None:
    for epoch in range(1, 6):
        save(anywhere, searched(epoch), weights(epoch))
        assert_restored(anywhere, epoch)
        assert anywhere.names() == [f"ckpt-{n}" for n in range(max(1, epoch - 2), epoch + 1)]


def test_epochs_are_counted_and_not_sorted_as_text(tmp_path: Path) -> None:
    folder = Folder.open(str(tmp_path))
    for epoch in (8, 9, 10, 11):
        save(folder, replace(searched(2), epoch=epoch), weights(epoch))
    assert sorted(folder.names()) == ["ckpt-10", "ckpt-11", "ckpt-9"]
    assert newest_epoch(folder) == 11


def test_saving_an_epoch_again_replaces_it(checkpoints: Folder) -> None:
    save(checkpoints, searched(LAST), weights(99))
    found = restore(checkpoints)
    assert found is not None
    assert_same_weights(found[1], weights(99))
    assert checkpoints.names() == ["ckpt-5", "ckpt-6", "ckpt-7"]


def test_a_checkpoint_holds_three_files_and_their_seal(checkpoints: Folder) -> None:
    assert (checkpoints / "ckpt-7").names() == ["DONE", *FILES]


def test_what_else_lies_there_is_left_alone(checkpoints: Folder) -> None:
    checkpoints.write("notes.txt", b"mine")
    (checkpoints / "ckpt-old").make()
    save(checkpoints, searched(8), weights(8))
    assert_restored(checkpoints, 8)
    assert checkpoints.names() == ["ckpt-6", "ckpt-7", "ckpt-8", "ckpt-old", "notes.txt"]


# --- damage ---


def truncated(folder: Folder, name: str) -> None:
    folder.write(name, folder.read(name)[:-1])


def flipped(folder: Folder, name: str) -> None:
    data = bytearray(folder.read(name))
    data[len(data) // 2] ^= 1
    folder.write(name, bytes(data))


def emptied(folder: Folder, name: str) -> None:
    folder.write(name, b"")


def missing(folder: Folder, name: str) -> None:
    (Path(folder.path) / name).unlink()


@pytest.mark.parametrize("name", [*FILES, "DONE"])
@pytest.mark.parametrize("damage", [truncated, flipped, emptied, missing])
def test_a_damaged_newest_checkpoint_falls_back_and_says_so(
    checkpoints: Folder, caplog: pytest.LogCaptureFixture, damage: Callable[[Folder, str], None], name: str
) -> None:
    damage(checkpoints / "ckpt-7", name)
    if damage is truncated and name == "DONE":
        emptied(checkpoints / "ckpt-7", "DONE")  # its last byte is only the newline
    with caplog.at_level(logging.WARNING):
        assert_restored(checkpoints, 6)
    (said,) = caplog.records
    assert said.levelno == logging.WARNING
    assert "ckpt-7 is damaged" in said.getMessage()
    assert "falling back to the previous one" in said.getMessage()


@pytest.mark.parametrize(
    "content",
    [
        b"{}",
        b'{"state.json": 1}',
        b"\xff",
        b"[]",
        b"null",
        b"3",
    ],
)
def test_a_seal_of_any_content_falls_back(checkpoints: Folder, content: bytes) -> None:
    (checkpoints / "ckpt-7").write("DONE", content)
    assert_restored(checkpoints, 6)


def test_whichever_byte_of_the_seal_is_flipped_the_checkpoint_is_not_misread(tmp_path: Path) -> None:
    folder = Folder.open(str(tmp_path))
    for epoch in (1, 2):
        save(folder, searched(epoch), weights(epoch))
    seal = (folder / "ckpt-2").read("DONE")
    second = searched(2)
    for at in range(len(seal)):
        damaged = bytearray(seal)
        damaged[at] ^= 4
        (Path(folder.path) / "ckpt-2" / "DONE").write_bytes(damaged)
        found: Any = restore(folder)
        if found[0].epoch == 2:
            assert_same_state(found[0], second)
        else:
            assert found[0].epoch == 1


def test_damage_to_all_but_the_oldest_falls_back_to_it(checkpoints: Folder, caplog: pytest.LogCaptureFixture) -> None:
    missing(checkpoints / "ckpt-7", "DONE")
    flipped(checkpoints / "ckpt-6", "arrays.safetensors")
    assert_restored(checkpoints, 5)
    assert len(caplog.records) == 2
    assert newest_epoch(checkpoints) == 6, "files are not verified for that"


def test_when_all_are_damaged_the_search_starts_anew(checkpoints: Folder, caplog: pytest.LogCaptureFixture) -> None:
    for name in checkpoints.names():
        missing(checkpoints / name, "DONE")
    assert restore(checkpoints) is None
    assert len(caplog.records) == 3
    assert newest_epoch(checkpoints) == 0


def test_damaged_later_ones_do_not_survive_the_next_save(checkpoints: Folder) -> None:
    flipped(checkpoints / "ckpt-7", "state.json")
    flipped(checkpoints / "ckpt-6", "state.json")
    assert_restored(checkpoints, 5)
    save(checkpoints, searched(6), weights(6))
    assert checkpoints.names() == ["ckpt-5", "ckpt-6"]
    assert_restored(checkpoints, 6)


def test_what_an_interrupted_save_left_does_not_count(checkpoints: Folder) -> None:
    unfinished = checkpoints / "ckpt-8"
    unfinished.make()
    unfinished.write("arrays.safetensors", b"half")
    assert_restored(checkpoints, LAST)
    save(checkpoints, searched(8), weights(8))
    assert_restored(checkpoints, 8)
    assert unfinished.names() == ["DONE", *FILES]
