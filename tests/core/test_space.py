"""Spaces, the search state and the architecture expectation (Eq. 9). Axes: E edges, K candidates."""

from __future__ import annotations

import pickle
from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ddpnas_ray.core.space import (
    GROUPS,
    BoolArray,
    CostTable,
    Edge,
    Gate,
    LongestPath,
    Op,
    SearchSpace,
    each_edge_alone,
    expectation,
    inactive_theta,
)
from ddpnas_ray.core.state import initial_state

LAW = settings(derandomize=True, deadline=None, max_examples=60)

CONV, WIDE = Op("conv", "parameter"), Op("wide", "parameter")
SKIP, NONE = Op("skip", "non_parameter"), Op("none", "non_parameter", generable=False)
EDGES = (Edge("a", (CONV, WIDE, NONE, SKIP)), Edge("b", (WIDE, SKIP)), Edge("c", (CONV,)))
SPACE = SearchSpace("ragged", EDGES, ((0, 2), (1,)))
ONLY_FIRST = Gate(0, inactive=((1, 2), (), (), (2,)))  # where it is a conv


def test_masks_of_a_ragged_space() -> None:
    yes, no = True, False
    assert SPACE.shape == (3, 4)
    np.testing.assert_array_equal(SPACE.exists_EK, [[yes, yes, yes, yes], [yes, yes, no, no], [yes, no, no, no]])
    np.testing.assert_array_equal(SPACE.generable_EK, [[yes, yes, no, yes], [yes, yes, no, no], [yes, no, no, no]])
    np.testing.assert_array_equal(
        SPACE.group_EK("parameter"), [[yes, yes, no, no], [yes, no, no, no], [yes, no, no, no]]
    )
    np.testing.assert_array_equal(
        SPACE.group_EK("non_parameter"), [[no, no, yes, yes], [no, yes, no, no], [no, no, no, no]]
    )


def test_groups_partition_the_candidates() -> None:
    masks = [SPACE.group_EK(group).astype(int) for group in GROUPS]
    np.testing.assert_array_equal(sum(masks), SPACE.exists_EK)


@pytest.mark.parametrize("mask_EK", [SPACE.exists_EK, SPACE.generable_EK, SPACE.group_EK("parameter")])
def test_masks_cannot_be_written_to(mask_EK: BoolArray) -> None:
    with pytest.raises(ValueError, match="read-only"):
        mask_EK[0, 0] = False


def test_op_is_what_an_index_of_alpha_chooses() -> None:
    assert [SPACE.op(0, 3), SPACE.op(1, 0), SPACE.op(2, 0)] == [SKIP, WIDE, CONV]


def test_every_edge_is_active_unless_a_gate_says_otherwise() -> None:
    alpha_E = np.array([0, 1, 0])
    assert SPACE.active(alpha_E).tolist() == [True, True, True]
    assert replace(SPACE, gate=ONLY_FIRST).active(alpha_E).tolist() == [True, False, False]
    alphas_NE = np.array([[0, 1, 0], [1, 1, 0], [3, 0, 0]])
    active_NE = replace(SPACE, gate=ONLY_FIRST).active(alphas_NE)
    assert active_NE.tolist() == [[True, False, False], [True, True, True], [True, True, False]]
    assert SPACE.active(alphas_NE).all()


def test_a_network_has_one_canonical_alpha() -> None:
    space = replace(SPACE, gate=Gate(1, inactive=((0, 2), ())))  # "none" is the last but one of edge 0's candidates
    alphas_NE = np.array([[3, 0, 0], [3, 1, 0], [1, 0, 0]])
    assert space.canonical(alphas_NE).tolist() == [[0, 0, 0], [3, 1, 0], [0, 0, 0]]
    assert space.canonical(alphas_NE[0]).tolist() == [0, 0, 0]
    assert SPACE.canonical(alphas_NE) is alphas_NE
    not_first = (Op("none", "non_parameter", generable=False), *EDGES[0].candidates[:2])
    late = SearchSpace("late", (Edge("a", not_first), Edge("b", (CONV, SKIP))), ((0, 1),), Gate(1, ((0,), ())))
    assert late.canonical(np.array([2, 0])).tolist() == [1, 0], "the first one is not selectable"


