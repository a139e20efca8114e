"""Dry-run the pipeline on two batches and estimate the cost of a search: ``python -m ddpnas_ray.check``."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import textwrap
from collections.abc import Sequence
from typing import Any

from ddpnas_ray.console.command import OK, Parser, guarded
from ddpnas_ray.console.options import add_config_options, image_size, positive
from ddpnas_ray.console.progress import duration
from ddpnas_ray.core.scaling import (
    Constants,
    Prediction,
    Workload,
    architecture_seconds,
    predict,
    read_constants,
)
from ddpnas_ray.costs.convnet import Size
from ddpnas_ray.data.cache import bytes_text, refuse_full_disk
from ddpnas_ray.data.cached import Forecast
from ddpnas_ray.data.images import forecast
from ddpnas_ray.experiment.config import SearchConfig, TaskConfig, load
from ddpnas_ray.launch.counting import count_genotype, count_network
from ddpnas_ray.launch.dry_run import WORKERS, Estimate, size_text, try_out, workload
from ddpnas_ray.spaces.known import known_networks
from ddpnas_ray.training.cpu_isa import use_level

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


def parser() -> argparse.ArgumentParser:
    """Build the argument parser."""
    keys = textwrap.fill(", ".join(field.name for field in dataclasses.fields(Constants)), 112)
    p = Parser(prog="ddpnas check", description=DESCRIPTION.format(keys=textwrap.indent(keys, "  ")))
    add_config_options(p)
    p.add_argument("--json", action="store_true", help="print the estimate as one JSON object")
    g = p.add_argument_group("time and GPU-hours on many GPUs")
    g.add_argument("--gpus", type=_whole_numbers, metavar="G,G,...", help="numbers of GPUs, or of CPU workers")
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
    g.add_argument(
        "--image-size", type=_size, help="side in pixels, or HEIGHTxWIDTH (default 32; --network: as published)"
    )
    g.add_argument("--classes", type=int, help="number of classes (default 10; --network: as published)")
    g.add_argument("--input-channels", type=int, default=3, help="colour channels (default 3)")
    g.add_argument(
        "--stem", choices=("auto", "cifar", "imagenet"), help="(cell space) auto, the default: imagenet from 128 px on"
    )
    return p


def _size(text: str) -> Size:
    return image_size(text) if "x" in text else int(text)


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
            if isinstance(value := getattr(args, name), int) and value < 1:
                p.error(f"--{name.replace('_', '-')} is {value}; it must be at least 1")
        print(json.dumps(count_genotype(args) if args.network is None else count_network(args)))
        return OK
    if args.gpus is not None and min(args.gpus) < (group := args.group or 1):
        p.error(f"--gpus {min(args.gpus)} makes no --group of {group}; lower --group, or give at least {group} GPUs")
    return _estimate(args)


def _estimate(args: argparse.Namespace) -> int:
    """Try the search out unless its constants are given, and print what it takes."""
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
        lines += [*_report(estimate), *([""] if args.gpus else [])]
        unit = "worker" if local_device(config.execution) == "cpu" else "GPU"
    else:
        work = workload(experiment.evaluator.trainer("cpu"), experiment.strategy())
    if args.gpus is not None:
        predictions = [predict(work, constants, gpus, args.group or 1) for gpus in args.gpus]
        values["gpus"] = [dataclasses.asdict(prediction) for prediction in predictions]
        lines += _table(work, constants, predictions, unit)
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


def _report(estimate: Estimate) -> list[str]:
    """Format the estimate as lines of text."""
    architectures = estimate.work.architectures
    times = ", ".join(f"{duration(estimate.seconds(w))} on {w}" for w in WORKERS)
    return [
        f"search     {sum(architectures)} architecture-epochs in {len(architectures)} epochs, "
        f"{estimate.architecture_s:.1f} s each on this machine",
        f"time       {times} worker(s) like this machine, including the barrier at the end of each epoch",
        f"memory     at most {size_text(estimate.worker_bytes)} per worker",
        f"traffic    {size_text(estimate.traffic_bytes)} in total, through the object store",
        f"disk       {size_text(estimate.disk_bytes)} in the run directory",
    ]


def _table(work: Workload, constants: Constants, predictions: Sequence[Prediction], unit: str) -> list[str]:
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


def _whole_numbers(text: str) -> list[int]:
    """Parse integers of at least 1, with commas.

    Example:
        >>> _whole_numbers("1,8,64")
        [1, 8, 64]
    """
    return [positive(part.strip()) for part in text.split(",")]


if __name__ == "__main__":
    sys.exit(main())
