"""Recording scores (Eq. 2) and the utility (Eq. 3). Axes: E edges, K candidates."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ddpnas_ray.core.errors import DivergedError
from ddpnas_ray.core.requests import EvalRequest, EvalResult, Plan
from ddpnas_ray.core.space import Edge, Gate, Op, SearchSpace
from ddpnas_ray.core.state import initial_state
from ddpnas_ray.core.utility import record, scores_to_record, utility

LAW = settings(derandomize=True, deadline=None, max_examples=60)
NAN = float("nan")
DIVERGED = EvalResult(score=NAN, loss=math.inf, ok=False)

A, B, C = (Op(name, "parameter") for name in "abc")
SPACE = SearchSpace("two", (Edge("first", (A, B)), Edge("second", (A, B))), ((0,), (1,)))
RAGGED = SearchSpace("ragged", (Edge("wide", (A, B, C)), Edge("narrow", (A, B))), ((0,), (1,)))


GATED = SearchSpace("gated", SPACE.edges, SPACE.blocks, Gate(0, inactive=((1,), ())))


def plan_of(*alphas: tuple[int, ...], epoch: int = 0) -> Plan:
    return Plan(tuple(EvalRequest(0, epoch, n, np.array(alpha), lr=0.1) for n, alpha in enumerate(alphas)))


def results_of(*scores: float) -> list[EvalResult]:
    return [EvalResult(score=score, loss=1.0) for score in scores]


def test_scores_are_credited_to_the_ops_that_were_used_and_averaged() -> None:
    # Two epochs. Epoch 0: (0, 1) scores 0.8 and (1, 0) 0.6; epoch 1: (0, 0) scores 0.9 and (1, 1) 0.5.
    # Edge 0: op 0 has 0.8 + 0.9 = 1.7, op 1 has 0.6 + 0.5 = 1.1.
    # Edge 1: op 0 has 0.6 + 0.9 = 1.5, op 1 has 0.8 + 0.5 = 1.3.
    state = initial_state(SPACE, seed=0)
    state = record(state, plan_of((0, 1), (1, 0)), results_of(0.8, 0.6), SPACE)
    state = record(state, plan_of((0, 0), (1, 1), epoch=1), results_of(0.9, 0.5), SPACE)
    np.testing.assert_allclose(state.score_sum_EK, [[1.7, 1.1], [1.5, 1.3]])
    np.testing.assert_array_equal(state.visits_EK, [[2, 2], [2, 2]])
    np.testing.assert_allclose(utility(state.score_sum_EK, state.visits_EK), [[0.85, 0.55], [0.75, 0.65]])


def test_an_op_visited_more_often_is_averaged_over_its_own_visits() -> None:
    # Three architectures; the narrow edge draws (0, 1) and then 0 again: op 0 has (0.9 + 0.3) / 2 = 0.6, op 1 has 0.5.
    state = record(initial_state(RAGGED, seed=0), plan_of((2, 0), (0, 1), (1, 0)), results_of(0.9, 0.5, 0.3), RAGGED)
    np.testing.assert_array_equal(state.visits_EK, [[1, 1, 1], [2, 1, 0]])
    np.testing.assert_allclose(utility(state.score_sum_EK, state.visits_EK), [[0.5, 0.3, 0.9], [0.6, 0.5, NAN]])


def test_recording_counts_one_epoch_and_keeps_the_rest() -> None:
    before = initial_state(SPACE, seed=0)
    after = record(before, plan_of((0, 1), (1, 0)), results_of(0.8, 0.6), SPACE)
    assert (after.seed, after.round, after.epoch) == (0, 0, 1)
    assert after.theta_EK is before.theta_EK
    assert after.live_EK is before.live_EK
    assert after.history == ()


def test_recording_leaves_the_state_it_was_given() -> None:
    before = initial_state(SPACE, seed=0)
    record(before, plan_of((0, 1), (1, 0)), results_of(0.8, 0.6), SPACE)
    assert before.epoch == 0
    assert before.evaluations == ()
    assert not before.visits_EK.any()
    assert not before.score_sum_EK.any()


def test_every_evaluation_is_kept_in_order() -> None:
    state = record(initial_state(SPACE, seed=0), plan_of((0, 1), (1, 0)), results_of(0.8, 0.6), SPACE)
    state = record(state, plan_of((0, 0), (1, 1), epoch=1), results_of(0.9, 0.5), SPACE)
    kept = [(one.round, one.epoch, one.architecture, one.alpha_E, one.score) for one in state.evaluations]
    assert kept == [
        (0, 0, 0, (0, 1), 0.8),
        (0, 0, 1, (1, 0), 0.6),
        (0, 1, 0, (0, 0), 0.9),
        (0, 1, 1, (1, 1), 0.5),
    ]


def test_an_evaluation_tells_what_was_asked_and_what_was_found() -> None:
    request = EvalRequest(2, 7, 3, np.array([1, 0]), lr=0.1, train=False)
    result = EvalResult(score=0.25, loss=1.5, seconds=2.0, worker="w3", node="n1")
    (one,) = record(initial_state(SPACE, seed=0), Plan((request,)), [result], SPACE).evaluations
    assert (one.round, one.epoch, one.architecture, one.alpha_E) == (2, 7, 3, (1, 0))
    assert (one.split, one.score, one.loss, one.trained, one.ok) == ("val", 0.25, 1.5, False, True)
    assert (one.seconds, one.worker, one.node) == (2.0, "w3", "n1")


def test_an_inactive_edge_records_no_visit() -> None:
    # (0, 1) leaves edge 1 out, (1, 0) has it.
    state = record(initial_state(GATED, seed=0), plan_of((0, 1), (1, 0)), results_of(0.8, 0.6), GATED)
    np.testing.assert_array_equal(state.visits_EK, [[1, 1], [1, 0]])
    np.testing.assert_allclose(state.score_sum_EK, [[0.8, 0.6], [0.6, 0.0]])
    np.testing.assert_allclose(utility(state.score_sum_EK, state.visits_EK), [[0.8, 0.6], [0.6, NAN]])


def test_a_diverged_architecture_takes_the_worst_finite_score() -> None:
    results = [*results_of(0.8), DIVERGED, *results_of(-0.2, 0.5)]
    assert scores_to_record(results) == [0.8, -0.2, -0.2, 0.5]


def test_a_diverged_architecture_is_recorded_as_such_with_its_stand_in_score() -> None:
    state = record(initial_state(SPACE, seed=0), plan_of((0, 1), (1, 0)), [DIVERGED, *results_of(0.6)], SPACE)
    np.testing.assert_allclose(state.score_sum_EK, [[0.6, 0.6], [0.6, 0.6]])
    np.testing.assert_array_equal(state.visits_EK, [[1, 1], [1, 1]])
    assert [(one.score, one.ok) for one in state.evaluations] == [(0.6, False), (0.6, True)]
    assert state.evaluations[0].loss == math.inf


def test_an_epoch_in_which_everything_diverged_raises() -> None:
    with pytest.raises(DivergedError, match=r"all 2 architectures.*training\.lr"):
        record(initial_state(SPACE, seed=0), plan_of((0, 1), (1, 0)), [DIVERGED, DIVERGED], SPACE)


@pytest.mark.parametrize("score", [93.2, 1.0001, -1.0001, math.inf, NAN])
def test_percentages_and_other_scores_out_of_range_raise(score: float) -> None:
    with pytest.raises(ValueError, match="fractions, not percentages"):
        record(initial_state(SPACE, seed=0), plan_of((0, 1), (1, 0)), results_of(0.5, score), SPACE)


@pytest.mark.parametrize("score", [-1.0, 0.0, 1.0])
def test_scores_at_the_ends_of_the_range_are_accepted(score: float) -> None:
    state = record(initial_state(SPACE, seed=0), plan_of((0, 1)), results_of(score), SPACE)
    assert utility(state.score_sum_EK, state.visits_EK)[0, 0] == score


@pytest.mark.parametrize("scores", [(0.5,), (0.5, 0.5, 0.5)])
def test_there_is_one_result_a_request(scores: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="zip"):
        record(initial_state(SPACE, seed=0), plan_of((0, 1), (1, 0)), results_of(*scores), SPACE)


@pytest.mark.parametrize("total", [186.0, -2.1])
def test_a_utility_out_of_range_raises(total: float) -> None:
    with pytest.raises(ValueError, match="fractions, not percentages"):
        utility(np.array([[0.5, total]]), np.array([[1, 2]]))


def test_utility_forgives_rounding_at_the_ends_of_the_range() -> None:
    # 0.7 + 0.2 + 0.1 rounds below 1; a sum one unit in the last place above its visits is rounding, not a percentage.
    assert utility(np.array([[np.nextafter(3.0, 4.0)]]), np.array([[3]]))[0, 0] == pytest.approx(1.0)


def test_utility_is_nan_exactly_where_nothing_was_visited() -> None:
    utility_EK = utility(np.array([[0.0, 0.4], [0.0, 0.0]]), np.array([[2, 1], [0, 0]]))
    np.testing.assert_array_equal(utility_EK, [[0.0, 0.4], [NAN, NAN]])


@LAW
@given(seed=st.integers(0, 2**32 - 1), ops=st.integers(2, 6), edges=st.integers(1, 6), epochs=st.integers(1, 4))
def test_on_every_edge_the_mean_utility_is_the_mean_score(seed: int, ops: int, edges: int, epochs: int) -> None:
    rng = np.random.default_rng(seed)
    candidates = tuple(Op(f"o{k}", "parameter") for k in range(ops))
    space = SearchSpace("s", tuple(Edge(f"e{e}", candidates) for e in range(edges)), (tuple(range(edges)),))
    state = initial_state(space, seed=0)
    scores_TN = rng.uniform(-1, 1, size=(epochs, ops))
    for epoch in range(epochs):
        alphas = np.stack([rng.permutation(ops) for _ in range(edges)], axis=1)
        state = record(state, plan_of(*map(tuple, alphas), epoch=epoch), results_of(*scores_TN[epoch]), space)
    assert (state.visits_EK == epochs).all()
    utility_EK = utility(state.score_sum_EK, state.visits_EK)
    np.testing.assert_allclose(utility_EK.mean(axis=1), scores_TN.mean(), atol=1e-12)
    assert utility_EK.min() >= scores_TN.min() - 1e-12
    assert utility_EK.max() <= scores_TN.max() + 1e-12
