"""Contract of strategies: pure, within the budget, with epochs as announced, and resumable.

Axes: E edges, K candidates, N architectures of an epoch.
"""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import ClassVar, TypeAlias

import numpy as np
import pytest

from ddpnas_ray.core.errors import DivergedError
from ddpnas_ray.core.requests import EvalRequest, EvalResult, Plan
from ddpnas_ray.core.sampling import rng_for
from ddpnas_ray.core.schedule import planned_architecture_epochs
from ddpnas_ray.core.space import Edge, Gate, IntArray, Op, SearchSpace, each_edge_alone
from ddpnas_ray.core.state import SearchState, initial_state
from ddpnas_ray.runs import checkpoint
from ddpnas_ray.spaces.cell import space as cell
from ddpnas_ray.spaces.nasbench201.space import OPS
from ddpnas_ray.storage.folder import Folder
from ddpnas_ray.strategies.base import Strategy, may_be_generated
from ddpnas_ray.testing.states import assert_same_state

Make: TypeAlias = Callable[[int], Strategy]
Script: TypeAlias = Callable[[EvalRequest], EvalResult]


def counted_space(name: str, *counts: tuple[int, int, int]) -> SearchSpace:
    """Return a space with an edge for each (parameter, non-parameter, not selectable) number of operations."""
    edges = []
    for e, (parameter, other, lost) in enumerate(counts):
        ops = [Op(f"p{i}", "parameter") for i in range(parameter)]
        ops += [Op(f"n{i}", "non_parameter") for i in range(other)]
        ops += [Op(f"x{i}", "non_parameter", generable=False) for i in range(lost)]
        edges.append(Edge(f"e{e}", tuple(ops)))
    return SearchSpace(name, tuple(edges), each_edge_alone(edges))


def _conditional() -> SearchSpace:
    depth = Edge("depth", (Op("deep", "parameter"), Op("shallow", "parameter")))
    layer = Edge("layer", tuple(Op(name, "parameter") for name in "abc"))
    return SearchSpace("conditional", (depth, layer), ((0, 1),), Gate(0, inactive=((), (1,))))


SPACES: dict[str, SearchSpace] = {
    "benchmark": SearchSpace("benchmark", tuple(Edge(name, OPS) for name in "abcd"), tuple((e,) for e in range(4))),
    "ragged": counted_space("ragged", (4, 0, 0), (1, 1, 0), (2, 3, 0), (1, 0, 0)),
    "not all selectable": counted_space("not all selectable", (1, 1, 1), (3, 0, 0), (2, 1, 1)),
    "cell": cell.make(nodes=2).space,
    "conditional": _conditional(),
}


@dataclass(frozen=True, slots=True)
class Searched:
    """A whole search: its states, and the plans between them."""

    states: list[SearchState]
    plans: list[Plan]


def by_architecture(request: EvalRequest) -> EvalResult:
    """Return a score that depends on the architecture alone, as tabular scores do."""
    return EvalResult(score=float(rng_for(0, *(int(k) for k in request.alpha_E)).random()), loss=1.0)


def search(
    strategy: Strategy, space: SearchSpace, start: SearchState | int, script: Script = by_architecture
) -> Searched:
    """Run the driver's loop from a state or a seed."""
    states, plans = [initial_state(space, start) if isinstance(start, int) else start], list[Plan]()
    while (plan := strategy.ask(states[-1], space)) is not None:
        assert len(plans) < 1000, "the search does not end"
        plans.append(plan)
        states.append(strategy.tell(states[-1], space, plan, [script(request) for request in plan.requests]))
    return Searched(states, plans)


