"""Algorithm 1 as a whole: searches against scripted scores. Axes: E edges, K candidates."""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import partial
from itertools import pairwise, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ddpnas_ray.core.errors import ConfigError, DivergedError
from ddpnas_ray.core.generation.solve import most_likely
from ddpnas_ray.core.pruning import prunable
from ddpnas_ray.core.requests import EvalRequest, EvalResult, Plan
from ddpnas_ray.core.sampling import rng_for
from ddpnas_ray.core.schedule import planned_architecture_epochs, planned_epochs
from ddpnas_ray.core.space import GROUPS, Edge, IntArray, Op, SearchSpace, each_edge_alone, expectation
from ddpnas_ray.core.state import SearchState, initial_state
from ddpnas_ray.spaces.base import find_space
from ddpnas_ray.strategies.base import Context, Strategy
from ddpnas_ray.strategies.pruning import Pruning, PruningConfig, cosine, make
from ddpnas_ray.testing import StrategyContract, counted_space
from ddpnas_ray.testing.strategy_contract import Make

LAW = settings(derandomize=True, deadline=None, max_examples=40)
seeds = st.integers(0, 2**32 - 1)

Script = Callable[[EvalRequest], EvalResult]


@dataclass(slots=True)
class FakeExecutor:
    """Scores architectures by a script and records its requests."""

    script: Script
    asked: list[EvalRequest] = field(default_factory=list)

    def evaluate(self, requests: Sequence[EvalRequest]) -> list[EvalResult]:
        self.asked += requests
        return [self.script(request) for request in requests]


def scored_by(score: Callable[[IntArray], float]) -> Script:
    return lambda request: EvalResult(score=score(request.alpha_E), loss=1.0)


def at_random(request: EvalRequest) -> EvalResult:
    """A score that depends on the request alone."""
    rng = rng_for(request.epoch, request.architecture, *(int(k) for k in request.alpha_E))
    return EvalResult(score=float(rng.uniform(-1, 1)), loss=1.0)


def states_of(strategy: Strategy, executor: FakeExecutor, space: SearchSpace, state: SearchState) -> list[SearchState]:
    """Run the driver's loop; return the first state and the state after each epoch."""
    states = [state]
    while (plan := strategy.ask(states[-1], space)) is not None:
        assert len(states) < 500, "the search does not end"
        states.append(strategy.tell(states[-1], space, plan, executor.evaluate(plan.requests)))
    return states


def search(strategy: Pruning, script: Script, space: SearchSpace, seed: int = 0) -> SearchState:
    return states_of(strategy, FakeExecutor(script), space, initial_state(space, seed))[-1]


def assert_same_plan(first: Plan | None, second: Plan | None) -> None:
    assert first is not None
    assert second is not None
    for a, b in zip(first.requests, second.requests, strict=True):
        np.testing.assert_array_equal(a.alpha_E, b.alpha_E)
        assert (a.round, a.epoch, a.architecture, a.lr, a.train) == (b.round, b.epoch, b.architecture, b.lr, b.train)


def assert_same_state(first: SearchState, second: SearchState) -> None:
    """Bit for bit."""
    assert (first.seed, first.round, first.epoch) == (second.seed, second.round, second.epoch)
    assert first.evaluations == second.evaluations
    for name in ("theta_EK", "momentum_EK", "live_EK", "pruned_at_EK", "score_sum_EK", "visits_EK"):
        assert getattr(first, name).tobytes() == getattr(second, name).tobytes(), name
    for a, b in zip(first.history, second.history, strict=True):
        assert a.round == b.round
        for name in ("theta_EK", "utility_EK", "momentum_EK", "live_EK", "pruned_at_EK"):
            assert getattr(a, name).tobytes() == getattr(b, name).tobytes(), name


space_of = partial(counted_space, "counted")


