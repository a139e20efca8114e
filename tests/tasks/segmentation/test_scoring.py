"""Loss of pixels, against loops; windows and flips, against the whole image."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ddpnas_ray.tasks.segmentation.masks import VOID
from ddpnas_ray.tasks.segmentation.scoring import class_weights, divergence, pixel_loss, predicted, starts

CLASSES = 4


def batch(seed: int = 0, count: int = 3, size: tuple[int, int] = (6, 5)) -> tuple[Tensor, Tensor]:
    """Random logits and labels, some of them void; the last image is void altogether."""
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(count, CLASSES, *size, generator=generator)
    labels = torch.randint(0, CLASSES + 1, (count, *size), generator=generator)
    labels[labels == CLASSES] = VOID
    labels[-1] = VOID
    return logits, labels


def loss(logits: Tensor, labels: Tensor, **options: Any) -> Tensor:
    return pixel_loss(logits, labels, **{"weights": None, "hardest": 0.0, "smoothing": 0.0, **options})


def by_hand(logits: Tensor, labels: Tensor, weights: Any = None, hardest: float = 0.0, smoothing: float = 0.0) -> float:
    means = []
    factors = None if weights is None else torch.tensor(weights)
    for one, truth in zip(logits, labels, strict=True):
        every = [
            float(
                cross_entropy(
                    one[:, y, x][None], truth[y, x][None], factors, reduction="sum", label_smoothing=smoothing
                )
            )
            for y, x in np.ndindex(*truth.shape)
            if truth[y, x] != VOID
        ]
        if hardest:
            every = sorted(every, reverse=True)[: int(np.ceil(hardest * len(every)))]
        means.append(np.mean(every) if every else 0.0)
    return float(np.mean(means))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"weights": (0.5, 1.0, 2.0, 0.0)},
        {"hardest": 0.25},
        {"hardest": 0.3, "weights": (0.5, 1.0, 2.0, 3.0)},
        {"smoothing": 0.1},
    ],
)
def test_the_loss_is_the_mean_over_images_of_the_mean_over_their_pixels(options: dict[str, Any]) -> None:
    for seed in range(3):
        assert float(loss(*batch(seed), **options)) == pytest.approx(by_hand(*batch(seed), **options), rel=1e-5)


@given(seed=st.integers(0, 99), hardest=st.sampled_from([0.0, 0.2]), cut=st.integers(1, 4))
def test_the_loss_of_a_batch_is_that_of_its_parts(seed: int, hardest: float, cut: int) -> None:
    """However workers share it, and whatever is void in whose share."""
    logits, labels = batch(seed, count=5)
    parts = [(logits[part], labels[part]) for part in (slice(cut), slice(cut, None))]
    shared = sum(len(part[0]) / 5 * loss(*part, hardest=hardest) for part in parts)
    assert float(loss(logits, labels, hardest=hardest)) == pytest.approx(float(shared), rel=1e-5)


def test_void_pixels_have_no_gradient_and_a_void_batch_no_loss() -> None:
    logits, labels = batch()
    logits.requires_grad_()
    loss(logits, labels).backward()
    assert logits.grad is not None
    by_pixel = logits.grad.abs().sum(dim=1)
    assert (by_pixel[labels == VOID] == 0).all() and (by_pixel[labels != VOID] > 0).all()
    nothing = loss(*(part[-1:] for part in batch()), hardest=0.5)
    assert float(nothing) == 0.0


def test_only_the_hardest_pixels_have_a_gradient() -> None:
    logits, labels = batch()
    logits.requires_grad_()
    loss(logits, labels, hardest=0.25).backward()
    assert logits.grad is not None
    trained = (logits.grad.abs().sum(dim=1) > 0).sum(dim=(1, 2))
    assert trained.tolist() == (0.25 * (labels != VOID).sum(dim=(1, 2))).ceil().long().tolist()


def test_weights_are_inverse_to_the_shares_and_one_on_average() -> None:
    counts = np.array([600, 300, 100, 0])
    weights = class_weights(counts)
    assert (counts * weights).sum() / counts.sum() == pytest.approx(1)
    assert weights[1] == pytest.approx(2 * weights[0]) and weights[3] == 0


def test_a_teacher_that_agrees_costs_nothing() -> None:
    logits, _ = batch()
    assert float(divergence(logits, logits, 2.0)) == pytest.approx(0, abs=1e-6)
    apart = divergence(logits, logits.flip(0), 1.0)
    kl = torch.nn.functional.kl_div(logits.log_softmax(1), logits.flip(0).softmax(1), reduction="sum") / (3 * 6 * 5)
    assert float(apart) == pytest.approx(float(kl), rel=1e-5)


@given(side=st.integers(1, 300), window=st.integers(1, 300))
def test_windows_cover_every_pixel_and_overlap_by_a_third(side: int, window: int) -> None:
    found = starts(side, window)
    assert found[0] == 0 and found[-1] == max(0, side - window)
    assert all(0 < after - before <= max(1, 2 / 3 * window) for before, after in pairwise(found))
    assert len(set(found)) == len(found)


@pytest.fixture
def network() -> nn.Module:
    """One whose outputs depend on one pixel alone, so that it makes no difference where windows are cut."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Conv2d(3, CLASSES, 1).eval()


@torch.no_grad()
@pytest.mark.parametrize("window", [(5, 7), (20, 7), (3, 30), (12, 16), (50, 50)])
@pytest.mark.parametrize("flips", [False, True])
def test_windows_and_flips_give_what_the_whole_image_gives(
    network: nn.Module, window: tuple[int, int], flips: bool
) -> None:
    images = torch.randn(2, 3, 12, 16, generator=torch.Generator().manual_seed(1))
    whole = network(images)
    found = predicted(network, images, window=window, flips=flips, outputs=CLASSES)
    assert found.shape == whole.shape
    torch.testing.assert_close(found, whole, rtol=1e-5, atol=1e-5)
    if window[0] >= 12 and window[1] >= 16 and not flips:
        assert torch.equal(found, whole)


@torch.no_grad()
def test_a_window_sees_nothing_around_it_and_flips_make_predictions_symmetric() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        wide = nn.Conv2d(3, CLASSES, 5, padding=2)
    images = torch.randn(1, 3, 12, 16, generator=torch.Generator().manual_seed(1))
    sizes = []

    def look(part: Tensor) -> Tensor:
        sizes.append(tuple(part.shape[2:]))
        found: Tensor = wide(part)
        return found

    windows = predicted(look, images, window=(6, 8), flips=False, outputs=CLASSES)
    assert set(sizes) == {(6, 8)} and len(sizes) == 9
    assert not torch.allclose(windows, wide(images))
    both, mirrored = (
        predicted(wide, one, window=None, flips=True, outputs=CLASSES) for one in (images, images.flip(3))
    )
    torch.testing.assert_close(both, mirrored.flip(3))
