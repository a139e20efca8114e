"""Contract of executors: equal results, in order, and weights that change only where they were trained.

Axes: E edges, N architectures.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from ddpnas_ray.core.requests import EvalRequest, EvalResult
from ddpnas_ray.core.sampling import disjoint_sample, rng_for
from ddpnas_ray.core.state import initial_state
from ddpnas_ray.data.config import DataConfig
from ddpnas_ray.execution.base import Executor
from ddpnas_ray.nn.weights import Float32Array
from ddpnas_ray.spaces.cell import space as cell
from ddpnas_ray.tasks.classification.task import make
from ddpnas_ray.training.config import TrainingConfig
from ddpnas_ray.training.trainer import Trainer

HUGE = 1e38  # a learning rate after which nothing is finite


@cache
def contract_trainer(seed: int = 0) -> Trainer:
    """Return a small trainer: two cells of two nodes and four channels on 64 digits, some 10 ms per architecture."""
    return Trainer(
        spec=cell.make(cells=2, nodes=2, channels=4),
        task=make(DataConfig(name="digits", train_limit=64, val_limit=64), seed=0),
        config=TrainingConfig(batch_size=32, bn_images=32),
        seed=seed,
    )


class ExecutorContract:
    """Tests of an executor. A subclass, or its module, has a fixture that creates one from ``contract_trainer()``::

        @pytest.fixture(scope="module")
        def executor():
            executor = MyExecutor(contract_trainer())
            yield executor
            executor.close()

        class TestMyExecutor(ExecutorContract):
            pass

    One executor may serve all tests: each loads the first weights before it starts.
    """

    @pytest.fixture
    def ready(self, executor: Executor) -> Executor:
        """Return the executor with the first weights."""
        executor.load_weights(contract_trainer().supernet()[0])
        return executor

    def test_its_weights_are_the_supernet_parameters(self, executor: Executor) -> None:
        first, _ = contract_trainer().supernet()
        assert list(executor.weights()) == list(first)
        assert all(tensor.dtype == np.float32 for tensor in executor.weights().values())

    def test_results_come_in_request_order(self, ready: Executor) -> None:
        requests = _requests()
        first = ready.evaluate(requests)
        assert len(first) == len(requests)
        assert len({result.loss for result in first}) == len(requests), "the losses tell the architectures apart"
        ready.load_weights(contract_trainer().supernet()[0])
        order = [2, 0, 1]
        assert _found(ready.evaluate([requests[i] for i in order])) == [_found(first)[i] for i in order]

    def test_equal_requests_on_equal_weights_give_bit_equal_results(self, ready: Executor) -> None:
        runs = []
        for _ in range(2):
            ready.load_weights(contract_trainer().supernet()[0])
            epochs = [_found(ready.evaluate(_requests(epoch))) for epoch in range(2)]
            runs.append((epochs, _bits(ready.weights())))
        assert runs[0] == runs[1]

    def test_another_epoch_trains_on_images_in_another_order(self, ready: Executor) -> None:
        losses = []
        for epoch in range(2):
            ready.load_weights(contract_trainer().supernet()[0])
            losses.append([result.loss for result in ready.evaluate(_requests(epoch))])
        assert losses[0] != losses[1]

    def test_equal_architectures_of_an_epoch_learn_the_same(self, ready: Executor) -> None:
        request = _requests()[0]
        alone = ready.evaluate([request])
        weights = _bits(ready.weights())
        ready.load_weights(contract_trainer().supernet()[0])
        twice = ready.evaluate([request, replace(request, architecture=1)])
        assert _found(twice) == 2 * _found(alone)
        assert _bits(ready.weights()) == weights

    def test_weights_can_be_taken_and_loaded_again(self, ready: Executor) -> None:
        ready.evaluate(_requests(epoch=0))
        taken = _copy(ready.weights())
        later = _found(ready.evaluate(_requests(epoch=1)))
        assert _bits(ready.weights()) != _bits(taken)
        ready.load_weights(taken)
        assert list(ready.weights()) == list(taken)
        assert _bits(ready.weights()) == _bits(taken)
        assert _found(ready.evaluate(_requests(epoch=1))) == later

    def test_loaded_weights_are_a_copy(self, ready: Executor) -> None:
        mine = _copy(ready.weights())
        ready.load_weights(mine)
        before = _bits(mine)
        ready.evaluate(_requests()[:1])
        assert _bits(mine) == before

    def test_scoring_alone_leaves_every_weight_as_it_was(self, ready: Executor) -> None:
        before = _bits(ready.weights())
        results = ready.evaluate([replace(request, train=False) for request in _requests()])
        assert _bits(ready.weights()) == before
        assert all(result.ok and 0.0 <= result.score <= 1.0 for result in results)

    def test_weights_not_sampled_stay_bit_identical(self, ready: Executor) -> None:
        _, supernet = contract_trainer().supernet()
        before = _copy(ready.weights())
        requests = _requests()[:2]
        ready.evaluate(requests)
        sampled = {piece.name for request in requests for piece in supernet.pieces(request.alpha_E)}
        assert sampled < set(before)
        for name, after in ready.weights().items():
            changed = after.tobytes() != before[name].tobytes()
            assert changed == (name in sampled), name

    def test_weights_trained_by_several_become_the_mean(self, ready: Executor) -> None:
        requests = _requests()[:2]
        learned = []
        for request in requests:
            ready.load_weights(contract_trainer().supernet()[0])
            ready.evaluate([request])
            learned.append(_copy(ready.weights()))
        ready.load_weights(contract_trainer().supernet()[0])
        ready.evaluate(requests)
        for name in ("stem0.0.weight", "classifier.weight", "classifier.bias"):
            expected = (learned[0][name].astype(np.float64) + learned[1][name]) / 2
            np.testing.assert_allclose(ready.weights()[name], expected, rtol=1e-4, atol=1e-6, err_msg=name)

    @pytest.mark.parametrize("train", [True, False])
    def test_on_result_is_called_once_per_result(self, ready: Executor, train: bool) -> None:
        calls: list[tuple[EvalRequest, EvalResult]] = []
        requests = [replace(request, train=train) for request in _requests()]
        results = ready.evaluate(requests, lambda request, result: calls.append((request, result)))
        assert sorted(request.architecture for request, _ in calls) == [0, 1, 2]
        for request, result in calls:
            assert result == results[request.architecture]

    def test_an_architecture_that_diverges_fails_alone_and_is_not_merged(self, ready: Executor) -> None:
        requests = _requests()
        # If the third is only scored, the first two have the same slices: results must be bit-equal.
        expected = ready.evaluate([*requests[:2], replace(requests[2], train=False)])
        weights = _bits(ready.weights())
        ready.load_weights(contract_trainer().supernet()[0])
        calls: list[EvalResult] = []
        results = ready.evaluate([*requests[:2], replace(requests[2], lr=HUGE)], lambda _, result: calls.append(result))
        assert not results[2].ok
        assert math.isnan(results[2].score)
        assert math.isnan(results[2].loss)
        assert _found(results[:2]) == _found(expected[:2])
        assert _bits(ready.weights()) == weights
        assert [result.ok for result in calls].count(False) == 1

    def test_an_epoch_that_diverges_as_a_whole_changes_no_weight(self, ready: Executor) -> None:
        before = _bits(ready.weights())
        results = ready.evaluate([replace(request, lr=HUGE) for request in _requests()])
        assert not any(result.ok for result in results)
        assert _bits(ready.weights()) == before


def _requests(epoch: int = 0) -> list[EvalRequest]:
    """Request three disjoint architectures."""
    space = contract_trainer().spec.space
    alphas_NE = disjoint_sample(initial_state(space, 0).theta_EK, space.exists_EK, rng_for(0, epoch))
    return [EvalRequest(epoch, epoch, n, alpha_E, lr=0.025) for n, alpha_E in enumerate(alphas_NE[:3])]


def _found(results: Sequence[EvalResult]) -> list[tuple[float, float, bool]]:
    return [(result.score, result.loss, result.ok) for result in results]


def _copy(weights: Mapping[str, Float32Array]) -> dict[str, Float32Array]:
    return {name: tensor.copy() for name, tensor in weights.items()}


def _bits(weights: Mapping[str, Float32Array]) -> dict[str, bytes]:
    return {name: tensor.tobytes() for name, tensor in weights.items()}
