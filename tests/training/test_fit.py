"""Retraining as a pure function: interrupted anywhere it ends with the same bits, and workers share one batch."""

from __future__ import annotations

import math
import os
import shutil
import signal
import socket
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.multiprocessing as mp
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ddpnas_ray.core.errors import ConfigError, DataError, DivergedError
from ddpnas_ray.data.config import DataConfig
from ddpnas_ray.nn.ops import drop_path
from ddpnas_ray.tasks.base import Batch, Metric
from ddpnas_ray.tasks.classification.task import ClassificationTask, make
from ddpnas_ray.tasks.recipe import RetrainingConfig
from ddpnas_ray.training.fit import fit
from ddpnas_ray.training.snapshot import Snapshot, result_tensors

DIGITS = DataConfig(name="digits", train_limit=48, val_limit=40)
RECIPE = RetrainingConfig(epochs=3, batch_size=16, lr=0.05, train_on="train")


class Net(nn.Module):
    """BatchNorm, drop-path, an auxiliary head, unused parameters: everything that a resume must carry."""

    def __init__(self, norm: bool = True) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 8, 3, 2, 1, bias=False)
        self.norm = nn.BatchNorm2d(8) if norm else nn.Identity()
        self.path = nn.Conv2d(8, 8, 3, 1, 1)
        self.unused = nn.Linear(3, 3)
        self.last = nn.Linear(8, 10)
        self.auxiliary: nn.Module | None = None
        self.drop_path: float | Tensor = 0.0

    def add_auxiliary_head(self) -> None:
        self.auxiliary = nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Any:
        x = self.norm(self.first(x)).relu()
        dropped = drop_path(self.path(x), self.drop_path) if self.training else self.path(x)
        x = (x + dropped).mean(dim=(2, 3))
        if self.training and self.auxiliary is not None:
            return self.last(x), self.auxiliary(x)
        return self.last(x)


def network(recipe: RetrainingConfig, norm: bool = True) -> Net:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = Net(norm)
        if recipe.auxiliary:
            net.add_auxiliary_head()
    return net


def task_of(recipe: RetrainingConfig) -> ClassificationTask:
    return make(DIGITS, 0).for_retraining(recipe)


class Stop(Exception):
    """A kill."""


def trained(recipe: RetrainingConfig, kills: int | None = None, **options: Any) -> tuple[Snapshot, list[Snapshot]]:
    """Train; ``kills``: the process dies after saving that epoch, and another one goes on."""
    saved: list[Snapshot] = []

    def save(snapshot: Snapshot) -> None:
        saved.append(snapshot)
        if snapshot.epoch == kills and len(saved) == kills:
            raise Stop

    def go(restore: Callable[[], Snapshot | None]) -> Snapshot:
        return fit(network(recipe), task_of(recipe), recipe, 0, 1, restore, save, **{"seed": 1, **options})

    try:
        return go(lambda: None), saved
    except Stop:
        return go(lambda: saved[-1]), saved


def same(one: Snapshot, other: Snapshot) -> bool:
    return one.tensors.keys() == other.tensors.keys() and all(
        np.array_equal(one.tensors[name], other.tensors[name]) for name in one.tensors
    )


RECIPES = {
    "sgd": RECIPE,
    "everything": replace(
        RECIPE,
        auxiliary=0.4,
        drop_path=0.3,
        ema=0.9,
        label_smoothing=0.1,
        mixup=0.2,
        cutmix=1.0,
        cutout=3,
        randaugment=5,
        resized_crop=0.5,
        color_jitter=0.3,
        accumulate=2,
        warmup_epochs=1,
        lr_per="step",
        nesterov=True,
        decay="weights",
    ),
    "adamw": replace(RECIPE, optimizer="adamw", lr=1e-3, schedule="step", ema=0.5),
    "bf16": replace(RECIPE, precision="bf16"),
}


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("kills", [1, 2])
def test_killed_after_any_epoch_it_ends_with_the_same_bits(name: str, kills: int) -> None:
    recipe = RECIPES[name]
    straight, every = trained(recipe)
    resumed, _ = trained(recipe, kills)
    assert same(straight, resumed)
    assert straight.epoch == 3 and [snapshot.epoch for snapshot in every] == [1, 2, 3]
    scores = [[(row["loss"], row["val"], row["lr"]) for row in end.history] for end in (straight, resumed)]
    assert scores[0] == scores[1]
    assert not same(every[0], every[1]), "it trains"


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler; install g++")
def test_compiled_it_learns_the_same_and_resumes_to_the_same_bits() -> None:
    """More epochs than Dynamo compiles a function for: the probability of drop-path must not make it compile again."""
    recipe = replace(RECIPES["everything"], compile=True, epochs=10)
    straight, _ = trained(recipe)
    torch._dynamo.reset()
    assert same(straight, trained(recipe, 9)[0])
    plain, _ = trained(replace(recipe, compile=False))
    assert straight.tensors.keys() == plain.tensors.keys(), "checkpoints of either go on as the other"
    assert straight.history[-1]["loss"] == pytest.approx(plain.history[-1]["loss"], rel=0.1)
    assert not same(straight, plain), "compiled code rounds differently"


