"""The GPU path in eight blocks, ten minutes in all; JSON after each block, and the constants of ``check --constants``.

    python benchmarks/gpu.py --json gpu.json                  on a GPU
    python benchmarks/gpu.py --device cpu --tiny              every line on a CPU, in seconds: a test, no measurement

1 device: name, memory bandwidth, matrix products       5 epoch: an architecture-epoch of configs/cifar10_cell.yaml
2 operations: precisions and memory formats             6 memory: by batch size, plain and recorded
3 step: plain, recorded, bfloat16 with and without      7 sharing: two processes on one GPU
  one copy of the weights                               8 correctness: recorded = plain, gathered = NumPy's, repeated
4 preparation: on the host, on the device

Images are noise, since times do not depend on them. A block that fails or has no time left says so in the JSON.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from common import ROOT, facts, say
from torch import Tensor, nn

from ddpnas_ray.core.requests import EvalRequest
from ddpnas_ray.core.sampling import disjoint_sample, rng_for
from ddpnas_ray.core.scaling import TEN_GBIT_PER_S
from ddpnas_ray.core.state import initial_state
from ddpnas_ray.data.pixels import DecodedImages
from ddpnas_ray.data.values import Augment, ImageData, Split
from ddpnas_ray.experiment.config import load
from ddpnas_ray.nn.ops import FactorizedReduce, build_op
from ddpnas_ray.nn.weights import Layout, Weights, bind, joined, split_shared
from ddpnas_ray.runs import checkpoint
from ddpnas_ray.spaces.cell import space as cell
from ddpnas_ray.storage.folder import Folder
from ddpnas_ray.tasks.base import Batch, find_metric
from ddpnas_ray.tasks.classification.task import ClassificationTask
from ddpnas_ray.training import epoch as epoch_module
from ddpnas_ray.training import trainer as trainer_module
from ddpnas_ray.training.accelerator import EAGER_CALLS, Accelerator, CpuAccelerator, CudaAccelerator
from ddpnas_ray.training.batches import Streamed
from ddpnas_ray.training.config import TrainingConfig
from ddpnas_ray.training.device import find_device, set_precision, try_device
from ddpnas_ray.training.epoch import Step, outputs, train_epoch
from ddpnas_ray.training.trainer import Trainer

ARCHITECTURE_EPOCHS = 99
SECONDS = {
    "device": 30,
    "operations": 120,
    "step": 120,
    "preparation": 30,
    "epoch": 120,
    "memory": 60,
    "sharing": 60,
    "correctness": 60,
}
MEASURED = ("train_step_s", "validation_batch_s", "host_step_s", "merge_s", "checkpoint_s", "start_s")
ASSUMED = {  # one GPU cannot tell; see ``Constants``
    "train_step_fixed_s": 0.0,
    "validation_batch_fixed_s": 0.0,
    "architecture_s": 0.0,
    "allreduce_bytes_per_s": TEN_GBIT_PER_S,
    "allreduce_latency_s": 0.0,
    "transfer_bytes_per_s": TEN_GBIT_PER_S,
}
FORMATS = {"NHWC": True, "NCHW": False}


@dataclass
class Bench:
    """Device, sizes and clock of a run."""

    device: str
    tiny: bool
    seconds: float
    trainer: Trainer
    alphas: list[Any]
    result: dict[str, Any]
    until: float = field(default=0.0)

    @property
    def cuda(self) -> bool:
        """Whether it is a GPU."""
        return self.device.startswith("cuda")

    def sync(self) -> None:
        """Wait for the device."""
        if self.cuda:
            torch.cuda.synchronize()

    def left(self) -> bool:
        """Return whether the block has time left."""
        return time.perf_counter() < self.until

    def accelerator(self, *, records: bool = True, kept_bytes: int = 2**31) -> Accelerator:
        """Make the accelerator, or its twin."""
        if self.cuda:
            return CudaAccelerator(self.device, records=records, kept_bytes=kept_bytes)
        return CpuAccelerator(records=records, kept_bytes=kept_bytes)

    def median_s(self, function: Callable[[], object], *, calls: int = 10, repeats: int = 3) -> float:
        """Time a call: the median over repeats of many calls at a time."""
        calls, repeats = (1, 1) if self.tiny else (calls, repeats)
        function()
        found = []
        for _ in range(repeats):
            self.sync()
            start = time.perf_counter()
            for _ in range(calls):
                function()
            self.sync()
            found.append((time.perf_counter() - start) / calls)
        return statistics.median(found)


# --- 1 ---


def device(b: Bench) -> dict[str, Any]:
    """Name the device, and measure what it can do at best."""
    try_device(b.device)
    here = find_device(b.device)
    found: dict[str, Any] = {"kind": here.kind, "details": dict(here.details)}
    if b.cuda:
        found["memory_bytes"] = torch.cuda.get_device_properties(b.device).total_memory
    source = torch.zeros(2**18 if b.tiny else 2**28, device=b.device)
    target = torch.empty_like(source)
    found["bandwidth_bytes_per_s"] = 2 * source.nbytes / b.median_s(lambda: target.copy_(source))
    n = 128 if b.tiny else 8192
    for precision in ("fp32", "tf32", "bf16"):
        set_precision(precision, b.device)
        x = torch.ones(n, n, device=b.device, dtype=torch.bfloat16 if precision == "bf16" else torch.float32)
        found[f"matmul_{precision}_flop_per_s"] = 2 * n**3 / b.median_s(lambda x=x: x @ x)  # type: ignore[misc]
    small = torch.zeros(16, device=b.device)
    found["launch_s"] = b.median_s(lambda: small.add_(1.0), calls=1000)
    return found


# --- 2 ---


def operations(b: Bench) -> dict[str, Any]:
    """Time every operation of a path, forward and backward, by precision and memory format."""
    batch, rows = (4, []) if b.tiny else (512, [])
    for channels, size in ((4, 8),) if b.tiny else ((16, 32), (64, 8)):
        depthwise = {f"{kind}_{k}x{k}": (k, d) for kind, d in (("depthwise", 1), ("dilated", 2)) for k in (3, 5)}
        made: dict[str, nn.Module] = {
            name: nn.Conv2d(channels, channels, k, padding=d * (k // 2), dilation=d, groups=channels, bias=False)
            for name, (k, d) in depthwise.items()
        }
        made |= {
            "pointwise": nn.Conv2d(channels, channels, 1, bias=False),
            "batch_norm": nn.BatchNorm2d(channels, affine=False, track_running_stats=False),
            "relu": nn.ReLU(),
            "max_pool": nn.MaxPool2d(3, 1, padding=1),
            "avg_pool": nn.AvgPool2d(3, 1, padding=1, count_include_pad=False),
            "reduce": FactorizedReduce(channels, channels, affine=False),
            "sep_conv_3x3": build_op("sep_conv_3x3", channels, 1, affine=False),
        }
        for name, module in made.items():
            module.to(b.device)
            for precision in ("fp32", "tf32", "bf16"):
                set_precision(precision, b.device)
                for layout, channels_last in FORMATS.items():
                    if not b.left():
                        return {"rows": rows, "cut": f"no time for {name} and later ones"}
                    rows.append(
                        {"operation": name, "channels": channels, "pixels": size, "precision": precision}
                        | {"format": layout}
                        | _operation(b, module, (batch, channels, size, size), precision, channels_last)
                    )
    return {"rows": rows}


def _operation(
    b: Bench, module: nn.Module, shape: tuple[int, ...], precision: str, channels_last: bool
) -> dict[str, float]:
    memory = torch.channels_last if channels_last else torch.contiguous_format
    kind = torch.bfloat16 if precision == "bf16" else torch.float32
    x = torch.ones(shape, device=b.device, dtype=kind).to(memory_format=memory).requires_grad_()
    inputs = [x, *module.parameters()]
    with epoch_module.autocast(torch.device(b.device), precision):
        out = module(x)
        grad = torch.ones_like(out)
        forward_s = b.median_s(lambda: module(x))
    # a retained graph, so that the backward pass is timed alone
    backward_s = b.median_s(lambda: torch.autograd.grad(out, inputs, grad, retain_graph=True))
    least = 2 * x.nbytes + 2 * out.nbytes  # input read, output written; and their gradients
    return {"forward_s": forward_s, "backward_s": backward_s, "least_bytes_per_s": least / (forward_s + backward_s)}


# --- 3 ---


class NoShadow:
    """Stand-in for ``nn.weights.Shadow``: weights are cast one by one, by autocast."""

    def __init__(self, *arguments: object) -> None:
        pass

    def cast(self) -> None:
        """Do nothing."""

    def collect(self) -> None:
        """Do nothing."""


def step(b: Bench) -> dict[str, Any]:
    """Time a training step and a validation batch: plain, recorded, and with one bfloat16 copy of the weights."""
    rows: list[dict[str, Any]] = []
    count = EAGER_CALLS + (3 if b.tiny else 25)
    for precision in ("fp32", "tf32", "bf16"):
        for layout, channels_last in FORMATS.items():
            for records, shadow in ((True, True), (False, True), (False, False)):
                if not shadow and precision != "bf16":
                    continue
                for number, alpha_E in enumerate(b.alphas[:2]):
                    if not b.left():
                        return {"rows": rows, "cut": f"no time for {precision}, {layout} and later ones"}
                    config = replace(b.trainer.config, precision=precision, channels_last=channels_last)
                    with changed(epoch_module, "Shadow", epoch_module.Shadow if shadow else NoShadow):
                        found = _steps(b, config, alpha_E, records, count)
                    rows.append(
                        {"precision": precision, "format": layout, "recorded": records, "shadow": shadow}
                        | {"architecture": number}
                        | found
                    )
    usual = [r for r in rows if r["precision"] == "fp32" and r["format"] == "NHWC" and r["recorded"]]
    for name in ("train_step_s", "validation_batch_s", "host_step_s"):
        b.result["constants"][name] = statistics.fmean(r[name] for r in usual)
    return {"rows": rows}


def _steps(b: Bench, config: TrainingConfig, alpha_E: Any, records: bool, count: int) -> dict[str, Any]:
    set_precision(config.precision, b.device)
    accelerator = b.accelerator(records=records)
    with accelerator.running():
        network, whole, layout = bound(b, alpha_E)
        task = Streamed(b.trainer.task, b.device, channels_last=config.channels_last)
        batch = next(iter(task.training_batches(0, 0, config.batch_size)))
        training, scoring = Timed(b, accelerator.recorded), Timed(b, accelerator.recorded)
        train_epoch(network, whole, layout, [batch] * count, cross_entropy, config, 0.01, training)
        training.stop()
        for _ in outputs(network, [batch] * count, config.precision, torch.device(b.device), scoring):
            pass
        scoring.stop()
    return {
        "train_step_s": training.seconds,
        "host_step_s": training.host_s,
        "recording_s": training.first_s if records else None,
        "validation_batch_s": scoring.seconds,
    }


class Timed:
    """Times the calls of a step that follow its recording."""

    def __init__(self, b: Bench, recorded: Callable[[Step], Step]) -> None:
        self._b, self._recorded, self._calls, self._host = b, recorded, 0, 0.0
        self.first_s = 0.0

    def __call__(self, function: Step) -> Step:
        """See ``Accelerator.recorded``."""
        run = self._recorded(function)

        def timed(batch: Batch) -> Any:
            at_recording = self._calls == EAGER_CALLS
            if at_recording:
                self._b.sync()
            start = time.perf_counter()
            found = run(batch)
            if at_recording:
                self._b.sync()
                self.first_s, self._start = time.perf_counter() - start, time.perf_counter()
            elif self._calls > EAGER_CALLS:
                self._host += time.perf_counter() - start
            self._calls += 1
            return found

        return timed

    def stop(self) -> None:
        """Set ``seconds`` and ``host_s`` of a call; the latter is the host's part, while the device may lag behind."""
        self._b.sync()
        calls = self._calls - EAGER_CALLS - 1
        self.seconds, self.host_s = (time.perf_counter() - self._start) / calls, self._host / calls