@st.composite
def spaces(draw: st.DrawFn) -> SearchSpace:
    """Ragged spaces with random groups and selectability; every edge has a selectable operation."""
    kind = st.tuples(st.sampled_from(GROUPS), st.booleans())
    kinds = st.lists(kind, min_size=1, max_size=7).filter(lambda ops: any(generable for _, generable in ops))
    edges = []
    for e, ops in enumerate(draw(st.lists(kinds, min_size=1, max_size=5))):
        edges.append(Edge(f"e{e}", tuple(Op(f"o{k}", group, generable) for k, (group, generable) in enumerate(ops))))
    return SearchSpace("random", tuple(edges), each_edge_alone(edges))


CELL = space_of(*[(4, 3, 1)] * 28)
MOBILE = space_of(*[(6, 1, 0)] * 15, *[(6, 0, 0)] * 6)
NASBENCH201 = space_of(*[(2, 3, 0)] * 6)
SMALL = space_of((3, 2, 1), (3, 1, 0), (2, 0, 0))


def test_a_whole_search_by_hand() -> None:
    # One edge with p0, p1, p2 and n0, one epoch a round, gamma 0.9; with one edge the utility is the op's own score:
    # 0.9, 0.5, 0.7, 0.6.
    # Round 0: exp gives 2.459603, 1.648721, 2.013753, 1.822119, together 7.944196; V is a tenth of the shares:
    #   0.0309610, 0.0207538, 0.0253487, 0.0229365. theta was 1/4 each; exp(1/4 + V) = 1.324402, 1.310952, 1.316990,
    #   1.313817, together 5.266161: theta = 0.2514929, 0.2489389, 0.2500854, 0.2494828. p0, n0 are reserved, p1 goes.
    # Round 1: shares of the live: 2.459603, 2.013753 and 1.822119 of 6.295475; V = 0.9 V + 0.1 share =
    #   0.0669343, 0.0186784 (0.9 V alone), 0.0548012, 0.0495861. exp(theta + V) = 1.374964, 1.306847, 1.356471,
    #   1.348603, together 5.386884: theta = 0.2552428, 0.2425979, 0.2518100, 0.2503493. p0, n0 are reserved, p2 goes.
    space, scores = space_of((3, 1, 0)), [0.9, 0.5, 0.7, 0.6]
    executor = FakeExecutor(scored_by(lambda alpha_E: scores[alpha_E[0]]))
    strategy = Pruning(epochs_per_round=1, gamma=0.9, keep_per_group=1)
    states = states_of(strategy, executor, space, initial_state(space, seed=0))
    assert len(states) == 3
    np.testing.assert_allclose(states[1].momentum_EK, [[0.0309610, 0.0207538, 0.0253487, 0.0229365]], atol=6e-8)
    np.testing.assert_allclose(states[1].theta_EK, [[0.2514929, 0.2489389, 0.2500854, 0.2494828]], atol=6e-8)
    np.testing.assert_array_equal(states[1].live_EK, [[True, False, True, True]])
    np.testing.assert_allclose(states[2].momentum_EK, [[0.0669343, 0.0186784, 0.0548012, 0.0495861]], atol=6e-8)
    np.testing.assert_allclose(states[2].theta_EK, [[0.2552428, 0.2425979, 0.2518100, 0.2503493]], atol=6e-8)
    np.testing.assert_array_equal(states[2].live_EK, [[True, False, False, True]])
    np.testing.assert_array_equal(states[2].pruned_at_EK, [[-1, 0, 1, -1]])
    np.testing.assert_allclose(states[2].history[1].utility_EK, [[0.9, math.nan, 0.7, 0.6]])
    assert sorted(int(request.alpha_E[0]) for request in executor.asked) == [0, 0, 1, 2, 2, 3, 3]


@pytest.mark.parametrize(
    ("space", "keep", "architecture_epochs"),
    [(CELL, 1, 99), (MOBILE, 1, 75), (NASBENCH201, 1, 36), (space_of((4, 0, 0), (4, 0, 0), (3, 0, 0)), 2, 21)],
    ids=["cell", "mobile", "nasbench201", "bert"],
)
def test_a_search_asks_for_the_planned_architectures(space: SearchSpace, keep: int, architecture_epochs: int) -> None:
    executor = FakeExecutor(at_random)
    states_of(Pruning(epochs_per_round=3, keep_per_group=keep), executor, space, initial_state(space, seed=0))
    assert len(executor.asked) == architecture_epochs