def test_a_finished_training_is_given_back_and_nothing_is_saved() -> None:
    straight, _ = trained(RECIPE)
    saved: list[Snapshot] = []
    again = fit(network(RECIPE), task_of(RECIPE), RECIPE, 0, 1, lambda: straight, saved.append, seed=1)
    assert same(again, straight) and saved == []


def test_the_result_depends_on_the_seed_and_not_on_global_generators() -> None:
    recipe = replace(RECIPES["everything"], epochs=1)
    first, _ = trained(recipe)
    torch.manual_seed(99)
    np.random.seed(99)
    before = torch.random.get_rng_state()
    assert same(trained(recipe)[0], first)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert not same(trained(recipe, seed=2)[0], first)


def test_the_test_examples_are_read_once_after_the_last_epoch() -> None:
    reads: list[int] = []

    def on_test() -> ClassificationTask:
        reads.append(len(steps))
        return task_of(RECIPE).on_test()

    steps: list[tuple[int, int, int]] = []
    end, _ = trained(RECIPE, on_test=on_test, on_step=lambda *at: steps.append(at))
    assert reads == [9], "48 images in batches of 16, three times"
    assert [row["test"] is None for row in end.history] == [True, True, False]
    assert steps[-1] == (2, 3, 3)
    assert 0 <= end.history[-1]["test"] <= 1


def test_a_damaged_test_image_costs_the_test_score_alone() -> None:
    class Damaged(ClassificationTask):
        def validation_batches(self, batch_size: int, rank: int = 0, world: int = 1) -> Any:
            yield from super().validation_batches(batch_size, rank, world)
            raise DataError("x.png: truncated")

    good = task_of(RECIPE)
    end, saved = trained(RECIPE, on_test=lambda: Damaged(**vars(good.on_test())))
    assert end.history[-1]["test"] is None
    assert end.history[-1]["test_error"] == "x.png: truncated"
    assert len(saved) == 3


@pytest.mark.parametrize(
    ("value", "error", "says"),
    [
        (math.nan, DivergedError, "odd gave nan: start a new training with a lower"),
        (math.inf, DivergedError, "odd gave inf"),
        (-1.5, ConfigError, r"odd gave -1.5; scores must lie in \[-1, 1\]"),
    ],
)
def test_a_score_that_is_not_finite_diverged_and_one_out_of_range_is_bad_input(
    value: float, error: type[Exception], says: str
) -> None:
    task = replace(task_of(RECIPE), metric=Metric("odd", lambda outputs: value))
    with pytest.raises(error, match=says):
        fit(network(RECIPE), task, RECIPE, 0, 1, lambda: None, lambda snapshot: None, seed=1)


def test_it_learns() -> None:
    recipe = replace(RECIPE, epochs=30, lr=0.2, train_on="all")
    end, _ = trained(recipe, on_test=task_of(recipe).on_test)
    assert end.history[-1]["loss"] < 0.5 * end.history[0]["loss"]
    assert end.history[-1]["val"] is None
    assert end.history[-1]["test"] > 0.5


def test_the_average_is_the_result_and_lags_behind() -> None:
    recipe = replace(RECIPE, ema=0.9)
    end, _ = trained(recipe)
    plain, _ = trained(RECIPE)
    found, raw = result_tensors(end), result_tensors(plain)
    assert found.keys() == raw.keys()
    np.testing.assert_array_equal(end.tensors["network/last.weight"], raw["last.weight"])
    assert not np.array_equal(found["last.weight"], raw["last.weight"])


def test_the_auxiliary_head_is_not_part_of_the_result() -> None:
    end, _ = trained(RECIPES["everything"])
    assert not [name for name in result_tensors(end) if name.startswith("auxiliary")]
    assert [name for name in end.tensors if name.startswith("network/auxiliary")]