# --- 4 ---


def preparation(b: Bench) -> dict[str, Any]:
    """Images a second of preparing an epoch's training batches, on the device when done."""
    task, size = b.trainer.task, b.trainer.config.batch_size
    assert isinstance(task, ClassificationTask)
    host = Streamed(task, b.device, channels_last=True)
    images = task.train_examples // size * size
    found: dict[str, Any] = {}
    number = iter(range(1000))

    def all_of(batches: Iterable[Batch]) -> None:
        for _ in batches:
            pass

    seconds = {"host": b.median_s(lambda: all_of(host.training_batches(next(number), 0, size)), calls=1)}
    start = time.perf_counter()
    place = torch.device(b.device)
    pixels = (task.train_examples + task.val_examples) * int(np.prod(task.inputs.shape))
    gathered, kept = (task.on_device(place, limit, True, None) for limit in (pixels, 5 * pixels))
    assert gathered is not None and kept is not None
    b.sync()
    found["upload_s"] = (time.perf_counter() - start) / 2
    seconds["device"] = b.median_s(lambda: all_of(gathered.training_batches(next(number), 0, size)), calls=1)
    seconds["kept"] = b.median_s(lambda: all_of(kept.training_batches(0, 0, size)), calls=1)
    return found | {f"{name}_images_per_s": images / s for name, s in seconds.items()}


