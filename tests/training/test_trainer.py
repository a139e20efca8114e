"""Train and score one architecture: a pure function of its arguments.

Axes: N images.
"""

from __future__ import annotations

import pickle
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from ddpnas_ray.core.errors import ConfigError
from ddpnas_ray.core.requests import EvalRequest
from ddpnas_ray.core.space import IntArray
from ddpnas_ray.costs.convnet import CELL_OPS
from ddpnas_ray.data.batches import normalise
from ddpnas_ray.data.split import stratified_batches
from ddpnas_ray.nn.weights import Float32Array, Layout, Weights, bind
from ddpnas_ray.spaces.target import Inputs
from ddpnas_ray.tasks.base import Batch, Metric
from ddpnas_ray.testing import contract_trainer
from ddpnas_ray.training import epoch as epoch_module
from ddpnas_ray.training.batches import on_device
from ddpnas_ray.training.config import TrainingConfig
from ddpnas_ray.training.trainer import Trainer

NAMES = ("sep_conv_3x3", "max_pool_3x3", "skip_connect", "none", "dil_conv_5x5") * 2
ALPHA_E = np.array([CELL_OPS.index(name) for name in NAMES])
REQUEST = EvalRequest(0, 1, 2, ALPHA_E, lr=0.05)


def slice_of(trainer: Trainer) -> tuple[Layout, Float32Array]:
    tensors, supernet = trainer.supernet()
    layout = Layout.of(supernet.pieces(ALPHA_E))  # type: ignore[operator]
    return layout, Weights(tensors).cut(layout)


def evaluate(trainer: Trainer, request: EvalRequest = REQUEST) -> tuple[float, float, bytes]:
    result, learned = trainer.train_and_score(request, *slice_of(trainer))
    return result.score, result.loss, learned.tobytes()


def with_config(**changes: Any) -> Trainer:
    return replace(contract_trainer(), config=replace(contract_trainer().config, **changes))


def test_the_given_weights_may_be_read_only_and_stay_as_they_are() -> None:
    layout, flat = slice_of(contract_trainer())
    before = flat.copy()
    flat.setflags(write=False)
    _, learned = contract_trainer().train_and_score(REQUEST, layout, flat)
    np.testing.assert_array_equal(flat, before)
    assert learned.shape == flat.shape
    assert learned.dtype == np.float32
    assert not np.array_equal(learned, flat)
    assert not np.shares_memory(learned, flat)


def test_scoring_alone_gives_the_weights_back() -> None:
    layout, flat = slice_of(contract_trainer())
    result, same = contract_trainer().train_and_score(replace(REQUEST, train=False), layout, flat)
    np.testing.assert_array_equal(same, flat)
    assert result.ok
    assert 0.0 <= result.score <= 1.0


def test_the_result_depends_on_the_arguments_only() -> None:
    first = evaluate(contract_trainer())
    torch.manual_seed(99)
    evaluate(contract_trainer(), replace(REQUEST, epoch=7))
    assert evaluate(contract_trainer()) == first
    assert evaluate(pickle.loads(pickle.dumps(contract_trainer()))) == first


@pytest.mark.parametrize("change", [{"round": 5}, {"architecture": 0}], ids=str)
def test_the_same_images_in_the_same_order_for_all_architectures_of_an_epoch(change: dict[str, int]) -> None:
    assert evaluate(contract_trainer(), replace(REQUEST, **change)) == evaluate(contract_trainer())


@pytest.mark.parametrize("change", [{"epoch": 2}, {"lr": 0.04}], ids=str)
def test_epoch_and_rate_change_the_result(change: dict[str, Any]) -> None:
    assert evaluate(contract_trainer(), replace(REQUEST, **change))[1:] != evaluate(contract_trainer())[1:]


def test_the_global_generator_and_the_threads_are_put_back() -> None:
    torch.manual_seed(424242)
    generator, threads = torch.random.get_rng_state(), torch.get_num_threads()
    evaluate(with_config(threads=threads + 1))
    assert torch.equal(torch.random.get_rng_state(), generator)
    assert torch.get_num_threads() == threads


