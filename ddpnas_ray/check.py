"""Dry-run the pipeline on two batches and estimate the cost of a search: ``python -m ddpnas_ray.check``."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import tempfile
import textwrap
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ddpnas_ray.console.command import OK, Parser, guarded
from ddpnas_ray.console.options import add_config_options, positive
from ddpnas_ray.console.progress import duration
from ddpnas_ray.core.requests import Plan
from ddpnas_ray.core.scaling import (
    TEN_GBIT_PER_S,
    Constants,
    Prediction,
    Workload,
    architecture_seconds,
    predict,
    read_constants,
)
from ddpnas_ray.core.space import IntArray
from ddpnas_ray.core.state import initial_state
from ddpnas_ray.data.cache import bytes_text, refuse_full_disk
from ddpnas_ray.data.cached import Forecast, images_per_s
from ddpnas_ray.data.images import EncodedImages, ImageData, forecast
from ddpnas_ray.experiment.config import SearchConfig, TaskConfig, load
from ddpnas_ray.launch.counting import count_genotype, count_network
from ddpnas_ray.spaces.known import known_networks
from ddpnas_ray.training.cpu_isa import use_level

if TYPE_CHECKING:
    from ddpnas_ray.experiment.experiment import Experiment
    from ddpnas_ray.strategies.base import Strategy
    from ddpnas_ray.tasks.base import Task
    from ddpnas_ray.training.trainer import Trainer

DESCRIPTION = """\
Dry-run the entire pipeline on two batches of your data (sample, train, score, merge, prune, save, restore, decode) and
estimate a full search: time on 1, 2, 4 and 8 workers, memory, network traffic and disk. Takes under a minute.
With data.cache: the space and time that the cache takes, without writing it.

With --gpus: a table of time, GPU-hours and efficiency by number of GPUs, or of CPU workers if this machine has no GPU,
and how many are useful at most. With --constants: the same for other GPUs, from a JSON object of their times, without
training anything here. Its keys, all needed ("device", a text, may be added; the model is in core/scaling.py):
{keys}

With --genotype: print the exact params and macs of an architecture's deploy network, as JSON. The keys of the file tell
its space: normal and reduce is cell; stages is mobile, with options from --config or --set space.*; arch_str is
nasbench201. With --network: the same of a published network, by default as published.

examples:
  python -m ddpnas_ray.check
  python -m ddpnas_ray.check --set data.name=folder --set data.path=photos --set data.image_size=32
  python -m ddpnas_ray.check --gpus 1,2,4,8
  python -m ddpnas_ray.check --config cifar10_cell --set data.path=DIR --gpus 1,8,64,1024 --group 8 --constants gpu.json
  python -m ddpnas_ray.check --genotype darts_v2.json --channels 36 --cells 20 --image-size 32 --classes 10 --stem auto
  python -m ddpnas_ray.check --network darts_v2 --channels 48 --cells 14 --image-size 224 --classes 1000
  python -m ddpnas_ray.check --genotype mobile.json --image-size 224 --classes 1000 --set space.search_last=false