# --- 5 ---


def epoch(b: Bench) -> dict[str, Any]:
    """Time architecture-epochs as a search runs them, and what the driver does after each epoch."""
    tensors, supernet = b.trainer.supernet()
    weights = Weights(tensors)
    shared, owns = split_shared([supernet.pieces(alpha_E) for alpha_E in b.alphas])
    layouts = [joined(shared, own) for own in owns]
    learned = [(layout, weights.cut(layout)) for layout in layouts]
    b.result["constants"]["merge_s"] = b.median_s(lambda: weights.merge(learned), calls=1)
    with tempfile.TemporaryDirectory() as folder:
        state = initial_state(b.trainer.spec.space, 0)
        b.result["constants"]["checkpoint_s"] = b.median_s(
            lambda: checkpoint.save(Folder.open(folder), state, weights.tensors), calls=1
        )
    rows = []
    for precision in ("fp32", "tf32", "bf16"):
        set_precision(precision, b.device)
        trainer = replace(b.trainer, config=replace(b.trainer.config, precision=precision))
        accelerator = b.accelerator()
        with changed(trainer_module, "accelerator_for", lambda device, a=accelerator: a):
            for number, (alpha_E, layout) in enumerate(zip(b.alphas, layouts, strict=True)):
                if not b.left():
                    break
                result, _ = trainer.train_and_score(
                    EvalRequest(0, 0, number, alpha_E, 0.01), layout, weights.cut(layout)
                )
                row = {"precision": precision, "architecture": number, "first": number == 0}
                rows.append(row | {k: getattr(result, k) for k in ("seconds", "train_s", "validate_s", "ok")})
    found: dict[str, Any] = {"rows": rows}
    for precision in ("fp32", "tf32", "bf16"):
        later = [row["seconds"] for row in rows if row["precision"] == precision and not row["first"]]
        if later:
            found[f"search_{precision}_s"] = ARCHITECTURE_EPOCHS * statistics.fmean(later)
    return found


