"""Files of a running search: written after every epoch, or less often if epochs take milliseconds."""

from __future__ import annotations

import inspect
import json
import logging
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ddpnas_ray.core.errors import RunDirError
from ddpnas_ray.core.space import Edge, Op, SearchSpace, each_edge_alone
from ddpnas_ray.core.state import Evaluation, SearchState, initial_state
from ddpnas_ray.experiment.recorder import NoRecorder, Recorder
from ddpnas_ray.runs import checkpoint
from ddpnas_ray.storage.folder import Folder

EDGES = (Edge("a", (Op("conv", "parameter"), Op("skip", "non_parameter"))),)
SPACE = SearchSpace("small", EDGES, each_edge_alone(EDGES))
WEIGHTS = {"w": np.zeros(2, dtype=np.float32)}


def after(epochs: int) -> SearchState:
    row = Evaluation(0, 0, 0, (0,), "val", 0.5, 1.0, True, True, 0.1, "local", "")
    rows = tuple(replace(row, epoch=epoch) for epoch in range(epochs))
    return replace(initial_state(SPACE, 0), epoch=epochs, evaluations=rows)


def recorder(folder: Path, every_s: float = 0.0, *, overlap: bool = False) -> Recorder:
    return Recorder(Folder.open(str(folder)), SPACE, 1, every_s, overlap=overlap)


def events(folder: Path) -> list[str]:
    return [json.loads(line)["event"] for line in (folder / "log.jsonl").read_text().splitlines()]


def restored_epoch(folder: Path) -> int | None:
    found = recorder(folder).restore()
    return None if found is None else found[0].epoch


def test_every_epoch_is_saved(tmp_path: Path) -> None:
    here = recorder(tmp_path)
    for epoch in (1, 2):
        here.save(after(epoch), WEIGHTS)
        assert restored_epoch(tmp_path) == epoch


def test_epochs_of_milliseconds_are_saved_now_and_then_and_the_last_one_at_the_end(tmp_path: Path) -> None:
    here = recorder(tmp_path, every_s=3600.0)
    here.save(after(1), WEIGHTS)
    assert restored_epoch(tmp_path) is None
    here.stop(after(2), WEIGHTS)
    assert restored_epoch(tmp_path) == 2
    assert events(tmp_path) == ["stopped"]


def test_the_result_comes_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []
    write = Folder.write
    monkeypatch.setattr(Folder, "write", lambda self, name, data: (written.append(name), write(self, name, data)))
    recorder(tmp_path).finish(after(1), WEIGHTS, {"fingerprint": "f", "seconds": 1.0})
    assert written[-1] == "result.json"
    assert {"evaluations.parquet", "theta.parquet", "ledger.parquet", "weights.safetensors"} <= set(written)
    assert events(tmp_path) == ["finished"]


def test_a_new_run_has_nothing_to_restore(tmp_path: Path) -> None:
    assert recorder(tmp_path).restore() is None
    assert recorder(tmp_path).probed() == ()


def test_keeping_nothing_writes_nothing_whatever_happens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    methods = {name for name, _ in inspect.getmembers(Recorder, inspect.isfunction) if not name.startswith("_")}
    assert methods <= vars(NoRecorder).keys(), "each of them is overridden"
    nothing: Any = NoRecorder()
    assert nothing.restore() is None and nothing.probed() == ()
    nothing.start(after(0), [])
    nothing.save(after(1), WEIGHTS)
    nothing.log_epoch({})
    nothing.stop(after(1), WEIGHTS)
    nothing.finish(after(1), WEIGHTS, {})
    nothing.close()
    assert list(tmp_path.iterdir()) == []


# --- execution.overlap_checkpoints ---


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Checkpoints are written only once this is set."""
    opened, save = threading.Event(), checkpoint.save

    def slow(*arguments: Any) -> None:
        assert opened.wait(30)
        save(*arguments)

    monkeypatch.setattr(checkpoint, "save", slow)
    yield opened
    opened.set()


def test_an_epoch_is_written_while_the_next_one_changes_the_weights_in_place(
    tmp_path: Path, gate: threading.Event
) -> None:
    weights = {"w": np.zeros(2, dtype=np.float32)}
    with closing(recorder(tmp_path, overlap=True)) as here:
        here.save(after(1), weights)
        weights["w"] += 1  # as a merge does
        assert restored_epoch(tmp_path) is None, "not written yet"
        gate.set()
        here.save(after(2), weights)  # waits for the first one
        restored = recorder(tmp_path).restore()
        assert restored is not None and restored[0].epoch >= 1
        weights["w"] += 1
    assert restored_epoch(tmp_path) == 2, "closing waits"
    for epoch, value in ((1, 0), (2, 1)):
        folder = Folder.open(str(tmp_path / "only"))
        (tmp_path / "only").mkdir(exist_ok=True)
        (tmp_path / "checkpoints" / f"ckpt-{epoch}").rename(tmp_path / "only" / f"ckpt-{epoch}")
        found = checkpoint.restore(folder)
        assert found is not None and found[0].epoch == epoch
        assert (found[1]["w"] == value).all()


@pytest.mark.parametrize("end", ["stop", "finish"])
def test_the_end_of_a_search_waits_for_the_writer(tmp_path: Path, gate: threading.Event, end: str) -> None:
    here = recorder(tmp_path, overlap=True)
    here.save(after(1), WEIGHTS)
    threading.Timer(0.2, gate.set).start()
    if end == "stop":
        here.stop(after(1), WEIGHTS)
    else:
        here.finish(after(1), WEIGHTS, {"fingerprint": "f", "seconds": 1.0})
    assert restored_epoch(tmp_path) == 1
    here.close()


def test_an_error_of_the_writer_is_raised_by_the_next_save(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*arguments: Any) -> None:
        raise RunDirError("runs/a: no space left")

    with closing(recorder(tmp_path, overlap=True)) as here:
        with monkeypatch.context() as patched:
            patched.setattr(checkpoint, "save", full)
            here.save(after(1), WEIGHTS)
            with pytest.raises(RunDirError, match="no space left"):
                here.save(after(2), WEIGHTS)
            here.save(after(3), WEIGHTS)
            with pytest.raises(RunDirError, match="no space left"):
                here.stop(after(3), WEIGHTS)
            here.save(after(4), WEIGHTS)
            with caplog.at_level(logging.WARNING):
                here.close()  # another error may be on its way, which says more
        assert [r.getMessage() for r in caplog.records] == ["the last epoch is not saved: runs/a: no space left"]
    assert restored_epoch(tmp_path) is None
