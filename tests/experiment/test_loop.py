"""The search loop, with scripted scores. Axes: E edges, K candidates."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import pytest

from ddpnas_ray.core.errors import DivergedError
from ddpnas_ray.core.requests import EvalRequest, EvalResult, Work
from ddpnas_ray.core.sampling import rng_for
from ddpnas_ray.core.state import SearchState, initial_state
from ddpnas_ray.execution.base import OnResult
from ddpnas_ray.experiment.loop import run_search
from ddpnas_ray.nn.weights import Float32Array
from ddpnas_ray.spaces.cell.space import make
from ddpnas_ray.strategies.pruning import Pruning
from ddpnas_ray.testing import assert_same_state

SPACE = make().space
STRATEGY = Pruning()
Saved = list[tuple[SearchState, dict[str, Float32Array]]]


def by_alpha(request: EvalRequest) -> EvalResult:
    """Return a score that depends on the architecture and the epoch alone."""
    rng = rng_for(request.epoch, *(int(k) for k in request.alpha_E))
    return EvalResult(score=float(rng.random()), loss=float(rng.random()))


class FakeExecutor:
    """Executor with scripted scores; its one weight counts trained epochs."""

    def __init__(self, script: Callable[[EvalRequest], EvalResult] = by_alpha) -> None:
        self.script = script
        self.work = Work()
        self.devices: dict[str, dict[str, str]] = {}
        self.epochs: list[tuple[EvalRequest, ...]] = []
        self._weight = np.zeros(1, dtype=np.float32)

    def evaluate(self, requests: Sequence[EvalRequest], on_result: OnResult | None = None) -> list[EvalResult]:
        self.epochs.append(tuple(requests))
        results = [self.script(request) for request in requests]
        for request, result in reversed(list(zip(requests, results, strict=True))):
            if on_result is not None:
                on_result(request, result)
        self._weight += 1.0
        return results

    def weights(self) -> Mapping[str, Float32Array]:
        return {"epochs": self._weight}

    def load_weights(self, tensors: Mapping[str, Float32Array]) -> None:
        self._weight = tensors["epochs"].copy()

    def close(self) -> None:
        pass


def saving(saved: Saved) -> Callable[[SearchState, Mapping[str, Float32Array]], None]:
    return lambda state, weights: saved.append((state, {name: tensor.copy() for name, tensor in weights.items()}))


def test_a_whole_search_of_the_cell_space_asks_for_99_architecture_epochs() -> None:
    executor, saved = FakeExecutor(), Saved()
    state = run_search(STRATEGY, executor, SPACE, initial_state(SPACE, 0), save=saving(saved))
    assert [len(requests) for requests in executor.epochs] == [n for n in (8, 7, 6, 5, 4, 3) for _ in range(3)]
    assert sum(map(len, executor.epochs)) == len(state.evaluations) == 99
    assert (state.round, state.epoch) == (6, 18)
    assert (state.live_EK.sum(axis=1) == 2).all()
    assert [saved_state.epoch for saved_state, _ in saved] == list(range(1, 19))
    assert [weights["epochs"].item() for _, weights in saved] == list(range(1, 19))
    assert_same_state(saved[-1][0], state)


def test_requests_are_numbered_and_share_the_rate_of_their_epoch() -> None:
    executor = FakeExecutor()
    run_search(STRATEGY, executor, SPACE, initial_state(SPACE, 0), save=lambda *saved: None)
    for epoch, requests in enumerate(executor.epochs):
        assert [request.architecture for request in requests] == list(range(len(requests)))
        assert {(request.round, request.epoch, request.lr, request.train) for request in requests} == {
            (epoch // 3, epoch, requests[0].lr, True)
        }
    assert executor.epochs[0][0].lr == STRATEGY.lr


def test_every_evaluation_is_recorded_as_it_was_scored() -> None:
    executor = FakeExecutor()
    state = run_search(STRATEGY, executor, SPACE, initial_state(SPACE, 0), save=lambda *saved: None)
    asked = [request for requests in executor.epochs for request in requests]
    for row, request in zip(state.evaluations, asked, strict=True):
        assert row.alpha_E == tuple(request.alpha_E)
        assert (row.score, row.loss) == (by_alpha(request).score, by_alpha(request).loss)


def test_the_listener_is_told_every_result() -> None:
    results = []
    state = run_search(
        STRATEGY,
        FakeExecutor(),
        SPACE,
        initial_state(SPACE, 0),
        save=lambda *saved: None,
        on_result=lambda request, result: results.append((request.epoch, request.architecture, result.score)),
    )
    assert sorted(results) == [(row.epoch, row.architecture, row.score) for row in state.evaluations]


@pytest.mark.parametrize("at", [1, 2, 3, 7, 17])
def test_a_search_that_was_stopped_and_goes_on_equals_one_never_stopped(at: int) -> None:
    whole: Saved = []
    expected = run_search(STRATEGY, FakeExecutor(), SPACE, initial_state(SPACE, 4), save=saving(whole))
    saved: Saved = []
    stopped = run_search(
        STRATEGY,
        FakeExecutor(),
        SPACE,
        initial_state(SPACE, 4),
        save=saving(saved),
        should_stop=lambda state: state.epoch == at,
    )
    assert stopped.epoch == at
    state, weights = saved[-1]
    executor = FakeExecutor()
    executor.load_weights(weights)
    assert_same_state(run_search(STRATEGY, executor, SPACE, state, save=saving(saved)), expected)
    assert len(saved) == len(whole)
    for (one, one_weights), (other, other_weights) in zip(saved, whole, strict=True):
        assert_same_state(one, other)
        assert one_weights == other_weights


def test_another_seed_samples_other_architectures() -> None:
    executors = [FakeExecutor(), FakeExecutor()]
    for seed, executor in enumerate(executors):
        run_search(STRATEGY, executor, SPACE, initial_state(SPACE, seed), save=lambda *saved: None)
    alphas = [[tuple(request.alpha_E) for request in executor.epochs[0]] for executor in executors]
    assert alphas[0] != alphas[1]


def test_a_search_told_to_stop_at_once_does_nothing() -> None:
    executor, saved = FakeExecutor(), Saved()
    state = initial_state(SPACE, 0)
    assert run_search(STRATEGY, executor, SPACE, state, save=saving(saved), should_stop=lambda state: True) is state
    assert not executor.epochs
    assert not saved


def test_a_finished_search_has_nothing_left_to_do() -> None:
    finished = run_search(STRATEGY, FakeExecutor(), SPACE, initial_state(SPACE, 0), save=lambda *saved: None)
    executor, saved = FakeExecutor(), Saved()
    assert run_search(STRATEGY, executor, SPACE, finished, save=saving(saved)) is finished
    assert not executor.epochs
    assert not saved


def test_an_epoch_that_diverges_ends_the_search_with_the_epochs_before_it_saved() -> None:
    def script(request: EvalRequest) -> EvalResult:
        result = by_alpha(request)
        return replace(result, score=float("nan"), ok=False) if request.epoch == 4 else result

    saved: Saved = []
    with pytest.raises(DivergedError):
        run_search(STRATEGY, FakeExecutor(script), SPACE, initial_state(SPACE, 0), save=saving(saved))
    assert [state.epoch for state, _ in saved] == [1, 2, 3, 4]