# --- 6 ---


def memory(b: Bench) -> dict[str, Any]:
    """Peak memory of training steps by batch size, plain and recorded; null on a CPU."""
    rows: list[dict[str, Any]] = []
    for size in (4, 8) if b.tiny else (128, 256, 512, 1024, 2048):
        for precision in ("fp32", "bf16"):
            for records in (False, True):
                if not b.left():
                    return {"rows": rows, "cut": f"no time for batch {size} and later ones"}
                row: dict[str, Any] = {"batch_size": size, "precision": precision, "recorded": records}
                if b.cuda:
                    torch.cuda.empty_cache()
                    torch.cuda.reset_peak_memory_stats()
                try:
                    config = replace(b.trainer.config, precision=precision, batch_size=size)
                    _steps(b, config, b.alphas[0], records, EAGER_CALLS + 2)
                except torch.OutOfMemoryError:
                    row["out_of_memory"] = True
                row["allocated_bytes"] = torch.cuda.max_memory_allocated() if b.cuda else None
                row["reserved_bytes"] = torch.cuda.max_memory_reserved() if b.cuda else None
                rows.append(row)
    return {"rows": rows}


# --- 7 ---


def sharing(b: Bench) -> dict[str, Any]:
    """Training steps a second of one process, and of two that share the device."""
    seconds = 1.0 if b.tiny else 8.0
    command = [sys.executable, str(Path(__file__).resolve()), "--device", b.device, "--steps-for", str(seconds)]
    command += ["--tiny"] if b.tiny else []
    found: dict[str, Any] = {}
    for processes in (1, 2):
        start = time.time()
        children = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(processes)]
        try:
            printed = [child.communicate(timeout=max(60.0, 10 * seconds))[0] for child in children]
        finally:
            for child in children:
                child.kill()
        if failed := [child.returncode for child in children if child.returncode]:
            raise RuntimeError(f"{len(failed)} of {processes} processes failed; see above")
        reports = [json.loads(text) for text in printed]
        found[f"steps_per_s_{processes}"] = sum(report["steps_per_s"] for report in reports)
        if processes == 1:
            b.result["constants"]["start_s"] = reports[0]["ready"] - start
    return found


