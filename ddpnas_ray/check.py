"""Dry-run the pipeline on two batches and estimate the cost of a search: ``python -m ddpnas_ray.check``."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ddpnas_ray.console.command import OK, Parser, guarded
from ddpnas_ray.console.options import add_config_options
from ddpnas_ray.console.progress import duration
from ddpnas_ray.core.errors import ConfigError, GenotypeError
from ddpnas_ray.core.requests import Plan
from ddpnas_ray.core.space import IntArray
from ddpnas_ray.core.state import initial_state
from ddpnas_ray.data.cache import bytes_text, refuse_full_disk
from ddpnas_ray.data.cached import Forecast, images_per_s
from ddpnas_ray.data.images import EncodedImages, ImageData, forecast
from ddpnas_ray.experiment.config import SearchConfig, TaskConfig, load
from ddpnas_ray.experiment.sections import Origin
from ddpnas_ray.spaces.base import SpaceSpec, find_space
from ddpnas_ray.spaces.known import known_network, known_networks
from ddpnas_ray.spaces.target import Inputs, Target, TargetConfig
from ddpnas_ray.training.cpu_isa import use_level

if TYPE_CHECKING:
    from ddpnas_ray.experiment.experiment import Experiment
    from ddpnas_ray.tasks.base import Task
    from ddpnas_ray.training.trainer import Trainer

DESCRIPTION = """\
Dry-run the entire pipeline on two batches of your data (sample, train, score, merge, prune, save, restore, decode) and
estimate a full search: time on 1, 2, 4 and 8 workers, memory, network traffic and disk. Takes under a minute.
With data.cache: the space and time that the cache takes, without writing it.

With --genotype: print the exact params and macs of an architecture's deploy network, as JSON. The keys of the file tell
its space: normal and reduce is cell; stages is mobile, with options from --config or --set space.*; arch_str is
nasbench201. With --network: the same of a published network, by default as published.