@LAW
@given(space=spaces(), keep=st.integers(1, 3), epochs_per_round=st.integers(1, 3), seed=seeds)
def test_a_search_costs_what_was_planned(space: SearchSpace, keep: int, epochs_per_round: int, seed: int) -> None:
    executor = FakeExecutor(at_random)
    strategy = Pruning(epochs_per_round=epochs_per_round, keep_per_group=keep)
    final = states_of(strategy, executor, space, initial_state(space, seed))[-1]
    assert final.epoch == planned_epochs(space, keep, epochs_per_round)
    assert len(executor.asked) == planned_architecture_epochs(space, keep, epochs_per_round)
    assert len(final.evaluations) == len(executor.asked)
    assert len(final.history) == final.round == final.epoch // epochs_per_round


@LAW
@given(space=spaces(), keep=st.integers(1, 3), seed=seeds)
def test_a_search_ends_with_exactly_the_kept_ops(space: SearchSpace, keep: int, seed: int) -> None:
    final = search(Pruning(epochs_per_round=2, keep_per_group=keep), at_random, space, seed)
    assert not prunable(final.theta_EK, final.live_EK, space, keep).any()
    assert not (final.live_EK & ~space.generable_EK).any()
    for e, edge in enumerate(space.edges):
        for group in GROUPS:
            generable = sum(op.generable and op.group == group for op in edge.candidates)
            live = sum(op.group == group for k, op in enumerate(edge.candidates) if final.live_EK[e, k])
            assert live == min(generable, keep)


@LAW
@given(space=spaces(), epochs_per_round=st.integers(1, 3), seed=seeds)
def test_every_epoch_trains_live_ops_only_and_all_of_them(space: SearchSpace, epochs_per_round: int, seed: int) -> None:
    state, strategy = initial_state(space, seed), Pruning(epochs_per_round=epochs_per_round)
    while (plan := strategy.ask(state, space)) is not None:
        used_EK = np.zeros(space.shape, dtype=bool)
        for request in plan.requests:
            used_EK[np.arange(len(space.edges)), request.alpha_E] = True
        np.testing.assert_array_equal(used_EK, state.live_EK)
        assert [request.architecture for request in plan.requests] == list(range(int(state.live_EK.sum(axis=1).max())))
        assert {(request.round, request.epoch) for request in plan.requests} == {(state.round, state.epoch)}
        assert all(request.train for request in plan.requests)
        state = strategy.tell(state, space, plan, [at_random(request) for request in plan.requests])


@LAW
@given(space=spaces(), epochs_per_round=st.integers(1, 3), seed=seeds)
def test_theta_and_live_change_once_a_round(space: SearchSpace, epochs_per_round: int, seed: int) -> None:
    strategy = Pruning(epochs_per_round=epochs_per_round)
    states = states_of(strategy, FakeExecutor(at_random), space, initial_state(space, seed))
    for before, after in pairwise(states):
        assert after.epoch == before.epoch + 1
        if after.epoch % epochs_per_round:
            assert after.round == before.round
            assert after.theta_EK is before.theta_EK
            assert after.live_EK is before.live_EK
            assert after.visits_EK.any()
        else:
            assert after.round == before.round + 1
            assert after.live_EK.sum() < before.live_EK.sum()
            assert not after.score_sum_EK.any()
            assert not after.visits_EK.any()
        np.testing.assert_allclose(after.theta_EK.sum(axis=1), 1.0, rtol=1e-12)
        assert (after.theta_EK[~space.exists_EK] == 0).all()


