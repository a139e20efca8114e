"""Encoded examples and their batches: laws of bucketing, padding and shares."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ddpnas_ray.tasks.text.examples import Examples, bucketed_order

lengths = st.lists(st.integers(1, 40), min_size=1, max_size=120) | st.just([1] * 90) | st.just([*[2] * 60, 40])
seeds, sizes = st.integers(0, 2**32 - 1), st.integers(1, 50)


def examples_of(lengths_N: list[int]) -> Examples:
    """Example i has the tokens 1000 i + 1, 1000 i + 2, ..., the second half of type 1."""
    ids = [np.arange(1, length + 1) + 1000 * i for i, length in enumerate(lengths_N)]
    types = [np.arange(length) >= length / 2 for length in lengths_N]
    n = len(lengths_N)
    return Examples(
        np.concatenate(ids).astype(np.int32),
        np.concatenate(types).astype(np.uint8),
        np.cumsum(lengths_N),
        np.arange(n, dtype=np.float64),
        np.arange(n) % 3,
    )


@given(lengths=lengths, size=sizes, seed=seeds, epoch=st.integers(0, 99))
def test_each_example_comes_at_most_once_per_epoch_and_batches_are_full(
    lengths: list[int], size: int, seed: int, epoch: int
) -> None:
    batches = bucketed_order(np.array(lengths), size, seed, epoch)
    rows = np.concatenate(batches)
    assert len(np.unique(rows)) == len(rows)
    assert [len(batch) for batch in batches] == [min(size, len(lengths))] * max(1, len(lengths) // size)
    again = bucketed_order(np.array(lengths), size, seed, epoch)
    assert all(np.array_equal(a, b) for a, b in zip(batches, again, strict=True))


@given(size=st.integers(1, 8), seed=seeds)
def test_batches_have_similar_lengths_in_no_order(size: int, seed: int) -> None:
    """Within 32 batches, as many as are sorted together, none overlaps another."""
    lengths_N = np.random.default_rng(seed).permutation(32 * size)
    batches = [np.sort(lengths_N[rows]) for rows in bucketed_order(lengths_N, size, seed, 0)]
    assert all(np.array_equal(batch, np.arange(batch[0], batch[0] + size)) for batch in batches)
    assert [batch[0] for batch in batches] != sorted(batch[0] for batch in batches)


def test_what_is_left_out_of_an_epoch_is_as_likely_of_any_length() -> None:
    lengths_N, left = np.arange(1, 8), np.zeros(7)
    for epoch in range(2000):
        left[list(set(range(7)) - set(np.concatenate(bucketed_order(lengths_N, 3, 0, epoch))))] += 1
    assert left.sum() == 2000 and (np.abs(left / 2000 - 1 / 7) < 0.03).all()


@given(lengths=lengths, seed=seeds)
def test_padded_inputs_hold_every_token_and_padding_elsewhere(lengths: list[int], seed: int) -> None:
    examples = examples_of(lengths)
    rows = np.random.default_rng(seed).integers(len(lengths), size=7)
    found = examples.padded(rows, 41, pad_id=77)
    for i, row in enumerate(rows):
        n = lengths[row]
        assert found["input_ids"][i].tolist() == [*(1000 * row + np.arange(1, n + 1)), *[77] * (41 - n)]
        assert found["attention_mask"][i].tolist() == [1] * n + [0] * (41 - n)
        assert found["token_type_ids"][i].tolist() == [int(t >= n / 2) for t in range(n)] + [0] * (41 - n)


@given(lengths=lengths, seed=seeds)
def test_picked_and_joined_examples_are_the_same_ones(lengths: list[int], seed: int) -> None:
    examples = examples_of(lengths)
    rows = np.random.default_rng(seed).permutation(len(lengths))
    cut = len(rows) // 2
    whole = Examples.joined([examples.picked(rows[:cut]), examples.picked(rows[cut:])])
    assert np.array_equal(whole.labels_N, rows) and np.array_equal(whole.parts_N, rows % 3)
    every = np.arange(len(rows))
    for name, array in whole.padded(every, 40, 0).items():
        assert np.array_equal(array, examples.padded(rows, 40, 0)[name])


def test_no_examples_are_no_rows() -> None:
    none = examples_of([3, 4]).picked(np.arange(0))
    assert len(none) == 0 and none.padded(np.arange(0), 5, 0)["input_ids"].shape == (0, 5)
    assert len(Examples.joined([none, examples_of([2])])) == 1


@pytest.mark.parametrize("world", [2, 3, 5])
@given(lengths=lengths, size=st.integers(2, 20), seed=seeds)
def test_shares_of_a_batch_are_rows_of_it_whatever_the_padding(
    world: int, lengths: list[int], size: int, seed: int
) -> None:
    examples = examples_of(lengths)
    for rows in bucketed_order(examples.lengths_N, size, seed, 0):
        width = int(examples.lengths_N[rows].max())
        whole = examples.padded(rows, width, 0)
        for rank in range(world):
            share = examples.padded(rows[rank::world], width, 0)
            assert all(np.array_equal(array[rank::world], share[name]) for name, array in whole.items())
