"""Prunable operations, and the one that is pruned (Alg. 1, lines 11-14; Sec. 3.2). Axes: E edges, K candidates."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ddpnas_ray.core.pruning import prunable, prune
from ddpnas_ray.core.space import GROUPS, BoolArray, Edge, FloatArray, Op, SearchSpace, each_edge_alone

LAW = settings(derandomize=True, deadline=None, max_examples=100)

CONV3, CONV5 = Op("conv_3x3", "parameter"), Op("conv_5x5", "parameter")
NONE = Op("none", "non_parameter", generable=False)
SKIP, POOL = Op("skip", "non_parameter"), Op("pool", "non_parameter")
CELL = SearchSpace("cell", (Edge("e", (CONV3, CONV5, NONE, SKIP, POOL)),), ((0,),))


@dataclass(frozen=True, slots=True)
class Situation:
    """A point in a search: a ragged space with theta, without ties, and live operations."""

    space: SearchSpace
    theta_EK: FloatArray
    live_EK: BoolArray
    visited_EK: BoolArray


def random_op(name: str, rng: np.random.Generator) -> Op:
    return Op(name, GROUPS[int(rng.integers(2))], generable=bool(rng.random() < 0.8))


@st.composite
def situations(draw: st.DrawFn) -> Situation:
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    sizes = draw(st.lists(st.integers(1, 7), min_size=1, max_size=6))
    edges = tuple(
        Edge(f"e{e}", (Op("kept", "parameter"), *(random_op(f"o{k}", rng) for k in range(n))))
        for e, n in enumerate(sizes)
    )
    space = SearchSpace("random", edges, each_edge_alone(edges))
    theta_EK = np.where(space.exists_EK, rng.random(space.shape) + 1e-3, 0.0)
    live_EK = space.exists_EK & (rng.random(space.shape) < 0.8)
    visited_EK = live_EK & (rng.random(space.shape) < 0.8)
    return Situation(space, theta_EK / theta_EK.sum(axis=1, keepdims=True), live_EK, visited_EK)


def everything(space: SearchSpace) -> BoolArray:
    return space.exists_EK.copy()


def names(mask_EK: BoolArray, space: SearchSpace = CELL) -> list[str]:
    """The operations of the first edge that are in the mask."""
    return [op.name for op, there in zip(space.edges[0].candidates, mask_EK[0], strict=False) if there]


def test_the_most_probable_selectable_op_of_each_group_is_reserved() -> None:
    # Parameter: conv_3x3 (0.30) beats conv_5x5 (0.10). Non-parameter: skip (0.20) beats pool (0.15); none is not kept.
    theta_EK = np.array([[0.30, 0.10, 0.25, 0.20, 0.15]])
    assert names(prunable(theta_EK, everything(CELL), CELL, keep_per_group=1)) == ["conv_5x5", "none", "pool"]


def test_the_least_probable_prunable_op_is_pruned() -> None:
    theta_EK = np.array([[0.30, 0.10, 0.25, 0.20, 0.15]])
    after_EK = prune(theta_EK, everything(CELL), everything(CELL), CELL, keep_per_group=1)
    assert names(after_EK) == ["conv_3x3", "none", "skip", "pool"]


def test_pruning_never_takes_a_reserved_op_even_the_least_probable_of_all() -> None:
    # Both convolutions are the least probable of the edge; 0.04 is the best of its group and stays, 0.03 goes;
    # then none, then pool go, though both are more probable than conv_3x3.
    theta_EK = np.array([[0.04, 0.03, 0.25, 0.38, 0.30]])
    live_EK, gone = everything(CELL), []
    for _ in range(3):
        after_EK = prune(theta_EK, live_EK, live_EK, CELL, keep_per_group=1)
        gone += names(live_EK & ~after_EK)
        live_EK = after_EK
    assert gone == ["conv_5x5", "none", "pool"]
    assert names(live_EK) == ["conv_3x3", "skip"]
    assert not prunable(theta_EK, live_EK, CELL, keep_per_group=1).any()


def test_an_op_that_is_not_selectable_is_pruned_even_when_it_is_the_most_probable() -> None:
    theta_EK = np.array([[0.10, 0.05, 0.75, 0.06, 0.04]])
    live_EK = np.array([[True, False, True, True, False]])
    assert names(prunable(theta_EK, live_EK, CELL, keep_per_group=1)) == ["none"]
    assert names(prune(theta_EK, live_EK, live_EK, CELL, keep_per_group=1)) == ["conv_3x3", "skip"]


def test_two_a_group_leaves_none_alone_to_go() -> None:
    theta_EK = np.array([[0.30, 0.10, 0.25, 0.20, 0.15]])
    assert names(prunable(theta_EK, everything(CELL), CELL, keep_per_group=2)) == ["none"]


def test_a_pruned_op_holds_no_reservation_however_probable() -> None:
    # conv_3x3 is gone: its 0.60 counts for nothing, and conv_5x5 is the best parameter operation left.
    theta_EK = np.array([[0.60, 0.05, 0.10, 0.15, 0.10]])
    live_EK = np.array([[False, True, True, True, True]])
    assert names(prunable(theta_EK, live_EK, CELL, keep_per_group=1)) == ["none", "pool"]


def test_an_edge_of_one_group_keeps_one_op() -> None:
    space = SearchSpace("layer", (Edge("e", (CONV3, CONV5)),), ((0,),))
    assert names(prunable(np.array([[0.4, 0.6]]), everything(space), space, keep_per_group=1), space) == ["conv_3x3"]


def test_ties_reserve_the_smaller_index_and_prune_the_smallest_of_the_rest() -> None:
    ops = tuple(Op(f"o{k}", "parameter") for k in range(4))
    space = SearchSpace("ties", (Edge("e", ops),), ((0,),))
    theta_EK = np.full((1, 4), 0.25)
    assert names(prunable(theta_EK, everything(space), space, keep_per_group=1), space) == ["o1", "o2", "o3"]
    assert names(prune(theta_EK, everything(space), everything(space), space, 1), space) == ["o0", "o2", "o3"]


def test_the_least_probable_op_stays_when_it_was_not_visited() -> None:
    # conv_5x5 (0.10) would go, but had no score this round; pool (0.15) is the next.
    theta_EK = np.array([[0.30, 0.10, 0.25, 0.20, 0.15]])
    visited_EK = np.array([[True, False, True, True, True]])
    assert "pool" not in names(prune(theta_EK, everything(CELL), visited_EK, CELL, keep_per_group=1))
    assert "conv_5x5" in names(prune(theta_EK, everything(CELL), visited_EK, CELL, keep_per_group=1))


def test_an_edge_without_visits_is_left_alone_while_others_are_pruned() -> None:
    edges = (Edge("a", (CONV3, CONV5)), Edge("b", (CONV3, CONV5)))
    space = SearchSpace("two", edges, ((0,), (1,)))
    visited_EK = np.array([[False, False], [True, True]])
    after_EK = prune(np.array([[0.4, 0.6], [0.4, 0.6]]), everything(space), visited_EK, space, keep_per_group=1)
    np.testing.assert_array_equal(after_EK, [[True, True], [False, True]])


@LAW
@given(now=situations(), keep=st.integers(1, 3))
def test_prunable_ops_are_live_and_everything_else_live_is_the_best_of_its_group(now: Situation, keep: int) -> None:
    may_go_EK = prunable(now.theta_EK, now.live_EK, now.space, keep)
    assert not (may_go_EK & ~now.live_EK).any()
    for e, edge in enumerate(now.space.edges):
        most_probable_first = [int(k) for k in np.argsort(-now.theta_EK[e]) if now.live_EK[e, k]]
        expected = set()
        for group in GROUPS:
            members = [
                k for k in most_probable_first if edge.candidates[k].group == group and edge.candidates[k].generable
            ]
            expected |= set(members[:keep])
        assert set(np.flatnonzero(now.live_EK[e] & ~may_go_EK[e])) == expected


@LAW
@given(now=situations(), keep=st.integers(1, 3))
def test_pruning_takes_one_op_from_each_edge_that_has_a_visited_prunable_one(now: Situation, keep: int) -> None:
    after_EK = prune(now.theta_EK, now.live_EK, now.visited_EK, now.space, keep)
    may_go_EK = prunable(now.theta_EK, now.live_EK, now.space, keep) & now.visited_EK
    assert not (after_EK & ~now.live_EK).any()
    gone_EK = now.live_EK & ~after_EK
    np.testing.assert_array_equal(gone_EK.sum(axis=1), may_go_EK.any(axis=1))
    for theta, gone, may_go in zip(now.theta_EK, gone_EK, may_go_EK, strict=True):
        if gone.any():
            assert may_go[gone].all()
            assert theta[gone] == theta[may_go].min()


@LAW
@given(now=situations(), keep=st.integers(1, 3))
def test_pruning_to_the_end_leaves_exactly_the_kept_ops_of_each_group(now: Situation, keep: int) -> None:
    live_EK = now.live_EK
    for _ in range(now.space.shape[1]):
        live_EK = prune(now.theta_EK, live_EK, live_EK, now.space, keep)
    assert not prunable(now.theta_EK, live_EK, now.space, keep).any()
    assert not (live_EK & ~now.space.generable_EK).any()
    for group in GROUPS:
        had_E = (now.live_EK & now.space.generable_EK & now.space.group_EK(group)).sum(axis=1)
        np.testing.assert_array_equal((live_EK & now.space.group_EK(group)).sum(axis=1), np.minimum(had_E, keep))


@LAW
@given(now=situations(), keep=st.integers(1, 3))
def test_unvisited_ops_are_not_pruned(now: Situation, keep: int) -> None:
    after_EK = prune(now.theta_EK, now.live_EK, now.visited_EK, now.space, keep)
    unvisited_EK = now.live_EK & ~now.visited_EK
    assert after_EK[unvisited_EK].all()


@LAW
@given(now=situations(), keep=st.integers(1, 3), seed=st.integers(0, 2**32 - 1))
def test_renaming_operations_renames_what_is_pruned(now: Situation, keep: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    orders = [rng.permutation(len(edge.candidates)) for edge in now.space.edges]
    renamed_edges = tuple(
        Edge(edge.name, tuple(edge.candidates[k] for k in order))
        for edge, order in zip(now.space.edges, orders, strict=True)
    )
    renamed_space = SearchSpace("renamed", renamed_edges, now.space.blocks)

    def renamed(mask_EK: BoolArray) -> BoolArray:
        after_EK = mask_EK.copy()
        for e, order in enumerate(orders):
            after_EK[e, : len(order)] = mask_EK[e, order]
        return after_EK

    theta_EK = now.theta_EK.copy()
    for e, order in enumerate(orders):
        theta_EK[e, : len(order)] = now.theta_EK[e, order]
    after_EK = prune(now.theta_EK, now.live_EK, now.visited_EK, now.space, keep)
    renamed_after_EK = prune(theta_EK, renamed(now.live_EK), renamed(now.visited_EK), renamed_space, keep)
    np.testing.assert_array_equal(renamed_after_EK, renamed(after_EK))


@pytest.mark.parametrize("keep", [1, 2])
def test_pruning_leaves_the_masks_it_was_given(keep: int) -> None:
    theta_EK, live_EK = np.array([[0.30, 0.10, 0.25, 0.20, 0.15]]), everything(CELL)
    prune(theta_EK, live_EK, live_EK, CELL, keep)
    assert live_EK.all()
