"""Rounds that end with a pruning, for strategies with a theta. Axes: E edges, K candidates."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ddpnas_ray.core.requests import EvalRequest, EvalResult
from ddpnas_ray.core.schedule import architectures_by_round
from ddpnas_ray.core.space import GROUPS, SearchSpace
from ddpnas_ray.core.state import SearchState, initial_state
from ddpnas_ray.strategies.base import Strategy
from ddpnas_ray.strategies.multinomial import Multinomial
from ddpnas_ray.strategies.reinforce import Reinforce
from ddpnas_ray.strategies.rounds import Rounds, kept
from ddpnas_ray.testing import counted_space
from ddpnas_ray.testing.strategy_contract import SPACES, search

LAW = settings(derandomize=True, deadline=None, max_examples=25)
STRATEGIES = [Multinomial, Reinforce]
counts = st.tuples(st.integers(1, 4), st.integers(0, 3), st.integers(0, 2))
spaces = st.lists(counts, min_size=1, max_size=4).map(lambda edges: counted_space("drawn", *edges))


def strategy_of(kind: type, rounds: Rounds) -> Strategy:
    strategy: Strategy = kind(rounds=rounds)
    return strategy


@pytest.mark.parametrize("kind", STRATEGIES)
@LAW
@given(space=spaces, evaluations=st.integers(1, 60), epochs_per_round=st.integers(1, 3), prune=st.booleans())
def test_what_is_announced_is_what_happens(
    kind: type, space: SearchSpace, evaluations: int, epochs_per_round: int, prune: bool
) -> None:
    rounds = Rounds(evaluations=evaluations, prune=prune, epochs_per_round=epochs_per_round)
    sizes = tuple(len(plan.requests) for plan in search(strategy_of(kind, rounds), space, 0).plans)
    assert rounds.epochs(space) == sizes
    assert sum(sizes) == evaluations


def test_epochs_by_hand() -> None:
    # Live, at most: 3, then 2, as one edge keeps one of each group and the other one of three.
    space = counted_space("two", (1, 1, 1), (3, 0, 0))
    assert Rounds(evaluations=11, prune=True, epochs_per_round=1).epochs(space) == (3, 2, 2, 2, 2)
    assert Rounds(evaluations=11, prune=True, epochs_per_round=2).epochs(space) == (3, 3, 2, 2, 1)
    assert Rounds(evaluations=4, prune=True, epochs_per_round=2).epochs(space) == (3, 1)
    assert Rounds(evaluations=11, prune=False).epochs(space) == (3, 3, 3, 2)
    # Nothing to prune at all.
    assert Rounds(evaluations=5, prune=True).epochs(counted_space("done", (1, 1, 0), (1, 0, 0))) == (2, 2, 1)


@pytest.mark.parametrize("kind", STRATEGIES)
@LAW
@given(space=spaces, epochs_per_round=st.integers(1, 2), keep=st.integers(1, 2), seed=st.integers(0, 2**32 - 1))
def test_as_many_operations_are_pruned_as_in_algorithm_1(
    kind: type, space: SearchSpace, epochs_per_round: int, keep: int, seed: int
) -> None:
    by_round = architectures_by_round(space, keep)
    evaluations = sum(by_round) * epochs_per_round + 1
    rounds = Rounds(evaluations=evaluations, prune=True, epochs_per_round=epochs_per_round, keep_per_group=keep)
    state = search(strategy_of(kind, rounds), space, seed).states[-1]
    live_EK = space.exists_EK
    for record in state.history[: len(by_round)]:
        gone_E = (live_EK & ~record.live_EK).sum(axis=1)
        needed_E = live_EK.sum(axis=1) > kept(space, keep).sum(axis=1)
        np.testing.assert_array_equal(gone_E, needed_E)
        live_EK = record.live_EK
    for e, edge in enumerate(space.edges):
        for group in GROUPS:
            selectable = sum(op.generable and op.group == group for op in edge.candidates)
            assert sum(op.group == group for op, live in zip(edge.candidates, live_EK[e], strict=False) if live) == min(
                selectable, keep
            )


def test_the_least_probable_operation_is_pruned_whether_or_not_it_was_drawn() -> None:
    space = counted_space("one", (4, 0, 0))
    theta_EK, visits_EK = np.array([[0.5, 0.3, 0.01, 0.19]]), np.array([[2, 1, 0, 1]])
    full = replace(initial_state(space, 0), epoch=1, theta_EK=theta_EK, visits_EK=visits_EK)
    full = replace(full, score_sum_EK=0.5 * visits_EK)
    after = Rounds(evaluations=99, prune=True, epochs_per_round=1).end(full, space)
    assert after.live_EK.tolist() == [[True, True, False, True]]
    assert after.pruned_at_EK.tolist() == [[-1, -1, 0, -1]]
    assert (after.round, len(after.history), after.visits_EK.any()) == (1, 1, False)
    assert np.isnan(after.history[0].utility_EK).tolist() == [[False, False, True, False]]


def test_an_inactive_edge_keeps_its_operations() -> None:
    space = SPACES["conditional"]
    visits_EK = np.array([[0, 3, 0], [0, 0, 0]])
    full = replace(initial_state(space, 0), epoch=1, visits_EK=visits_EK, score_sum_EK=0.5 * visits_EK)
    after = Rounds(evaluations=99, prune=True, epochs_per_round=1).end(full, space)
    assert after.live_EK.sum(axis=1).tolist() == [1, 3]


def unfinished(space: SearchSpace) -> SearchState:
    return replace(initial_state(space, 0), epoch=2, visits_EK=np.ones(space.shape, dtype=np.int64))


def test_a_round_ends_after_t_epochs_and_not_before() -> None:
    space = counted_space("one", (4, 0, 0))
    state = unfinished(space)
    assert Rounds(evaluations=99, prune=True, epochs_per_round=3).end(state, space) is state
    ended = Rounds(evaluations=99, prune=False, epochs_per_round=2).end(state, space)
    assert (ended.round, ended.live_EK.all()) == (1, True)


@pytest.mark.parametrize("kind", STRATEGIES)
def test_pruning_follows_theta(kind: type) -> None:
    """The worst of one edge's operations goes first: nothing else sways the scores."""

    def script(request: EvalRequest) -> EvalResult:
        return EvalResult(score=0.1 + 0.2 * int(request.alpha_E[0]), loss=1.0)

    space = counted_space("one", (4, 0, 0))
    for seed in range(5):
        rounds = Rounds(evaluations=120, prune=True, epochs_per_round=6)
        state = search(strategy_of(kind, rounds), space, seed, script).states[-1]
        assert state.live_EK.tolist() == [[False, False, False, True]]