@LAW
@given(space=spaces(), seed=seeds)
def test_the_history_records_when_each_op_was_pruned(space: SearchSpace, seed: int) -> None:
    final = search(Pruning(epochs_per_round=1), at_random, space, seed)
    live_EK = space.exists_EK
    for number, decided in enumerate(final.history):
        assert decided.round == number
        gone_EK = live_EK & ~decided.live_EK
        assert gone_EK.sum(axis=1).max() == 1
        assert (final.pruned_at_EK[gone_EK] == number).all()
        np.testing.assert_array_equal(np.isnan(decided.utility_EK), ~live_EK)
        live_EK = decided.live_EK
    np.testing.assert_array_equal(final.pruned_at_EK == -1, final.live_EK | ~space.exists_EK)
    if final.history:
        np.testing.assert_array_equal(final.history[-1].theta_EK, final.theta_EK)
        np.testing.assert_array_equal(final.history[-1].momentum_EK, final.momentum_EK)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 0.7])
def test_the_momentum_of_a_pruned_op_fades_with_gamma(gamma: float) -> None:
    final = search(Pruning(epochs_per_round=1, gamma=gamma), at_random, space_of((5, 0, 0)))
    first_gone = int(np.flatnonzero(final.pruned_at_EK[0] == 0)[0])
    momenta = [float(decided.momentum_EK[0, first_gone]) for decided in final.history]
    assert momenta[0] > 0
    np.testing.assert_allclose(momenta, [momenta[0] * gamma**rounds for rounds in range(4)], rtol=1e-12)


def test_the_theta_of_a_pruned_op_keeps_changing() -> None:
    # Fig. 4: pruned operations go through Eq. 5 like the rest.
    final = search(Pruning(epochs_per_round=1), at_random, space_of((5, 0, 0)))
    first_gone = int(np.flatnonzero(final.pruned_at_EK[0] == 0)[0])
    thetas = [float(decided.theta_EK[0, first_gone]) for decided in final.history]
    assert len(set(thetas)) == len(thetas) == 4
    assert min(thetas) > 0


@LAW
@given(
    ranks=st.integers(2, 7).flatmap(lambda n: st.permutations(range(n))),
    groups=st.lists(st.sampled_from(GROUPS), min_size=7, max_size=7),
    keep=st.integers(1, 3),
    gamma=st.sampled_from([0.0, 0.7, 0.9]),
    seed=seeds,
)
def test_on_a_single_edge_the_best_of_each_group_are_kept(
    ranks: list[int], groups: list[str], keep: int, gamma: float, seed: int
) -> None:
    # With one edge an operation's utility is its own score, so that nothing but Algorithm 1 decides.
    ops = tuple(Op(f"o{k}", "parameter" if groups[k] == "parameter" else "non_parameter") for k in range(len(ranks)))
    space = SearchSpace("one", (Edge("e", ops),), ((0,),))
    script = scored_by(lambda alpha_E: 0.1 + 0.1 * ranks[alpha_E[0]])
    final = search(Pruning(epochs_per_round=2, gamma=gamma, keep_per_group=keep), script, space, seed)
    expected = set()
    for group in GROUPS:
        members = [k for k, op in enumerate(ops) if op.group == group]
        expected |= set(sorted(members, key=lambda k: -ranks[k])[:keep])
    assert set(np.flatnonzero(final.live_EK[0])) == expected
    if final.history:
        assert int(final.theta_EK[0].argmax()) == int(np.argmax(ranks))


@LAW
@given(space=spaces(), epochs_per_round=st.integers(1, 3), seed=seeds, data=st.data())
def test_an_op_that_outweighs_all_other_edges_together_is_kept(
    space: SearchSpace, epochs_per_round: int, seed: int, data: st.DataObject
) -> None:
    # On one edge the best operation adds 0.5; everything else together sways the score by less than 0.4.
    edge = data.draw(st.integers(0, len(space.edges) - 1))
    best = data.draw(st.sampled_from([k for k, op in enumerate(space.edges[edge].candidates) if op.generable]))

    def script(request: EvalRequest) -> EvalResult:
        return EvalResult(score=0.5 * (request.alpha_E[edge] == best) + 0.19 * at_random(request).score, loss=1.0)

    final = search(Pruning(epochs_per_round=epochs_per_round), script, space, seed)
    assert final.live_EK[edge, best]
    if final.history and len(space.edges[edge].candidates) > 1:
        assert int(final.theta_EK[edge].argmax()) == best


