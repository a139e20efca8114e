"""Images a second with and without ``data.cache``, and what it takes to fill it.

Makes a folder of JPEG files of ImageNet's size from CamVid's scenes (``DDPNAS_TEST_DATA``: crops of 60 to 100 % of a
side, 500 pixels wide, or high for every fourth), and measures on it:

- start: opening the data set, with every image read for its checksum; filling the cache, by threads and by Ray tasks;
  opening it again
- epoch: batches of an epoch, gathered (``gather``) and prepared for training (``training_batch``), in turn decoded at
  every access and from the cache; ``cold``: after the system has dropped the files from its memory
- call: unpickling the images with 1,281,167 paths, ImageNet's number, as a list, packed, and in the cache; and a call
  of a Ray actor with a reference to them, as an architecture is sent to a worker

    python benchmarks/image_cache.py --json FILE          20,000 files: about 2 GB and a cache of 3 GB in --folder
"""

from __future__ import annotations

import os

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")
os.environ.setdefault("RAY_AUTH_MODE", "disabled")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import argparse
import gc
import io
import json
import pickle
import resource
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from common import ROOT, facts, say
from PIL import Image

from ddpnas_ray.data.batches import epoch_draws, epoch_order, training_batch
from ddpnas_ray.data.cache import Entry
from ddpnas_ray.data.cached import OPENED, CachedImages, Origin
from ddpnas_ray.data.config import DataConfig
from ddpnas_ray.data.images import EncodedImages, ImageData, load_data
from ddpnas_ray.data.paths import Paths
from ddpnas_ray.data.pixels import Picked, in_chunks, thread_count
from ddpnas_ray.data.scan import Shape

IMAGENET = 1_281_167
CLASSES = 100


@dataclass(frozen=True)
class Measured:
    """Seconds on the clock and of the CPUs, of this process."""

    wall_s: float
    cpu_s: float

    def row(self, what: str, images: int) -> str:
        """Format a row of a table."""
        share, cpu_ms = self.cpu_s / self.wall_s / (os.cpu_count() or 1), self.cpu_s / images * 1e3
        return f"| {what} | {images:,} | {self.wall_s:.2f} | {images / self.wall_s:,.0f} | {cpu_ms:.2f} | {share:.0%} |"


def measured(work: Callable[[], object]) -> Measured:
    """Run it."""
    before, start = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    work()
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF)
    return Measured(wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


def make_photos(folder: Path, count: int) -> int:
    """Write the files; returns their bytes."""
    data = Path(os.environ.get("DDPNAS_TEST_DATA", ROOT.parent / "shared" / "data"))
    table = pq.ParquetFile(data / "camvid" / "train.parquet").read(columns=["image"], use_threads=False)
    stored = [row["image"] for row in table.to_pylist()]
    scenes = [Image.open(io.BytesIO(one["bytes"] if isinstance(one, dict) else one)).convert("RGB") for one in stored]
    for number in range(CLASSES):
        (folder / f"n{number:08}").mkdir(parents=True)

    def write(start: int, stop: int) -> int:
        size = 0
        for i in range(start, stop):
            rng = np.random.default_rng(i)
            scene = scenes[int(rng.integers(len(scenes)))]
            width, height = (int(side * rng.uniform(0.6, 1.0)) for side in scene.size)
            left, top = int(rng.integers(scene.width - width + 1)), int(rng.integers(scene.height - height + 1))
            long, short = 500, int(rng.integers(333, 420))
            shape = (short, long) if i % 4 == 3 else (long, short)
            picture = scene.resize(shape, Image.Resampling.BICUBIC, box=(left, top, left + width, top + height))
            path = folder / f"n{i % CLASSES:08}" / f"n{i % CLASSES:08}_{i}.JPEG"
            picture.save(path, quality=97)
            size += path.stat().st_size
        return size

    return sum(in_chunks(write, count, chunk=100))


@contextmanager
def on_ray() -> Iterator[Any]:
    """Start a cluster of this machine's CPUs for the block."""
    import ray

    ray.init(address="local", num_cpus=os.cpu_count(), include_dashboard=False, log_to_driver=False)
    try:
        yield ray
    finally:
        ray.shutdown()


def forget(folder: Path) -> None:
    """Let the system drop the files below a folder from its memory."""
    os.sync()
    for path in folder.rglob("*"):
        if path.is_file():
            descriptor = os.open(path, os.O_RDONLY)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)