@pytest.mark.parametrize(
    ("gate", "fragment"),
    [
        (Gate(3, ((),)), "names edges that do not exist, or makes its own edge inactive; edges are 0 to 2"),
        (Gate(1, ((), (3,))), "names edges that do not exist"),
        (Gate(1, ((), (0, 1))), "makes its own edge inactive"),
        (Gate(1, ((0,),)), "edge 'b' of the gate has 2 candidates, so it needs .* got 1"),
    ],
)
def test_a_gate_that_does_not_fit_the_edges_is_refused(gate: Gate, fragment: str) -> None:
    with pytest.raises(ValueError, match=rf"^space 'ragged': .*{fragment}"):
        replace(SPACE, gate=gate)


def test_a_gate_and_inputs_are_refused() -> None:
    edges = (cell_edge("a"), cell_edge("b"))
    with pytest.raises(ValueError, match="space 'bad': a gate and inputs exclude each other"):
        SearchSpace("bad", edges, ((0, 1),), Gate(0, ((), (1,), ())), inputs=1)


def test_each_edge_alone_is_a_block_an_edge() -> None:
    assert each_edge_alone(EDGES) == ((0,), (1,), (2,))


@pytest.mark.parametrize("blocks", [((0, 1),), ((0, 1), (1, 2)), ((0, 1, 2, 3),), ((0,), (1,), (2,), (0,)), ()])
def test_blocks_that_are_no_partition_of_the_edges_are_refused(blocks: tuple[tuple[int, ...], ...]) -> None:
    with pytest.raises(ValueError, match=r"space 'bad': blocks must name each of the 3 edges exactly once"):
        SearchSpace("bad", EDGES, blocks)


def test_edges_of_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match="space 'bad': needs at least one edge, and unique edge names"):
        SearchSpace("bad", (Edge("a", (CONV,)), Edge("a", (SKIP,))), ((0,), (1,)))


def test_a_space_without_edges_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        SearchSpace("bad", (), ())


@pytest.mark.parametrize("candidates", [(), (CONV, SKIP, CONV), (CONV, Op("conv", "non_parameter"))])
def test_an_edge_without_unique_candidates_is_refused_by_name(candidates: tuple[Op, ...]) -> None:
    with pytest.raises(ValueError, match="space 'bad': edge 'b' needs unique candidates"):
        SearchSpace("bad", (Edge("a", (CONV,)), Edge("b", candidates)), ((0,), (1,)))


def cell_edge(name: str) -> Edge:
    return Edge(name, (CONV, NONE, SKIP))


def test_edges_can_be_left_out_by_the_candidate_that_is_not_selectable() -> None:
    edges = (cell_edge("a"), cell_edge("b"), cell_edge("c"))
    assert SearchSpace("cell", edges, ((0, 1, 2),), inputs=2).inputs == 2
    assert SearchSpace("cell", edges, ((0, 1), (2,)), inputs=1).inputs == 1


@pytest.mark.parametrize(("blocks", "inputs"), [(((0, 1), (2,)), 2), (((0, 1, 2),), 4), (((0, 1, 2),), 0)])
def test_more_inputs_than_a_block_has_edges_are_refused(blocks: tuple[tuple[int, ...], ...], inputs: int) -> None:
    edges = (cell_edge("a"), cell_edge("b"), cell_edge("c"))
    with pytest.raises(
        ValueError, match=rf"space 'bad': inputs is {inputs}; every block needs at least that many edges"
    ):
        SearchSpace("bad", edges, blocks, inputs=inputs)


@pytest.mark.parametrize(
    "candidates", [(CONV, SKIP), (CONV, NONE, Op("zero", "non_parameter", generable=False))], ids=["none", "two"]
)
def test_an_edge_that_may_be_left_out_has_one_way_to_say_so(candidates: tuple[Op, ...]) -> None:
    edges = (cell_edge("a"), Edge("b", candidates))
    with pytest.raises(ValueError, match=r"space 'bad': edge 'b' may be left out, so it needs exactly one candidate"):
        SearchSpace("bad", edges, ((0, 1),), inputs=1)
    assert SearchSpace("good", edges, ((0, 1),)).inputs is None


def test_spaces_are_values() -> None:
    assert SearchSpace("ragged", EDGES, ((0, 2), (1,))) == SPACE
    with pytest.raises(FrozenInstanceError):
        SPACE.name = "other"  # type: ignore[misc]


def test_a_space_travels_to_workers() -> None:
    space = replace(SPACE, gate=ONLY_FIRST)
    assert space.exists_EK.any()  # a cached mask travels along
    arrived = pickle.loads(pickle.dumps(space))
    assert arrived == space
    np.testing.assert_array_equal(arrived.exists_EK, space.exists_EK)


