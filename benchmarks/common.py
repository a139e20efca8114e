"""Shared parts of the benchmarks: real images, machine metadata, and progress on stderr."""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from ddpnas_ray.data.config import DataConfig
from ddpnas_ray.data.images import ImageData, load_data
from ddpnas_ray.runs.environment import environment
from ddpnas_ray.tasks.base import find_metric
from ddpnas_ray.tasks.classification.task import ClassificationTask

ROOT = Path(__file__).resolve().parent.parent
START_S, START_LOAD = time.perf_counter(), os.getloadavg()[0]


def cifar10(*, train: int, val: int, seed: int) -> ImageData:
    """Draw CIFAR-10 images by seed; ``DDPNAS_TEST_DATA`` is the parent of the folder ``cifar10``."""
    folder = Path(os.environ.get("DDPNAS_TEST_DATA", ROOT.parent / "shared" / "data")) / "cifar10"
    return load_data(DataConfig(name="cifar10", path=str(folder), train_limit=train, val_limit=val), seed)


def classification(data: ImageData) -> ClassificationTask:
    """Make a task of images."""
    return ClassificationTask(data, find_metric("accuracy"))


def machine(data: ImageData) -> str:
    """Return machine, software and settings of a measurement as a Markdown list."""
    images = f"CIFAR-10, {len(data.train)} training and {len(data.val)} validation images, digest {data.digest[:12]}"
    return facts(f"data: {images}")


def facts(*more: str) -> str:
    """Return machine, software and time as a Markdown list."""
    here = environment(0, "")
    gibibytes = here["memory_bytes"] / 2**30
    versions = ", ".join(f"{name} {here['packages'][name]}" for name in ("torch", "ray", "numpy"))
    lines = [
        f"machine: {here['cores']} cores, {here['cpu']}, {gibibytes:.1f} GiB; {here['platform']}",
        f"software: Python {here['python']}, {versions}; commit {here['git_commit']}",
        *more,
        f"{time.strftime('%Y-%m-%d %H:%M', time.gmtime())} UTC; load average before the start {START_LOAD:.2f}",
    ]
    return "\n".join(f"- {line}" for line in lines)


def spread(values: Sequence[float], digits: int = 2) -> str:
    """Format mean and standard error."""
    return f"{statistics.fmean(values):.{digits}f} +- {statistics.stdev(values) / len(values) ** 0.5:.{digits}f}"


def say(text: str) -> None:
    """Print a line of progress to stderr, with the time since the start."""
    print(f"[{time.perf_counter() - START_S:7.1f} s] {text}", file=sys.stderr, flush=True)
