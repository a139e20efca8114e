from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ddpnas_ray.core.errors import DataError
from ddpnas_ray.data.split import stratified_batches, stratified_split, stratified_subset

seeds = st.integers(0, 2**32 - 1)
class_counts = st.lists(st.integers(2, 40), min_size=1, max_size=6)
# One class may be huge, others tiny or empty.
awkward_counts = st.lists(st.sampled_from([0, 1, 1, 2, 7, 40, 500]), min_size=1, max_size=30).filter(any)


def labels_of(counts: list[int], seed: int) -> np.ndarray:
    return np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)), counts))


def split(labels: np.ndarray, classes: int, seed: int, fraction: float = 0.5) -> tuple[np.ndarray, np.ndarray]:
    return stratified_split(labels, [f"c{i}" for i in range(classes)], val_fraction=fraction, seed=seed, origin="here")


@given(counts=class_counts, seed=seeds, fraction=st.floats(0.01, 0.5))
def test_split_is_disjoint_complete_and_stratified(counts: list[int], seed: int, fraction: float) -> None:
    labels = labels_of(counts, seed)
    train, val = split(labels, len(counts), seed, fraction)
    assert sorted([*train, *val]) == list(range(len(labels)))
    held_out = np.bincount(labels[val], minlength=len(counts))
    assert (np.abs(held_out - np.array(counts) * fraction) <= 1).all()
    assert (held_out >= 1).all()


@given(seed=seeds)
def test_split_is_keyed_by_its_seed(seed: int) -> None:
    labels = labels_of([30, 30], 0)
    assert np.array_equal(split(labels, 2, seed)[1], split(labels, 2, seed)[1])
    assert not np.array_equal(split(labels, 2, seed)[1], split(labels, 2, seed + 1)[1])


def test_the_draw_of_a_class_does_not_depend_on_another_class() -> None:
    labels = np.repeat([0, 1], [20, 20])
    longer = np.repeat([0, 1], [20, 30])
    assert np.array_equal(split(labels, 2, 5)[1][:10], split(longer, 2, 5)[1][:10])


def test_a_class_of_one_image_cannot_be_split() -> None:
    with pytest.raises(DataError, match=r"here: class 'c1' has 1 example; .* at least 2.*data.val_path"):
        split(np.array([0, 0, 1]), 2, 0)


def test_a_declared_class_without_images_cannot_be_split() -> None:
    with pytest.raises(DataError, match="class 'c2' has 0 examples"):
        split(np.array([0, 0, 1, 1]), 3, 0)


def test_a_fraction_that_takes_every_training_image_of_a_class_is_an_error() -> None:
    with pytest.raises(
        DataError,
        match=r"data.val_fraction=0.9 leaves no training example of class 'c1' \(3 examples\); set at most 0.67",
    ):
        split(np.repeat([0, 1], [30, 3]), 2, 0, 0.9)


@given(counts=class_counts, seed=seeds, data=st.data())
def test_subset_has_the_asked_size_with_classes_in_proportion(
    counts: list[int], seed: int, data: st.DataObject
) -> None:
    labels = labels_of(counts, seed)
    limit = data.draw(st.integers(len(counts), len(labels)))
    chosen = stratified_subset(labels, limit, seed=seed, key="data.train_limit")
    taken = np.bincount(labels[chosen], minlength=len(counts))
    share = limit * np.array(counts) / len(labels)
    assert len(np.unique(chosen)) == len(chosen) == limit
    assert (taken >= 1).all()
    assert (taken <= np.maximum(1, np.ceil(share))).all()
    if (share >= 1).all():
        assert (np.abs(taken - share) < 1).all()
    assert np.array_equal(chosen, stratified_subset(labels, limit, seed=seed, key="data.train_limit"))


@pytest.mark.parametrize("limit", [None, 4, 100])
def test_no_limit_or_a_large_one_takes_everything(limit: int | None) -> None:
    assert stratified_subset(np.array([0, 1, 0, 1]), limit, seed=0, key="k").tolist() == [0, 1, 2, 3]


