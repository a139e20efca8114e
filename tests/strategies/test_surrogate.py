"""The Gaussian process over all records. Axes: N architectures seen, M predicted, E edges, K candidates, F features."""

from __future__ import annotations

from dataclasses import fields, replace
from itertools import pairwise

import mpmath
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from threadpoolctl import threadpool_info, threadpool_limits

from ddpnas_ray.core.requests import EvalRequest, EvalResult
from ddpnas_ray.core.sampling import rng_for
from ddpnas_ray.core.space import FloatArray, IntArray, SearchSpace
from ddpnas_ray.core.state import initial_state
from ddpnas_ray.spaces.cell.space import make as cell
from ddpnas_ray.spaces.nasbench201.space import make as nasbench201
from ddpnas_ray.strategies import surrogate
from ddpnas_ray.strategies.base import Strategy, may_be_generated
from ddpnas_ray.strategies.evolution import network_choices
from ddpnas_ray.strategies.gaussian import posterior
from ddpnas_ray.strategies.surrogate import (
    Surrogate,
    SurrogateConfig,
    candidates,
    disjoint_networks,
    features,
    log_expected_improvement,
    normal_scores,
)
from ddpnas_ray.testing import StrategyContract, assert_same_state, counted_space
from ddpnas_ray.testing.strategy_contract import SPACES, Make, search

LAW = settings(derandomize=True, deadline=None, max_examples=20)
CELL = cell(nodes=2).space
seeds = st.integers(0, 2**32 - 1)


class TestSurrogate(StrategyContract):
    @pytest.fixture(params=[(1, 15), (4, 4)])
    def make(self, request: pytest.FixtureRequest) -> Make:
        batch, initial = request.param

        def strategy(evaluations: int) -> Strategy:
            return Surrogate(evaluations=evaluations, batch=batch, initial=initial)

        return strategy

    def evaluations(self, space: SearchSpace) -> int:
        return min(16, super().evaluations(space))


def drawn(space: SearchSpace, n: int, seed: int) -> IntArray:
    """Any architectures, shape (n, E)."""
    rng = np.random.default_rng(seed)
    return np.stack([rng.integers(len(edge.candidates), size=n) for edge in space.edges], axis=1)


# --- distances ---


def distance(one: IntArray, other: IntArray, space: SearchSpace, group_distance: float) -> float:
    """By definition: 1 per edge of different groups or active in one, ``group_distance`` where a group's ops differ."""
    apart = 0.0
    for e, (a, b) in enumerate(zip(one, other, strict=True)):
        active = {bool(space.active(alpha_E)[e]) for alpha_E in (one, other)}
        if len(active) == 2:
            apart += 1.0
        elif a != b and True in active:
            apart += group_distance if space.op(e, int(a)).group == space.op(e, int(b)).group else 1.0
    return apart


@LAW
@given(name=st.sampled_from(sorted(SPACES)), group_distance=st.floats(0.0, 1.0), seed=seeds)
def test_squared_distances_are_those_of_the_definition(name: str, group_distance: float, seed: int) -> None:
    space = SPACES[name]
    alphas_NE = drawn(space, 6, seed)
    points_NF = features(alphas_NE, space, group_distance)
    squared_NN = ((points_NF[:, None] - points_NF[None]) ** 2).sum(axis=2)
    expected_NN = [[distance(a, b, space, group_distance) for b in alphas_NE] for a in alphas_NE]
    np.testing.assert_allclose(squared_NN, expected_NN, atol=1e-12)
    np.testing.assert_allclose((points_NF**2).sum(axis=1), len(space.edges) / 2, err_msg="what posterior relies on")


# --- the process ---


@pytest.mark.parametrize(
    ("mean", "deviation", "best"), [(0.0, 1.0, 0.5), (1.0, 0.3, 0.5), (-1.0, 0.5, 0.5), (2.0, 0.1, 0.0)]
)
def test_expected_improvement_is_what_it_says(mean: float, deviation: float, best: float) -> None:
    drawn_N = np.random.default_rng(0).normal(mean, deviation, 400_000)
    gains_N = np.maximum(0.0, drawn_N - best)
    error = gains_N.std() / np.sqrt(len(gains_N))
    found = np.exp(log_expected_improvement(np.array([mean]), np.array([deviation]), best)[0])
    assert found == pytest.approx(gains_N.mean(), abs=5 * error)


@LAW
@given(z=st.floats(-1e4, 5.0), deviation=st.floats(1e-3, 10.0))
@example(z=-1.0, deviation=1.0)
@example(z=-1000.0, deviation=1.0)
def test_log_expected_improvement_is_exact_however_small(z: float, deviation: float) -> None:
    # The definition at 60 digits: h(z) = phi(z) + z Phi(z) loses all of a double's below z = -8.
    with mpmath.workdps(60):
        at = mpmath.mpf(z * deviation) / mpmath.mpf(deviation)
        expected = float(
            mpmath.log(deviation) + mpmath.log(mpmath.npdf(at) + at * mpmath.erfc(-at / mpmath.sqrt(2)) / 2)
        )
    found = log_expected_improvement(np.array([z * deviation]), np.array([deviation]), 0.0)[0]
    assert found == pytest.approx(expected, rel=1e-11, abs=1e-11)