def steps_for(b: Bench, seconds: float) -> None:
    """Train for some seconds and print the steps a second, and when the first one was done."""
    accelerator = b.accelerator()
    with accelerator.running():
        network, whole, layout = bound(b, b.alphas[0])
        config = b.trainer.config
        batch = next(
            iter(Streamed(b.trainer.task, b.device, channels_last=True).training_batches(0, 0, config.batch_size))
        )
        ready, done, start = 0.0, 0, 0.0

        def until() -> Iterator[Batch]:
            nonlocal ready, done, start
            for _ in range(EAGER_CALLS + 2):
                yield batch
                b.sync()
                ready = ready or time.time()
            start = time.perf_counter()
            while time.perf_counter() - start < seconds:
                yield batch
                b.sync()
                done += 1

        train_epoch(network, whole, layout, until(), cross_entropy, config, 0.01, accelerator.recorded)
    print(json.dumps({"steps_per_s": done / (time.perf_counter() - start), "ready": ready}))


# --- 8 ---


def correctness(b: Bench) -> dict[str, Any]:
    """Compare bits: replayed and plain, gathered and NumPy's, and the same evaluation again; true is equal."""
    found: dict[str, Any] = {"gathered_is_numpys": _gathered_is_numpys(b)}
    dropping = replace(b.trainer, spec=replace(b.trainer.spec, build=_dropping(b.trainer.spec.build)))
    reading = replace(b.trainer, spec=replace(b.trainer.spec, build=_reading(b.trainer.spec.build)))
    cases = {
        "fp32": b.trainer,
        "bf16": replace(b.trainer, config=replace(b.trainer.config, precision="bf16")),
        "dropout": dropping,
    }
    if (
        b.cuda
    ):  # on a CPU AdamW reads its number of steps, and the twin notices reading in a replay, too late to go back
        cases["adamw"] = replace(b.trainer, config=replace(b.trainer.config, optimizer="adamw"))
        cases["reading"] = reading  # cannot be recorded: a warning, and plain steps
    for name, trainer in cases.items():
        if not b.left():
            found["cut"] = f"no time for {name} and later ones"
            break
        set_precision(trainer.config.precision, b.device)
        plain, again, replayed = (_evaluated(b, trainer, records=records) for records in (False, False, True))
        found[f"{name}_repeated_is_equal"] = plain == again
        found[f"{name}_replayed_is_plain"] = plain == replayed
    return found


def _gathered_is_numpys(b: Bench) -> bool:
    task: Any = b.trainer.task
    task = replace(task, data=replace(task.data, augment=Augment(crop=4, flip=True, cutout=3)))
    ours = task.on_device(torch.device(b.device), 2**31, True, None)
    ways: list[Callable[[Any], Iterable[Batch]]] = [
        lambda t: t.training_batches(1, 2, 8),
        lambda t: t.calibration_batches(16, 2, 8),
        lambda t: t.validation_batches(7),
    ]
    return all(
        torch.equal(one.inputs.cpu().view(torch.int32), other.inputs.view(torch.int32))
        and torch.equal(one.targets.cpu(), other.targets)
        for way in ways
        for one, other, _ in zip(way(ours), way(task), range(50), strict=False)
    )


def _evaluated(b: Bench, trainer: Trainer, *, records: bool) -> tuple[float, float, bytes]:
    trainer = replace(trainer, task=trainer.task.excerpt(10 * trainer.config.batch_size, 0))
    tensors, supernet = trainer.supernet()
    layout = Layout.of(supernet.pieces(b.alphas[0]))
    accelerator = b.accelerator(records=records)
    with changed(trainer_module, "accelerator_for", lambda device: accelerator):
        request = EvalRequest(0, 0, 0, b.alphas[0], 0.01)
        result, learned = trainer.train_and_score(request, layout, Weights(tensors).cut(layout))
    return result.score, result.loss, learned.tobytes()


