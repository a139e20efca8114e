"""Sections ``retraining`` and ``finals`` of a configuration: how networks found by a search are trained.

They live with the tasks, which read augmentation and label smoothing. Imports neither torch nor ray.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le, Lt

Probability = Annotated[float, Ge(0.0), Lt(1.0)]


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrainingConfig:
    """How a found network is trained. ``workers`` changes BatchNorm's statistics, which are each worker's own, unless
    ``sync_batch_norm`` is on."""

    budgets: tuple[str, ...] = ()
    """Budgets of the networks to retrain, as for `generate --budget`; empty: the search's own result"""
    train_on: Literal["train", "all"] = "all"
    """train: the search's training images, with a validation score each epoch; all: its validation images too"""
    init: Literal["scratch", "inherited", "pretrained"] = "scratch"
    """scratch: new weights; inherited: those of the supernet that fit; pretrained: those that the search began with
    (docs/retraining.md)"""
    epochs: Annotated[int, Ge(1)] = 100
    """Epochs of training (paper: 600 on CIFAR-10, 250 and 120 on ImageNet)"""
    batch_size: Annotated[int, Ge(2)] = 96
    """Examples per step over all workers (paper: 96 on CIFAR-10)"""
    accumulate: Annotated[int, Ge(1)] = 1
    """Parts of a batch whose gradients are added up, to save memory; BatchNorm sees each part alone"""
    optimizer: Literal["sgd", "adamw"] = "sgd"
    """sgd: with momentum; adamw: betas 0.9 and 0.999"""
    lr: Annotated[float, Gt(0.0)] = 0.025
    """Learning rate after the warm-up"""
    schedule: Literal["cosine", "linear", "poly", "step"] = "cosine"
    """cosine, linear: to zero at the end; poly: so too, by the power lr_power of what is left; step: times lr_factor
    every lr_epochs"""
    lr_power: Annotated[float, Gt(0.0)] = 0.9
    """Power of schedule poly (DeepLab: 0.9, with lr_per: step)"""
    lr_factor: Annotated[float, Gt(0.0), Le(1.0)] = 0.97
    """Factor of schedule step"""
    lr_epochs: Annotated[int, Ge(1)] = 1
    """Epochs between two steps of schedule step"""
    lr_per: Literal["epoch", "step"] = "epoch"
    """Whether the rate changes with every epoch, as in DARTS, or with every step"""
    warmup_epochs: Annotated[float, Ge(0.0)] = 0.0
    """Epochs of linear warm-up, step by step; less than one too, such as 0.3 of 3 (BERT: a tenth)"""
    momentum: Annotated[float, Ge(0.0), Lt(1.0)] = 0.9
    """SGD momentum"""
    nesterov: bool = False
    """SGD with Nesterov momentum"""
    weight_decay: Annotated[float, Ge(0.0)] = 3.0e-4
    """sgd: L2 penalty; adamw: decoupled"""
    decay: Literal["all", "weights"] = "all"
    """Parameters that weight_decay applies to. all: every one; weights: not biases and norms (one axis)"""
    grad_clip: Annotated[float, Ge(0.0)] = 5.0
    """Maximum global gradient norm; 0: no clipping"""
    label_smoothing: Probability = 0.0
    """Share of the target spread over all classes"""
    drop_path: Probability = 0.0
    """Probability of dropping a path in the last epoch; grows linearly from 0 (DARTS: 0.2)"""
    auxiliary: Annotated[float, Ge(0.0)] = 0.0
    """Weight of the loss of an auxiliary head; 0: no head (DARTS: 0.4)"""
    ema: Probability = 0.0
    """Decay of an exponential moving average of weights and BatchNorm statistics, which is then the result; 0: none"""
    cutout: Annotated[int, Ge(0)] | None = None
    """Side in pixels of the erased square; null: data.cutout"""
    randaugment: Annotated[int, Ge(0), Le(30)] = 0
    """Magnitude of RandAugment, two operations per image; 0: none"""
    resized_crop: Annotated[float, Gt(0.0), Le(1.0)] | None = None
    """Least share of the area of a random crop, resized to the whole; replaces the shift of data.crop; null: none"""
    color_jitter: Annotated[float, Ge(0.0), Le(1.0)] = 0.0
    """Strength of random brightness, contrast and saturation; 0: none"""
    mixup: Annotated[float, Ge(0.0)] = 0.0
    """Alpha of MixUp; 0: none. With cutmix too, each batch takes one of them"""
    cutmix: Annotated[float, Ge(0.0)] = 0.0
    """Alpha of CutMix; 0: none"""
    teacher: str | None = None
    """Distil from this network: label of a retrained network of the run, largest, or your module:function"""
    teacher_weight: Annotated[float, Ge(0.0), Le(1.0)] = 0.5
    """Share of the teacher's loss"""
    teacher_hidden: Annotated[float, Ge(0.0)] = 0.0
    """Weight of the squared error to the teacher's hidden states, of the layers that both have (bert); 0: none"""
    teacher_temperature: Annotated[float, Gt(0.0)] = 1.0
    """Temperature of both distributions in the teacher's loss"""
    precision: Literal["fp32", "tf32", "bf16"] = "fp32"
    """As training.precision"""
    kernels: Literal["reference", "fast"] = "fast"
    """As training.kernels; compiled networks have PyTorch's own modules"""
    channels_last: bool = True
    """As training.channels_last"""
    compile: bool = False
    """Compile the network with torch.compile; needs a C++ compiler"""
    seeds: Annotated[int, Ge(1)] = 1
    """Trainings with seeds seed, seed + 1, ...; reports give mean and standard deviation"""
    workers: Annotated[int, Ge(1)] | None = None
    """Ray Train workers, with a share of each batch; null: one per GPU, or one if there are no GPUs. In a cluster with
    GPUs no more than there are, unless execution.gpus_per_worker is given"""
    sync_batch_norm: bool = False
    """Compute BatchNorm's statistics over the shares of all workers, not over each worker's own"""
    min_workers: Annotated[int, Ge(1)] | None = None
    """Go on with as few as this when nodes leave (elastic; not bit-equal); null: wait for all workers"""
    threads: Annotated[int, Ge(1), Le(1024)] = 1
    """CPU threads per worker; another number changes the last bits"""
    max_failures: Annotated[int, Ge(0)] = 3
    """Lost workers or nodes after which the training ends; every finished epoch is saved"""


@dataclass(frozen=True, slots=True, kw_only=True)
class FinalsConfig:
    """Section ``finals``: the candidates of a search are trained for real, by successive halving."""

    networks: Annotated[int, Ge(2)] = 8
    """Networks of the first rung: the most probable ones, or the best scored ones of a strategy without theta"""
    distance: Annotated[int, Ge(1)] = 1
    """Least number of edges in which any two of them differ"""
    epochs: Annotated[int, Ge(1)] = 12
    """Epochs of the last rung, over which the recipe of section retraining is annealed"""
    first_epochs: Annotated[int, Ge(1)] = 3
    """Epochs of the first rung"""
    eta: Annotated[int, Ge(2)] = 2
    """Each rung trains to eta times the epochs of the one before, and keeps one of eta networks, at least two"""
