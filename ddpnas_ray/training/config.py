"""Section ``training`` of a configuration; separate from ``trainer.py``, so reading it does not import torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingConfig:
    """How an architecture is trained for one epoch and scored. Every key can change the result."""

    batch_size: Annotated[int, Ge(2)] = 512
    """Examples per step (paper: 512)"""
    shards: Literal[1, 2, 4, 8, 16, 32, 64] = 1
    """Equal parts of every batch, each with its own BatchNorm statistics, as on so many GPUs. Up to so many processes
    can train an architecture together (execution.group); their number does not change the result"""
    optimizer: Literal["sgd", "adamw"] = "sgd"
    """sgd: with momentum, as in the paper; adamw: betas 0.9 and 0.999. Both start fresh each architecture-epoch"""
    lr: Annotated[float, Gt(0.0)] = 0.025
    """Initial learning rate, cosine-annealed to zero over the search (paper: 0.025)"""
    momentum: Annotated[float, Ge(0.0), Le(1.0)] = 0.9
    """SGD momentum (paper: 0.9)"""
    weight_decay: Annotated[float, Ge(0.0)] = 3.0e-4
    """sgd: L2 penalty; adamw: decoupled (paper: 3e-4)"""
    decay: Literal["all", "weights"] = "all"
    """Parameters that weight_decay applies to. all: every one, as in DARTS; weights: not biases and norms (one axis)"""
    grad_clip: Annotated[float, Ge(0.0)] = 5.0
    """Maximum global gradient norm; 0: no clipping (DARTS: 5)"""
    merge: Literal["mean", "sequential", "none"] = "mean"
    """mean: an epoch's architectures start from the same weights, and elements trained by several are averaged;
    sequential: the paper's literal order, each inherits from the previous one (backend local only); none: no weights
    are shared, each starts from the initial ones, and lr is constant (docs/which-strategy.md)"""
    bn_images: Annotated[int, Ge(0)] = 512
    """Training images, stratified, on which BatchNorm statistics are recomputed before scoring; 0: score with the
    running ones"""
    threads: Annotated[int, Ge(1), Le(1024)] = 1
    """CPU threads per worker; another number changes the order of sums, hence the last bits"""
    precision: Literal["fp32", "tf32", "bf16"] = "fp32"
    """fp32: float32 throughout; tf32: convolutions and matrix products on GPU in TF32, faster with 10 bits of
    mantissa (on CPU as fp32); bf16: forward passes under autocast"""
    kernels: Literal["reference", "fast"] = "fast"
    """On CPUs. reference: PyTorch's own modules; fast: the same sums in another order (float32 with channels_last)"""
    channels_last: bool = True
    """Memory format of images: NHWC, faster for depthwise convolutions on CPU and with bf16 on GPU"""
    cpu_isa: Literal["sse41", "avx2"] | None = None
    """Instruction set of all CPU libraries, so that CPU models agree (docs/devices.md); null: the CPU's best"""