@pytest.mark.parametrize("seed", range(5))
def test_given_epochs_to_average_over_the_best_op_of_every_edge_is_kept(seed: int) -> None:
    # Six edges of five operations; the planted one adds 1/6 to the score. What the five other edges add has, in one
    # epoch, a standard deviation of sqrt(5 * 0.2 * 0.8) / 6 = 0.15; over 60 epochs of 0.02: the margin is beyond doubt.
    planted_E = np.random.default_rng(seed).integers(5, size=6)
    script = scored_by(lambda alpha_E: float((alpha_E == planted_E).mean()))
    final = search(Pruning(epochs_per_round=60), script, NASBENCH201, seed)
    assert final.live_EK[np.arange(6), planted_E].all()
    np.testing.assert_array_equal(final.theta_EK.argmax(axis=1), planted_E)


@LAW
@given(space=spaces(), epochs_per_round=st.integers(1, 3), seed=seeds, data=st.data())
def test_a_search_restarted_from_any_state_continues_identically(
    space: SearchSpace, epochs_per_round: int, seed: int, data: st.DataObject
) -> None:
    strategy = Pruning(epochs_per_round=epochs_per_round)
    states = states_of(strategy, FakeExecutor(at_random), space, initial_state(space, seed))
    start = data.draw(st.integers(0, len(states) - 1))
    restored = pickle.loads(pickle.dumps(states[start]))
    again = states_of(Pruning(epochs_per_round=epochs_per_round), FakeExecutor(at_random), space, restored)
    assert len(again) == len(states) - start
    for first, second in zip(states[start:], again, strict=True):
        assert_same_state(first, second)


@LAW
@given(space=spaces(), seed=seeds)
def test_the_same_state_twice_gives_the_same_plan(space: SearchSpace, seed: int) -> None:
    strategy = Pruning(epochs_per_round=1)
    for state in states_of(strategy, FakeExecutor(at_random), space, initial_state(space, seed))[:-1]:
        assert_same_plan(strategy.ask(state, space), strategy.ask(state, space))


@LAW
@given(space=spaces(), epochs_per_round=st.integers(1, 2), seed=seeds)
def test_asking_and_telling_leave_the_state_as_it_was(space: SearchSpace, epochs_per_round: int, seed: int) -> None:
    state, strategy = initial_state(space, seed), Pruning(epochs_per_round=epochs_per_round)
    while True:
        copy = pickle.loads(pickle.dumps(state))
        plan = strategy.ask(state, space)
        assert_same_state(state, copy)
        if plan is None:
            break
        after = strategy.tell(state, space, plan, [at_random(request) for request in plan.requests])
        assert_same_state(state, copy)
        state = after


def test_another_seed_another_search() -> None:
    space = space_of(*[(4, 3, 1)] * 6)
    plans = [Pruning().ask(initial_state(space, seed), space) for seed in range(5)]
    drawn = {tuple(tuple(request.alpha_E.tolist()) for request in plan.requests) for plan in plans if plan}
    assert len(drawn) == 5


def test_every_epoch_pairs_the_ops_anew() -> None:
    space, executor = space_of(*[(4, 4, 0)] * 6), FakeExecutor(at_random)
    states_of(Pruning(epochs_per_round=4), executor, space, initial_state(space, seed=0))
    drawn = [tuple(tuple(r.alpha_E.tolist()) for r in executor.asked if r.epoch == epoch) for epoch in range(4)]
    assert len(set(drawn)) == 4


def test_ask_returns_none_where_nothing_can_be_pruned() -> None:
    space = space_of((1, 1, 0), (1, 0, 0))
    assert Pruning().ask(initial_state(space, seed=0), space) is None


