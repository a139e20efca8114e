"""Classes of pixels on real CamVid: a found backbone against a random one and torchvision's networks, equally trained.

All start from scratch and have the same images, recipe and seeds; the score is the mean intersection over union (mIoU).
The found backbone is the result of a search on these masks or on any images, a known network, or a genotype:

    python benchmarks/camvid.py FOLDER --run RUN --epochs 30 --heads lraspp
    python benchmarks/camvid.py FOLDER --network mobilenet_v2 --size 120x160 --epochs 20 --only found,random
    python benchmarks/camvid.py FOLDER --genotype FILE --set "space={name: mobile}" --set "target={}"

What is finished is kept in FOLDER, and trainings go on from their last epoch, so a run continues where it was stopped.
``FOLDER/pictures`` shows images, masks and predictions. ``DDPNAS_TEST_DATA`` is the parent of the folder ``camvid``.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import re
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import ROOT, facts, say
from torch import Tensor, nn
from torchvision.models.segmentation import deeplabv3_resnet50, lraspp_mobilenet_v3_large

from ddpnas_ray.core.generation.problem import Problem, random_alphas
from ddpnas_ray.core.state import initial_state
from ddpnas_ray.execution.local import local_device
from ddpnas_ray.retraining.choice import Chosen, choose
from ddpnas_ray.retraining.files import restore_checkpoint, save_checkpoint
from ddpnas_ray.retraining.prepare import Wish, make
from ddpnas_ray.retraining.retraining import Retraining
from ddpnas_ray.storage.folder import Folder
from ddpnas_ray.tasks.base import TASKS, Task, own_data_sets
from ddpnas_ray.testing.counting import count_macs
from ddpnas_ray.training.fit import fit
from ddpnas_ray.training.snapshot import Snapshot

CAMVID = Path(os.environ.get("DDPNAS_TEST_DATA", ROOT.parent / "shared" / "data")) / "camvid"
TASK = next(name for name in TASKS.names() if "camvid" in own_data_sets(name))
DRAWS = 3000  # random architectures, of which the nearest in macs is taken


@dataclass(frozen=True, slots=True)
class Contender:
    """A network to train.

    Args:
        name: Its name in the table, and of its files.
        network: Seed -> the network with its initial weights: images (B, 3, H, W) -> logits (B, C, H, W).
    """

    name: str
    network: Callable[[int], nn.Module]


class Logits(nn.Module):
    """A network of torchvision that returns its logits alone."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, C, H, W)."""
        found: Tensor = self.network(x)["out"]
        return found


def base(args: argparse.Namespace, head: str) -> list[str]:
    """Return the configuration of all trainings, as overrides."""
    height, width = args.size
    limits = f", train_limit: {args.limit}, val_limit: {args.limit}" if args.limit else ""
    return [
        f"data={{name: camvid, path: '{CAMVID}'{limits}}}",
        f"task={{name: {TASK}, size: [{height}, {width}], head: {head}, head_width: {args.head_width}, "
        f"output_stride: {args.output_stride}}}",
        f"retraining={{train_on: train, epochs: {args.epochs}, batch_size: {args.batch}, threads: {args.threads}, "
        f"lr: {args.lr}, schedule: poly, lr_per: step, decay: weights}}",
        *args.set,
    ]


def found(args: argparse.Namespace, head: str) -> Retraining:
    """Make the retraining of the found backbone with a head."""
    return make(Wish(run=args.run, network=args.network, genotype=args.genotype, overrides=base(args, head)))


def random_like(chosen: Chosen) -> Chosen:
    """Return a random architecture with about the macs of another, of the same space, target and head."""
    spec = chosen.spec
    problem = Problem(spec.space, initial_state(spec.space, 0).theta_EK, spec.space.generable_EK)
    macs, wanted = spec.costs["macs"](chosen.target), chosen.costs["macs"]
    own = tuple(spec.space.canonical(spec.encode(dict(chosen.genotype))[None])[0].tolist())
    drawn = [alpha for alpha in random_alphas(problem, DRAWS, np.random.default_rng(0)) if alpha != own]
    nearest = min(drawn, key=lambda alpha: abs(macs(np.array(alpha)) - wanted))
    return choose("random", chosen.space, spec.decode(np.array(nearest)), chosen.target, {})