@pytest.mark.parametrize("norm", [False, True])
def test_parts_of_a_batch_add_up_to_the_whole_but_for_batch_norm(norm: bool) -> None:
    ends = []
    for accumulate in (1, 3):
        recipe = replace(RECIPE, epochs=1, batch_size=16, accumulate=accumulate)
        net = network(recipe, norm)
        end = fit(net, task_of(recipe), recipe, 0, 1, lambda: None, lambda snapshot: None, seed=1)
        ends.append(end.tensors["network/path.weight"])
    apart = np.abs(ends[0] - ends[1]).max()
    assert apart < 1e-6 if not norm else 1e-5 < apart < 0.1


def test_a_teacher_pulls_the_student_towards_it() -> None:
    teacher = network(RECIPE).eval().requires_grad_(False)
    with torch.no_grad():
        teacher.last.bias[3] += 20.0  # it says 3, whatever it sees
    recipe = replace(RECIPE, teacher_weight=1.0, epochs=6, lr=0.3)
    end, _ = trained(recipe, teacher=teacher)
    free, _ = trained(recipe)
    assert end.tensors["network/last.bias"].argmax() == 3
    assert end.tensors["network/last.bias"][3] > free.tensors["network/last.bias"][3] + 0.1


class Contrary(ClassificationTask):
    """Distils the next class to the teacher's."""

    def distillation_loss(self, outputs: Tensor, taught: Tensor, batch: Batch, temperature: float) -> Tensor:
        assert temperature == 2.0 and not taught.requires_grad and len(batch.targets) == len(outputs)
        return cross_entropy(outputs, (taught.argmax(dim=1) + 1) % 10)


def test_a_task_has_a_distillation_loss_of_its_own() -> None:
    teacher = network(RECIPE).eval().requires_grad_(False)
    with torch.no_grad():
        teacher.last.bias[3] += 20.0
    recipe = replace(RECIPE, teacher_weight=1.0, teacher_temperature=2.0, epochs=6, lr=0.3)
    task = task_of(recipe)
    contrary = Contrary(**{field.name: getattr(task, field.name) for field in fields(task)})
    end = fit(network(recipe), contrary, recipe, 0, 1, lambda: None, lambda _: None, seed=1, teacher=teacher)
    assert end.tensors["network/last.bias"].argmax() == 4


def test_weight_decay_may_spare_biases_and_norms() -> None:
    heavy = replace(RECIPE, epochs=1, weight_decay=10.0, lr=0.05, grad_clip=0.0, momentum=0.0)
    for decay, spared in (("all", False), ("weights", True)):
        end, _ = trained(replace(heavy, decay=decay))
        assert (np.abs(end.tensors["network/norm.weight"]).max() > 0.8) == spared
        assert np.abs(end.tensors["network/path.weight"]).max() < 0.1


class Compact(ClassificationTask):
    """Sees every image mirrored too, and is scored on counts of hits alone."""

    def predict(self, network: Any, inputs: Any) -> Tensor:
        found: Tensor = (network(inputs) + network(inputs.flip(3))) / 2
        return found

    def compact(self, outputs: Tensor, targets: Any) -> tuple[Tensor, Any]:
        return (outputs.argmax(dim=1) == targets).sum(), torch.tensor(len(targets))


def hits(outputs: Any) -> float:
    counts = [(int(right), int(every)) for right, every in outputs]
    assert len(counts) == 3, "40 images in batches of 16"
    return sum(right for right, _ in counts) / sum(every for _, every in counts)


def test_a_task_predicts_in_its_own_way_and_is_scored_on_what_it_keeps() -> None:
    task = task_of(RECIPE)
    own = Compact(**{field.name: getattr(task, field.name) for field in fields(task)})
    own = replace(own, metric=Metric("hits", hits))
    recipe = replace(RECIPE, epochs=1)
    net = network(recipe)
    end = fit(net, own, recipe, 0, 1, lambda: None, lambda _: None, seed=1)
    net.eval()
    with torch.no_grad():
        every = [(own.predict(net, batch.inputs).argmax(1) == batch.targets) for batch in own.validation_batches(16)]
    assert end.history[0]["val"] == pytest.approx(float(torch.cat(every).float().mean()))


def test_a_diverged_training_says_what_to_change() -> None:
    with pytest.raises(DivergedError, match=r"loss of epoch \d is not finite: .* lower retraining.lr"):
        trained(replace(RECIPE, lr=1e30, grad_clip=0.0))


def test_shares_too_small_for_batch_norm_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"batch_size is 4 .*: 1 worker\(s\) with retraining.accumulate=3 get 1"):
        trained(replace(RECIPE, batch_size=4, accumulate=3))