def test_all_architectures_of_an_epoch_train_at_one_rate_that_falls_as_a_cosine() -> None:
    # Three rounds of two epochs: t = 0..5 of 6, cos(0), cos(30), cos(60), cos(90), cos(120) and cos(150 degrees).
    # lr = 0.1 * (1 + cos) / 2 = 0.1, 0.0933013, 0.075, 0.05, 0.025, 0.0066987.
    space, executor = space_of((4, 0, 0)), FakeExecutor(at_random)
    states_of(Pruning(epochs_per_round=2, lr=0.1), executor, space, initial_state(space, seed=0))
    rates = {epoch: {request.lr for request in executor.asked if request.epoch == epoch} for epoch in range(6)}
    assert all(len(rate) == 1 for rate in rates.values())
    lrs = [rate.pop() for rate in rates.values()]
    np.testing.assert_allclose(lrs, [0.1, 0.0933013, 0.075, 0.05, 0.025, 0.0066987], atol=5e-8)


@LAW
@given(lr=st.floats(1e-6, 10.0), epochs=st.integers(1, 200))
def test_the_rate_starts_at_lr_and_falls_without_reaching_zero(lr: float, epochs: int) -> None:
    rates = [cosine(lr, epoch, epochs) for epoch in range(epochs)]
    assert rates[0] == lr
    assert all(late < early for early, late in pairwise(rates))
    assert rates[-1] > 0


def test_past_the_planned_epochs_the_rate_stays_at_its_last() -> None:
    assert cosine(0.1, 6, 6) == cosine(0.1, 99, 6) == cosine(0.1, 5, 6) > 0


def test_a_diverged_architecture_counts_as_the_worst_of_its_epoch() -> None:
    # p2 diverges whenever it is drawn, and takes the least score of the epoch: the 0.2 of p0.
    scores = [0.2, 0.6, math.nan, 0.4]

    def script(request: EvalRequest) -> EvalResult:
        score = scores[request.alpha_E[0]]
        return EvalResult(score=score, loss=1.0, ok=not math.isnan(score))

    space = space_of((4, 0, 0))
    state, strategy = initial_state(space, seed=0), Pruning(epochs_per_round=3)
    for _ in range(3):
        plan = strategy.ask(state, space)
        assert plan is not None
        state = strategy.tell(state, space, plan, [script(request) for request in plan.requests])
    np.testing.assert_allclose(state.history[0].utility_EK, [[0.2, 0.6, 0.2, 0.4]])
    assert np.isfinite(state.theta_EK).all()


def test_an_epoch_in_which_everything_diverged_raises() -> None:
    def script(_request: EvalRequest) -> EvalResult:
        return EvalResult(score=math.nan, loss=math.inf, ok=False)

    with pytest.raises(DivergedError, match="all 6 architectures"):
        search(Pruning(), script, SMALL)


def test_percentages_raise_before_they_saturate_the_softmax() -> None:
    with pytest.raises(ValueError, match="fractions, not percentages"):
        search(Pruning(), scored_by(lambda _: 93.2), SMALL)


def test_the_config_and_the_strategy_have_the_same_defaults() -> None:
    defaults = {f.name: f.default for f in fields(Pruning)}
    assert {f.name: defaults[f.name] for f in fields(PruningConfig)} == {
        f.name: f.default for f in fields(PruningConfig)
    }
    assert PruningConfig() == PruningConfig(epochs_per_round=3, gamma=0.9, keep_per_group=1)


class TestPruning(StrategyContract):
    @pytest.fixture
    def make(self) -> Make:
        return lambda evaluations: Pruning(epochs_per_round=1, evaluations=evaluations)


class TestNoPrune(StrategyContract):
    @pytest.fixture
    def make(self) -> Make:
        return lambda evaluations: Pruning(epochs_per_round=2, evaluations=evaluations, prune=False)


class TestAlgorithm1(StrategyContract):
    has_budget = False

    @pytest.fixture
    def make(self) -> Make:
        return lambda _evaluations: Pruning(epochs_per_round=2)


class TestPredicted(StrategyContract):
    @pytest.fixture
    def make(self) -> Make:
        return lambda evaluations: Pruning(epochs_per_round=1, evaluations=evaluations, result="predicted")


