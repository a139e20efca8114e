"""Mean intersection over union, against sets of pixels and scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import jaccard_score

from ddpnas_ray.metrics import f1, matthews
from ddpnas_ray.metrics.matthews import confusion, counted
from ddpnas_ray.metrics.miou import by_class, score

CLASSES, VOID = 5, 255


def batches(seed: int, count: int = 3) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Logits and labels of pixels; class 4 neither occurs nor is found, class 3 is rare."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        logits = torch.from_numpy(rng.normal(size=(2, CLASSES, 4, 3)))
        logits[:, 4] = -100
        labels = rng.choice([0, 1, 2, 3, VOID], (2, 4, 3), p=[0.4, 0.3, 0.1, 0.05, 0.15])
        found.append((logits, torch.from_numpy(labels)))
    return found


def flat(pairs: list[tuple[torch.Tensor, torch.Tensor]]) -> tuple[np.ndarray, np.ndarray]:
    truth = np.concatenate([labels.numpy().ravel() for _, labels in pairs])
    found = np.concatenate([logits.argmax(dim=1).numpy().ravel() for logits, _ in pairs])
    return truth[truth != VOID], found[truth != VOID]


@given(seed=st.integers(0, 999))
def test_it_is_the_mean_over_sets_of_pixels(seed: int) -> None:
    truth, found = flat(batches(seed))
    by_hand = {}
    for i in range(CLASSES):
        true, said = set(np.flatnonzero(truth == i)), set(np.flatnonzero(found == i))
        if true | said:
            by_hand[i] = len(true & said) / len(true | said)
    assert by_class(confusion(batches(seed))) == pytest.approx(by_hand)
    assert score(batches(seed)) == pytest.approx(np.mean(list(by_hand.values())))
    assert score(batches(seed)) == pytest.approx(jaccard_score(truth, found, average="macro"))


def test_it_equals_torchmetrics() -> None:
    torchmetrics = pytest.importorskip("torchmetrics")
    own = torchmetrics.JaccardIndex(task="multiclass", num_classes=CLASSES, ignore_index=VOID)
    for logits, labels in batches(3):
        own.update(logits, labels)
    assert score(batches(3)) == pytest.approx(float(own.compute()))


@given(seed=st.integers(0, 999))
def test_counts_of_batches_give_what_outputs_give(seed: int) -> None:
    pairs = batches(seed)
    counts = [(counted(*pair), torch.zeros(())) for pair in pairs]
    for metric in (score, f1.score, matthews.score):
        assert metric(counts) == metric(pairs)
    assert sum(int(count.sum()) for count, _ in counts) == len(flat(pairs)[0])


def test_it_needs_pixels() -> None:
    with pytest.raises(ValueError, match=r"at least one batch"):
        score([])
    with pytest.raises(ValueError, match=r"at least one label"):
        score([(torch.zeros(1, 3, 1, 1), torch.full((1, 1, 1), VOID))])


def test_it_scores_whole_examples_too() -> None:
    logits = torch.eye(3)[[0, 1, 1, 2]]
    assert score([(logits, torch.tensor([0, 0, 1, 2]))]) == pytest.approx((0.5 + 0.5 + 1) / 3)
