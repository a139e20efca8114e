"""Algorithm 1 in gated spaces, where an edge may be inactive in an architecture."""

from __future__ import annotations

import numpy as np
import pytest

from ddpnas_ray.core.pruning import prunable
from ddpnas_ray.core.requests import EvalResult
from ddpnas_ray.core.schedule import architectures_by_round, planned_architecture_epochs
from ddpnas_ray.core.space import Edge, Gate, Op, SearchSpace
from ddpnas_ray.core.state import initial_state
from ddpnas_ray.spaces.bert.space import make as bert
from ddpnas_ray.strategies.pruning import Pruning
from tests.strategies.test_pruning import at_random, scored_by, search

DEEP, SHALLOW = Op("deep", "parameter"), Op("shallow", "parameter")
LAYER_OPS = (Op("a", "parameter"), Op("b", "parameter"), Op("c", "parameter"))


DEPTH_EDGES = (Edge("depth", (DEEP, SHALLOW)), Edge("layer", LAYER_OPS))
DEPTH = SearchSpace("depth", DEPTH_EDGES, ((0, 1),), Gate(0, inactive=((), (1,))))


def test_an_inactive_edge_records_no_visit_in_a_search() -> None:
    state, strategy = initial_state(DEPTH, seed=0), Pruning(epochs_per_round=2)
    plan = strategy.ask(state, DEPTH)
    assert plan is not None
    state = strategy.tell(state, DEPTH, plan, [EvalResult(0.5, 1.0) for _ in plan.requests])
    deep = sum(int(request.alpha_E[0]) == 0 for request in plan.requests)
    assert len(plan.requests) == 3
    assert 1 <= deep <= 2
    np.testing.assert_array_equal(state.visits_EK.sum(axis=1), [3, deep])


def test_only_ops_that_were_visited_are_pruned() -> None:
    for seed in range(20):
        strategy, state = Pruning(epochs_per_round=1), initial_state(DEPTH, seed)
        plan = strategy.ask(state, DEPTH)
        assert plan is not None
        after = strategy.tell(state, DEPTH, plan, [at_random(request) for request in plan.requests])
        visited = {int(request.alpha_E[1]) for request in plan.requests if request.alpha_E[0] == 0}
        assert set(np.flatnonzero(state.live_EK[1] & ~after.live_EK[1])) <= visited


def test_a_search_ends_when_a_layer_can_no_longer_be_active() -> None:
    # "deep" always loses and goes in round 0; the layer has two operations too many, and nothing visits them any more.
    final = search(Pruning(epochs_per_round=1), scored_by(lambda alpha_E: 0.9 if alpha_E[0] == 1 else 0.1), DEPTH)
    assert not final.live_EK[0, 0]
    assert prunable(final.theta_EK, final.live_EK, DEPTH, 1).any(), "it ended although something was prunable"


def test_in_conditional_spaces_each_live_network_is_verified_once() -> None:
    # Two operations of the layer stay where "deep" stays, none matters where "shallow" does: so many are left.
    for seed in range(20):
        strategy = Pruning(epochs_per_round=1, evaluations=50)
        final = search(strategy, at_random, DEPTH, seed)
        verified = [row.alpha_E for row in final.evaluations if not row.trained]
        deep, shallow = final.live_EK[0, :2]
        expected = [(0, k) for k in range(3) if final.live_EK[1, k]] * bool(deep) + [(1, 0)] * bool(shallow)
        assert sorted(verified) == sorted(expected)
        assert sum(strategy.epochs(DEPTH)) >= planned_architecture_epochs(DEPTH, 1, 1) + 1


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("budget", [None, "planned"])
def test_a_search_takes_its_planned_epochs_though_some_operations_are_never_visited(
    seed: int, budget: str | None
) -> None:
    space = bert().space
    planned = architectures_by_round(space, 2)
    evaluations = None if budget is None else planned_architecture_epochs(space, 2, 1)
    final = search(Pruning(epochs_per_round=1, keep_per_group=2, evaluations=evaluations), at_random, space, seed)
    by_epoch = np.bincount([row.epoch for row in final.evaluations])
    assert by_epoch.tolist() == planned