examples:
  python -m ddpnas_ray.check
  python -m ddpnas_ray.check --set data.name=folder --set data.path=photos --set data.image_size=32
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
        architectures: Architectures in each epoch.
        architecture_s: Mean time of one architecture-epoch on this machine.
        decoding_s: How much of it decodes images; 0 if they are kept as pixels.
        worker_bytes: Peak memory of one worker.
        traffic_bytes: Object store traffic of the whole search.
        disk_bytes: Checkpoints and final weights.
    """

    architectures: tuple[int, ...]
    architecture_s: float
    decoding_s: float = 0.0
    worker_bytes: int
    traffic_bytes: int
    disk_bytes: int

    def seconds(self, workers: int) -> float:
        """Wall time of the search; each epoch waits for its last architecture."""
        return sum(-(-n // workers) for n in self.architectures) * self.architecture_s


def parser() -> argparse.ArgumentParser:
    """Build the argument parser."""
    p = Parser(prog="ddpnas check", description=DESCRIPTION)
    add_config_options(p)
    p.add_argument("--json", action="store_true", help="print the estimate as one JSON object")
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
    if args.genotype is not None or args.network is not None:
        for name in ("channels", "cells", "image_size", "classes", "input_channels"):
            if (value := getattr(args, name)) is not None and value < 1:
                p.error(f"--{name.replace('_', '-')} is {value}; it must be at least 1")
        print(json.dumps(count_genotype(args) if args.network is None else count_network(args)))
        return OK
    from ddpnas_ray.experiment.experiment import Experiment

    config = load(args.config, args.overrides)
    use_level(config.training.cpu_isa)
    cache = _forecast(config)
    uncached = dataclasses.replace(config, data=dataclasses.replace(config.data, cache=None))
    filled = cache is not None and not cache.missing
    experiment = Experiment.prepare(config if filled else uncached)  # a check does not wait for a cache
    estimate, notes = try_out(experiment, decodes=cache is None)
    warnings = experiment.evaluator.warnings()
    if args.json:
        values = dataclasses.asdict(estimate) | {"seconds": {w: round(estimate.seconds(w), 1) for w in WORKERS}}
        print(json.dumps(values | {"warnings": warnings, "cache": cache and dataclasses.asdict(cache)}))
    else:
        said = [*notes, *([] if cache is None else [_cache_line(cache)]), *report(estimate)]
        print("\n".join([*said, *(f"warning    {warning}" for warning in warnings)]))
    return OK


def count_genotype(args: argparse.Namespace) -> dict[str, int]:
    """Count the exact params and macs of a genotype's deploy network.

    Raises:
        GenotypeError: The file cannot be read, or is not a genotype of the space that its keys name.
        ConfigError: The space does not have one of the options.
    """
    from ddpnas_ray.spaces.cell import space as cell
    from ddpnas_ray.spaces.nasbench201 import space as nasbench201

    try:
        genotype = json.loads(Path(args.genotype).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or f"is not valid JSON: {error}"
        raise GenotypeError(
            f"{args.genotype}: {reason}; give a JSON file with the keys normal and reduce, or the key stages or "
            "arch_str"
        ) from error
    if isinstance(genotype, dict) and isinstance(genotype.get("genotype"), dict):
        genotype = genotype["genotype"]  # a file that generate wrote
    keys = genotype if isinstance(genotype, dict) else {}
    try:
        if "stages" in keys:
            start = [] if args.config else ["space={name: mobile}"]
            spec = _space(args, "mobile", start, "a genotype with stages")
            alpha_E = spec.encode(genotype)
        elif "arch_str" in keys:
            spec = nasbench201.make()
            alpha_E = spec.encode(genotype)
        else:
            alpha_E = cell.encode(genotype)
            spec = cell.make(nodes=len(genotype["normal"]) // 2)
    except GenotypeError as error:
        raise GenotypeError(f"{args.genotype}: {error}") from error
    return _costs(args, spec, alpha_E, TargetConfig(image_size=32, classes=10))


def count_network(args: argparse.Namespace) -> dict[str, int]:
    """Count the exact params and macs of a known network; options replace parts of its target and of its space.

    Raises:
        GenotypeError: There is no such network, or it does not fit the space that ``--set`` makes.
        ConfigError: The space does not have one of the options.
    """
    known = known_network(args.network)
    start = [f"space={json.dumps({'name': known.space} | known.options)}"]
    spec = _space(args, known.space, start, f"network {known.name}")
    try:
        alpha_E = spec.encode(known.genotype)
    except GenotypeError as error:
        raise GenotypeError(f"--network {known.name}: {error}") from error
    return _costs(args, spec, alpha_E, known.target)


def _costs(args: argparse.Namespace, spec: SpaceSpec, alpha_E: IntArray, default: TargetConfig) -> dict[str, int]:
    given = {key: getattr(args, key) for key in ("cells", "channels", "image_size", "classes", "stem")}
    config = dataclasses.replace(default, **{key: value for key, value in given.items() if value is not None})
    assert config.image_size is not None and config.classes is not None
    inputs = Inputs(shape=(args.input_channels, config.image_size, config.image_size), outputs=config.classes)
    target = Target.resolve(config, inputs, spec.target)
    return {name: cost(target)(alpha_E) for name, cost in spec.costs.items()}


def _space(args: argparse.Namespace, name: str, start: list[str], subject: str) -> SpaceSpec:
    """Build a space from --config, the overrides to start with, and --set.

    Raises:
        ConfigError: It is another space, or does not have one of the options.
    """
    config = load(args.config, [*start, *args.overrides])
    if config.space.name != name:
        where = Origin(args.config or "--set", tuple(args.overrides)).of("space.name")
        raise ConfigError(f"{where}: space.name is {config.space.name!r}; {subject} needs space.name={name}")
    spec = find_space(name)(**config.space.options)
    applies = {"cells": spec.target.cells, "channels": spec.target.channels, "stem": spec.target.stem}
    for option in (option for option, known in applies.items() if not known):
        if getattr(args, option) is not None:
            raise ConfigError(f"--{option} does not apply to {subject} (space {name}); remove it")
    return spec


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
    from ddpnas_ray.nn.weights import split_shared
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
        checkpoint.save(Folder.open(folder), state, executor.weights())
        checkpoint_bytes = sum(f.stat().st_size for f in Path(folder).rglob("*") if f.is_file())
        assert checkpoint.restore(Folder.open(folder)) is not None
    alpha_E = experiment.spec.argmax(state.theta_EK, state.live_EK)
    costs = ", ".join(f"{value:,} {name}" for name, value in experiment.costs(alpha_E).items())

    tensors, supernet = trainer.supernet()
    shared, owns = split_shared([supernet.pieces(request.alpha_E) for request in plan.requests])
    own_bytes = 4 * float(np.mean([own.size for own in owns]))
    architectures = strategy.epochs(space)
    traffic = sum((1 + n) * 4 * shared.size + 2 * n * own_bytes for n in architectures)
    weights_bytes = sum(tensor.nbytes for tensor in tensors.values())
    rate = _decoding_rate(task) if decodes else None
    decoded = task.train_examples + task.val_examples + config.training.bn_images
    decoding_s = decoded / rate if rate else 0.0
    estimate = Estimate(
        architectures=architectures,
        architecture_s=_architecture_seconds(whole, trainer, tried) + decoding_s,
        decoding_s=decoding_s,
        worker_bytes=_peak_bytes(device),
        traffic_bytes=int(traffic),
        disk_bytes=sealed.KEPT * checkpoint_bytes + weights_bytes,
    )
    notes = [
        f"data       {task.name}: {task.train_examples:,} training and {task.val_examples:,} validation examples of "
        f"{'x'.join(map(str, task.inputs.shape))}, {task.inputs.outputs} outputs",
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


def report(estimate: Estimate) -> list[str]:
    """Format the estimate as lines of text."""
    times = ", ".join(f"{duration(estimate.seconds(w))} on {w}" for w in WORKERS)
    return [
        f"search     {sum(estimate.architectures)} architecture-epochs in {len(estimate.architectures)} epochs, "
        f"{estimate.architecture_s:.1f} s each on this machine",
        f"time       {times} worker(s) like this machine, including the barrier at the end of each epoch",
        f"memory     at most {_bytes(estimate.worker_bytes)} per worker",
        f"traffic    {_bytes(estimate.traffic_bytes)} in total, through the object store",
        f"disk       {_bytes(estimate.disk_bytes)} in the run directory",
    ]


def _architecture_seconds(whole: Trainer, two: Trainer, tried: Plan) -> float:
    """Extrapolate the mean time of an architecture-epoch on all data from single batches."""

    def batches(trainer: Trainer) -> tuple[int, int]:
        task, size = trainer.task, trainer.config.batch_size
        return task.train_examples // size or 1, -(-task.val_examples // size)

    (all_training, all_validation), (few_training, few_validation) = batches(whole), batches(two)
    recomputing = whole.config.bn_images / whole.config.batch_size
    seconds: list[float] = []
    start = time.monotonic()
    for request in tried.requests[:4]:
        training_s, validation_s = _time_batches(two, request.alpha_E)
        training_s, validation_s = training_s / few_training, validation_s / few_validation
        seconds.append(training_s * all_training + validation_s * (all_validation + recomputing))
        if time.monotonic() - start > BUDGET_S / 2:
            break
    return float(np.mean(seconds))


def _decoding_rate(task: Task) -> float | None:
    """Return the images decoded in a second; None if they are kept as pixels, or the task is not one of images."""
    data = getattr(task, "data", None)
    if not isinstance(data, ImageData) or not isinstance(data.train.images, EncodedImages):
        return None
    return images_per_s(data.train.images)


def _time_batches(trainer: Trainer, alpha_E: IntArray) -> tuple[float, float]:
    """Time training on all training batches and scoring all validation batches, in seconds."""
    import torch

    from ddpnas_ray.nn.weights import Layout, Piece, Weights, bind
    from ddpnas_ray.training.epoch import fixed_threads

    network = trainer.spec.build(alpha_E, trainer.task.inputs)
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


def _bytes(count: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.3g} {unit}" if count < 100 else f"{count:.0f} {unit}"
        count /= 1024
    return f"{count:.3g} TiB"


if __name__ == "__main__":
    sys.exit(main())