# The result by prediction.


@pytest.mark.parametrize("seed", range(4))
def test_by_prediction_a_round_that_was_misled_does_not_decide(seed: int) -> None:
    """Scores are the mean index of the operations, but in the last round they are upside down."""

    def by_index(request: EvalRequest) -> EvalResult:
        score = float(np.mean(request.alpha_E)) / 5.0
        return EvalResult(1.0 - score if request.round == 2 else score, 0.0)

    final = search(Pruning(epochs_per_round=4, gamma=0.0), by_index, NASBENCH201, seed)
    predicted = Pruning(result="predicted").answer(final, NASBENCH201)
    assert predicted is not None
    assert predicted.mean() > most_likely(NASBENCH201, final.theta_EK, final.live_EK).mean() + 0.5


def test_the_best_prediction_may_use_operations_that_were_pruned() -> None:
    """All scores equal but one of the first round: nothing else tells the operations apart."""
    final = search(Pruning(epochs_per_round=1), at_random, NASBENCH201)
    first = final.evaluations[0]
    rows = tuple(replace(row, score=0.9 if row is first else 0.1) for row in final.evaluations)
    answer_E = Pruning(result="predicted").answer(replace(final, evaluations=rows), NASBENCH201)
    assert answer_E is not None and tuple(answer_E) == first.alpha_E
    assert not final.live_EK[np.arange(6), first.alpha_E].all()


def test_a_space_that_trains_more_edges_than_it_generates_has_no_predictions() -> None:
    space = find_space("cell")().space
    context = Context(space=space, evaluations=99, batch=8, lr=0.1, epochs_per_round=3, keep_per_group=1)
    with pytest.raises(ConfigError, match="trains all inputs of a node and generates 2"):
        make(context, PruningConfig(result="predicted"))


# A budget beyond Algorithm 1: what is left of it verifies the most probable architectures.


@LAW
@given(space=spaces(), more=st.integers(1, 70), epochs_per_round=st.integers(1, 2), seed=seeds)
def test_the_rest_of_a_budget_verifies_the_most_probable_without_training(
    space: SearchSpace, more: int, epochs_per_round: int, seed: int
) -> None:
    needed = planned_architecture_epochs(space, 1, epochs_per_round)
    strategy = Pruning(epochs_per_round=epochs_per_round, evaluations=needed + more)
    executor = FakeExecutor(at_random)
    states = states_of(strategy, executor, space, initial_state(space, seed))
    trained, final = search(Pruning(epochs_per_round=epochs_per_round), at_random, space, seed), states[-1]
    assert [request.train for request in executor.asked] == [True] * needed + [False] * (len(executor.asked) - needed)
    assert final.evaluations[:needed] == trained.evaluations, "the search itself is the same"
    np.testing.assert_array_equal(final.theta_EK, trained.theta_EK)

    choices = [np.flatnonzero(live_K) for live_K in final.live_EK & space.generable_EK]
    assert len(executor.asked) - needed == min(more, math.prod(map(len, choices)))
    assert strategy.epochs(space)[trained.epoch :] == (len(executor.asked) - needed,)
    verified = [tuple(request.alpha_E.tolist()) for request in executor.asked[needed:]]
    assert len(set(verified)) == len(verified)
    if math.prod(map(len, choices)) <= 3000:
        of = final.theta_EK, space, final.live_EK
        everything = sorted((expectation(np.array(alpha), *of) for alpha in product(*choices)), reverse=True)
        found = [expectation(np.array(alpha), *of) for alpha in verified]
        np.testing.assert_allclose(found, everything[: len(found)], atol=1e-12)
    best = max(at_random(request).score for request in executor.asked[needed:])
    answer_E = strategy.answer(final, space)
    assert answer_E is not None
    scores = {row.alpha_E: row.score for row in final.evaluations if not row.trained}
    assert scores[tuple(answer_E.tolist())] == best


