"""The reference executor."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from ddpnas_ray.core.errors import DeviceError, ResourceError
from ddpnas_ray.core.requests import EvalRequest
from ddpnas_ray.core.sampling import disjoint_sample, rng_for
from ddpnas_ray.core.state import initial_state
from ddpnas_ray.execution.base import ExecutionConfig, Executor
from ddpnas_ray.execution.local import LocalExecutor, evaluate_here, local_device
from ddpnas_ray.nn.weights import Layout, Weights
from ddpnas_ray.testing import ExecutorContract, contract_trainer
from ddpnas_ray.training.trainer import Trainer


@pytest.fixture
def executor() -> Executor:
    return LocalExecutor(contract_trainer())


class TestLocalExecutor(ExecutorContract):
    pass


def requests(seed: int = 0) -> list[EvalRequest]:
    space = contract_trainer().spec.space
    alphas_NE = disjoint_sample(initial_state(space, 0).theta_EK, space.exists_EK, rng_for(seed, 9))
    return [EvalRequest(0, 0, n, alpha_E, lr=0.025) for n, alpha_E in enumerate(alphas_NE[:3])]


def test_it_starts_with_the_first_weights_of_the_seed(executor: Executor) -> None:
    first, _ = contract_trainer().supernet()
    for name, tensor in executor.weights().items():
        np.testing.assert_array_equal(tensor, first[name])


def test_another_seed_starts_with_other_weights_and_another_order_of_images() -> None:
    executors = [LocalExecutor(contract_trainer(seed)) for seed in (0, 1)]
    starts = [executor.weights()["stem0.0.weight"] for executor in executors]
    assert not np.array_equal(*starts)
    executors[1].load_weights({name: tensor.copy() for name, tensor in executors[0].weights().items()})
    losses = [executor.evaluate(requests()[:1])[0].loss for executor in executors]
    assert losses[0] != losses[1]


def test_without_sharing_every_weight_stays_and_results_are_those_of_the_first_weights(executor: Executor) -> None:
    alone = LocalExecutor(replace(contract_trainer(), config=replace(contract_trainer().config, merge="none")))
    first = executor.evaluate(requests())
    assert {request.lr for request in requests()} == {contract_trainer().config.lr}
    for lr in (0.025, 0.001):  # the rate is constant: each training is the first one
        found = alone.evaluate([replace(request, lr=lr) for request in requests()])
        assert [(r.score, r.loss) for r in found] == [(r.score, r.loss) for r in first]
    for name, tensor in contract_trainer().supernet()[0].items():
        np.testing.assert_array_equal(alone.weights()[name], tensor)


def test_sequential_merging_lets_each_architecture_inherit_from_the_one_before() -> None:
    sequential = replace(contract_trainer(), config=replace(contract_trainer().config, merge="sequential"))
    at_once, in_turn = LocalExecutor(sequential), LocalExecutor(contract_trainer())
    results = at_once.evaluate(requests())
    one_by_one = [result for request in requests() for result in in_turn.evaluate([request])]
    # Not bit-equal: alone, an architecture's weights lie in another order, and the norm that clips sums in that order.
    np.testing.assert_allclose([r.loss for r in results], [r.loss for r in one_by_one], rtol=1e-4)
    for name, tensor in at_once.weights().items():
        np.testing.assert_allclose(tensor, in_turn.weights()[name], rtol=1e-3, atol=1e-5, err_msg=name)
    merged = LocalExecutor(contract_trainer())
    assert merged.evaluate(requests())[0].loss == results[0].loss
    assert merged.evaluate(requests())[1].loss != results[1].loss


def test_it_disturbs_neither_the_global_generator_nor_the_number_of_threads(executor: Executor) -> None:
    torch.manual_seed(424242)
    generator, threads = torch.random.get_rng_state(), torch.get_num_threads()
    numpy_generator = np.random.get_state()[1].copy()
    torch.set_num_threads(2)
    try:
        executor.evaluate(requests())
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(torch.random.get_rng_state(), generator)
    np.testing.assert_array_equal(np.random.get_state()[1], numpy_generator)


def test_results_do_not_depend_on_what_the_process_did_before(executor: Executor) -> None:
    first = executor.evaluate(requests())
    torch.manual_seed(123)
    np.random.seed(123)
    again = LocalExecutor(contract_trainer())
    again.evaluate(requests(seed=5))
    again.load_weights(contract_trainer().supernet()[0])
    assert [(r.score, r.loss) for r in again.evaluate(requests())] == [(r.score, r.loss) for r in first]


def failing(*errors: Exception) -> Trainer:
    """A trainer whose first evaluations raise these errors."""
    trainer, left = contract_trainer(), list(errors)

    def build(*args: Any) -> Any:
        if left:
            raise left.pop(0)
        return trainer.spec.build(*args)

    return replace(trainer, spec=replace(trainer.spec, build=build))


FULL = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


def test_an_evaluation_for_which_memory_was_full_once_is_repeated_with_the_same_result(executor: Executor) -> None:
    (expected,) = executor.evaluate(requests()[:1])
    (result,) = LocalExecutor(failing(FULL)).evaluate(requests()[:1])
    assert (result.score, result.loss) == (expected.score, expected.loss)


@pytest.mark.parametrize(("gpus", "neighbour"), [(1.0, False), (0.5, True), (0.0, False)])
def test_memory_that_was_full_twice_ends_the_search_and_names_a_neighbour_on_the_same_gpu(
    gpus: float, neighbour: bool
) -> None:
    trainer, (request, *_) = failing(FULL, FULL), requests()
    tensors, supernet = trainer.supernet()
    layout = Layout.of(supernet.pieces(request.alpha_E))
    with pytest.raises(ResourceError, match=r"does not fit .*Tried to allocate 2\.00 GiB.*lower training") as error:
        evaluate_here(trainer, request, layout, Weights(tensors).cut(layout), gpus=gpus)
    assert ("another process may fill the shared GPU" in str(error.value)) is neighbour
    assert str([int(k) for k in request.alpha_E]) in str(error.value)
    assert not isinstance(error.value, DeviceError)


def test_a_gpu_that_fails_ends_a_local_search_with_one_line() -> None:
    error = RuntimeError("CUDA error: an illegal memory access was encountered\nCUDA kernel errors might be ...")
    with pytest.raises(DeviceError, match=r"the GPU failed \(CUDA error: an illegal memory access") as found:
        LocalExecutor(failing(error)).evaluate(requests())
    assert "\n" not in str(found.value)


def test_other_errors_of_a_network_are_left_alone() -> None:
    with pytest.raises(RuntimeError, match=r"^shapes$"):
        LocalExecutor(failing(RuntimeError("shapes"))).evaluate(requests())


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU; CUDA_VISIBLE_DEVICES= hides it")
def test_an_unusable_gpu_is_reported_before_training() -> None:
    assert local_device(ExecutionConfig()) == local_device(ExecutionConfig(gpus_per_worker=0.0)) == "cpu"
    where = local_device(ExecutionConfig(gpus_per_worker=1.0))
    with pytest.raises(DeviceError, match=r"cannot be used by PyTorch .*execution\.gpus_per_worker=0$"):
        LocalExecutor(replace(contract_trainer(), device=where))
