"""Which network teaches: named or largest, tried before anything is written, and the same one on a resume."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from ddpnas_ray.core.errors import ConfigError, RunDirError
from ddpnas_ray.retraining.files import first_files
from ddpnas_ray.retraining.prepare import Wish, make
from ddpnas_ray.retraining.retraining import Retraining, Teacher, deploy_network
from ddpnas_ray.runs.directory import create_run
from ddpnas_ray.storage.folder import Folder
from tests.conftest import TINY
from tests.retraining.finished import searched, trained

BIAS = 0.0


def linear(outputs: int = 10) -> nn.Module:
    last = nn.Linear(64, outputs)
    nn.init.zeros_(last.weight)
    nn.init.constant_(last.bias, BIAS)
    return nn.Sequential(nn.Flatten(), last)


def of_eleven_classes() -> nn.Module:
    return linear(11)


def of_colour_images() -> nn.Module:
    return nn.Conv2d(3, 10, 3)


def broken() -> nn.Module:
    raise OSError("no such file: teacher.pt")


def alone(teacher: str) -> Retraining:
    return make(Wish(network="darts_v2", overrides=[*TINY[3:], f"retraining.teacher={teacher}"]))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A search with one retrained network, `result`."""
    shutil.copytree(searched(), tmp_path / "run")
    shutil.copytree(trained(), tmp_path / "run" / "retrained" / "result")
    return tmp_path / "run"


def edit(file: Path, **values: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def larger(run: Path, name: str) -> Path:
    """Add a network of the same label and weights that claims more parameters."""
    folder = shutil.copytree(trained(), run / "retrained" / name)
    edit(folder / "network.json", costs={"params": 10**9})
    return folder


def taught(run: Path, name: str) -> Retraining:
    return make(Wish(run=str(run), overrides=[f"retraining.teacher={name}"]))


def started(retraining: Retraining, out: Path) -> Folder:
    return create_run(str(out), first_files(retraining))


def test_teachers_are_functions_or_retrained_networks() -> None:
    with pytest.raises(ConfigError, match="returned dict, not a Module"):
        alone("builtins:dict")
    teacher = alone(f"{__name__}:linear").teacher
    assert teacher is not None and teacher.name == f"{__name__}:linear" and not teacher.module().training
    chosen = alone(f"{__name__}:linear").chosen
    tensors = {name: value.numpy() for name, value in deploy_network(chosen).state_dict().items()}
    module = Teacher(chosen, tensors).module()
    assert not module.training and not any(p.requires_grad for p in module.parameters())


@pytest.mark.parametrize(
    ("name", "says"),
    [
        (":f", ":f: ValueError: Empty module name; give module:function"),
        ("torch.nn:Linear", "torch.nn:Linear: TypeError: "),
        (f"{__name__}:broken", "broken: OSError: no such file: teacher.pt; give module:function"),
        (f"{__name__}:of_colour_images", r"fails on inputs of 1x8x8, 10 outputs: RuntimeError: "),
        (f"{__name__}:of_eleven_classes", r"its outputs have shape \(2, 11\), those of network darts_v2 \(2, 10\)"),
        ("result", "no retrained network of the run has this name; the run has no retrained network yet"),
    ],
)
def test_what_cannot_teach_is_one_error(name: str, says: str) -> None:
    with pytest.raises(ConfigError, match=rf"retraining.teacher.*{says}"):
        alone(name)


def test_a_network_is_named_by_its_folder_as_labels_may_repeat(run: Path) -> None:
    larger(run, "again")
    for name in ("result", "again"):
        teacher = taught(run, name).teacher
        assert teacher is not None and teacher.folder == name and teacher.name == "result"


def test_the_largest_is_one_of_the_same_data(run: Path) -> None:
    other = larger(run, "other")
    assert (teacher := taught(run, "largest").teacher) and teacher.folder == "other"
    config = (other / "config.yaml").read_text()
    edit(other / "environment.json", data_digest="0" * 64)
    assert (teacher := taught(run, "largest").teacher) and teacher.folder == "other", "another split"
    (other / "config.yaml").write_text(config.replace("name: digits", "name: cifar10"))
    assert (teacher := taught(run, "largest").teacher) and teacher.folder == "result"
    shutil.rmtree(run / "retrained" / "result")
    with pytest.raises(ConfigError, match="no retrained network of the run was trained on these data; name one of oth"):
        taught(run, "largest")


def test_a_resume_has_the_same_teacher(run: Path, tmp_path: Path) -> None:
    first = taught(run, "largest")
    saved = started(first, tmp_path / "x")
    larger(run, "later")
    for wish in (Wish(), Wish(run=str(run))):
        again = make(wish, saved)
        assert again.teacher is not None and first.teacher is not None
        assert again.teacher.json() == first.teacher.json() and again.teacher.folder == "result"
    edit(run / "retrained" / "result" / "result.json", fingerprint="0" * 64)
    with pytest.raises(RunDirError, match=r"its teacher .*/retrained/result is gone or was trained anew; restore it"):
        make(Wish(), saved)
    shutil.rmtree(run / "retrained" / "result")
    with pytest.raises(RunDirError, match=r"its teacher .*/retrained/result is gone"):
        make(Wish(), saved)


def test_a_function_must_give_the_same_weights_on_a_resume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved = started(alone(f"{__name__}:linear"), tmp_path / "x")
    assert make(Wish(), saved).teacher is not None
    monkeypatch.setattr(f"{__name__}.BIAS", 1.0)
    with pytest.raises(RunDirError, match="linear has other weights than when the training started"):
        make(Wish(), saved)


def test_a_teacher_may_have_weights_that_numpy_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    class Coarse(nn.Sequential):
        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            return super().forward(inputs.bfloat16()).float()

    monkeypatch.setattr(f"{__name__}.of_eleven_classes", lambda: Coarse(linear().bfloat16()))
    assert alone(f"{__name__}:of_eleven_classes").teacher is not None


def test_folders_of_older_versions_resume_without_a_teacher_only(tmp_path: Path) -> None:
    for name, teacher in (("x", "null"), ("y", f"{__name__}:linear")):
        saved = started(alone(teacher), tmp_path / name)
        content = json.loads((tmp_path / name / "network.json").read_text())
        kept = {key: value for key, value in content.items() if key not in ("run", "teacher")}
        (tmp_path / name / "network.json").write_text(json.dumps(kept))
        if name == "x":
            assert make(Wish(), saved).teacher is None
        else:
            with pytest.raises(RunDirError, match=r"network.json does not say which network retraining.teacher was"):
                make(Wish(), saved)