def test_an_additive_cost_is_its_base_and_the_entry_of_every_choice() -> None:
    # 1000 + 30 (edge 0, candidate 2) + 5 (edge 1, candidate 0) = 1035.
    cost = CostTable(1000, np.array([[10, 20, 30], [5, 7, 0]]))
    assert cost(np.array([2, 0])) == 1035


def test_inactive_edges_cost_nothing_and_no_path_leads_through_them() -> None:
    gate = Gate(0, inactive=((1,), ()))
    cost = CostTable(1000, np.array([[10, 20], [5, 7]]), gate)
    assert [cost(np.array(alpha)) for alpha in ((0, 0), (0, 1), (1, 0), (1, 1))] == [1010, 1010, 1025, 1027]
    path = LongestPath(((0, 0, 1), (1, 1, 2)), np.ones((2, 2), dtype=bool), gate)
    assert [path(np.array(alpha)) for alpha in ((0, 1), (1, 1))] == [1, 2]
    for k, active_E in enumerate(([True, False], [True, True])):
        for each in (cost, path):
            assert each.in_mode(np.array(active_E))(np.array([k, 1])) == each(np.array([k, 1]))


def test_an_additive_cost_is_exact_beyond_what_floats_hold() -> None:
    cost = CostTable(1, np.array([[2**53], [2**53 + 1]]))
    value = cost(np.array([0, 0]))
    assert value == 2**54 + 2
    assert type(value) is int


# Two inputs, 0 and 1, and nodes 2 and 3; edges in order 0-2, 1-2, 0-3, 1-3, 2-3. Candidate 0 leaves the edge out.
CELL_ARCS = ((0, 0, 2), (1, 1, 2), (2, 0, 3), (3, 1, 3), (4, 2, 3))
HEIGHT = LongestPath(CELL_ARCS, np.tile([False, True], (5, 1)))


@pytest.mark.parametrize(
    ("alpha", "height"),
    [
        ([1, 1, 1, 1, 0], 1),  # all nodes hang on the inputs
        ([1, 1, 0, 1, 1], 2),  # 0-2-3
        ([0, 1, 0, 0, 1], 2),  # 1-2-3
        ([0, 0, 1, 0, 1], 1),  # nothing reaches node 2, so 2-3 is not a path from an input
        ([0, 0, 0, 0, 1], 0),
        ([0, 0, 0, 0, 0], 0),
    ],
)
def test_a_height_is_the_longest_path_from_an_input(alpha: list[int], height: int) -> None:
    assert HEIGHT.sources == {0, 1}
    value = HEIGHT(np.array(alpha))
    assert (value, type(value)) == (height, int)


def test_arcs_may_come_in_any_order_in_which_a_node_is_entered_before_it_is_left() -> None:
    arcs = (CELL_ARCS[3], CELL_ARCS[1], CELL_ARCS[0], CELL_ARCS[4], CELL_ARCS[2])
    assert LongestPath(arcs, HEIGHT.counts_EK)(np.array([1, 0, 0, 0, 1])) == 2


@pytest.mark.parametrize(
    ("arcs", "edge", "node"),
    [
        (((1, 1, 2), (0, 0, 1)), 0, 1),  # 1-2 before 0-1
        (((0, 0, 1), (1, 1, 0)), 1, 0),  # a cycle
        (((0, 0, 0),), 0, 0),
    ],
)
def test_arcs_into_a_node_after_one_out_of_it_are_refused(
    arcs: tuple[tuple[int, int, int], ...], edge: int, node: int
) -> None:
    match = f"the arc of edge {edge} enters node {node} after an arc has left it"
    with pytest.raises(ValueError, match=match):
        LongestPath(arcs, HEIGHT.counts_EK)


def test_a_height_without_arcs_is_refused() -> None:
    with pytest.raises(ValueError, match="longest path: at least one arc is needed"):
        LongestPath((), HEIGHT.counts_EK)


def test_a_search_starts_uniform_with_nothing_pruned() -> None:
    state = initial_state(SPACE, seed=7)
    assert (state.seed, state.round, state.epoch) == (7, 0, 0)
    np.testing.assert_array_equal(
        state.theta_EK, [[0.25, 0.25, 0.25, 0.25], [0.5, 0.5, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0]]
    )
    np.testing.assert_array_equal(state.momentum_EK, np.zeros((3, 4)))
    np.testing.assert_array_equal(state.live_EK, SPACE.exists_EK)
    np.testing.assert_array_equal(state.pruned_at_EK, np.full((3, 4), -1))
    assert not state.score_sum_EK.any()
    assert not state.visits_EK.any()
    assert state.evaluations == ()
    assert state.history == ()


