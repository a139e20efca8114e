"""One epoch's plan, the architectures to train and score, and their results.

Axes: E edges.
"""

from __future__ import annotations

from dataclasses import dataclass

from ddpnas_ray.core.space import IntArray


@dataclass(frozen=True, slots=True)
class EvalRequest:
    """One architecture to train for an epoch and score.

    Args:
        round: l, from 0.
        epoch: t, global, from 0; keys the order of the training images.
        architecture: Index within the epoch.
        alpha_E: The chosen candidate of every edge, shape (E,).
        lr: Learning rate of this epoch, the same for all its architectures.
        train: False scores the inherited weights without training.
    """

    round: int
    epoch: int
    architecture: int
    alpha_E: IntArray
    lr: float
    train: bool = True


@dataclass(frozen=True, slots=True)
class EvalResult:
    """Result of evaluating one architecture.

    Args:
        score: Validation score, higher is better, a fraction in [-1, 1]; NaN where ``ok`` is False.
        loss: Mean training loss of the epoch; NaN where nothing finite was seen.
        ok: False when the loss or the score was not finite: the weights were not merged.
        seconds: Wall time of building, training and scoring.
        worker: The worker that ran it; this and all below are never part of the fingerprint.
        node: The worker's node.
        start_s: Start in seconds since 1970 by the clock of ``node``; None where unknown.
        train_s: Seconds of training.
        validate_s: Seconds of BatchNorm statistics and scoring.
        device: Kind of device that trained; empty for tabular scores.
    """

    score: float
    loss: float
    ok: bool = True
    seconds: float = 0.0
    worker: str = "local"
    node: str = ""
    start_s: float | None = None
    train_s: float = 0.0
    validate_s: float = 0.0
    device: str = ""


@dataclass(slots=True)
class Work:
    """Overhead of an executor beside training and scoring, since it was created.

    Args:
        transfer_s: Seconds of weight transfer, summed over architectures: cutting, sending, waiting, receiving.
        merge_s: Seconds of merging.
        bytes_moved: Bytes of weights moved through the object store.
        retries: Evaluations that were lost and repeated.
    """

    transfer_s: float = 0.0
    merge_s: float = 0.0
    bytes_moved: int = 0
    retries: int = 0


@dataclass(frozen=True, slots=True)
class Plan:
    """One epoch's architectures, in order."""

    requests: tuple[EvalRequest, ...]
