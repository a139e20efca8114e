"""Distillation of hidden states."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from ddpnas_ray.core.errors import ConfigError
from ddpnas_ray.data.config import DataConfig
from ddpnas_ray.spaces.bert.space import make as bert
from ddpnas_ray.spaces.target import Target, TargetConfig
from ddpnas_ray.tasks.recipe import RetrainingConfig
from ddpnas_ray.tasks.text.task import TextTask, make
from ddpnas_ray.training.fit import fit
from ddpnas_ray.training.hidden import Hidden
from ddpnas_ray.training.snapshot import Snapshot
from tests.tasks.text.making import reviews, write

RECIPE = RetrainingConfig(
    epochs=4, batch_size=16, optimizer="adamw", lr=0.003, train_on="train", teacher_weight=0.0, teacher_hidden=1.0
)


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> TextTask:
    data = write(tmp_path_factory.mktemp("texts") / "reviews.tsv", reviews(96))
    options: dict[str, Any] = {"vocabulary": 100, "max_length": 24, "columns": ("sentence",)}
    return make(DataConfig(path=str(data), val_fraction=0.25), 0, **options).for_retraining(RECIPE)


def network(task: TextTask, *alpha: int, seed: int = 0, hidden: int = 16) -> Any:
    spec = bert(hidden=hidden, layers=3, heads=4, ffn=32, positions=24, depths=(2, 3), dropout=0.0)
    target = Target.resolve(TargetConfig(), task.inputs, spec.target)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made = spec.deploy(np.array(alpha), target)
        for parameter in made.parameters():
            nn.init.normal_(parameter, std=0.3)
    return made


def trained(task: TextTask, recipe: RetrainingConfig, student: Any, teacher: Any, at: int | None = None) -> Snapshot:
    """Train, with a kill after epoch ``at``."""
    saved: list[Snapshot] = []
    for until in (at, None):
        last = saved[-1] if saved else None
        end = fit(
            network(task, 0, 0, 0, 0, 0, 0, 0, seed=1) if last else student,
            task, recipe, 0, 1, lambda last=last: last, saved.append, seed=2, teacher=teacher, until=until,
        )  # fmt: skip
        if at is None:
            break
    return end


def apart(task: TextTask, student: Any, teacher: Any) -> float:
    hidden, x = Hidden(student, teacher), next(iter(task.validation_batches(16))).inputs
    with torch.no_grad():
        student.eval()(x), teacher(x)
        return float(hidden.loss())


def test_hidden_states_move_towards_the_teacher_s(task: TextTask) -> None:
    teacher = network(task, 1, 2, 3, 2, 3, 2, 3).eval().requires_grad_(False)
    student, other = (network(task, 0, 0, 0, 0, 0, 0, 0, seed=1) for _ in range(2))
    before = apart(task, student, teacher)
    trained(task, RECIPE, student, teacher)
    trained(task, replace(RECIPE, teacher_hidden=0.0), other, teacher)
    assert apart(task, student, teacher) < 0.9 * before
    assert apart(task, student, teacher) < apart(task, other, teacher)


def test_killed_and_resumed_equals_never_killed(task: TextTask) -> None:
    teacher = network(task, 1, 2, 3, 2, 3, 2, 3).eval().requires_grad_(False)
    first, second = (trained(task, RECIPE, network(task, 0, 0, 0, 0, 0, 0, 0, seed=1), teacher, at) for at in (None, 2))
    assert first.tensors.keys() == second.tensors.keys()
    assert all(np.array_equal(first.tensors[name], second.tensors[name]) for name in first.tensors)


def test_layers_are_paired_by_their_number_in_the_full_network(task: TextTask) -> None:
    whole, half = network(task, 1, 2, 3, 2, 3, 2, 3), network(task, 0, 2, 3, 2, 3, 2, 3)
    assert (list(whole.hidden_states()), list(half.hidden_states())) == (["0", "1", "2"], ["0", "2"])
    half.load_state_dict(whole.state_dict(), strict=False)
    hidden, x = Hidden(half.eval(), whole.eval()), task.inputs.random(3)
    with torch.no_grad():
        half(x), whole(x)
        first = (half.hidden_states()["0"], whole.hidden_states()["0"])
        assert float(hidden.loss()) > 0  # layer 1 changes what layer 2 sees
    assert all(torch.equal(a, b) for a, b in zip(*(layer.parameters() for layer in first), strict=True))


@pytest.mark.parametrize(
    "teacher,said",
    [
        (nn.Linear(2, 2), "the teacher has no hidden states"),
        ({"hidden": 24}, r"hidden states have shape \(3, 24, 16\), those of the teacher \(3, 24, 24\)"),
    ],
)
def test_teachers_that_do_not_fit_are_refused(task: TextTask, teacher: Any, said: str) -> None:
    student = network(task, 0, 0, 0, 0, 0, 0, 0)
    if isinstance(teacher, dict):
        teacher = network(task, 0, 0, 0, 0, 0, 0, 0, **teacher)
    with pytest.raises(ConfigError, match=said):
        hidden, x = Hidden(student, teacher), task.inputs.random(3)
        student(x), teacher(x)
        hidden.loss()