def test_the_score_is_the_accuracy_over_all_validation_images_after_statistics_were_recomputed() -> None:
    """Reimplement scoring in plain torch."""
    trainer = with_config(bn_images=40, batch_size=16)  # 40 images: two batches of 16, the rest is dropped
    layout, flat = slice_of(trainer)
    result, _ = trainer.train_and_score(replace(REQUEST, train=False), layout, flat)
    network = trainer.spec.build(ALPHA_E, trainer.task.inputs)
    bind(network, layout, torch.from_numpy(flat.copy()))
    scale = {"mean": trainer.task.data.mean, "std": trainer.task.data.std}
    drawn = np.concatenate(stratified_batches(trainer.task.data.train.labels_N, 40, 16, seed=trainer.seed))
    images = torch.from_numpy(normalise(trainer.task.data.train.images.gather(drawn), **scale))
    norms = [module for module in network.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = None
    with torch.no_grad():
        network.train()
        for batch in images.split(16):
            network(batch)
        network.eval()
        val = torch.from_numpy(normalise(trainer.task.data.val.images.gather(np.arange(64)), **scale))
        right = network(val).argmax(dim=1).numpy() == trainer.task.data.val.labels_N
    assert result.score == pytest.approx(right.mean(), abs=1e-9)


def test_without_recomputing_the_running_statistics_score() -> None:
    assert evaluate(with_config(bn_images=0), replace(REQUEST, train=False))[0] != pytest.approx(1.0)
    assert evaluate(with_config(bn_images=0))[1:] == evaluate(contract_trainer())[1:], "training is the same"


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("channels_last", [True, False])
def test_images_lie_in_memory_as_asked_and_the_network_follows(channels_last: bool, channels: int) -> None:
    """Images of one channel are contiguous in both formats; their strides decide."""
    given = [Batch(torch.zeros(2, channels, 8, 8), torch.zeros(2))]
    (batch,) = on_device(given, "cpu", channels_last=channels_last)
    images = batch.inputs
    wanted, other = torch.channels_last, torch.contiguous_format
    if not channels_last:
        wanted, other = other, wanted
    assert images.is_contiguous(memory_format=wanted)
    out = torch.nn.Conv2d(channels, 4, 3)(images)
    assert out.is_contiguous(memory_format=wanted) and not out.is_contiguous(memory_format=other)


def test_fast_kernels_compute_what_the_reference_does_in_other_forms() -> None:
    fast, reference = evaluate(with_config(kernels="fast")), evaluate(with_config(kernels="reference"))
    assert fast[1] == pytest.approx(reference[1], rel=1e-3)
    assert fast[2] != reference[2], "the last bits differ"
    apart = np.frombuffer(fast[2], dtype=np.float32) - np.frombuffer(reference[2], dtype=np.float32)
    before = slice_of(contract_trainer())[1]
    learned = np.frombuffer(reference[2], dtype=np.float32) - before
    assert np.linalg.norm(apart) < 1e-3 * np.linalg.norm(learned)
    assert contract_trainer().config.kernels == "fast"


def test_dropout_depends_on_the_architecture_and_on_nothing_that_ran_before() -> None:
    spec = contract_trainer().spec

    def build(alpha_E: IntArray, inputs: Inputs) -> torch.nn.Module:
        network: Any = spec.build(alpha_E, inputs)
        network.classifier.register_forward_pre_hook(
            lambda module, given: (torch.nn.functional.dropout(given[0], 0.5, module.training),)
        )
        return network

    trainer = replace(contract_trainer(), spec=replace(spec, build=build))
    first = evaluate(trainer)
    torch.rand(3)
    assert evaluate(trainer) == first
    for change in ({"architecture": 0}, {"epoch": 2}):
        assert evaluate(trainer, replace(REQUEST, **change))[1] != first[1]
    assert evaluate(replace(trainer, seed=1))[1] != first[1]


def test_diverged_training_is_not_ok() -> None:
    layout, flat = slice_of(contract_trainer())
    result, _ = contract_trainer().train_and_score(replace(REQUEST, lr=1e38), layout, flat)
    assert not result.ok
    assert np.isnan(result.score)
    assert np.isnan(result.loss)


def scored(value: float) -> Trainer:
    task: Any = contract_trainer().task
    return replace(contract_trainer(), task=replace(task, metric=Metric("odd", lambda outputs: value)))


def test_a_score_that_is_no_number_is_not_ok() -> None:
    result, _ = scored(float("nan")).train_and_score(REQUEST, *slice_of(contract_trainer()))
    assert not result.ok and np.isnan(result.score)


@pytest.mark.parametrize("value", [-1.5, 87.0])
def test_a_metric_in_percent_is_refused_by_name(value: float) -> None:
    with pytest.raises(ConfigError, match=r"task.metric: odd gave .*; scores must lie in \[-1, 1\]"):
        scored(value).train_and_score(REQUEST, *slice_of(contract_trainer()))


def test_bf16_runs_on_cpu() -> None:
    result, learned = with_config(precision="bf16").train_and_score(REQUEST, *slice_of(contract_trainer()))
    assert result.ok
    assert learned.dtype == np.float32
    assert result.loss == pytest.approx(evaluate(contract_trainer())[1], rel=0.05)
    assert result.loss != evaluate(contract_trainer())[1]


class CastByAutocast:
    """Stand-in for ``Shadow``: autocast casts the float32 weights one by one."""

    def __init__(self, *arguments: object) -> None:
        self.cast = self.collect = lambda: None


@pytest.mark.parametrize("changes", [{}, {"decay": "weights", "bn_images": 0}, {"channels_last": False}], ids=str)
def test_one_bf16_copy_of_the_weights_gives_the_bits_of_autocast(
    changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = with_config(precision="bf16", **changes)
    once = evaluate(trainer)
    monkeypatch.setattr(epoch_module, "Shadow", CastByAutocast)
    assert evaluate(trainer) == once


def test_first_weights_depend_on_the_seed_alone() -> None:
    first, again, other = (contract_trainer(seed).supernet()[0] for seed in (0, 0, 1))
    assert all(np.array_equal(first[name], again[name]) for name in first)
    assert not all(np.array_equal(first[name], other[name]) for name in first)
    config = TrainingConfig(batch_size=16)
    assert np.array_equal(
        replace(contract_trainer(), config=config).supernet()[0]["classifier.weight"], first["classifier.weight"]
    )