def test_of_equal_scores_the_most_probable_is_the_result() -> None:
    strategy = Pruning(epochs_per_round=1, evaluations=12 + 9)
    final = search(strategy, scored_by(lambda _: 0.5), NASBENCH201)
    assert [row.trained for row in final.evaluations].count(False) == 9
    answer_E = strategy.answer(final, NASBENCH201)
    assert answer_E is not None
    np.testing.assert_array_equal(answer_E, most_likely(NASBENCH201, final.theta_EK, final.live_EK))


def test_what_the_verified_learned_from_is_theta_alone() -> None:
    """Verification comes once: neither its scores nor an unspent budget continue the search."""
    strategy = Pruning(epochs_per_round=1, evaluations=1000)
    state = search(strategy, at_random, SMALL)
    assert strategy.ask(state, SMALL) is None
    assert len(state.evaluations) < 1000
    assert (state.round, len(state.history)) == (state.epoch - 1, state.epoch - 1)


def test_without_a_rest_theta_decides_the_result() -> None:
    for strategy in (Pruning(epochs_per_round=1), Pruning(epochs_per_round=1, evaluations=12)):
        final = search(strategy, at_random, NASBENCH201)
        assert len(final.evaluations) == 12
        assert strategy.answer(final, NASBENCH201) is None


def test_where_nothing_can_be_pruned_the_whole_budget_verifies() -> None:
    space = space_of((1, 1, 0), (1, 0, 0))
    final = search(Pruning(evaluations=2), at_random, space)
    assert [row.trained for row in final.evaluations] == [False, False]


# NoPrune of Table 2.


@LAW
@given(space=spaces(), evaluations=st.integers(1, 40), epochs_per_round=st.integers(1, 3), seed=seeds)
def test_without_pruning_theta_moves_and_everything_stays(
    space: SearchSpace, evaluations: int, epochs_per_round: int, seed: int
) -> None:
    strategy = Pruning(epochs_per_round=epochs_per_round, evaluations=evaluations, prune=False)
    executor = FakeExecutor(at_random)
    final = states_of(strategy, executor, space, initial_state(space, seed))[-1]
    assert len(executor.asked) == evaluations
    assert all(request.train for request in executor.asked)
    np.testing.assert_array_equal(final.live_EK, space.exists_EK)
    assert (final.pruned_at_EK == -1).all()
    assert final.round == len(final.history) == math.ceil(final.epoch / epochs_per_round)
    assert not final.visits_EK.any()
    assert strategy.answer(final, space) is None


def test_without_pruning_the_scores_of_an_unfinished_last_round_move_theta_too() -> None:
    # 20 evaluations are four epochs of five: a round of three and one of one.
    final = search(Pruning(prune=False, evaluations=20), at_random, NASBENCH201)
    before, last = final.history
    scores_by_op = [dict[int, float]() for _ in NASBENCH201.edges]
    for row in final.evaluations[15:]:
        for e, k in enumerate(row.alpha_E):
            scores_by_op[e][k] = row.score
    utility_EK = np.array([[scores_by_op[e][k] for k in range(5)] for e in range(6)])
    np.testing.assert_array_equal(last.utility_EK, utility_EK)
    exp_EK = np.exp(utility_EK)
    momentum_EK = 0.9 * before.momentum_EK + 0.1 * exp_EK / exp_EK.sum(axis=1, keepdims=True)
    theta_EK = np.exp(before.theta_EK + momentum_EK)
    np.testing.assert_allclose(final.theta_EK, theta_EK / theta_EK.sum(axis=1, keepdims=True), rtol=1e-12)


def test_the_first_round_is_the_same_with_and_without_pruning() -> None:
    first, other = (
        search(strategy, at_random, NASBENCH201).history[0]
        for strategy in (Pruning(), Pruning(prune=False, evaluations=15))
    )
    for name in ("theta_EK", "utility_EK", "momentum_EK"):
        np.testing.assert_array_equal(getattr(first, name), getattr(other, name))
    assert (first.live_EK.sum(), other.live_EK.sum()) == (24, 30)