def epoch(data: ImageData, images: int, epoch_number: int, *, prepare: bool) -> None:
    """Read the first batches of an epoch."""
    n, size = len(data.train), 64
    draws = epoch_draws(n, data.augment, data.image_size, 0, epoch_number)
    for rows in epoch_order(n, size, 0, epoch_number)[: images // size]:
        if prepare:
            training_batch(data.train.images, rows, draws, data.augment, mean=data.mean, std=data.std)
        else:
            data.train.images.gather(rows)


def start_rows(config: DataConfig, count: int, work: Path) -> tuple[list[str], ImageData, bytes, dict[str, float]]:
    """Measure the start; returns rows of the table, the data decoded on access and, pickled, cached, and seconds."""
    rows, opened = [], {}

    def load(name: str, keys: DataConfig) -> None:
        opened[name] = load_data(keys, seed=0, decoded_limit_bytes=0)

    plain, seconds = replace(config, cache=None), {}
    for what, keys in {
        "opened, decoded at every access": plain,
        "cache filled by threads": config,
        "opened, cache full": config,
    }.items():
        say(what)
        taken = measured(partial(load, what, keys))
        seconds[what] = taken.wall_s
        rows.append(taken.row(what, count))
    with on_ray():
        say("cache filled by Ray tasks")
        start = time.perf_counter()
        load("ray", replace(config, cache=str(work / "other")))
        seconds["cache filled by Ray tasks"] = wall = time.perf_counter() - start
        rows.append(f"| cache filled by Ray tasks | {count:,} | {wall:.2f} | {count / wall:,.0f} | | |")
    shutil.rmtree(work / "other")
    access, cached = opened["opened, decoded at every access"], opened["opened, cache full"]
    assert access.digest == cached.digest == opened["ray"].digest
    chosen = np.random.default_rng(0).integers(len(access.train), size=500)
    assert np.array_equal(access.train.images.gather(chosen), cached.train.images.gather(chosen))
    return rows, access, pickle.dumps(cached), seconds


def epoch_rows(access: ImageData, cached: bytes, images: int, rounds: int, work: Path) -> dict[str, list[Measured]]:
    """Measure reading, the contenders in turn; ``cached`` is pickled."""
    found: dict[str, list[Measured]] = {}
    few = images // 10
    for turn in range(rounds):
        contenders = {"decoded at every access": (access, few), "cache": (pickle.loads(cached), images)}
        for what, prepare in (("gathered", False), ("prepared", True)):
            for name, (data, count) in contenders.items():
                taken = measured(partial(epoch, data, count, turn, prepare=prepare))
                found.setdefault(f"{what}, {name}", []).append(taken)
        contenders.clear()
        OPENED.clear()  # the system keeps files that are open
        contenders |= {"decoded at every access": (access, few), "cache": (pickle.loads(cached), images)}
        for name, (data, count) in contenders.items():
            forget(work)
            taken = measured(partial(epoch, data, count, turn, prepare=False))
            found.setdefault(f"gathered, {name}, cold", []).append(taken)
        say(f"round {turn + 1} of {rounds}")
    return found


def call_rows(work: Path, repeats: int) -> dict[str, tuple[int, float, float]]:
    """Measure unpickling and calls: pickled bytes without arrays, seconds of each."""
    paths = [f"/data/imagenet/train/n{i // 1281:08}/n{i // 1281:08}_{i}.JPEG" for i in range(IMAGENET)]
    rows_M, config = np.arange(IMAGENET), DataConfig(name="folder", path="/data/imagenet/train", image_size=224)
    shape = Shape(channels=3, image_size=224, convert_channels=True, resize=True)
    entry = Entry(folder=str(work), images=IMAGENET, channels=3, image_size=224)
    contenders = {
        "paths as a list": EncodedImages(Picked(paths, rows_M), 3, 224),
        "paths packed": EncodedImages(Picked(Paths.of(paths), rows_M), 3, 224),
        "in the cache": CachedImages(entry, rows_M, "", Origin(config=config, split="train", shape=shape)),
    }
    found = {}
    with on_ray() as ray:

        class Worker:
            def call(self, images: Any) -> int:
                return len(images)

        worker = ray.remote(Worker).options(num_cpus=1).remote()
        for name, images in contenders.items():
            buffers: list[pickle.PickleBuffer] = []
            data = pickle.dumps(images, protocol=5, buffer_callback=buffers.append)
            reference = ray.put(images)
            loads, calls = [], []
            for _ in range(repeats):
                gc.collect()
                start = time.perf_counter()
                back = pickle.loads(data, buffers=buffers)
                loads.append(time.perf_counter() - start)
                del back
                start = time.perf_counter()
                assert ray.get(worker.call.remote(reference)) == IMAGENET
                calls.append(time.perf_counter() - start)
            found[name] = len(data), statistics.median(loads), statistics.median(calls)
            say(f"{name}: {found[name]}")
            del reference
    return found


def main() -> None:
    """Run the benchmark; see the module docstring."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--images", type=int, default=20_000, help="files (default: %(default)s)")
    p.add_argument("--image-size", type=int, default=224)
    p.add_argument("--epoch-images", type=int, default=6_400, help="read from the cache at a time; a tenth is decoded")
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--folder", type=Path, help="where the temporary folder is made (default: the system's)")
    p.add_argument("--json", type=Path, help="write the figures here")
    args = p.parse_args()
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        work = Path(folder)
        say(f"writing {args.images:,} files")
        size = make_photos(work / "train", args.images)
        config = DataConfig(
            name="folder", path=str(work / "train"), image_size=args.image_size, channels=3, val_fraction=0.1,
            cache=str(work / "cache"),
        )  # fmt: skip
        starts, access, cached, seconds = start_rows(config, args.images, work)
        epochs = epoch_rows(access, cached, args.epoch_images, args.rounds, work)
        disk = sum(path.stat().st_blocks * 512 for path in (work / "cache").rglob("*"))
        calls = call_rows(work, repeats=11)
    table = ["| | images | seconds | images/s | CPU ms an image | CPU share |", "| --- | --- | --- | --- | --- | --- |"]
    counts = {what: args.epoch_images // (10 if "access" in what else 1) // 64 * 64 for what in epochs}
    middle = {what: sorted(taken, key=lambda one: one.wall_s)[len(taken) // 2] for what, taken in epochs.items()}
    about = f"{args.images:,} JPEG files of {size / args.images / 1e3:.0f} kB on average, to {args.image_size} px"
    print(facts(about, f"{thread_count()} decoding threads; cache {disk / 1e9:.2f} GB; median of {args.rounds} rounds"))
    print("\n" + "\n".join([*table, *starts, *(one.row(what, counts[what]) for what, one in middle.items())]))
    for what in ("gathered", "prepared"):
        ratios = [
            (b.wall_s / counts[f"{what}, decoded at every access"]) / (c.wall_s / counts[f"{what}, cache"])
            for b, c in zip(epochs[f"{what}, decoded at every access"], epochs[f"{what}, cache"], strict=True)
        ]
        low, middle_ratio, high = min(ratios), statistics.median(ratios), max(ratios)
        print(f"\n{what}: the cache is {middle_ratio:.1f} times as fast ({low:.1f} to {high:.1f})")
    print(f"\n| {IMAGENET:,} images | pickled, without arrays | unpickled, ms | call of an actor, ms |")
    print("| --- | --- | --- | --- |")
    for name, (length, load_s, call_s) in calls.items():
        print(f"| {name} | {length:,} bytes | {load_s * 1e3:.2f} | {call_s * 1e3:.1f} |")
    if args.json:
        rates = {what: [counts[what] / one.wall_s for one in taken] for what, taken in epochs.items()}
        figures = {"facts": facts(about).splitlines(), "start_s": seconds, "images_per_s": rates, "calls": calls}
        args.json.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
