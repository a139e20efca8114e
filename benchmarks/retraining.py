"""Measure retraining on real CIFAR-10: speed against a plain loop, start-up, workers, kills, warm starts, rankings.

    python benchmarks/retraining.py speed        # images/s over a plain PyTorch loop, one process; 2 workers over 1
    python benchmarks/retraining.py speed pinned # ... with each worker, and each plain process, on one core of its own
    python benchmarks/retraining.py step         # one step of 1 and of 2 processes on the same global batch
    python benchmarks/retraining.py kills        # a killed worker, driver and command against an undisturbed training
    python benchmarks/retraining.py elastic      # a node leaves for good, and the training goes on with one worker
    python benchmarks/retraining.py inherited RUN [KEY=VALUE ...]    # from scratch against the supernet's weights
    python benchmarks/retraining.py ranks RUN [N [KEY=VALUE ...]]    # search scores against retrained ones

Quiet machine, two cores at least. Prints Markdown for docs/measurements.md.
"""

from __future__ import annotations

import dataclasses
import json
import multiprocessing as mp
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

os.environ.setdefault("RAY_AUTH_MODE", "disabled")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import numpy as np
import torch
import torch.nn.functional as F
from common import ROOT, facts, say
from scipy.stats import kendalltau
from torch import nn

from ddpnas_ray.core.generation.problem import random_alphas
from ddpnas_ray.distributed.ray_scoring import inherited_scores
from ddpnas_ray.experiment.finished import FinishedRun
from ddpnas_ray.retraining.choice import choose
from ddpnas_ray.retraining.files import checkpoints, first_files, restore_checkpoint
from ddpnas_ray.retraining.prepare import Wish, make
from ddpnas_ray.retraining.progress import RetrainingProgress
from ddpnas_ray.retraining.retraining import Retraining
from ddpnas_ray.retraining.run import retrain_here
from ddpnas_ray.runs.directory import create_run
from ddpnas_ray.runs.sealed import newest_epoch
from ddpnas_ray.storage.folder import Folder
from ddpnas_ray.training.fit import fit

CIFAR10 = str(Path(os.environ.get("DDPNAS_TEST_DATA", ROOT.parent / "shared" / "data")) / "cifar10")
DATA = ["data.name=cifar10", f"data.path={CIFAR10}", "data.val_limit=200"]
NETWORK = ["target.cells=8", "target.channels=16"]
RECIPE = ["retraining.train_on=train", "retraining.batch_size=96", "retraining.threads=1", "retraining.cutout=16"]


def retraining(*keys: str, **wish: Any) -> Retraining:
    """Make a retraining of DARTS_V2, or of what ``wish`` names."""
    return make(Wish(**{"network": "darts_v2", "overrides": [*DATA, *NETWORK, *RECIPE, *keys], **wish}))


def folder_for(job: Retraining, out: str | Path) -> Folder:
    """Create a run directory with the first files of a retraining."""
    return create_run(str(out), first_files(job))


def here(job: Retraining, out: str | Path) -> dict[str, Any]:
    """Train in this process."""
    progress = RetrainingProgress(job.chosen.label, job.seeds, job.config.retraining.epochs)
    return retrain_here(job, folder_for(job, out), progress, "cpu")


@contextmanager
def ray_here(cpus: int = 4) -> Iterator[None]:
    """Context of a Ray cluster on this machine."""
    import ray

    ray.init(
        address="local",
        num_cpus=cpus,
        include_dashboard=False,
        log_to_driver=False,
        namespace="ddpnas",
        logging_level=40,
    )
    try:
        yield
    finally:
        ray.shutdown()


# --- speed ---


def pin(pid: int, core: int) -> None:
    """Bind every thread of a process to one core; threads that they start later inherit it."""
    for thread in Path(f"/proc/{pid}/task").iterdir():
        os.sched_setaffinity(int(thread.name), {core})


