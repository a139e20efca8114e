"""Several tasks at once: columns of one layer, the loss of each example's own task, the mean of the tasks' scores."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy, kl_div, mse_loss

from ddpnas_ray.metrics.accuracy import score as accuracy
from ddpnas_ray.metrics.pearson import score as pearson
from ddpnas_ray.tasks.base import find_metric
from ddpnas_ray.tasks.text.heads import Head, Heads

ACCURACY, F1, PEARSON = (find_metric(name) for name in ("accuracy", "f1", "pearson"))
TWO = Head(name="two", classes=("a", "b"), metrics=(ACCURACY, F1), first=0, parts=("two",))
THREE = Head(name="three", classes=("a", "b", "c"), metrics=(ACCURACY,), first=2, parts=("m", "mm"))
NUMBER = Head(name="number", classes=(), metrics=(PEARSON,), first=5, parts=("number",))
ALL = Heads((TWO, THREE, NUMBER))


def batch(n: int, seed: int) -> tuple[torch.Tensor, Any, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    parts, outputs = rng.integers(4, size=n), torch.from_numpy(rng.normal(size=(n, 6))).float().requires_grad_()
    labels = np.select([parts == 0, parts < 3], [rng.integers(2, size=n), rng.integers(3, size=n)], rng.normal(size=n))
    return outputs, ALL.targets(labels, parts), labels, parts


@given(n=st.integers(1, 40), seed=st.integers(0, 999), smoothing=st.sampled_from([0.0, 0.1]))
def test_the_loss_is_the_mean_of_each_example_s_own(n: int, seed: int, smoothing: float) -> None:
    outputs, targets, labels, parts = batch(n, seed)
    each = []
    for row, label, part in zip(outputs, labels, parts, strict=True):
        if part == 3:
            each.append((row[5] - np.float32(label)) ** 2)
        else:
            own = row[:2] if part == 0 else row[2:5]
            each.append(cross_entropy(own[None], torch.tensor([int(label)]), label_smoothing=smoothing))
    wanted = torch.stack(each).mean()
    loss = ALL.loss(outputs, targets, smoothing)
    assert loss.item() == pytest.approx(wanted.item(), rel=1e-5)
    (found,), (gradient,) = torch.autograd.grad(loss, [outputs]), torch.autograd.grad(wanted, [outputs])
    assert torch.isfinite(found).all() and torch.allclose(found, gradient, atol=1e-6)


@given(n=st.integers(1, 40), seed=st.integers(0, 999), temperature=st.sampled_from([1.0, 3.0]))
def test_a_teacher_is_followed_by_each_example_in_its_own_task_alone(n: int, seed: int, temperature: float) -> None:
    outputs, targets, _, parts = batch(n, seed)
    taught = torch.from_numpy(np.random.default_rng(seed + 1).normal(size=(n, 6))).float()
    each = []
    for row, wanted, part in zip(outputs, taught, parts, strict=True):
        if part == 3:
            each.append((row[5] - wanted[5]) ** 2)
        else:
            own = slice(2) if part == 0 else slice(2, 5)
            found, p = (row[own] / temperature).log_softmax(dim=0), (wanted[own] / temperature).softmax(dim=0)
            each.append(temperature**2 * kl_div(found, p, reduction="sum"))
    expected = torch.stack(each).mean()
    loss = ALL.distillation_loss(outputs, taught, targets, temperature)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-4, abs=1e-6)
    (found,), (gradient,) = torch.autograd.grad(loss, [outputs]), torch.autograd.grad(expected, [outputs])
    assert torch.isfinite(found).all() and torch.allclose(found, gradient, atol=1e-6)


def test_a_teacher_of_one_task_is_followed_in_all_its_outputs() -> None:
    outputs, taught = (torch.randn(8, 2, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
    of_classes = Heads((TWO,)).distillation_loss(outputs, taught, torch.zeros(8, dtype=torch.int64), 2.0)
    found, wanted = ((one / 2.0).log_softmax(dim=1) for one in (outputs, taught))
    assert of_classes.item() == pytest.approx(
        4.0 * kl_div(found, wanted, reduction="batchmean", log_target=True).item(), rel=1e-5
    )
    alone = Heads((Head(name="n", classes=(), metrics=(PEARSON,), first=0, parts=("n",)),))
    of_numbers = alone.distillation_loss(outputs[:, :1], taught[:, :1], torch.zeros(8), 2.0)
    assert of_numbers.item() == pytest.approx(mse_loss(outputs[:, :1], taught[:, :1]).item(), rel=1e-5)


@given(n=st.integers(1, 60), seed=st.integers(0, 999), size=st.integers(1, 60))
def test_the_score_is_the_mean_over_tasks_of_the_mean_over_parts(n: int, seed: int, size: int) -> None:
    outputs, targets, labels, parts = batch(n, seed)
    outputs = outputs.detach()
    cut = [
        (out, {"label": label, "part": part})
        for out, label, part in zip(
            outputs.split(size), targets["label"].split(size), targets["part"].split(size), strict=True
        )
    ]
    scores: dict[int, float] = {}
    for part, (metrics, own) in enumerate([((ACCURACY, F1), outputs[:, :2]), *[((ACCURACY,), outputs[:, 2:5])] * 2,
                                           ((PEARSON,), outputs[:, 5:])]):  # fmt: skip
        rows = torch.from_numpy(parts == part)
        label = torch.from_numpy(labels)[rows]
        if rows.any():
            pair = (own[rows], label.float() if part == 3 else label.long())
            scores[part] = float(np.mean([metric.score([pair]) for metric in metrics]))
    groups = [[scores[part] for part in group if part in scores] for group in ((0,), (1, 2), (3,))]
    wanted = np.mean([np.mean(group) for group in groups if group])
    assert ALL.metric.score(cut) == pytest.approx(wanted, abs=1e-6)


def test_one_task_has_plain_labels_and_pytorch_s_own_loss() -> None:
    outputs, labels = torch.randn(8, 2, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1] * 4)
    targets = Heads((TWO,)).targets(labels.numpy(), np.zeros(8))
    assert torch.equal(targets, labels)
    assert torch.equal(Heads((TWO,)).loss(outputs, targets, 0.1), cross_entropy(outputs, labels, label_smoothing=0.1))
    alone = Heads((Head(name="n", classes=(), metrics=(PEARSON,), first=0, parts=("n",)),))
    targets = alone.targets(np.arange(8.0), np.zeros(8))
    assert targets.dtype == torch.float32
    assert torch.equal(alone.loss(outputs[:, :1], targets, 0.0), mse_loss(outputs[:, 0], targets))
    assert alone.metric.score([(outputs[:, :1], targets)]) == pearson([(outputs[:, :1], targets)])


def test_it_is_named_for_what_it_measures_and_can_be_pickled() -> None:
    assert Heads((TWO,)).metric.name == "accuracy and f1"
    assert ALL.metric.name == "mean of two accuracy and f1, three accuracy and number pearson"
    outputs, labels = torch.eye(2), torch.tensor([0, 1])
    again = pickle.loads(pickle.dumps(Heads((TWO,)).metric))
    assert again.score([(outputs, labels)]) == accuracy([(outputs, labels)]) == 1.0
    with pytest.raises(ValueError, match="at least one batch"):
        ALL.metric.score([])