def _dropping(build: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
    def built(*arguments: Any) -> nn.Module:
        network: Any = build(*arguments)
        network.classifier.register_forward_pre_hook(lambda m, given: (F.dropout(given[0], 0.5, m.training),))
        return network  # type: ignore[no-any-return]

    return built


def _reading(build: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
    def built(*arguments: Any) -> nn.Module:
        network: Any = build(*arguments)
        network.classifier.register_forward_pre_hook(lambda m, given: (given[0] + 0 * float(given[0].sum()),))
        return network  # type: ignore[no-any-return]

    return built


# --- all ---


def bound(b: Bench, alpha_E: Any) -> tuple[nn.Module, nn.Parameter, Layout]:
    """Build a network with its initial weights on the device."""
    tensors, supernet = b.trainer.supernet()
    layout = Layout.of(supernet.pieces(alpha_E))
    network = b.trainer.spec.build(alpha_E, b.trainer.task.inputs)
    whole = bind(network, layout, torch.from_numpy(Weights(tensors).cut(layout)).to(b.device))
    return network.to(b.device), whole, layout


def cross_entropy(logits: Tensor, batch: Batch) -> Tensor:
    """The task's loss."""
    return F.cross_entropy(logits, batch.targets)


@contextmanager
def changed(module: Any, name: str, value: Any) -> Iterator[None]:
    """Give a module's name another value for the block."""
    before = getattr(module, name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, before)


def noise(images: int, size: int) -> ImageData:
    """Make images of the size and number of CIFAR-10's halves."""
    rng = np.random.default_rng(0)
    splits = [
        Split(DecodedImages(rng.integers(256, size=(images, 3, size, size), dtype=np.uint8)), np.arange(images) % 10)
        for _ in range(2)
    ]
    return ImageData(
        name="noise",
        classes=tuple("0123456789"),
        channels=3,
        image_size=size,
        train=splits[0],
        val=splits[1],
        mean=(0.5,) * 3,
        std=(0.5,) * 3,
        augment=Augment(crop=4, flip=True),
        digest="0" * 64,
    )


def bench(device: str, tiny: bool, seconds: float) -> Bench:
    """Make the search of configs/cifar10_cell.yaml, or a tiny one."""
    config = load(str(ROOT / "configs" / "cifar10_cell.yaml"))
    spec = cell.make(cells=3, nodes=2, channels=4) if tiny else cell.make(**config.space.options)
    training = replace(config.training, batch_size=8, bn_images=8) if tiny else config.training
    task = ClassificationTask(noise(60, 16) if tiny else noise(25_000, 32), find_metric("accuracy"))
    trainer = Trainer(spec=spec, task=task, config=training, seed=0, device=device)
    start = initial_state(spec.space, 0)
    alphas = list(disjoint_sample(start.theta_EK, start.live_EK, rng_for(0, 0, 0)))
    result: dict[str, Any] = {"facts": facts().splitlines(), "tiny": tiny, "blocks": {}}
    result["constants"] = dict.fromkeys(MEASURED) | ASSUMED
    return Bench(device, tiny, seconds, trainer, alphas[:2] if tiny else alphas, result)


BLOCKS: dict[str, Callable[[Bench], dict[str, Any]]] = {
    "device": device,
    "operations": operations,
    "step": step,
    "preparation": preparation,
    "epoch": epoch,
    "memory": memory,
    "sharing": sharing,
    "correctness": correctness,
}


def main() -> int:
    """Run the benchmark; see the module docstring. Returns 1 if a block failed."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--device", default="cuda")
    p.add_argument("--tiny", action="store_true", help="small networks and few repeats")
    p.add_argument("--seconds", type=float, default=600.0, help="for all blocks together")
    p.add_argument("--blocks", default=",".join(BLOCKS), help="default: all")
    p.add_argument("--json", type=Path, help="write the figures here, after each block")
    p.add_argument("--steps-for", type=float, help=argparse.SUPPRESS)
    args = p.parse_args()
    torch.set_num_threads(1)
    if args.device.startswith("cuda") and not torch.cuda.is_available():
        p.error("this machine has no usable GPU; --device cpu --tiny runs every line without one")
    if unknown := [name for name in args.blocks.split(",") if name not in BLOCKS]:
        p.error(f"--blocks: there is no block {unknown[0]}; choose from {', '.join(BLOCKS)}")
    b = bench(args.device, args.tiny, args.seconds)
    if args.steps_for is not None:
        steps_for(b, args.steps_for)
        return 0
    end, failed = time.perf_counter() + args.seconds, False
    for name in args.blocks.split(","):
        start = time.perf_counter()
        b.until = min(end, start + SECONDS[name] * args.seconds / sum(SECONDS.values()))
        if start >= end:
            found: dict[str, Any] = {"cut": "no time left"}
        else:
            try:
                found = BLOCKS[name](b)
            except Exception as error:  # whatever a GPU does, the other blocks' figures count
                traceback.print_exc()
                found, failed = {"error": f"{type(error).__name__}: {error}"}, True
        b.result["blocks"][name] = found | {"seconds": time.perf_counter() - start}
        say(f"{name}: {found.get('error') or found.get('cut') or 'done'}")
        if args.json:
            args.json.write_text(json.dumps(b.result, indent=1))
    print(json.dumps(b.result if args.json is None else b.result["constants"], indent=1))
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