def bare(core: int, pinned: bool, batch: int, examples: int, epochs: int, results: Any) -> None:
    """Plain PyTorch: the same network, data, augmentation and optimiser, as one would write it."""
    if pinned:
        pin(os.getpid(), core)
    torch.set_num_threads(1)
    job = retraining(f"data.train_limit={examples}")
    data = job.task.data  # type: ignore[attr-defined]
    images = torch.from_numpy(data.train.images.gather(np.arange(len(data.train))))
    labels = torch.from_numpy(data.train.labels_N)
    network = job.network(0).to(memory_format=torch.channels_last).train()
    sgd = torch.optim.SGD(network.parameters(), 0.025, 0.9, weight_decay=3e-4, fused=True)
    rates = []
    for _ in range(epochs):
        start, seen = time.perf_counter(), 0
        for index in torch.randperm(len(images))[: len(images) // batch * batch].split(batch):
            x = F.pad(images[index], (4,) * 4)
            top, left = torch.randint(9, (2, len(index)))
            x = x.unfold(2, 32, 1).unfold(3, 32, 1)[torch.arange(len(index)), :, top, left]
            x = torch.where((torch.rand(len(index)) < 0.5)[:, None, None, None], x.flip(3), x)
            x = x.to(torch.float32, memory_format=torch.channels_last).div_(127.5).sub_(1.0)
            for i, (row, column) in enumerate(torch.randint(32, (len(index), 2)).tolist()):
                x[i, :, max(0, row - 8) : row + 8, max(0, column - 8) : column + 8] = 0
            sgd.zero_grad()
            F.cross_entropy(network(x), labels[index]).backward()
            nn.utils.clip_grad_norm_(network.parameters(), 5.0, foreach=True)
            sgd.step()
            seen += len(index)
        rates.append(seen / (time.perf_counter() - start))
    results.put(rates)


def bare_rate(processes: int, batch: int, examples: int, epochs: int, *, pinned: bool) -> float:
    """Images/s of plain loops in as many processes at a time, summed over them; median of the epochs but the first."""
    context = mp.get_context("spawn")
    results = context.Queue()
    given = (pinned, batch, examples, epochs, results)
    workers = [context.Process(target=bare, args=(core, *given)) for core in range(processes)]
    for worker in workers:
        worker.start()
    rates = [results.get() for _ in workers]
    for worker in workers:
        worker.join()
    return sum(statistics.median(rate[1:]) for rate in rates)


def ours_rate(
    workers: int, examples: int, epochs: int, *, local: bool = False, pinned: bool = False
) -> tuple[float, float]:
    """Images/s of our training over all workers, and seconds from the call to the first step."""
    keys = [f"data.train_limit={examples}", f"retraining.epochs={epochs}", "data.val_limit=10"]
    with tempfile.TemporaryDirectory() as below:
        start = time.time()
        folder = Path(below) / "x"
        if local:
            code = "import sys; sys.path.insert(0, 'benchmarks'); import retraining as b; b.here("
            code += f"b.retraining(*{keys!r}), {str(folder)!r})"
            if pinned:
                code = f"import os; os.sched_setaffinity(0, {{0}}); {code}"
            subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
        else:
            from ddpnas_ray.distributed import ray_train

            job = retraining(*keys, f"retraining.workers={workers}")
            running = ray_train.start(job, folder_for(job, folder), ray_train.group_size(job))
            found: dict[int, int] = {}
            while pinned and len(found) < workers:
                found = (running.status() or {}).get("worker_pids", {})
            for rank, pid in found.items():
                pin(pid, rank)
            running.outcome()
        events = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
        first = next(event for event in events if event["event"] == "epoch")
        begun = first["time"] - first["train_s"] - first["score_s"] - start
        checkpoint = restore_checkpoint(Folder.open(str(folder)), 0)
        assert checkpoint is not None
        return statistics.median(row["examples_per_s"] for row in checkpoint[2][1:]), begun


def speed(*how: str) -> None:
    """Alternate ours and plain loops, in three rounds."""
    examples, epochs, rounds, pinned = 384, 3, 3, "pinned" in how
    rows: dict[str, list[float]] = {}
    begun: dict[str, list[float]] = {}
    with ray_here():
        ours_rate(1, 192, 2)  # Ray's workers start from a warm disk
        for i in range(rounds):
            for name, rate in (
                ("plain loop, one process", lambda: (bare_rate(1, 96, examples, epochs, pinned=pinned), 0.0)),
                ("ours, --backend local", lambda: ours_rate(1, examples, epochs, local=True, pinned=pinned)),
                ("ours, 1 Ray worker", lambda: ours_rate(1, examples, epochs, pinned=pinned)),
                (
                    "plain loops, two processes, batch 48 each",
                    lambda: (bare_rate(2, 48, examples // 2, epochs, pinned=pinned), 0.0),
                ),
                ("ours, 2 Ray workers", lambda: ours_rate(2, examples, epochs, pinned=pinned)),
            ):
                found, start = rate()
                rows.setdefault(name, []).append(found)
                begun.setdefault(name, []).append(start)
                say(f"round {i + 1}: {name}: {found:.1f} images/s, began after {start:.1f} s")
    medians = {name: statistics.median(values) for name, values in rows.items()}
    print("| | images/s, three rounds | median | seconds before the first step |\n| --- | --- | --- | --- |")
    for name, values in rows.items():
        start = statistics.median(begun[name])
        rates = ", ".join(f"{value:.1f}" for value in values)
        print(f"| {name} | {rates} | {medians[name]:.1f} | {f'{start:.1f}' if start else '-'} |")
    plain1, local, ray1, plain2, ray2 = medians.values()
    print(
        f"\nOver the plain loop, one process: {local / plain1:.3f} (local), {ray1 / plain1:.3f} (Ray). Two workers "
        f"over one {ray2 / ray1:.3f}; two plain processes over one {plain2 / plain1:.3f}; the share "
        f"{ray2 / ray1 / (plain2 / plain1):.3f}."
    )


# --- equal batches, kills ---


def on_ray(job: Retraining, out: Path) -> Any:
    """Start a retraining on Ray and return without waiting for it."""
    from ddpnas_ray.distributed import ray_train

    return ray_train.start(job, folder_for(job, out), ray_train.group_size(job))


def one_step(rank: int, world: int, norm: bool, results: Any) -> None:
    """Take one step as one process of a group; process 0 returns the change of all weights."""
    torch.set_num_threads(1)
    if world > 1:
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29611"}
        torch.distributed.init_process_group("gloo", rank=rank, world_size=world)
    job = retraining("data.train_limit=96", "retraining.epochs=1", "target.channels=8")
    network = job.network(0)
    for module in list(network.modules()):
        for name, child in module.named_children():
            if not norm and isinstance(child, nn.BatchNorm2d):
                setattr(module, name, nn.Identity())
    before = torch.cat([p.detach().flatten().clone() for p in network.parameters()])
    fit(network, job.task, job.config.retraining, rank, world, lambda: None, lambda snapshot: None, seed=0)
    after = torch.cat([p.detach().flatten() for p in network.parameters()])
    if rank == 0:
        results.put((after - before).numpy())


def step() -> None:
    """One step on the same 96 images by one process and by two, with BatchNorm and without."""
    context = mp.get_context("spawn")
    for norm in (True, False):
        moves = []
        for world in (1, 2):
            results = context.Queue()
            group = [context.Process(target=one_step, args=(rank, world, norm, results)) for rank in range(world)]
            for process in group:
                process.start()
            moves.append(results.get())
            for process in group:
                process.join()
        one, two = moves
        apart = one - two
        share = np.linalg.norm(apart) / np.linalg.norm(one)
        print(
            f"- {'with' if norm else 'without'} BatchNorm: a weight moves by at most {np.abs(one).max():.1e}; one and "
            f"two processes differ by at most {np.abs(apart).max():.1e}, {share:.1e} of the step in norm",
            flush=True,
        )


def kills() -> None:
    """Two workers; one training left alone, and one for each kind of kill after the third of six epochs."""
    keys = ["data.train_limit=384", "retraining.epochs=6", "retraining.workers=2", "retraining.drop_path=0.2"]
    keys += ["retraining.ema=0.99", "retraining.auxiliary=0.4", "target.channels=8"]
    rows = []
    with tempfile.TemporaryDirectory() as below:
        with ray_here():
            for who in ("nobody", "worker 0", "worker 1", "driver"):
                job, out = retraining(*keys), Path(below) / who.replace(" ", "-")
                start, running = time.time(), on_ray(job, out)
                while who != "nobody":
                    now = running.status()
                    if now is not None and now["phase"] == "retraining" and now["epochs_done"] >= 3:
                        pid = now["driver_pid"] if who == "driver" else now["worker_pids"][int(who[-1])]
                        os.kill(pid, signal.SIGKILL)
                        break
                    time.sleep(0.05)
                result = running.outcome()
                rows.append((who, result["fingerprint"], time.time() - start))
                say(f"{who}: {result['fingerprint'][:16]}")
        out = Path(below) / "command"
        words = [f"--set={key}" for key in [*DATA, *NETWORK, *RECIPE, *keys]]
        command = [sys.executable, "-m", "ddpnas_ray.retrain", "--network", "darts_v2", "--out", str(out), *words]
        start = time.time()
        process = subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL)
        while newest_epoch(checkpoints(Folder.open(str(out)), 0)) < 3:
            time.sleep(0.1)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        subprocess.run([*command, "--resume"], check=True, stdout=subprocess.DEVNULL)
        result = json.loads((out / "result.json").read_text())
        rows.append(("command", result["fingerprint"], time.time() - start))
    print("| killed | fingerprint of the weights | seconds |\n| --- | --- | --- |")
    for who, fingerprint, seconds in rows:
        print(f"| {who} | `{fingerprint[:16]}` | {seconds:.1f} |")


def elastic() -> None:
    """Two nodes, one worker on each; the second node is removed after three of 40 epochs."""
    import ray
    from ray.cluster_utils import Cluster

    size = {"num_cpus": 1, "object_store_memory": 150 * 2**20}
    cluster = Cluster(initialize_head=True, head_node_args={"include_dashboard": False, **size})
    node = cluster.add_node(**size)
    ray.init(address=cluster.address, log_to_driver=False, namespace="ddpnas", logging_level=40)
    keys = ["data.name=digits", "data.path=null", "data.val_limit=100", "target.cells=3", "target.channels=8"]
    keys += ["retraining.epochs=40", "retraining.workers=2", "retraining.min_workers=1", "retraining.cutout=0"]
    with tempfile.TemporaryDirectory() as below:
        running = on_ray(retraining(*keys), Path(below) / "x")
        while (now := running.status()) is None or now["phase"] != "retraining" or now["epochs_done"] < 3:
            time.sleep(0.2)
        removed = time.time()
        cluster.remove_node(node)
        result = running.outcome()
        events = [json.loads(line) for line in (Path(below) / "x" / "log.jsonl").read_text().splitlines()]
        again = next(event for event in events if event["event"] == "worker" and event["world"] == 1)
        print(
            f"One worker went on {again['time'] - removed:.1f} s after the node had left; workers {result['workers']}, "
            f"test accuracy {result['scores'][-1]['value']:.4f}."
        )
    ray.shutdown()
    cluster.shutdown()


# --- what the search score is worth ---


def inherited(run: str, *more: str) -> None:
    """Test accuracy from scratch and from the supernet's weights, by epochs, three seeds."""
    print("| epochs | from scratch | inherited |\n| --- | --- | --- |")
    for epochs in (1, 3, 10):
        cells = []
        for init in ("scratch", "inherited"):
            keys = [f"retraining.epochs={epochs}", f"retraining.init={init}", "retraining.seeds=3", *more]
            with tempfile.TemporaryDirectory() as below:
                result = here(make(Wish(run=run, overrides=keys)), Path(below) / "x")
            (score,) = [row for row in result["scores"] if row["split"] == "test"]
            cells.append(f"{score['value']:.4f} +- {score['std']:.4f}")
            share = result["scores"][-1]["weights"]
            say(f"{epochs} epochs, {init}: {cells[-1]} ({share})")
        print(f"| {epochs} | {cells[0]} | {cells[1]} |", flush=True)


def ranks(run: str, count: str = "5", *more: str) -> None:
    """Inherited score, retrained validation and test score of random networks of a search's live operations."""
    finished = FinishedRun.load(run)
    experiment = finished.experiment()
    alphas = [tuple(int(k) for k in a) for a in random_alphas(finished.problem, int(count), np.random.default_rng(0))]
    scores = inherited_scores(finished, experiment, alphas, on_ray=False)
    job = make(Wish(run=run, overrides=["retraining.train_on=train", *more]))
    rows = []
    for i, (alpha_E, score) in enumerate(zip(alphas, scores, strict=True)):
        genotype = finished.spec.decode(np.array(alpha_E))
        chosen = choose(f"network-{i}", job.chosen.space, genotype, finished.target, {})
        with tempfile.TemporaryDirectory() as below:
            result = here(dataclasses.replace(job, chosen=chosen), Path(below) / "x")
        found = {row["split"]: row["value"] for row in result["scores"]}
        rows.append((score, found["val"], found["test"], chosen.costs["params"], chosen.costs["macs"]))
        say(f"{rows[-1]}")
    print("| network | params | macs | search score (val) | retrained, val | retrained, test |")
    print("| --- | --- | --- | --- | --- | --- |")
    for i, (score, val, test, params, macs) in enumerate(rows):
        print(f"| {i} | {params:,} | {macs:,} | {score:.4f} | {val:.4f} | {test:.4f} |")
    names = ("search score", "retrained val", "retrained test", "params", "macs")
    columns = dict(zip(names, zip(*rows, strict=True), strict=True))
    taus = {
        f"{name} and retrained test": kendalltau(columns[name], columns["retrained test"]).statistic
        for name in ("search score", "retrained val", "params")
    }
    print("\nKendall's tau: " + ", ".join(f"{name} {tau:.2f}" for name, tau in taus.items()) + ".")


if __name__ == "__main__":
    what = {"speed": speed, "step": step, "kills": kills, "elastic": elastic, "inherited": inherited, "ranks": ranks}
    if len(sys.argv) < 2 or sys.argv[1] not in what:
        sys.exit(__doc__)
    say(f"{' '.join(sys.argv[1:])}")
    print(facts(f"`python benchmarks/retraining.py {sys.argv[1]}`"))
    print()
    what[sys.argv[1]](*sys.argv[2:])