def _worker(
    rank: int, world: int, port: int, recipe: RetrainingConfig, norm: bool, path: str, stop: int, start: str
) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=world)
    torch.set_num_threads(1)
    saved: list[Snapshot] = []

    def save(snapshot: Snapshot) -> None:
        saved.append(snapshot)
        torch.save({"epoch": snapshot.epoch, "tensors": dict(snapshot.tensors), "history": snapshot.history}, path)
        if snapshot.epoch == stop:
            os.kill(os.getpid(), signal.SIGKILL)

    def restore() -> Snapshot | None:
        return Snapshot(**torch.load(start, weights_only=False)) if start else None

    end = fit(network(recipe, norm), task_of(recipe), recipe, rank, world, restore, save, seed=1)
    assert (rank == 0) == bool(saved)
    if rank:  # what it has is what process 0 has
        torch.save({"epoch": end.epoch, "tensors": dict(end.tensors), "history": end.history}, f"{path}.rank{rank}")
    torch.distributed.destroy_process_group()
    os._exit(0)  # Gloo's threads live on and may release a tensor while Python shuts down, which aborts the process


def in_processes(
    recipe: RetrainingConfig,
    path: Any,
    *,
    world: int = 2,
    norm: bool = True,
    stop_after: int = 0,
    start_from: str = "",
) -> Snapshot:
    """Train in several processes; with ``stop_after`` process 0 is killed once it has saved that epoch."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(mp.ProcessExitedException) if stop_after else nullcontext():
        mp.spawn(_worker, (world, port, recipe, norm, str(path), stop_after, start_from), nprocs=world)
    return Snapshot(**torch.load(path, weights_only=False))


@pytest.mark.slow
def test_two_processes_take_the_step_of_one_but_for_batch_norm(tmp_path: Any) -> None:
    """Odd batches too: 15 examples are 8 and 7."""
    recipe = replace(RECIPE, epochs=1, batch_size=15)
    two = in_processes(recipe, tmp_path / "two", norm=False)
    net = network(recipe, norm=False)
    one = fit(net, task_of(recipe), recipe, 0, 1, lambda: None, lambda snapshot: None, seed=1)
    apart = max(np.abs(one.tensors[name] - two.tensors[name]).max() for name in one.tensors)
    assert 0 < apart < 1e-6
    assert two.history[0]["loss"] == pytest.approx(one.history[0]["loss"], rel=1e-5)
    assert two.history[0]["val"] == one.history[0]["val"]


@pytest.mark.slow
def test_with_shared_statistics_two_processes_train_what_one_trains(tmp_path: Any) -> None:
    """Odd batches too; running statistics and names in checkpoints are those of BatchNorm."""
    recipe = replace(RECIPE, epochs=1, batch_size=15, sync_batch_norm=True)
    two = in_processes(recipe, tmp_path / "two")
    net = network(recipe)
    one = fit(net, task_of(recipe), recipe, 0, 1, lambda: None, lambda snapshot: None, seed=1)
    assert one.tensors.keys() == two.tensors.keys()
    apart = {name: np.abs(one.tensors[name] - two.tensors[name]).max() for name in one.tensors}
    assert 0 < max(apart.values()) < 1e-5, apart
    assert two.history[0]["loss"] == pytest.approx(one.history[0]["loss"], rel=1e-5)
    assert two.history[0]["val"] == one.history[0]["val"]
    alone = in_processes(replace(recipe, sync_batch_norm=False), tmp_path / "alone")
    assert max(np.abs(one.tensors[name] - alone.tensors[name]).max() for name in one.tensors) > 1e-4


@pytest.mark.slow
def test_processes_resume_to_the_same_bits(tmp_path: Any) -> None:
    """Three: with two, the order of summation has no say."""
    recipe = replace(RECIPES["everything"], epochs=2)
    straight = in_processes(recipe, tmp_path / "straight", world=3)
    other = Snapshot(**torch.load(f"{tmp_path}/straight.rank1", weights_only=False))
    assert same(straight, other), "BatchNorm statistics and averages are those of process 0 everywhere"
    first = in_processes(recipe, tmp_path / "cut", world=3, stop_after=1)
    assert first.epoch == 1
    assert same(in_processes(recipe, tmp_path / "resumed", world=3, start_from=f"{tmp_path}/cut"), straight)


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["everything", "bf16"])
def test_on_a_gpu_it_ends_with_the_same_bits(name: str) -> None:
    recipe = RECIPES[name]
    assert same(trained(recipe, device="cuda")[0], trained(recipe, 1, device="cuda")[0])


@pytest.mark.gpu
def test_on_a_gpu_it_learns_what_it_learns_on_a_cpu() -> None:
    cpu, gpu = trained(RECIPE)[0], trained(RECIPE, device="cuda")[0]
    assert gpu.history[-1]["loss"] == pytest.approx(cpu.history[-1]["loss"], rel=1e-2)
