"""Section ``training`` of a configuration; apart from ``training.py`` so that reading it does not import torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingConfig:
    """How an architecture is trained for one epoch and scored. Every key can change the result."""

    batch_size: Annotated[int, Ge(2)] = 512
    """Examples a step (paper: 512)"""
    optimizer: Literal["sgd", "adamw"] = "sgd"
    """sgd: with momentum, as the paper; adamw: betas 0.9 and 0.999. Both start fresh each architecture-epoch"""
    lr: Annotated[float, Gt(0.0)] = 0.025
    """Initial learning rate, annealed to zero by a cosine over the search (paper: 0.025)"""
    momentum: Annotated[float, Ge(0.0), Le(1.0)] = 0.9
    """SGD momentum (paper: 0.9)"""
    weight_decay: Annotated[float, Ge(0.0)] = 3.0e-4
    """sgd: L2 penalty; adamw: decoupled (paper: 3e-4)"""
    decay: Literal["all", "weights"] = "all"
    """What weight_decay is for. all: every parameter, as in DARTS; weights: not biases and norms (one axis)"""
    grad_clip: Annotated[float, Ge(0.0)] = 5.0
    """Largest norm of the gradient of all weights; 0 does not clip (DARTS: 5)"""
    merge: Literal["mean", "sequential"] = "mean"
    """mean: an epoch's architectures start from the same weights, elements that several trained are averaged;
    sequential: the paper's literal order, each inherits from the one before (backend local only)"""
    bn_images: Annotated[int, Ge(0)] = 512
    """Training images, of all classes in proportion, on which BatchNorm statistics are recomputed before a score; 0
    scores with the running ones"""
    threads: Annotated[int, Ge(1), Le(1024)] = 1
    """CPU threads of one worker; another number changes the order of sums, hence the last bits"""
    precision: Literal["fp32", "bf16"] = "fp32"
    """bf16: forward passes under autocast"""
    channels_last: bool = True
    """Memory format of images: NHWC, faster for depthwise convolutions on CPU and with bf16 on GPU"""