def test_a_limit_below_the_number_of_classes_is_an_error() -> None:
    with pytest.raises(DataError, match=r"data.val_limit=2 is less than one example per class \(3 classes\)"):
        stratified_subset(np.array([0, 1, 2, 2]), 2, seed=0, key="data.val_limit")


@given(
    counts=st.lists(st.sampled_from([0, 2, 7, 40, 500]), min_size=1, max_size=20).filter(any),
    seed=seeds,
    data=st.data(),
)
def test_a_limit_takes_the_same_number_of_each_class_however_the_data_are_ordered(
    counts: list[int], seed: int, data: st.DataObject
) -> None:
    """Sorted by class, as folders are, or shuffled; one class may be huge, others empty."""
    limit = data.draw(st.integers(sum(count > 0 for count in counts), sum(counts)))
    taken = []
    for labels in (np.repeat(np.arange(len(counts)), counts), labels_of(counts, seed)):
        chosen = stratified_subset(labels, limit, seed=seed, key="data.val_limit")
        taken.append(np.bincount(labels[chosen], minlength=len(counts)).tolist())
    assert taken[0] == taken[1]
    assert sum(taken[0]) == limit
    assert [count > 0 for count in taken[0]] == [count > 0 for count in counts]


# --- calibration ---


@given(counts=awkward_counts, images=st.integers(1, 700), batch_size=st.integers(2, 64), seed=seeds)
def test_every_calibration_batch_holds_each_class_in_proportion(
    counts: list[int], images: int, batch_size: int, seed: int
) -> None:
    """Sorted by class, as folders are; one class may be huge, and there may be more classes than requested images."""
    labels = np.repeat(np.arange(len(counts)), counts)
    batches = stratified_batches(labels, images, batch_size, seed=seed)
    size = min(images, batch_size, len(labels))
    assert [len(batch) for batch in batches] == [size] * (min(images, len(labels)) // size)
    assert len(np.unique(batches)) == len(batches) * size, "no image comes twice"
    for drawn in [*batches, np.concatenate(batches)]:
        taken = np.bincount(labels[drawn], minlength=len(counts))
        share = len(drawn) * np.array(counts) / len(labels)
        assert (np.abs(taken - share) < 1).all()


@given(counts=awkward_counts, images=st.integers(1, 200), seed=seeds)
def test_the_order_of_the_data_does_not_change_the_classes_of_a_calibration_batch(
    counts: list[int], images: int, seed: int
) -> None:
    by_order = []
    for labels in (np.repeat(np.arange(len(counts)), counts), labels_of(counts, seed)):
        batches = stratified_batches(labels, images, 16, seed=seed)
        by_order.append([np.bincount(labels[batch], minlength=len(counts)).tolist() for batch in batches])
    assert by_order[0] == by_order[1]


def test_calibration_is_keyed_by_its_seed_alone() -> None:
    labels = labels_of([50, 30, 20], 0)
    drawn = [np.stack(stratified_batches(labels, 40, 10, seed=seed)) for seed in (0, 0, 1)]
    assert np.array_equal(drawn[0], drawn[1])
    assert not np.array_equal(drawn[0], drawn[2])
    chosen = stratified_subset(labels, 40, seed=0, key="data.train_limit")
    assert set(drawn[0].ravel()) != set(chosen), "a key of its own"


def test_every_image_is_as_likely_as_any_other_to_calibrate() -> None:
    labels = np.repeat([0, 1, 2], [1, 6, 13])
    drawn = [np.concatenate(stratified_batches(labels, 5, 5, seed=seed)) for seed in range(4000)]
    frequency = np.bincount(np.concatenate(drawn), minlength=20) / 4000
    assert np.abs(frequency - 0.25).max() < 0.04  # 5 of 20; the standard deviation of one is 0.007