def test_what_is_known_for_sure_improves_by_what_it_is_better() -> None:
    gain_N = np.exp(log_expected_improvement(np.array([0.4, 0.5, 0.8]), np.zeros(3), 0.5))
    np.testing.assert_allclose(gain_N, [0.0, 0.0, 0.3], atol=1e-8)


def test_normal_scores_depend_on_ranks_alone_and_equals_share_theirs() -> None:
    scores_N = np.array([0.5, 0.1, 0.5, 0.9, 0.2])
    found_N = normal_scores(scores_N)
    np.testing.assert_array_equal(normal_scores(100 * scores_N**3), found_N)
    assert found_N[0] == found_N[2]
    assert [int(i) for i in np.argsort(found_N, kind="stable")] == [1, 4, 0, 2, 3]
    assert found_N[3] == -found_N[1]


# --- proposals ---


@pytest.mark.parametrize(
    "space", [SPACES["benchmark"], SPACES["not all selectable"], CELL], ids=["benchmark", "lost", "cell"]
)
def test_disjoint_networks_share_no_choice_of_a_block_while_there_are_others(space: SearchSpace) -> None:
    for seed in range(5):
        alphas_NE = disjoint_networks(space, 5, rng_for(seed))
        assert all(may_be_generated(alpha_E.tolist(), space) for alpha_E in alphas_NE)
        for block, alphas_CB in zip(space.blocks, network_choices(space), strict=True):
            chosen = {tuple(alpha_E[list(block)].tolist()) for alpha_E in alphas_NE}
            assert len(chosen) == min(5, len(alphas_CB))


def test_the_first_epochs_are_disjoint_and_the_rest_is_new() -> None:
    space = nasbench201().space
    for seed in range(3):
        plans = search(Surrogate(evaluations=22, initial=15), space, seed).plans
        assert [len(plan.requests) for plan in plans] == [5, 5, 5] + 7 * [1]
        for plan in plans[:3]:
            alphas_NE = np.array([request.alpha_E for request in plan.requests])
            assert (np.sort(alphas_NE, axis=0) == np.arange(5)[:, None]).all()
        asked = [tuple(request.alpha_E.tolist()) for plan in plans for request in plan.requests]
        assert len(set(asked)) == 22


@pytest.mark.parametrize("batch", [1, 5])
def test_it_proposes_no_architecture_twice_until_all_are_known(batch: int) -> None:
    space = counted_space("small", (2, 1, 1), (1, 2, 0), (2, 0, 0))  # 18 networks
    asked = [
        row.alpha_E
        for row in search(Surrogate(evaluations=24, batch=batch, initial=3), space, 0).states[-1].evaluations
    ]
    assert len(set(asked[:16])) == 16
    assert len(asked) == 24


def test_in_a_small_space_all_are_candidates() -> None:
    space = counted_space("small", (2, 1, 1), (1, 2, 0), (2, 0, 0))
    pool_NE, pool_NF = candidates(initial_state(space, 0), space, rng_for(0), 0.5)
    assert len({tuple(alpha) for alpha in pool_NE.tolist()}) == len(pool_NE) == 18
    assert len(pool_NF) == 18
    assert all(may_be_generated(alpha, space) for alpha in pool_NE.tolist())


def test_of_a_large_space_a_pool_is_random_networks_and_children_of_the_best() -> None:
    state = search(Surrogate(evaluations=12, initial=12), CELL, 0).states[-1]
    pool_NE, _ = candidates(state, CELL, rng_for(0), 0.5)
    pool = {tuple(alpha) for alpha in pool_NE.tolist()}
    assert len(pool) == len(pool_NE) > surrogate.DRAWN
    assert all(may_be_generated(alpha, CELL) for alpha in pool)
    ranked = sorted(state.evaluations, key=lambda row: -row.score)
    children = {row.alpha_E: sum(_related(row.alpha_E, alpha) for alpha in pool) for row in ranked}
    assert min(children[row.alpha_E] for row in ranked[:10]) > 30
    assert max(children[row.alpha_E] for row in ranked[10:]) < 30, "a random network is hardly ever one block away"
    again_NE, _ = candidates(state, CELL, rng_for(0), 0.5)
    np.testing.assert_array_equal(pool_NE, again_NE)


def _related(parent: tuple[int, ...], alpha: tuple[int, ...]) -> bool:
    return sum(any(parent[e] != alpha[e] for e in block) for block in CELL.blocks) == 1


