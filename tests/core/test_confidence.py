"""Laws of the replay of resampled rounds. Axes: B resamples, T epochs, E edges, K candidates."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ddpnas_ray.core.confidence import Replayed, agreement, leads, replay, resample, rounds_of
from ddpnas_ray.core.generation.solve import most_likely
from ddpnas_ray.core.requests import EvalRequest, EvalResult
from ddpnas_ray.core.sampling import rng_for
from ddpnas_ray.core.space import SearchSpace, expectation
from ddpnas_ray.core.state import Evaluation, RoundRecord, SearchState
from ddpnas_ray.spaces.cell import space as cell
from ddpnas_ray.strategies.pruning import Pruning
from ddpnas_ray.testing import counted_space
from ddpnas_ray.testing.strategy_contract import SPACES, search

SEEDS = st.integers(0, 2**32 - 1)
SMALL = counted_space("small", (3, 2, 0), (2, 2, 1), (3, 1, 1))


def searched(space: SearchSpace, seed: int, epochs: int = 3, *, prune: bool = True) -> SearchState:
    def script(request: EvalRequest) -> EvalResult:
        return EvalResult(float(rng_for(seed, request.epoch, request.architecture).random()), 1.0)

    strategy = Pruning(epochs_per_round=epochs, prune=prune, evaluations=None if prune else 60)
    return search(strategy, space, seed, script).states[-1]


def replayed(state: SearchState, space: SearchSpace, *, seed: int = 0, reprune: bool = True) -> Replayed:
    rounds = rounds_of(state.history, state.evaluations, space)
    return replay(rounds, resample(rounds, seed, 50), space, gamma=0.9, keep_per_group=1 if reprune else None)


def stays(state: SearchState, space: SearchSpace, *, seed: int = 0) -> tuple[np.ndarray, float, float]:
    again = replayed(state, space, seed=seed)
    alphas_BE = np.array([most_likely(space, *b) for b in zip(again.theta_BEK, again.live_BEK, strict=True)])
    return agreement(alphas_BE, most_likely(space, state.theta_EK, state.live_EK), space)


@pytest.mark.parametrize("space", SPACES.values(), ids=lambda space: space.name)
@pytest.mark.parametrize("reprune", [True, False])
def test_the_records_as_they_are_replay_to_the_search_itself(space: SearchSpace, reprune: bool) -> None:
    state = searched(space, 3)
    rounds = rounds_of(state.history, state.evaluations, space)
    once = [np.ones((1, len(scores.score_sum_TEK)), dtype=np.int64) for scores in rounds]
    again = replay(rounds, once, space, gamma=0.9, keep_per_group=1 if reprune else None)
    np.testing.assert_allclose(again.theta_BEK[0], state.theta_EK, atol=1e-14)
    np.testing.assert_array_equal(again.live_BEK[0], state.live_EK)


def test_without_pruning_too() -> None:
    state = searched(SMALL, 3, prune=False)
    rounds = rounds_of(state.history, state.evaluations, SMALL)
    once = [np.ones((1, len(scores.score_sum_TEK)), dtype=np.int64) for scores in rounds]
    again = replay(rounds, once, SMALL, gamma=0.9, keep_per_group=None)
    np.testing.assert_allclose(again.theta_BEK[0], state.theta_EK, atol=1e-14)
    assert again.live_BEK[0].sum() == SMALL.exists_EK.sum()


@given(seed=SEEDS, epochs=st.integers(2, 4))
@settings(max_examples=20)
def test_equal_records_in_all_epochs_leave_nothing_open(seed: int, epochs: int) -> None:
    state = searched(SMALL, seed, epochs)
    first = {record.round: record.round * epochs for record in state.history}
    of_first = {n: [row for row in state.evaluations if row.epoch == epoch] for n, epoch in first.items()}
    copied = [replace(row, epoch=epoch + t) for n, epoch in first.items() for t in range(epochs) for row in of_first[n]]
    rounds = rounds_of(state.history, copied, SMALL)
    once = [np.ones((1, epochs), dtype=np.int64)] * len(rounds)
    base = replay(rounds, once, SMALL, gamma=0.9, keep_per_group=1)
    again = replay(rounds, resample(rounds, seed, 50), SMALL, gamma=0.9, keep_per_group=1)
    np.testing.assert_array_equal(again.live_BEK, np.repeat(base.live_BEK, 50, axis=0))
    np.testing.assert_allclose(again.theta_BEK, np.repeat(base.theta_BEK, 50, axis=0), atol=1e-14)
    alpha_E = most_likely(SMALL, base.theta_BEK[0], base.live_BEK[0])
    alphas_BE = np.array([most_likely(SMALL, *b) for b in zip(again.theta_BEK, again.live_BEK, strict=True)])
    stays_E, same, distance = agreement(alphas_BE, alpha_E, SMALL)
    assert (stays_E == 1).all() and same == 1 and distance == 0
    other_E = np.array([int(np.flatnonzero(SMALL.exists_EK[e])[-1]) for e in range(3)])
    _, errors_N = leads(alpha_E, other_E[None], base.theta_BEK[0], again.theta_BEK, SMALL, base.live_BEK[0])
    assert np.isnan(errors_N).all(), "no noise, no standard errors"


def test_noise_alone_gives_low_stability() -> None:
    space = cell.make(nodes=2).space
    results = [stays(searched(space, seed), space) for seed in range(5)]
    assert np.mean([stays_E.mean() for stays_E, _, _ in results]) < 0.7
    assert max(same for _, same, _ in results) < 0.2
    assert min(distance for _, _, distance in results) >= 2


@given(seed=SEEDS)
@settings(max_examples=20)
def test_shares_are_shares_and_a_seed_gives_them_again(seed: int) -> None:
    state = searched(SMALL, seed)
    stays_E, same, distance = stays(state, SMALL, seed=seed)
    assert ((stays_E >= 0) & (stays_E <= 1)).all()
    assert 0 <= same <= stays_E.min()
    assert 0 <= distance <= 3
    again_E, same_again, distance_again = stays(state, SMALL, seed=seed)
    np.testing.assert_array_equal(again_E, stays_E)
    assert (same_again, distance_again) == (same, distance)


@given(seed=SEEDS)
@settings(max_examples=20)
def test_renaming_operations_renames_the_result(seed: int) -> None:
    """In a space whose operations are alike but for their place."""
    space = counted_space("alike", (5, 0, 0), (5, 0, 0))
    state = searched(space, seed)
    order = np.random.default_rng(seed).permutation(5)  # new place k holds old operation order[k]
    place = np.argsort(order)

    def moved(row: Evaluation) -> Evaluation:
        return replace(row, alpha_E=tuple(int(place[k]) for k in row.alpha_E))

    def moved_record(record: RoundRecord) -> RoundRecord:
        return replace(record, live_EK=record.live_EK[:, order])

    rounds = rounds_of(state.history, state.evaluations, space)
    renamed = rounds_of([moved_record(r) for r in state.history], [moved(row) for row in state.evaluations], space)
    weights = resample(rounds, seed, 50)
    one, other = (replay(each, weights, space, gamma=0.9, keep_per_group=1) for each in (rounds, renamed))
    np.testing.assert_array_equal(other.live_BEK, one.live_BEK[:, :, order])
    np.testing.assert_allclose(other.theta_BEK, one.theta_BEK[:, :, order], atol=1e-14)


@given(seed=SEEDS, epochs=st.integers(2, 5))
@settings(max_examples=20)
def test_a_resample_has_one_epoch_fewer_and_none_of_another_round(seed: int, epochs: int) -> None:
    """Drawing T - 1 of T gives means of the right variance: sigma^2 / T, estimated without bias."""
    state = searched(SMALL, seed, epochs)
    rounds = rounds_of(state.history, state.evaluations, SMALL)
    for weights_BT in resample(rounds, seed, 50):
        assert weights_BT.shape == (50, epochs)
        assert (weights_BT.sum(axis=1) == epochs - 1).all() and (weights_BT >= 0).all()


def test_a_standard_error_is_the_spread_of_the_lead_over_searches() -> None:
    """Of two networks that were not chosen for their E[alpha]; drawing T epochs of T would give a fifth less."""
    space = counted_space("noise", (3, 2, 0), (3, 2, 0), (3, 2, 0))
    alpha_E, other_NE = np.zeros(3, dtype=np.int64), np.array([[1, 1, 2]])
    found = []
    for seed in range(150):
        state = searched(space, seed, prune=False)
        held = replayed(state, space, seed=seed, reprune=False)
        found.append(leads(alpha_E, other_NE, state.theta_EK, held.theta_BEK, space, state.live_EK))
    lead_S, error_S = np.array(found)[:, :, 0].T
    assert np.sqrt((error_S**2).mean()) == pytest.approx(lead_S.std(), rel=0.12)


def test_a_lead_is_the_difference_of_expectations() -> None:
    space = cell.make(nodes=2).space
    state = searched(space, 0)
    held = replayed(state, space, reprune=False)
    alpha_E = most_likely(space, state.theta_EK, state.live_EK)
    none_E = np.zeros_like(alpha_E)
    others_NE = np.stack([alpha_E, none_E])
    lead_N, error_N = leads(alpha_E, others_NE, state.theta_EK, held.theta_BEK, space, state.live_EK)
    used = [e for e, k in enumerate(alpha_E) if space.op(e, int(k)).generable]
    assert lead_N[0] == 0 and np.isnan(error_N[0])
    assert lead_N[1] == pytest.approx(sum(state.theta_EK[e, alpha_E[e]] for e in used) / 10)
    expected_B = [sum(theta_EK[e, alpha_E[e]] for e in used) / 10 for theta_EK in held.theta_BEK]
    assert error_N[1] == pytest.approx(np.std(expected_B, ddof=1))


def test_a_lead_over_another_mode_counts_inactive_edges_by_their_mean() -> None:
    space = SPACES["conditional"]
    theta_EK = np.array([[0.6, 0.4, 0.0], [0.2, 0.5, 0.3]])
    live_EK = space.exists_EK.copy()
    live_EK[1, 0] = False
    deep_E, shallow_E = np.array([0, 1]), np.array([1, 0])
    lead_N, _ = leads(deep_E, shallow_E[None], theta_EK, np.stack([theta_EK, theta_EK]), space, live_EK)
    expected = (expectation(alpha_E, theta_EK, space, live_EK) for alpha_E in (deep_E, shallow_E))
    assert lead_N[0] == pytest.approx((0.6 + 0.5 - 0.4 - (0.5 + 0.3) / 2) / 2)
    assert lead_N[0] == pytest.approx(next(expected) - next(expected))


def test_an_edge_inactive_in_both_agrees() -> None:
    space = SPACES["conditional"]
    off = next(k for k in range(2) if not space.active(np.array([k, 0]))[1])
    stays_E, same, distance = agreement(np.array([[off, 1], [off, 0]]), np.array([off, 0]), space)
    assert stays_E.tolist() == [1, 1] and same == 1 and distance == 0


def test_rounds_of_one_epoch_cannot_be_resampled() -> None:
    state = searched(SMALL, 0, epochs=1)
    assert rounds_of(state.history, state.evaluations, SMALL)
    for weights_BT in resample(rounds_of(state.history, state.evaluations, SMALL), 0, 5):
        assert (weights_BT == 1).all()