def contenders(args: argparse.Namespace, job: Retraining) -> Iterator[Contender]:
    """Yield all of them."""
    classes = job.task.inputs.outputs

    def of_torchvision(build: Callable[..., nn.Module]) -> Callable[[int], nn.Module]:
        def network(seed: int) -> nn.Module:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                return Logits(build(weights=None, weights_backbone=None, num_classes=classes))

        return network

    yield Contender("found", job.network)
    yield Contender("random", dataclasses.replace(job, chosen=random_like(job.chosen)).network)
    yield Contender("mobilenet_v3_large, lraspp", of_torchvision(lraspp_mobilenet_v3_large))
    yield Contender("resnet50, deeplabv3", of_torchvision(deeplabv3_resnet50))
    for head in args.heads:
        yield Contender(f"found, {head}", found(args, head).network)


def train(folder: Path, one: Contender, job: Retraining, test: Task, seed: int, device: str) -> dict[str, Any]:
    """Train a contender with a seed, or read its result."""
    label = re.sub(r"\W+", "-", one.name)
    file = folder / "results" / f"{label}-{seed}.json"
    if file.exists():
        return json.loads(file.read_text())  # type: ignore[no-any-return]
    kept, network = Folder.open(str(folder / "trainings" / label)), one.network(seed)
    shape = job.task.inputs.shape
    counts = {
        "params": sum(p.numel() for p in network.parameters()),
        "macs": count_macs(network.eval(), torch.zeros(1, *shape)),
    }

    def restore() -> Snapshot | None:
        saved = restore_checkpoint(kept, seed)
        return None if saved is None else Snapshot(*saved)

    def save(now: Snapshot) -> None:
        save_checkpoint(kept, seed, now.epoch, now.tensors, now.history, now.illustrations)
        row = now.history[-1]
        say(f"{one.name}, seed {seed}, epoch {now.epoch}: loss {row['loss']:.3f}, val mIoU {row['val']:.4f}")

    recipe = job.config.retraining
    options = {"seed": seed, "device": device, "on_test": lambda: test, "illustrate": True}
    end = fit(network, job.task, recipe, 0, 1, restore, save, **options)
    last = end.history[-1]
    if end.illustrations is None:
        say(f"{one.name}, seed {seed}: no pictures, {last.get('illustrations_error')}")
    else:
        _write_pictures(folder / "pictures" / f"{label}-{seed}", end.illustrations.pictures)
    row = {
        "name": one.name,
        "seed": seed,
        **counts,
        "val": last["val"],
        "test": last["test"],
        "test_by_class": last["test_by_task"],
        "seconds": sum(epoch["train_s"] + epoch["score_s"] for epoch in end.history),
        "losses": [epoch["loss"] for epoch in end.history],
        "vals": [epoch["val"] for epoch in end.history],
    }
    _write(file, row)
    (kept / f"seed-{seed}").delete()  # hundreds of megabytes
    return row