class StrategyContract:
    """Tests of a strategy. A subclass, or its module, has a fixture that returns a function budget -> strategy::

        @pytest.fixture
        def make():
            return lambda evaluations: MyStrategy(evaluations=evaluations)

        class TestMyStrategy(StrategyContract):
            pass

    Attributes:
        has_budget: Whether it spends exactly its budget of evaluations; False: it decides when to end.
    """

    has_budget: ClassVar[bool] = True

    @pytest.fixture(params=list(SPACES))
    def space(self, request: pytest.FixtureRequest) -> SearchSpace:
        """Spaces of several kinds."""
        return SPACES[request.param]

    def evaluations(self, space: SearchSpace) -> int:
        """Return a budget for a space: that of Algorithm 1 with T = 1, plus a few evaluations."""
        return planned_architecture_epochs(space, keep_per_group=1, epochs_per_round=1) + 2

    # --- budget ---

    @pytest.mark.parametrize("more", [0, 1])
    def test_it_spends_its_budget_in_the_epochs_that_it_announced(
        self, make: Make, space: SearchSpace, more: int
    ) -> None:
        evaluations = self.evaluations(space) + more
        strategy = make(evaluations)
        searched = search(strategy, space, 0)
        sizes = tuple(len(plan.requests) for plan in searched.plans)
        assert all(sizes)
        assert len(searched.states[-1].evaluations) == sum(sizes)
        if space.gate is None:  # else a round may have nothing to prune
            assert strategy.epochs(space) == sizes
            assert not self.has_budget or sum(sizes) == evaluations
        assert not self.has_budget or sum(sizes) <= evaluations

    # --- requests ---

    def test_requests_are_numbered_and_name_live_candidates(self, make: Make, space: SearchSpace) -> None:
        searched = search(make(self.evaluations(space)), space, 1)
        for state, plan in zip(searched.states, searched.plans, strict=False):
            assert [request.architecture for request in plan.requests] == list(range(len(plan.requests)))
            assert {(request.round, request.epoch) for request in plan.requests} == {(state.round, state.epoch)}
            assert len({(request.lr, request.train) for request in plan.requests}) == 1
            assert all(math.isfinite(request.lr) and (request.lr > 0 or not request.train) for request in plan.requests)
            for request in plan.requests:
                assert request.alpha_E.shape == (len(space.edges),)
                assert np.issubdtype(request.alpha_E.dtype, np.integer)
                whole = space.inputs is not None and may_be_generated(request.alpha_E, space)  # it leaves edges out
                for e, k in enumerate(request.alpha_E):
                    assert 0 <= k < len(space.edges[e].candidates)
                    named = f"{space.edges[e].name}: {space.op(e, int(k)).name}"
                    unused = not space.active(request.alpha_E)[e] or (whole and not space.op(e, int(k)).generable)
                    assert state.live_EK[e, k] or unused, f"{named} is pruned"

    def test_asking_and_telling_change_nothing_and_depend_on_the_state_alone(
        self, make: Make, space: SearchSpace
    ) -> None:
        strategy, other = make(self.evaluations(space)), make(self.evaluations(space))
        state = initial_state(space, 2)
        while (plan := strategy.ask(state, space)) is not None:
            before, results = pickle.loads(pickle.dumps(state)), [by_architecture(r) for r in plan.requests]
            _assert_same_plan(strategy.ask(state, space), plan)
            _assert_same_plan(other.ask(state, space), plan)
            after = strategy.tell(state, space, plan, results)
            assert_same_state(state, before)
            assert_same_state(other.tell(before, space, plan, results), after)
            state = after
        assert other.ask(state, space) is None

    def test_another_seed_asks_for_other_architectures(self, make: Make, space: SearchSpace) -> None:
        drawn = set()
        for seed in range(6):
            plan = make(self.evaluations(space)).ask(initial_state(space, seed), space)
            assert plan is not None
            drawn.add(tuple(tuple(request.alpha_E.tolist()) for request in plan.requests))
        assert len(drawn) > 1

    # --- records ---

    def test_every_result_is_recorded_in_order(self, make: Make, space: SearchSpace) -> None:
        searched = search(make(self.evaluations(space)), space, 3)
        requests = [request for plan in searched.plans for request in plan.requests]
        for row, request in zip(searched.states[-1].evaluations, requests, strict=True):
            assert (row.round, row.epoch, row.architecture) == (request.round, request.epoch, request.architecture)
            assert row.alpha_E == tuple(space.canonical(request.alpha_E).tolist())
            assert row.trained == request.train
            assert (row.score, row.split, row.ok) == (by_architecture(request).score, "val", True)

    def test_theta_stays_a_distribution_and_every_edge_keeps_a_choice(self, make: Make, space: SearchSpace) -> None:
        states = search(make(self.evaluations(space)), space, 4).states
        for state in states:
            np.testing.assert_allclose(state.theta_EK.sum(axis=1), 1.0, rtol=1e-12)
            assert (state.theta_EK >= 0).all()
            assert not state.theta_EK[~space.exists_EK].any()
            assert (state.live_EK & space.generable_EK).any(axis=1).all()
        for before, after in pairwise(states):
            assert after.epoch == before.epoch + 1
            assert after.round - before.round in (0, 1)
            gone_EK = before.live_EK & ~after.live_EK
            assert not (after.live_EK & ~before.live_EK).any()
            assert (after.pruned_at_EK == np.where(gone_EK, before.round, before.pruned_at_EK)).all()
            assert len(after.history) == after.round

    def test_a_restored_search_equals_an_uninterrupted_one(
        self, make: Make, space: SearchSpace, tmp_path: Path
    ) -> None:
        strategy = make(self.evaluations(space))
        states = search(strategy, space, 5).states
        for epoch in sorted({1, len(states) // 2, len(states) - 2}):
            folder = Folder.open(str(tmp_path / str(epoch)))
            checkpoint.save(folder, states[epoch], {})
            restored = checkpoint.restore(folder)
            assert restored is not None
            assert_same_state(restored[0], states[epoch])
            again = make(self.evaluations(space))
            last = search(again, space, restored[0]).states[-1]
            assert_same_state(last, states[-1])
            assert _listed(again.answer(last, space)) == _listed(strategy.answer(states[-1], space))

    def test_it_learns_theta_by_rounds_or_leaves_it_alone(self, make: Make, space: SearchSpace) -> None:
        strategy = make(self.evaluations(space))
        last = search(strategy, space, 8).states[-1]
        assert bool(last.history) == strategy.by_rounds
        if not strategy.by_rounds:
            np.testing.assert_array_equal(last.theta_EK, initial_state(space, 8).theta_EK)

    # --- result ---

    def test_its_result_is_none_or_a_network_that_may_be_generated(self, make: Make, space: SearchSpace) -> None:
        for seed in range(3):
            strategy = make(self.evaluations(space))
            alpha_E = strategy.answer(search(strategy, space, seed).states[-1], space)
            if alpha_E is not None:
                assert alpha_E.shape == (len(space.edges),)
                assert np.issubdtype(alpha_E.dtype, np.integer)
                assert may_be_generated(alpha_E, space)

    # --- failures ---

    def test_architectures_that_diverge_are_the_worst_of_their_epoch(self, make: Make, space: SearchSpace) -> None:
        """The first of every epoch diverges, unless it is the only one."""
        strategy = make(self.evaluations(space))
        state = initial_state(space, 6)
        while (plan := strategy.ask(state, space)) is not None:
            results = [by_architecture(request) for request in plan.requests]
            if len(results) > 1:
                results[0] = replace(results[0], score=math.nan, loss=math.nan, ok=False)
            state = strategy.tell(state, space, plan, results)
            rows = state.evaluations[-len(results) :]
            assert [row.ok for row in rows] == [result.ok for result in results]
            assert min(row.score for row in rows) == rows[0].score or rows[0].ok
        assert np.isfinite(state.theta_EK).all()
        assert np.isfinite([row.score for row in state.evaluations]).all()
        alpha_E = strategy.answer(state, space)
        assert alpha_E is None or may_be_generated(alpha_E, space)

    def test_an_epoch_that_diverges_as_a_whole_ends_the_search(self, make: Make, space: SearchSpace) -> None:
        strategy, state = make(self.evaluations(space)), initial_state(space, 7)
        plan = strategy.ask(state, space)
        assert plan is not None
        diverged = EvalResult(score=math.nan, loss=math.nan, ok=False)
        with pytest.raises(DivergedError):
            strategy.tell(state, space, plan, [diverged] * len(plan.requests))


def _listed(alpha_E: IntArray | None) -> Sequence[int] | None:
    return None if alpha_E is None else alpha_E.tolist()


def _assert_same_plan(one: Plan | None, other: Plan) -> None:
    assert one is not None
    for a, b in zip(one.requests, other.requests, strict=True):
        np.testing.assert_array_equal(a.alpha_E, b.alpha_E)
        assert (a.round, a.epoch, a.architecture, a.lr, a.train) == (b.round, b.epoch, b.architecture, b.lr, b.train)
