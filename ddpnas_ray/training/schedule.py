"""Learning rate of a retraining, as a pure function of epoch and step: a resume needs no scheduler's state."""

from __future__ import annotations

import math

from ddpnas_ray.tasks.recipe import RetrainingConfig


def learning_rate(config: RetrainingConfig, epoch: int, step: int, steps: int) -> float:
    """Return the learning rate of one step.

    Args:
        config: The recipe.
        epoch: From 0.
        step: Within the epoch, from 0.
        steps: Steps per epoch.

    Example:
        >>> recipe = RetrainingConfig(epochs=4, lr=1.0, warmup_epochs=1)
        >>> [round(learning_rate(recipe, epoch, 0, 2), 2) for epoch in range(4)]
        [0.5, 1.0, 0.75, 0.25]
    """
    warmup_steps = config.warmup_epochs * steps
    if epoch * steps + step < warmup_steps:
        return config.lr * min(epoch * steps + step + 1, warmup_steps) / warmup_steps
    at = epoch - config.warmup_epochs
    if config.lr_per == "step":
        at += step / steps
    at = max(0.0, at)  # a warm-up may end within an epoch
    if config.schedule == "step":
        return config.lr * config.lr_factor ** (at // config.lr_epochs)
    left = config.epochs - config.warmup_epochs
    if config.schedule == "linear":
        return config.lr * (1 - at / left)
    if config.schedule == "poly":
        return config.lr * (1 - at / left) ** config.lr_power
    return config.lr * 0.5 * (1 + math.cos(math.pi * at / left))