@pytest.mark.parametrize(
    ("round_", "epoch", "full"),
    [(0, 0, False), (0, 2, False), (0, 3, True), (1, 3, False), (1, 5, False), (1, 6, True)],
)
def test_a_round_is_full_after_its_epochs(round_: int, epoch: int, full: bool) -> None:
    state = replace(initial_state(SPACE, seed=0), round=round_, epoch=epoch)
    assert state.round_is_full(epochs_per_round=3) is full


def test_expectation_is_the_mean_theta_of_the_chosen_ops() -> None:
    # (wide, skip, conv): (0.4 + 0.3 + 1.0) / 3 = 1.7 / 3.
    theta_EK = np.array([[0.1, 0.4, 0.3, 0.2], [0.7, 0.3, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0]])
    assert expectation(np.array([1, 1, 0]), theta_EK, SPACE, SPACE.exists_EK) == pytest.approx(1.7 / 3, rel=1e-15)


def test_an_op_that_is_not_selectable_adds_nothing_but_its_edge_counts() -> None:
    # (none, wide, conv): (0 + 0.7 + 1.0) / 3; the 0.3 of none is not added, and the divisor stays 3.
    theta_EK = np.array([[0.1, 0.4, 0.3, 0.2], [0.7, 0.3, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0]])
    assert expectation(np.array([2, 0, 0]), theta_EK, SPACE, SPACE.exists_EK) == pytest.approx(1.7 / 3, rel=1e-15)


def test_an_inactive_edge_adds_the_mean_of_its_live_selectable_ops() -> None:
    # Edge 0 is inactive: of its conv, wide, none and skip, wide is pruned and none not selectable, so it adds
    # (0.1 + 0.2) / 2; the others 0.7 and 1.
    theta_EK = np.array([[0.1, 0.4, 0.3, 0.2], [0.7, 0.3, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0]])
    space = replace(SPACE, gate=Gate(1, inactive=((0,), ())))
    live_EK = space.exists_EK.copy()
    live_EK[0, 1] = False
    assert [op.generable for op in EDGES[0].candidates] == [True, True, False, True]
    for k in range(4):
        value = expectation(np.array([k, 0, 0]), theta_EK, space, live_EK)
        assert value == pytest.approx((0.15 + 0.7 + 1.0) / 3, rel=1e-15)
    assert expectation(np.array([3, 1, 0]), theta_EK, space, live_EK) == pytest.approx(1.5 / 3, rel=1e-15)
    two_XEK = np.stack([theta_EK, theta_EK[:, ::-1]])
    assert inactive_theta(two_XEK, space, live_EK)[:, 0] == pytest.approx([0.15, 0.15])
    assert inactive_theta(theta_EK, space, live_EK) == pytest.approx([0.15, 0.5, 1.0])


def test_expectation_is_summed_exactly() -> None:
    # Ten times 0.1 added in floating point is 0.9999999999999999; summed exactly and rounded once it is 1.
    edges = tuple(Edge(f"e{e}", (CONV,)) for e in range(10))
    space = SearchSpace("ten", edges, each_edge_alone(edges))
    assert sum([0.1] * 10) != 1.0
    assert expectation(np.zeros(10, dtype=np.int64), np.full((10, 1), 0.1), space, space.exists_EK) == 0.1


@LAW
@given(seed=st.integers(0, 2**32 - 1), edges=st.integers(1, 12), ops=st.integers(1, 6))
def test_expectation_is_the_one_hot_product_of_equation_9(seed: int, edges: int, ops: int) -> None:
    rng = np.random.default_rng(seed)
    candidates = tuple(Op(f"o{k}", "parameter") for k in range(ops))
    edge_tuple = tuple(Edge(f"e{e}", candidates) for e in range(edges))
    space = SearchSpace("s", edge_tuple, each_edge_alone(edge_tuple))
    theta_EK = rng.dirichlet(np.ones(ops), size=edges)
    alpha_E = rng.integers(ops, size=edges)
    one_hot_EK = np.eye(ops)[alpha_E]
    value = expectation(alpha_E, theta_EK, space, space.exists_EK)
    assert value == pytest.approx(float((one_hot_EK * theta_EK).sum()) / edges, rel=1e-12)
    assert value <= float(theta_EK.max(axis=1).mean()) + 1e-12
