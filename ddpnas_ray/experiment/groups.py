"""Checks of ``training.shards`` and ``execution.group`` together."""

from __future__ import annotations

from ddpnas_ray.core.errors import ConfigError
from ddpnas_ray.execution.base import ExecutionConfig
from ddpnas_ray.experiment.sections import Origin
from ddpnas_ray.training.config import TrainingConfig


def refuse_group(training: TrainingConfig, execution: ExecutionConfig, origin: Origin) -> None:
    """Refuse shards that BatchNorm cannot have, and groups that cannot share them.

    Raises:
        ConfigError: They cannot.
    """
    if training.batch_size < 2 * training.shards:
        raise ConfigError(
            f"{origin.of('training.shards', 'training.batch_size')}: training.shards={training.shards} of "
            f"training.batch_size={training.batch_size} have fewer than 2 examples each, which BatchNorm needs; set "
            f"batch_size to {2 * training.shards} or more"
        )
    if training.shards > 1 and not training.bn_images:
        raise ConfigError(
            f"{origin.of('training.shards', 'training.bn_images')}: training.bn_images=0 scores with the statistics of "
            "training, which each shard has its own of; set training.bn_images, or training.shards=1"
        )
    if training.shards % execution.group:
        raise ConfigError(
            f"{origin.of('execution.group', 'training.shards')}: execution.group={execution.group} does not divide "
            f"training.shards={training.shards}; set shards to a multiple, a power of two (it changes the result), or "
            "group to 1"
        )
    if execution.group > 1 and execution.gpus_per_worker not in (None, 0, 1):
        raise ConfigError(
            f"{origin.of('execution.group', 'execution.gpus_per_worker')}: execution.group={execution.group} needs a "
            f"whole GPU for each process, not execution.gpus_per_worker={execution.gpus_per_worker:g}; set it to 1, 0 "
            "or null"
        )


def refuse_small_shards(training: TrainingConfig, examples: int) -> None:
    """Refuse shards with fewer than two examples of the only batch, where there are fewer than a batch.

    Args:
        training: Gives the shards.
        examples: Training examples.

    Raises:
        ConfigError: There are too few.
    """
    if training.shards > 1 and examples < 2 * training.shards:
        raise ConfigError(
            f"training.shards is {training.shards}: {examples} training examples give some shard fewer than 2, which "
            "BatchNorm needs; lower it, or add examples"
        )
