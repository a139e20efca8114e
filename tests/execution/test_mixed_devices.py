"""Several kinds of device in one search are recorded and warned about, or refused on request."""

from __future__ import annotations

import io
import json
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from ddpnas_ray import report, search
from ddpnas_ray.console.progress import Display
from ddpnas_ray.core.errors import ResourceError
from ddpnas_ray.core.state import Evaluation
from ddpnas_ray.execution import local
from ddpnas_ray.execution.mixed_devices import DeviceRecord, kinds, mixed_text, refuse_mixed
from ddpnas_ray.runs.files import evaluations_table, read_evaluations
from ddpnas_ray.runs.fingerprint import search_fingerprint
from ddpnas_ray.runs.log import read_log
from ddpnas_ray.storage.folder import Folder
from ddpnas_ray.storage.parquet import read_parquet
from ddpnas_ray.training.device import Device, find_device
from tests.commands import LOCAL, ONE_EPOCH, run

OLD, NEW = "cpu amd-23-1-2 avx2 torch-2.14.1", "cpu amd-25-1-1 avx2 torch-2.14.1"


def evaluation(device: str) -> Evaluation:
    return Evaluation(0, 0, 0, (0,), "val", 0.5, 1.0, True, True, 0.1, "w", "n", device=device)


def folder_of(path: Path) -> Folder:
    (path / "environment.json").write_text(json.dumps({"data_digest": "x"}))
    return Folder.open(str(path))


def events(folder: Path, name: str) -> list[dict[str, Any]]:
    return [event for event in read_log((folder / "log.jsonl").read_bytes()) if event["event"] == name]


def test_one_kind_is_recorded_and_needs_no_warning(tmp_path: Path) -> None:
    record = DeviceRecord(folder_of(tmp_path), "refuse", [evaluation(NEW)])
    assert record.update({NEW: {"torch": "2.14.1"}}) == ""
    assert not (tmp_path / "log.jsonl").exists()


def test_another_kind_is_warned_about_and_recorded_once(tmp_path: Path) -> None:
    record = DeviceRecord(folder_of(tmp_path), "warn", [])
    assert record.update({OLD: {"cpu": "a"}}) == ""
    for _ in range(2):
        warning = record.update({OLD: {"cpu": "a"}, NEW: {"cpu": "b"}})
        assert OLD in warning
        assert NEW in warning
    environment = json.loads((tmp_path / "environment.json").read_text())
    assert environment == {"data_digest": "x", "devices": {OLD: {"cpu": "a"}, NEW: {"cpu": "b"}}}
    assert [event["kinds"] for event in events(tmp_path, "mixed_devices")] == [[OLD, NEW]]


def test_a_resume_remembers_the_kinds_before_it(tmp_path: Path) -> None:
    DeviceRecord(folder_of(tmp_path), "warn", []).update({OLD: {}})
    assert OLD in DeviceRecord(Folder.open(str(tmp_path)), "warn", []).update({NEW: {}})
    with pytest.raises(ResourceError, match="mixed_devices is refuse"):
        DeviceRecord(Folder.open(str(tmp_path)), "refuse", []).update({NEW: {}})


def test_refusal_names_the_kinds_and_survives_pickling() -> None:
    refuse_mixed([NEW, NEW])
    with pytest.raises(ResourceError) as refused:
        refuse_mixed([OLD, NEW])
    text = str(pickle.loads(pickle.dumps(refused.value)))
    assert OLD in text
    assert NEW in text


def test_evaluations_without_a_device_are_of_no_kind() -> None:
    assert kinds([evaluation(""), evaluation(NEW), evaluation(OLD), evaluation(OLD)]) == {OLD: 2, NEW: 1}
    assert mixed_text([NEW]) == ""


def test_records_of_versions_without_devices_are_read_and_the_fingerprint_does_not_see_them() -> None:
    data = evaluations_table([evaluation(NEW)])
    assert read_evaluations(data) == (evaluation(NEW),)
    sink = io.BytesIO()
    pq.write_table(read_parquet(data).drop_columns("device"), sink)
    assert read_evaluations(sink.getvalue()) == (evaluation(""),)
    import numpy as np

    nothing = (np.zeros((1, 1)), np.zeros((1, 1)), np.zeros((1, 1), dtype=np.int64))
    old, new = (search_fingerprint(*nothing, [evaluation(device)], {}) for device in (OLD, NEW))
    assert old == new


def test_a_warning_is_printed_once() -> None:
    lines = io.StringIO()
    display = Display("title", lines, live=False)
    for _ in range(3):
        display.show({"phase": "starting", "note": "", "warning": "two kinds", "workers": 0})
    assert lines.getvalue() == "warning: two kinds\n"


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A search started on this machine, which is of another kind from now on."""
    out = tmp_path / "run"
    assert run(search.main, *LOCAL, *ONE_EPOCH, "--out", out).code == 0
    other = Device(OLD, {"cpu": "another"})
    monkeypatch.setattr(local, "find_device", lambda where: other)
    train = local.Trainer.train_and_score

    def elsewhere(self: Any, *args: Any) -> Any:
        result, flat = train(self, *args)
        return replace(result, device=OLD), flat

    monkeypatch.setattr(local.Trainer, "train_and_score", elsewhere)
    return out


def test_resuming_on_another_kind_warns_and_is_in_log_result_and_reports(elsewhere: Path) -> None:
    said = run(search.main, "--out", elsewhere, "--resume")
    assert said.code == 0
    assert said.out.count("warning: 2 kinds of device") == 1
    here = find_device("cpu").kind
    result = json.loads((elsewhere / "result.json").read_text())
    assert result["devices"].keys() == {here, OLD}
    assert sum(result["devices"].values()) == result["architecture_epochs"]
    assert json.loads((elsewhere / "environment.json").read_text())["devices"].keys() == {here, OLD}
    assert [event["kinds"] for event in events(elsewhere, "mixed_devices")] == [[here, OLD]]
    text = run(report.main, elsewhere).out
    assert "2 kinds of device" in text
    assert run(report.main, elsewhere, "--html").code == 0
    page = (elsewhere / "report.html").read_text()
    assert "2 kinds" in page
    assert OLD in page


def test_resuming_on_another_kind_is_refused_in_one_line_where_that_is_asked_for(elsewhere: Path) -> None:
    said = run(search.main, "--out", elsewhere, "--resume", "--set", "execution.mixed_devices=refuse")
    assert said.code == 2
    assert "execution.mixed_devices is refuse, but there are 2 kinds of device" in said.err
    assert len(said.err.strip().splitlines()) == 1
    assert not (elsewhere / "result.json").exists()