"""
BUDGET_S = 30.0  # start no further architecture after this
WORKERS = (1, 2, 4, 8)


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """Estimated cost of a full search.

    Args:
        work: What the search does.
        constants: Times of one worker on this machine.
        worker_bytes: Peak memory of one worker.
        disk_bytes: Checkpoints and final weights.
    """

    work: Workload
    constants: Constants
    worker_bytes: int
    disk_bytes: int

    @property
    def architecture_s(self) -> float:
        """Mean time of one architecture-epoch."""
        return architecture_seconds(self.work, self.constants)

    @property
    def traffic_bytes(self) -> int:
        """Object store traffic of the whole search."""
        return int(sum(map(self.work.transfer_bytes, self.work.architectures)))

    def seconds(self, workers: int) -> float:
        """Wall time of the search; each epoch waits for its last architecture."""
        return predict(self.work, self.constants, workers).seconds

    def as_json(self) -> dict[str, Any]:
        """Return the estimate as plain JSON."""
        return {
            "architectures": self.work.architectures,
            "architecture_s": self.architecture_s,
            "decoding_s": self.constants.architecture_s,
            "worker_bytes": self.worker_bytes,
            "traffic_bytes": self.traffic_bytes,
            "disk_bytes": self.disk_bytes,
            "constants": dataclasses.asdict(self.constants),
            "seconds": {w: round(self.seconds(w), 1) for w in WORKERS},
        }


def parser() -> argparse.ArgumentParser:
    """Build the argument parser."""
    keys = textwrap.fill(", ".join(field.name for field in dataclasses.fields(Constants)), 112)
    p = Parser(prog="ddpnas check", description=DESCRIPTION.format(keys=textwrap.indent(keys, "  ")))
    add_config_options(p)
    p.add_argument("--json", action="store_true", help="print the estimate as one JSON object")
    g = p.add_argument_group("time and GPU-hours on many GPUs")
    g.add_argument("--gpus", type=whole_numbers, metavar="G,G,...", help="numbers of GPUs, or of CPU workers")
    g.add_argument("--group", type=positive, metavar="W", help="GPUs that train one architecture together (default 1)")
    g.add_argument("--constants", metavar="FILE", help="JSON: times of one GPU; default: measured on this machine")
    g = p.add_argument_group("params and macs of a genotype, or of a published network")
    which = g.add_mutually_exclusive_group()
    which.add_argument(
        "--genotype",
        metavar="FILE",
        help='JSON: {"normal": [["sep_conv_3x3", 0], ...], "normal_concat": ...}, {"stages": [["zero", ...]]} or '
        '{"arch_str": "|nor_conv_3x3~0|+..."}',
    )
    which.add_argument("--network", metavar="NAME", help=f"one of {', '.join(known_networks())}")
    g.add_argument("--channels", type=int, help="initial channels of the deploy network (default 36; nasbench201: 16)")
    g.add_argument("--cells", type=int, help="cells of the deploy network (default 20; nasbench201: 5 per stage)")
    g.add_argument("--image-size", type=int, help="side in pixels (default 32; --network: as published)")
    g.add_argument("--classes", type=int, help="number of classes (default 10; --network: as published)")
    g.add_argument("--input-channels", type=int, default=3, help="colour channels (default 3)")
    g.add_argument(
        "--stem", choices=("auto", "cifar", "imagenet"), help="(cell space) auto, the default: imagenet from 128 px on"
    )
    return p


@guarded
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    p = parser()
    args = p.parse_args(argv)
    if args.gpus is None and (args.group is not None or args.constants is not None):
        p.error(f"{'--group' if args.constants is None else '--constants'} needs --gpus, such as --gpus 1,8,64")
    if args.genotype is not None or args.network is not None:
        if args.gpus is not None:
            p.error("--gpus estimates a search; --genotype and --network name one network: give one or the other")
        for name in ("channels", "cells", "image_size", "classes", "input_channels"):
            if (value := getattr(args, name)) is not None and value < 1:
                p.error(f"--{name.replace('_', '-')} is {value}; it must be at least 1")
        print(json.dumps(count_genotype(args) if args.network is None else count_network(args)))
        return OK
    if args.gpus is not None and min(args.gpus) < (group := args.group or 1):
        p.error(f"--gpus {min(args.gpus)} makes no --group of {group}; lower --group, or give at least {group} GPUs")
    from ddpnas_ray.execution.local import local_device
    from ddpnas_ray.experiment.experiment import Experiment

    constants = None if args.constants is None else read_constants(args.constants)
    config = load(args.config, args.overrides)
    use_level(config.training.cpu_isa)
    cache = _forecast(config)
    uncached = dataclasses.replace(config, data=dataclasses.replace(config.data, cache=None))
    filled = cache is not None and not cache.missing
    experiment = Experiment.prepare(config if filled else uncached)  # a check does not wait for a cache
    values: dict[str, Any] = {"cache": cache and dataclasses.asdict(cache)}
    lines: list[str] = []
    unit = "GPU"
    if constants is None:
        estimate, lines = try_out(experiment, decodes=cache is None)
        constants, work = estimate.constants, estimate.work
        values |= estimate.as_json()
        lines += [] if cache is None else [_cache_line(cache)]
        lines += [*report(estimate), *([""] if args.gpus else [])]
        unit = "worker" if local_device(config.execution) == "cpu" else "GPU"
    else:
        work = workload(experiment.evaluator.trainer("cpu"), experiment.strategy())
    if args.gpus is not None:
        predictions = [predict(work, constants, gpus, args.group or 1) for gpus in args.gpus]
        values["gpus"] = [dataclasses.asdict(prediction) for prediction in predictions]
        lines += table(work, constants, predictions, unit)
        if args.constants is None:
            lines.append("assumed    10 Gbit/s between machines, and no time to start them")
    warnings = experiment.evaluator.warnings()
    lines += [f"warning    {warning}" for warning in warnings]
    print(json.dumps(values | {"warnings": warnings}) if args.json else "\n".join(lines))
    return OK


def _forecast(config: SearchConfig) -> Forecast | None:
    """Say what ``data.cache`` takes; None without it, or if an own task reads the data in its own way.

    Raises:
        ResourceError: The disk is too small.
    """
    if not config.trains or config.data.cache is None or config.task.name != TaskConfig().name:
        return None
    cache = forecast(config.data, config.seed)
    refuse_full_disk(config.data.cache, cache.missing, cache.image_bytes)
    return cache


def _cache_line(cache: Forecast) -> str:
    size = bytes_text(cache.images * cache.image_bytes)
    if not cache.missing:
        return f"cache      all {cache.images:,} images are in {cache.folder} ({size})"
    free = "" if cache.free_bytes is None else f", {bytes_text(cache.free_bytes)} free"
    return (
        f"cache      {cache.missing:,} of {cache.images:,} images ({bytes_text(cache.missing * cache.image_bytes)} of "
        f"{size}{free}) are decoded into {cache.folder} when the search starts, in {duration(cache.seconds)} at "
        f"{cache.images_per_s:.0f} a second as by one process here"
    )


def try_out(experiment: Experiment, *, decodes: bool = True) -> tuple[Estimate, list[str]]:
    """Run the pipeline on two training and two validation batches, and extrapolate.

    Args:
        experiment: The search.
        decodes: Whether images that are not kept as pixels are decoded at every access; else a cache will have them.

    Returns:
        The estimate, and one line for each part that worked.

    Raises:
        ResourceError: GPUs were requested and this machine has none.
    """
    from ddpnas_ray.execution.local import LocalExecutor, local_device
    from ddpnas_ray.runs import checkpoint, sealed
    from ddpnas_ray.storage.folder import Folder

    config, space = experiment.config, experiment.spec.space
    device = local_device(config.execution)
    whole = experiment.evaluator.trainer(device)
    batch = config.training.batch_size
    task = whole.task
    trainer = dataclasses.replace(whole, task=task.excerpt(2 * batch, config.seed))
    executor, strategy = LocalExecutor(trainer), experiment.strategy()
    state = initial_state(space, config.seed)
    plan = strategy.ask(state, space)
    assert plan is not None  # Experiment.prepare refuses a space with nothing to prune

    start = time.monotonic()
    results = executor.evaluate(plan.requests[:1])
    fitting = int(BUDGET_S / max(time.monotonic() - start, 1e-6))
    results += executor.evaluate(plan.requests[1 : max(2, fitting)])
    tried = Plan(plan.requests[: len(results)])
    state = strategy.tell(state, space, tried, results)
    with tempfile.TemporaryDirectory() as folder:
        start = time.monotonic()
        checkpoint.save(Folder.open(folder), state, executor.weights())
        checkpoint_s = time.monotonic() - start
        checkpoint_bytes = sum(f.stat().st_size for f in Path(folder).rglob("*") if f.is_file())
        assert checkpoint.restore(Folder.open(folder)) is not None
    alpha_E = experiment.spec.argmax(state.theta_EK, state.live_EK)
    costs = ", ".join(f"{value:,} {name}" for name, value in experiment.costs(alpha_E).items())

    weights_bytes = sum(tensor.nbytes for tensor in executor.weights().values())
    train_step_s, validation_batch_s, host_step_s = _batch_seconds(trainer, tried)
    rate = _decoding_rate(task) if decodes else None
    decoded = task.train_examples + task.val_examples + config.training.bn_images
    decoding_s = decoded / rate if rate else 0.0
    constants = Constants(
        train_step_s=train_step_s,
        train_step_fixed_s=0.0,
        validation_batch_s=validation_batch_s,
        validation_batch_fixed_s=0.0,
        host_step_s=host_step_s,
        architecture_s=decoding_s,
        allreduce_bytes_per_s=TEN_GBIT_PER_S,
        allreduce_latency_s=0.0,
        transfer_bytes_per_s=TEN_GBIT_PER_S,
        merge_s=executor.work.merge_s / len(results),
        checkpoint_s=checkpoint_s,
        start_s=0.0,
    )
    estimate = Estimate(
        work=workload(whole, strategy),
        constants=constants,
        worker_bytes=_peak_bytes(device),
        disk_bytes=sealed.KEPT * checkpoint_bytes + weights_bytes,
    )
    notes = [
        f"data       {task.name}: {task.train_examples:,} training and {task.val_examples:,} validation examples of "
        f"{task.inputs}",
        f"space      {space.name}: {space.shape[0]} edges, up to {space.shape[1]} candidates; supernet "
        f"{weights_bytes / 4:,.0f} weights ({_bytes(weights_bytes)})",
        f"trained    {len(results)} of {len(plan.requests)} architectures of an epoch on 2 batches of {batch} "
        f"({device}): mean {task.metric.name} {np.mean([r.score for r in results]):.3f} "
        "(val); merged, saved, restored, decoded",
        f"network    {costs} ({experiment.target})",
    ]
    if rate:
        size, once = (
            bytes_text((decoded - config.training.bn_images) * np.prod(task.inputs.shape)),
            duration(decoding_s),
        )
        hint = (
            f"; data.cache=FOLDER does it once ({size} on disk)" if decoding_s > 0.1 * estimate.architecture_s else ""
        )
        notes.append(f"decoding   {rate:.0f} images a second here, {once} of every architecture-epoch{hint}")
    return estimate, notes


def workload(trainer: Trainer, strategy: Strategy) -> Workload:
    """Count what a search does in every epoch."""
    from ddpnas_ray.nn.weights import split_shared

    space = trainer.spec.space
    plan = strategy.ask(initial_state(space, trainer.seed), space)
    assert plan is not None  # Experiment.prepare refuses a space with nothing to prune
    _, supernet = trainer.supernet()
    shared, owns = split_shared([supernet.pieces(request.alpha_E) for request in plan.requests])
    steps, batches = _batches(trainer)
    return Workload(
        architectures=strategy.epochs(space),
        steps=steps,
        validation_batches=batches + trainer.config.bn_images / trainer.config.batch_size,
        shared_bytes=4 * shared.size,
        own_bytes=4 * float(np.mean([own.size for own in owns])),
    )


def report(estimate: Estimate) -> list[str]:
    """Format the estimate as lines of text."""
    architectures = estimate.work.architectures
    times = ", ".join(f"{duration(estimate.seconds(w))} on {w}" for w in WORKERS)
    return [
        f"search     {sum(architectures)} architecture-epochs in {len(architectures)} epochs, "
        f"{estimate.architecture_s:.1f} s each on this machine",
        f"time       {times} worker(s) like this machine, including the barrier at the end of each epoch",
        f"memory     at most {_bytes(estimate.worker_bytes)} per worker",
        f"traffic    {_bytes(estimate.traffic_bytes)} in total, through the object store",
        f"disk       {_bytes(estimate.disk_bytes)} in the run directory",
    ]


def table(work: Workload, constants: Constants, predictions: Sequence[Prediction], unit: str) -> list[str]:
    """Format predictions as lines of text."""
    group, widest = predictions[0].group, max(work.architectures)
    lines = [f"{unit + 's':>8} {'time':>8} {unit + '-hours':>13} {'efficiency':>11} {'idle':>6}"]
    lines += [
        f"{p.gpus:>8} {duration(p.seconds):>8} {p.gpu_hours:>13,.3g} {p.efficiency:>11.1%} {p.idle:>6}"
        for p in predictions
    ]
    together = f"one {unit}" if group == 1 else f"{group} {unit}s"
    each_s = architecture_seconds(work, constants, group)
    return [
        *lines,
        f"useful     at most {widest * group} {unit}s: an epoch has up to {widest} architectures, each "
        f"{each_s:.3g} s on {together}",
        f"hours      as if all {unit}s were held to the end",
    ]


def _batches(trainer: Trainer) -> tuple[int, int]:
    """Count training steps and validation batches of an architecture-epoch."""
    task, size = trainer.task, trainer.config.batch_size
    return task.train_examples // size or 1, -(-task.val_examples // size)


def _batch_seconds(trainer: Trainer, tried: Plan) -> tuple[float, float, float]:
    """Time a training step, a validation batch and the preparation of a training batch, means over architectures."""
    steps, batches = _batches(trainer)
    training, validation = [], []
    start = time.monotonic()
    for request in tried.requests[:4]:
        training_s, validation_s = _time_batches(trainer, request.alpha_E)
        training.append(training_s / steps)
        validation.append(validation_s / batches)
        if time.monotonic() - start > BUDGET_S / 2:
            break
    start = time.perf_counter()
    prepared = sum(1 for _ in trainer.task.training_batches(0, trainer.seed, trainer.config.batch_size))
    host_s = (time.perf_counter() - start) / prepared
    return float(np.mean(training)), float(np.mean(validation)), host_s


def _decoding_rate(task: Task) -> float | None:
    """Return the images decoded in a second; None if they are kept as pixels, or the task is not one of images."""
    data = getattr(task, "data", None)
    if not isinstance(data, ImageData) or not isinstance(data.train.images, EncodedImages):
        return None
    return images_per_s(data.train.images)


def _time_batches(trainer: Trainer, alpha_E: IntArray) -> tuple[float, float]:
    """Time training on all training batches and scoring all validation batches, in seconds."""
    import torch

    from ddpnas_ray.nn.kernels.fast import accelerate
    from ddpnas_ray.nn.weights import Layout, Piece, Weights, bind
    from ddpnas_ray.training.epoch import fixed_threads

    network = trainer.spec.build(alpha_E, trainer.task.inputs)
    if trainer.config.kernels == "fast" and trainer.device == "cpu":
        accelerate(network)
    tensors = {name: p.detach().numpy() for name, p in network.named_parameters()}
    layout = Layout.of(Piece(name, tensor.shape) for name, tensor in tensors.items())
    with fixed_threads(trainer.config.threads):
        whole = bind(network, layout, torch.from_numpy(Weights(tensors).flat).to(trainer.device))
        network.to(trainer.device)
        start = time.perf_counter()
        trainer.train(network, whole, layout, epoch=0, lr=1e-4)
        trained = time.perf_counter()
        trainer.score(network)
        return trained - start, time.perf_counter() - trained


def _peak_bytes(device: str) -> int:
    import resource

    import torch

    if device == "cuda":
        return int(torch.cuda.max_memory_reserved())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def whole_numbers(text: str) -> list[int]:
    """Parse integers of at least 1, with commas.

    Example:
        >>> whole_numbers("1,8,64")
        [1, 8, 64]
    """
    return [positive(part.strip()) for part in text.split(",")]


def _bytes(count: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.3g} {unit}" if count < 100 else f"{count:.0f} {unit}"
        count /= 1024
    return f"{count:.3g} TiB"


if __name__ == "__main__":
    sys.exit(main())
