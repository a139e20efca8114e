"""Cost model: the wall time and the GPU-hours of a search on any number of GPUs (or CPU workers).

G GPUs form floor(G / W) groups of W; a group trains one architecture at a time, data-parallel, and an epoch ends with
its last architecture:

    T    = T0 + sum over epochs of ceil(N / floor(G / W)) t(W) + m(N)
    t(W) = S max(h, tau1 / W + tau0 + allreduce(W)) + V (v1 / W + v0) + c
    m(N) = bytes(N) / bandwidth + N merge + checkpoint

N: architectures of the epoch; S, V: training steps and validation batches of an architecture-epoch. All architectures
take equally long here; ``benchmarks/scale.py`` simulates those that do not.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from ddpnas_ray.core.errors import ConfigError, did_you_mean

TEN_GBIT_PER_S = 1.25e9  # assumed between nodes where nothing is measured


@dataclass(frozen=True, slots=True, kw_only=True)
class Constants:
    """Times of one kind of GPU or CPU worker, at the configured batch size; the keys of ``gpu.json``.

    Args:
        train_step_s: A training step: the part that a group divides (tau1).
        train_step_fixed_s: The rest of a training step (tau0), such as launches.
        validation_batch_s: A validation batch: the part that a group divides (v1).
        validation_batch_fixed_s: The rest of a validation batch (v0).
        host_step_s: Preparing a training batch on the host, concurrent with the step (h).
        architecture_s: Per architecture-epoch: building the network, copying weights (c).
        allreduce_bytes_per_s: Bandwidth of a ring all-reduce within a group.
        allreduce_latency_s: Latency of each of its 2 (W - 1) messages.
        transfer_bytes_per_s: Bandwidth of weights between driver and workers.
        merge_s: Merging the weights of one architecture, in the driver.
        checkpoint_s: A checkpoint, once per epoch.
        start_s: From the start to the first architecture (T0).
    """

    train_step_s: float
    train_step_fixed_s: float
    validation_batch_s: float
    validation_batch_fixed_s: float
    host_step_s: float
    architecture_s: float
    allreduce_bytes_per_s: float
    allreduce_latency_s: float
    transfer_bytes_per_s: float
    merge_s: float
    checkpoint_s: float
    start_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """What a search does, whatever the hardware.

    Args:
        architectures: N of every epoch.
        steps: Training steps of an architecture-epoch (S).
        validation_batches: Validation batches, with those for BatchNorm statistics (V).
        shared_bytes: Weights that all architectures of an epoch share.
        own_bytes: Mean weights of one architecture beside the shared ones.
    """

    architectures: tuple[int, ...]
    steps: int
    validation_batches: float
    shared_bytes: float
    own_bytes: float

    def transfer_bytes(self, n: int) -> float:
        """Weights that an epoch of n architectures moves: down once shared and n times own, up n times both."""
        return (1 + n) * self.shared_bytes + 2 * n * self.own_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """Predicted cost of a search.

    Args:
        gpus: G.
        group: W.
        seconds: Wall time, T.
        gpu_hours: G T, if all GPUs are held to the end.
        efficiency: Time on one GPU over G T.
        idle: GPUs without work even in the widest epoch.
    """

    gpus: int
    group: int
    seconds: float
    gpu_hours: float
    efficiency: float
    idle: int


def architecture_seconds(work: Workload, constants: Constants, group: int = 1) -> float:
    """Return the time of one architecture-epoch on a group of W, t(W)."""
    exchange_s = 0.0
    if group > 1:
        sent = 2 * (group - 1) / group * (work.shared_bytes + work.own_bytes)
        exchange_s = sent / constants.allreduce_bytes_per_s + 2 * (group - 1) * constants.allreduce_latency_s
    step_s = max(constants.host_step_s, constants.train_step_s / group + constants.train_step_fixed_s + exchange_s)
    batch_s = constants.validation_batch_s / group + constants.validation_batch_fixed_s
    return work.steps * step_s + work.validation_batches * batch_s + constants.architecture_s


def between_seconds(work: Workload, constants: Constants, n: int) -> float:
    """Return the time of an epoch of n architectures that no GPU shortens: transfer, merge, checkpoint, m(n)."""
    transfer_s = work.transfer_bytes(n) / constants.transfer_bytes_per_s
    return transfer_s + n * constants.merge_s + constants.checkpoint_s


def predict(work: Workload, constants: Constants, gpus: int, group: int = 1) -> Prediction:
    """Predict wall time and GPU-hours of a search.

    Args:
        work: What the search does.
        constants: Times of one GPU.
        gpus: G, at least W.
        group: W, GPUs that train one architecture together.

    Example:
        >>> work = Workload(architectures=(8, 7), steps=10, validation_batches=5, shared_bytes=0, own_bytes=0)
        >>> names = [field.name for field in fields(Constants)]
        >>> one = Constants(**dict.fromkeys(names, 0.0) | {"transfer_bytes_per_s": 1.0, "train_step_s": 0.1})
        >>> [round(predict(work, one, gpus).seconds, 6) for gpus in (1, 2, 4, 8, 16)]
        [15.0, 8.0, 4.0, 2.0, 2.0]
        >>> predict(work, one, 16).idle
        8
    """
    between_s = sum(between_seconds(work, constants, n) for n in work.architectures)

    def seconds(groups: int, group: int) -> float:
        waves = sum(math.ceil(n / groups) for n in work.architectures)
        return constants.start_s + waves * architecture_seconds(work, constants, group) + between_s

    total_s = seconds(gpus // group, group)
    return Prediction(
        gpus=gpus,
        group=group,
        seconds=total_s,
        gpu_hours=gpus * total_s / 3600,
        efficiency=seconds(1, 1) / (gpus * total_s),
        idle=gpus - min(gpus // group, max(work.architectures)) * group,
    )


def read_constants(path: str) -> Constants:
    """Read constants from a JSON file; all keys of ``Constants``, and ``device``, a text, if one likes.

    Raises:
        ConfigError: The file is not readable, or a key is missing, unknown or not a number of the right kind.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}; give a JSON file, as benchmarks/gpu.py writes it") from error
    except ValueError as error:
        raise ConfigError(f"{path} is not valid JSON: {error}") from error
    return parse_constants(content, path)


def parse_constants(content: Any, source: str) -> Constants:
    """Check the content of a JSON file of constants.

    Args:
        content: As parsed.
        source: Its name, for errors.

    Raises:
        ConfigError: A key is missing, unknown or not a number of the right kind.
    """
    names = [field.name for field in fields(Constants)]
    if isinstance(content, Mapping) and isinstance(content.get("constants"), Mapping):
        content = content["constants"]  # the whole file that benchmarks/gpu.py writes
    if not isinstance(content, Mapping):
        raise ConfigError(f"{source} is not a JSON object; its keys are {', '.join(names)}")
    values = {key: value for key, value in content.items() if key != "device"}
    for key in values:
        if key not in names:
            raise ConfigError(f"{source}: {key} is not a key{did_you_mean(key, names)}")
    if missing := [name for name in names if name not in values]:
        raise ConfigError(f"{source}: {', '.join(missing)} missing; every key of the constants is needed")
    for key, value in values.items():
        number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        per_s = key.endswith("bytes_per_s")
        if not number or value < 0 or (per_s and value == 0):
            raise ConfigError(f"{source}: {key} is {value!r}; a number {'above 0' if per_s else 'of at least 0'}")
    return Constants(**values)
