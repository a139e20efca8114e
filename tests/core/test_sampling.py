"""Disjoint sampling (Sec. 3.2, Alg. 1 line 3) and the keyed generators.

Axes: N architectures, E edges, K candidates. Edges are drawn independently, so that one call with 20,000 equal edges is
20,000 draws.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from ddpnas_ray.core.sampling import disjoint_sample, independent_sample, rng_for
from ddpnas_ray.core.space import BoolArray, FloatArray, IntArray

LAW = settings(derandomize=True, deadline=None, max_examples=60)
DRAWS = 20_000
# Chi-square at p = 0.001 by degrees of freedom. Seeds are fixed, so nothing here is flaky, and at this many draws a
# wrong distribution lies far above.
CRITICAL = {1: 10.828, 2: 13.816, 3: 16.266, 4: 18.467}

words = st.integers(0, 2**32 - 1)
keys = st.tuples(words, words, words)


def random_theta(rng: np.random.Generator, edges: int, ops: int) -> FloatArray:
    return rng.dirichlet(np.ones(ops), size=edges)


def random_live(rng: np.random.Generator, live_E: IntArray, ops: int) -> BoolArray:
    """Masks with ``live_E[e]`` random operations live on edge e."""
    mask_EK: BoolArray = np.arange(ops) < live_E[:, None]
    return rng.permuted(mask_EK, axis=1)


def counts_of(alphas_NE: IntArray, ops: int) -> IntArray:
    """Count how often every edge uses every operation, shape (E, K)."""
    return np.stack([(alphas_NE == k).sum(axis=0) for k in range(ops)], axis=1)


def assert_follows(counts: IntArray | Sequence[int], expected: Sequence[float]) -> None:
    difference, expectation = np.asarray(counts) - np.array(expected), np.array(expected)
    assert difference.sum() == pytest.approx(0, abs=1e-6)
    assert (difference**2 / expectation).sum() < CRITICAL[len(expected) - 1]


def repeated(theta: list[float], live: list[bool] | None = None, edges: int = DRAWS) -> tuple[FloatArray, BoolArray]:
    theta_EK = np.tile(np.array(theta), (edges, 1))
    return theta_EK, np.tile(np.array(live if live else [True] * len(theta)), (edges, 1))


@LAW
@given(seed=words, edges=st.integers(1, 20), ops=st.integers(2, 8), data=st.data())
def test_disjoint_sample_uses_every_live_op_once_per_edge(seed: int, edges: int, ops: int, data: st.DataObject) -> None:
    rng = np.random.default_rng(seed)
    live = data.draw(st.integers(1, ops))
    live_EK = random_live(rng, np.full(edges, live), ops)
    alphas_NE = disjoint_sample(random_theta(rng, edges, ops), live_EK, rng)
    assert alphas_NE.shape == (live, edges)
    assert (counts_of(alphas_NE, ops) == live_EK).all()


@LAW
@given(seed=words, edges=st.integers(1, 12), ops=st.integers(1, 8))
def test_on_ragged_edges_counts_differ_by_at_most_one(seed: int, edges: int, ops: int) -> None:
    rng = np.random.default_rng(seed)
    live_E = rng.integers(1, ops + 1, size=edges)
    live_EK = random_live(rng, live_E, ops)
    alphas_NE = disjoint_sample(random_theta(rng, edges, ops), live_EK, rng)
    assert alphas_NE.shape == (live_E.max(), edges)
    for counts, live in zip(counts_of(alphas_NE, ops), live_EK, strict=True):
        assert counts[~live].sum() == 0
        assert counts[live].max() - counts[live].min() <= 1
        assert counts[live].min() >= 1


@LAW
@given(seed=words, edges=st.integers(1, 8), ops=st.integers(1, 8), n=st.integers(1, 20))
def test_any_number_of_architectures_is_counted_out_evenly(seed: int, edges: int, ops: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    live_EK = random_live(rng, rng.integers(1, ops + 1, size=edges), ops)
    alphas_NE = disjoint_sample(random_theta(rng, edges, ops), live_EK, rng, n=n)
    assert alphas_NE.shape == (n, edges)
    for counts, live in zip(counts_of(alphas_NE, ops), live_EK, strict=True):
        assert counts[~live].sum() == 0
        assert counts[live].max() - counts[live].min() <= 1


def test_a_pruned_op_is_never_drawn_however_probable() -> None:
    theta_EK, live_EK = repeated([0.98, 0.01, 0.01], [False, True, True], edges=2_000)
    alphas_NE = disjoint_sample(theta_EK, live_EK, np.random.default_rng(0))
    assert set(np.unique(alphas_NE)) == {1, 2}


def test_padding_is_never_drawn() -> None:
    theta_EK = np.array([[0.4, 0.3, 0.3], [0.5, 0.5, 0.0]])
    live_EK = np.array([[True, True, True], [True, True, False]])
    for seed in range(100):
        alphas_NE = disjoint_sample(theta_EK, live_EK, np.random.default_rng(seed))
        assert set(alphas_NE[:, 0]) == {0, 1, 2}
        assert set(alphas_NE[:, 1]) == {0, 1}


def test_one_architecture_follows_theta() -> None:
    theta = [0.5, 0.3, 0.15, 0.05]
    alphas_NE = disjoint_sample(*repeated(theta), np.random.default_rng(1), n=1)
    counts = np.bincount(alphas_NE[0], minlength=4)
    assert_follows(counts, [10_000, 6_000, 3_000, 1_000])


def test_operations_are_drawn_without_replacement() -> None:
    # theta = (0.5, 0.3, 0.2). The second draw follows theta over what is left: P(i first, j second) is
    # theta_i theta_j / (1 - theta_i), and the shuffle leaves which two were drawn. Operation 2 is left out with
    # 0.5*0.3/0.5 + 0.3*0.5/0.7 = 18/35, 1 with 0.5*0.2/0.5 + 0.2*0.5/0.8 = 13/40, and 0 with
    # 0.3*0.2/0.7 + 0.2*0.3/0.8 = 9/56.
    alphas_NE = disjoint_sample(*repeated([0.5, 0.3, 0.2]), np.random.default_rng(2), n=2)
    counts = np.bincount(3 - alphas_NE.sum(axis=0), minlength=3)
    assert_follows(counts, [DRAWS * 9 / 56, DRAWS * 13 / 40, DRAWS * 18 / 35])


def test_pruned_ops_leave_their_probability_to_the_live_ones_in_proportion() -> None:
    # Of 0.5, 0.3 and 0.2 the first is pruned: 0.3/0.5 = 0.6 and 0.2/0.5 = 0.4 remain.
    alphas_NE = disjoint_sample(*repeated([0.5, 0.3, 0.2], [False, True, True]), np.random.default_rng(3), n=1)
    counts = np.bincount(alphas_NE[0], minlength=3)[1:]
    assert_follows(counts, [12_000, 8_000])


def test_edges_are_drawn_independently() -> None:
    # Neighbouring edges as pairs: the joint frequencies of single draws are the products 0.7*0.7, 0.7*0.3, ...
    alphas_NE = disjoint_sample(*repeated([0.7, 0.3], edges=2 * DRAWS), np.random.default_rng(4), n=1)
    first, second = alphas_NE[0, 0::2], alphas_NE[0, 1::2]
    counts = np.bincount(2 * first + second, minlength=4)
    assert_follows(counts, [9_800, 4_200, 4_200, 1_800])


def test_probable_operations_do_not_meet_probable_ones() -> None:
    # Operations are numbered by rank, so the correlation of two edges' numbers in one architecture is that of their
    # ranks. Without the shuffle it is 0.62 here; pairings that ignore theta give 0 +- 0.005.
    alphas_NE = disjoint_sample(*repeated([0.6, 0.25, 0.1, 0.04, 0.01], edges=DRAWS), np.random.default_rng(7))
    correlation = np.corrcoef(alphas_NE[:, 0::2].ravel(), alphas_NE[:, 1::2].ravel())[0, 1]
    assert abs(correlation) < 0.02


def test_every_architecture_has_every_live_operation_equally_often() -> None:
    alphas_NE = disjoint_sample(*repeated([0.6, 0.25, 0.1, 0.04, 0.01]), np.random.default_rng(8))
    for alpha_E in alphas_NE:
        assert_follows(np.bincount(alpha_E, minlength=5), [DRAWS / 5] * 5)


def test_a_narrow_edge_repeats_what_theta_prefers() -> None:
    # Three entries of two live operations: a whole order, and the first of another one.
    alphas_NE = disjoint_sample(*repeated([0.7, 0.3]), np.random.default_rng(5), n=3)
    counts = np.bincount((alphas_NE.sum(axis=0) == 2).astype(int), minlength=2)
    assert_follows(counts, [14_000, 6_000])


def test_single_architectures_of_consecutive_epochs_follow_theta() -> None:
    # As in a search: a fresh keyed generator per epoch.
    theta_EK, live_EK = repeated([0.6, 0.3, 0.1], edges=4)
    draws = [disjoint_sample(theta_EK, live_EK, rng_for(0, epoch // 3, epoch), n=1) for epoch in range(DRAWS // 4)]
    counts = np.bincount(np.concatenate(draws).ravel(), minlength=3)
    assert_follows(counts, [12_000, 6_000, 2_000])


def test_a_live_op_whose_theta_is_zero_is_drawn_last() -> None:
    theta_EK, live_EK = repeated([0.5, 0.0, 0.5], edges=500)
    assert set(np.unique(disjoint_sample(theta_EK, live_EK, np.random.default_rng(6), n=2))) == {0, 2}
    alphas_NE = disjoint_sample(theta_EK, live_EK, np.random.default_rng(6))
    assert (np.sort(alphas_NE, axis=0) == np.arange(3)[:, None]).all()


def test_sampling_leaves_theta_and_live_as_they_are() -> None:
    theta_EK, live_EK = repeated([0.5, 0.0, 0.5], [True, True, False], edges=3)
    before = theta_EK.copy(), live_EK.copy()
    disjoint_sample(theta_EK, live_EK, np.random.default_rng(0))
    np.testing.assert_array_equal(theta_EK, before[0])
    np.testing.assert_array_equal(live_EK, before[1])


def test_an_edge_without_live_ops_is_named() -> None:
    theta_EK, live_EK = repeated([0.5, 0.5], edges=3)
    live_EK[1] = False
    with pytest.raises(ValueError, match="edge 1 "):
        disjoint_sample(theta_EK, live_EK, np.random.default_rng(0))


@LAW
@given(key=keys)
def test_the_same_key_gives_the_same_sample(key: tuple[int, int, int]) -> None:
    theta_EK, live_EK = repeated([0.2] * 5, edges=6)
    first = disjoint_sample(theta_EK, live_EK, rng_for(*key))
    np.random.default_rng(0).random(7)  # other draws in between do not matter
    np.testing.assert_array_equal(disjoint_sample(theta_EK, live_EK, rng_for(*key)), first)


@LAW
@given(key=keys, other=keys)
def test_another_key_gives_another_generator(key: tuple[int, int, int], other: tuple[int, int, int]) -> None:
    assume(key != other)
    assert (rng_for(*key).random(4) != rng_for(*other).random(4)).all()


def test_every_part_of_the_key_counts() -> None:
    neighbours = [
        (0, 0, 0),
        (1, 0, 0),
        (0, 1, 0),
        (0, 0, 1),
        (1, 1, 0),
        (0, 1, 1),
        (1, 0, 1),
        (1, 1, 1),
        (0, 1, 2),
        (0, 2, 1),
    ]
    assert len({rng_for(*key).random() for key in neighbours}) == len(neighbours)


@pytest.mark.parametrize("longer", [(5, 0), (5, 0, 0), (5, 0, 0, 0)])
def test_a_key_and_its_extension_by_zeros_give_different_generators(longer: tuple[int, ...]) -> None:
    assert rng_for(*longer).random() != rng_for(5).random()


def test_a_seed_above_32_bits_does_not_run_into_the_rest_of_the_key() -> None:
    assert rng_for(2**32 + 7, 2, 0).random() != rng_for(7, 1, 2).random()


def test_each_edge_is_drawn_from_theta_over_what_is_live() -> None:
    theta_EK = np.array([[0.5, 0.3, 0.2, 0.0], [0.1, 0.2, 0.3, 0.4], [0.25, 0.25, 0.25, 0.25], [1.0, 0.0, 0.0, 0.0]])
    live_EK = np.array([[1, 1, 1, 0], [0, 1, 1, 0], [1, 0, 0, 1], [0, 0, 1, 0]], dtype=bool)
    n = 20_000
    alphas_NE = independent_sample(theta_EK, live_EK, n, rng_for(0, 1, 2))
    assert alphas_NE.shape == (n, 4)
    shares_EK = np.array([np.bincount(alphas_NE[:, e], minlength=4) / n for e in range(4)])
    # Live operations share their mass; an edge whose theta lies on pruned ones alone still draws live ones.
    expected_EK = [[0.5, 0.3, 0.2, 0], [0, 0.4, 0.6, 0], [0.5, 0, 0, 0.5], [0, 0, 1, 0]]
    np.testing.assert_allclose(shares_EK, expected_EK, atol=5 * np.sqrt(0.25 / n))
    assert not shares_EK[~live_EK].any()
    both = np.mean((alphas_NE[:, 0] == 0) & (alphas_NE[:, 1] == 1))
    assert both == pytest.approx(0.5 * 0.4, abs=5 * np.sqrt(0.16 / n)), "edges are independent"


def test_independent_draws_depend_on_their_key_alone() -> None:
    theta_EK, live_EK = np.full((6, 5), 0.2), np.ones((6, 5), dtype=bool)
    keys = [(0, 0, 0), (0, 0, 0), (1, 0, 0), (0, 0, 1)]
    draws = [independent_sample(theta_EK, live_EK, 6, rng_for(*key)).tolist() for key in keys]
    assert draws[0] == draws[1]
    assert draws[0] != draws[2]
    assert draws[0] != draws[3]