def test_the_next_one_has_the_largest_expected_improvement() -> None:
    space, strategy = SPACES["benchmark"], Surrogate(evaluations=30, initial=15)
    searched = search(strategy, space, 0)
    for state, plan in zip(searched.states[5:10], searched.plans[5:10], strict=True):
        seen_NE = np.array([row.alpha_E for row in state.evaluations])
        pool_NE = np.stack(np.unravel_index(np.arange(5**4), (5,) * 4), axis=1)
        seen_NF, pool_NF = features(seen_NE, space, 0.5), features(pool_NE, space, 0.5)
        target_N = normal_scores(np.array([row.score for row in state.evaluations]))
        mean_M, deviation_M = posterior(seen_NF, target_N, pool_NF, length=strategy.length * 4, noise=strategy.noise)
        gain_M = log_expected_improvement(mean_M, deviation_M, target_N.max())
        unseen_M = ~(pool_NE[:, None] == seen_NE[None]).all(axis=2).any(axis=1)
        (request,) = plan.requests
        chosen = int((pool_NE == request.alpha_E).all(axis=1).argmax())
        assert gain_M[chosen] == pytest.approx(gain_M[unseen_M].max(), abs=1e-7)


def test_tiny_expected_improvements_are_ranked_too(monkeypatch: pytest.MonkeyPatch) -> None:
    # Nothing left is likely to improve: the least unlikely candidate is still next, not the first of the space.
    space = SPACES["benchmark"]
    state = search(Surrogate(evaluations=16, initial=15), space, 0).states[-2]
    hopeful = 321

    def hopeless(
        seen_NF: FloatArray, target_N: FloatArray, pool_MF: FloatArray, **options: float
    ) -> tuple[FloatArray, FloatArray]:
        mean_M = np.full(len(pool_MF), target_N.max() - 20.0)
        mean_M[hopeful] += 0.1
        return mean_M, np.ones(len(pool_MF))

    monkeypatch.setattr(surrogate, "posterior", hopeless)
    plan = Surrogate(evaluations=30, initial=15).ask(state, space)
    assert plan is not None
    (request,) = plan.requests
    assert request.alpha_E.tolist() == list(np.unravel_index(hopeful, (5,) * 4))


def test_a_long_search_does_not_walk_through_the_space() -> None:
    # As expected improvements rounded to 1e-10, everything is a tie here after about 35 evaluations of an easy score.
    space = SPACES["benchmark"]
    evaluations = search(Surrogate(evaluations=70), space, 0, additive).states[-1].evaluations[-30:]
    rows = [int(np.ravel_multi_index(row.alpha_E, (5,) * 4)) for row in evaluations]
    assert sum(later == earlier + 1 for earlier, later in pairwise(rows)) < 10


def additive(request: EvalRequest) -> EvalResult:
    """Every edge adds what its operation is worth."""
    return EvalResult(score=float((request.alpha_E == np.array([3, 1, 2, 0])).mean()), loss=1.0)


def test_it_finds_the_best_of_an_additive_score_sooner_than_chance() -> None:
    """One of 625; a random one of 30 finds it once in twenty."""
    best = [
        max(
            row.score
            for row in search(Surrogate(evaluations=30), SPACES["benchmark"], seed, additive).states[-1].evaluations
        )
        for seed in range(4)
    ]
    assert best == [1.0] * 4


# --- bit by bit ---


def test_the_number_of_blas_threads_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    space, inside = nasbench201().space, set[int]()

    def watched(*arguments: FloatArray, **options: float) -> tuple[FloatArray, FloatArray]:
        inside.update(pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas")
        return posterior(*arguments, **options)

    monkeypatch.setattr(surrogate, "posterior", watched)
    states = []
    for threads in (1, 2):
        with threadpool_limits(limits=threads, user_api="blas"):
            states.append(search(Surrogate(evaluations=21), space, 0).states[-1])
            outside = {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}
            assert outside == {threads}, "as it was before"
    assert_same_state(*states)
    assert inside == {1}


@pytest.mark.parametrize("seed", range(4))
def test_by_prediction_one_lucky_score_does_not_decide(seed: int) -> None:
    """Scores are the mean index of the operations, but the worst architecture has the best one."""
    space = nasbench201().space

    def by_index(request: EvalRequest) -> EvalResult:
        return EvalResult(float(np.mean(request.alpha_E)) / 5.0, 0.0)

    honest = search(Surrogate(evaluations=40, initial=40), space, seed, by_index).states[-1]
    worst = min(honest.evaluations, key=lambda row: row.score)
    rows = tuple(replace(row, score=1.0) if row is worst else row for row in honest.evaluations)
    lucky = replace(honest, evaluations=rows)
    by_score = Surrogate(evaluations=40).answer(lucky, space)
    predicted = Surrogate(evaluations=40, noise=3.0, result="predicted").answer(lucky, space)
    assert by_score is not None and tuple(by_score) == worst.alpha_E
    assert predicted is not None and predicted.mean() > 2.5 > by_score.mean() + 1.0


def test_the_rate_falls_as_a_cosine() -> None:
    plans = search(Surrogate(evaluations=20, lr=0.1), SPACES["benchmark"], 0).plans
    rates = [plan.requests[0].lr for plan in plans]
    assert rates[0] == 0.1
    assert all(late < early for early, late in pairwise(rates))


def test_the_config_and_the_strategy_have_the_same_defaults() -> None:
    defaults = {f.name: f.default for f in fields(Surrogate)}
    assert {f.name: f.default for f in fields(SurrogateConfig)} == {
        f.name: defaults[f.name] for f in fields(SurrogateConfig)
    }
