"""Illustrations come from the outputs that were scored, as plain values, and cost no training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ddpnas_ray.tasks.base import PNG, Illustrations
from ddpnas_ray.tasks.classification.task import ClassificationTask
from ddpnas_ray.training.fit import fit
from ddpnas_ray.training.illustrate import illustrated, plain
from ddpnas_ray.training.snapshot import Snapshot
from tests.training.test_fit import RECIPE, network, task_of


class Shown(ClassificationTask):
    """Counts its calls, and keeps what it is given."""

    given: list[tuple[nn.Module, Sequence[tuple[Tensor, Any]]]] = []  # noqa: RUF012

    def illustrate(self, network: Callable[[Any], Tensor], outputs: Sequence[tuple[Tensor, Any]]) -> Illustrations:
        assert isinstance(network, nn.Module) and not network.training and not torch.is_grad_enabled()
        self.given.append((network, outputs))
        return Illustrations({"a": PNG}, np.eye(10, dtype=int), np.array([*"0123456789"]))  # type: ignore[arg-type]


def shown_task() -> Shown:
    made = task_of(RECIPE)
    return Shown(**{field.name: getattr(made, field.name) for field in fields(made)})


def trained(recipe: Any, **options: Any) -> tuple[Snapshot, list[Snapshot]]:
    Shown.given.clear()
    saved: list[Snapshot] = []
    end = fit(network(recipe), shown_task(), recipe, 0, 1, lambda: None, saved.append, seed=1, **options)
    return end, saved


def test_it_is_asked_once_after_the_last_epoch_with_the_outputs_of_the_test_examples() -> None:
    test = shown_task().on_test()
    end, saved = trained(RECIPE, illustrate=True, on_test=lambda: test)
    assert [snapshot.illustrations is None for snapshot in saved] == [True, True, False]
    ((_, outputs),) = Shown.given
    assert sum(len(labels) for _, labels in outputs) == test.val_examples
    assert test.metric.score(outputs) == end.history[-1]["test"]
    assert end.illustrations is not None
    assert end.illustrations.confusion == np.eye(10).tolist() and type(end.illustrations.confusion[0][0]) is int


def test_without_test_examples_it_is_asked_about_the_validation_ones_of_the_average() -> None:
    end, _ = trained(replace(RECIPE, ema=0.9), illustrate=True)
    ((asked, outputs),) = Shown.given
    assert shown_task().metric.score(outputs) == end.history[-1]["val"]
    np.testing.assert_array_equal(asked.state_dict()["last.weight"].numpy(), end.tensors["average/last.weight"])


def test_only_those_who_want_them_get_them_and_the_weights_are_the_same() -> None:
    without, _ = trained(RECIPE)
    assert without.illustrations is None and Shown.given == []
    end, _ = trained(RECIPE, illustrate=True)
    assert all(np.array_equal(end.tensors[name], without.tensors[name]) for name in end.tensors)


def test_a_finished_training_keeps_what_it_had() -> None:
    end, _ = trained(RECIPE, illustrate=True)
    Shown.given.clear()
    again = fit(network(RECIPE), shown_task(), RECIPE, 0, 1, lambda: end, print, seed=1, illustrate=True)
    assert again.illustrations == end.illustrations and Shown.given == []


@pytest.mark.parametrize(
    ("found", "says"),
    [
        (Illustrations({"a": b"GIF89a"}), "picture 'a' is not a PNG file"),
        (Illustrations({}, [[1, 2]], ["a", "b"]), "a count for each pair of the 2 classes"),
        (Illustrations({}, [[1, 2], [3]], ["a", "b"]), "a count for each pair of the 2 classes"),
        (Illustrations({}, [[1, -2], [3, 4]], ["a", "b"]), "a count for each pair of the 2 classes"),
    ],
)
def test_what_cannot_be_kept_is_named(found: Illustrations, says: str) -> None:
    class Task:
        def illustrate(self, network: Any, outputs: Any) -> Illustrations:
            return found

    with pytest.raises(ValueError, match=says):
        plain(found)
    nothing, why = illustrated(nn.Linear(1, 1), Task(), [], "cpu")
    assert nothing is None and why.startswith("ValueError: ") and says in why


@pytest.mark.gpu
def test_a_network_on_a_gpu_is_shown_on_the_cpu() -> None:
    end, _ = trained(RECIPE, illustrate=True, device="cuda")
    ((asked, outputs),) = Shown.given
    assert {tensor.device.type for pair in outputs for tensor in pair} == {"cpu"}
    assert {p.device.type for p in asked.parameters()} == {"cuda"}, "it is moved back"
    assert end.illustrations is not None