def table(rows: Sequence[Mapping[str, Any]], constants: Mapping[str, float], size: Sequence[int]) -> str:
    """Return the Markdown table of the results; mIoU in percent, mean and standard deviation over seeds."""
    height, width = size
    head = ["network", "params", f"macs at {height}x{width}", "val mIoU, %", "test mIoU, %", "seeds", "s per training"]
    lines = [head, ["---"] * len(head)]
    for name in dict.fromkeys(row["name"] for row in rows):
        own = [row for row in rows if row["name"] == name]
        scores = [_spread([100 * row[split] for row in own]) for split in ("val", "test")]
        seconds = f"{statistics.fmean(row['seconds'] for row in own):.0f}"
        lines.append([name, f"{own[0]['params']:,}", f"{own[0]['macs']:,}", *scores, str(len(own)), seconds])
    scores = [f"{100 * constants[split]:.2f}" for split in ("val", "test")]
    lines.append(["one class everywhere (the best)", "-", "-", *scores, "-", "-"])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def by_class(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the Markdown table of the test scores by class, in percent, means over seeds."""
    names = list(dict.fromkeys(row["name"] for row in rows))
    classes = list(dict.fromkeys(label for row in rows for label in row["test_by_class"]))
    lines = [["class", *names], ["---"] * (1 + len(names))]
    for label in classes:
        scores = [[row["test_by_class"].get(label) for row in rows if row["name"] == name] for name in names]
        known = [[score for score in several if score is not None] for several in scores]
        lines.append([label, *(f"{100 * statistics.fmean(several):.1f}" if several else "-" for several in known)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> None:
    """Run the benchmark; see the module docstring."""
    args = _arguments()
    job = found(args, args.head)
    task = job.task
    settings = {"digest": task.digest, "genotype": job.chosen.genotype, "config": base(args, args.head)}
    _refuse_other(args.folder / "settings.json", json.loads(json.dumps(settings)))
    test = task.on_test()
    if args.limit:
        test = test.excerpt(args.limit, 0)
    device = local_device(job.config.execution)
    rows = []
    for one in contenders(args, job):
        if args.only and one.name not in args.only:
            continue
        for seed in range(args.seeds):
            rows.append(train(args.folder, one, job, test, seed, device))
            say(f"{one.name}, seed {seed}: test mIoU {rows[-1]['test']:.4f}")
    constants = {"val": task.chance() or 0.0, "test": test.chance() or 0.0}
    recipe = job.config.retraining
    print(
        facts(
            f"data: CamVid, images for training {task.train_examples}, validation {task.val_examples}, test "
            f"{test.val_examples}; digest {task.digest[:12]}",
            f"recipe: {recipe.epochs} epochs, batches of {recipe.batch_size}, lr {recipe.lr:g}, {recipe.schedule}; "
            f"{recipe.threads} threads, {device}",
            f"found: {job.chosen.label}, {job.chosen.space['name']}, {job.chosen.target}; {task.inputs.head}",
        )
    )
    print(f"\n{table(rows, constants, args.size)}\n\nTest IoU by class, %:\n\n{by_class(rows)}")


def _arguments() -> argparse.Namespace:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("folder", type=Path)
    backbone = p.add_mutually_exclusive_group(required=True)
    backbone.add_argument("--run", help="a finished search")
    backbone.add_argument("--network", help="a known network")
    backbone.add_argument("--genotype", help="a JSON file")
    p.add_argument("--size", type=_size, default=(360, 480), metavar="HxW", help="of all images (360x480)")
    p.add_argument("--epochs", type=int, default=30)
    p.add_argument("--limit", type=int, help="images of each split; all of them if not given")
    p.add_argument("--batch", type=int, default=8)
    p.add_argument("--lr", type=float, default=0.05)
    p.add_argument("--seeds", type=int, default=2)
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--head", default="aspp", help="of the found and the random backbone")
    p.add_argument("--head-width", type=int, default=64)
    p.add_argument("--output-stride", type=int, default=16)
    p.add_argument("--heads", type=_names, default=(), help="more heads of the found backbone: A,B")
    p.add_argument("--only", type=lambda text: text.split(";"), default=(), help="contenders by name: A;B")
    p.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="of the configuration")
    return p.parse_args()


def _names(text: str) -> list[str]:
    return text.split(",")


def _size(text: str) -> tuple[int, int]:
    height, width = map(int, text.split("x"))
    return height, width


def _spread(values: Sequence[float]) -> str:
    spread = f" +- {statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.2f}{spread}"


def _refuse_other(file: Path, settings: Mapping[str, Any]) -> None:
    """Refuse a folder with results of other settings."""
    if not file.exists():
        _write(file, settings)
    elif json.loads(file.read_text()) != settings:
        raise SystemExit(f"{file}: its results are of other settings; give another FOLDER")


def _write(file: Path, content: Mapping[str, Any]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Folder.open(str(file.parent)).write(file.name, json.dumps(content, indent=1).encode())


def _write_pictures(folder: Path, pictures: Mapping[str, bytes]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number, data in enumerate(pictures.values(), start=1):
        (folder / f"{number}.png").write_bytes(data)
    (folder / "captions.txt").write_text("".join(f"{n}.png {text}\n" for n, text in enumerate(pictures, start=1)))


if __name__ == "__main__":
    main()
