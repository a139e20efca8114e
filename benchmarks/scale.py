"""Searches on 1 to 1,024 workers: predicted, simulated, and measured where this machine can.

    python benchmarks/scale.py compare [--run RUN]     predictions against real searches on 1 to 4 workers
    python benchmarks/scale.py draw [--plot DIR]       time and cost up to 1,024 GPUs or workers, also if they fail
    python benchmarks/scale.py driver                  how many workers the driver's loop can feed

``compare`` records one search on one worker (or takes its run directory), predicts that search on 1, 2, 3 and 4
workers, then runs it there on the real Ray pool. Workers that sleep for the recorded seconds, instead of training, do
not compete for cores; a search that really trains follows on as many workers as there are cores. Predictions come from
the two batches of ``check``, from the cost model with the recorded mean, and from the simulator with every recorded
duration.

``draw`` takes the constants of one GPU or worker from ``--constants`` (``check --help``), or measures them on this
machine, for any configuration; architectures differ in time as ``effort`` of their space says. Every row with failures
is the mean of some simulated searches.

``driver`` evaluates architectures on up to 1,000 workers that sleep for a given time and return their weights as they
came. They live as threads in a few processes, since 1,000 processes that import torch would not fit; ``RayPool`` is
the real one. All share this machine's cores with the driver, which could do more alone.

Each prints Markdown; ``--json FILE`` writes the same numbers.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

os.environ.setdefault("RAY_AUTH_MODE", "disabled")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")

import numpy as np
import ray
from common import facts, say
from simulation import Cluster, SimulatedPool

from ddpnas_ray.console.command import Parser, guarded
from ddpnas_ray.console.options import positive
from ddpnas_ray.console.progress import duration
from ddpnas_ray.core.errors import RunDirError, WorkerLostError
from ddpnas_ray.core.requests import EvalRequest, EvalResult
from ddpnas_ray.core.sampling import disjoint_sample, rng_for
from ddpnas_ray.core.scaling import (
    Constants,
    Workload,
    architecture_seconds,
    between_seconds,
    predict,
    read_constants,
)
from ddpnas_ray.core.state import Evaluation, initial_state
from ddpnas_ray.execution import ray_pool
from ddpnas_ray.execution.base import ExecutionConfig
from ddpnas_ray.execution.ray_members import Member, Members, PoolSize, Worker
from ddpnas_ray.execution.ray_pool import RayPool
from ddpnas_ray.experiment.config import dump, load
from ddpnas_ray.experiment.experiment import Experiment
from ddpnas_ray.experiment.loop import run_search
from ddpnas_ray.experiment.run import run_experiment
from ddpnas_ray.launch.dry_run import try_out, workload
from ddpnas_ray.nn.weights import Float32Array, Layout
from ddpnas_ray.runs.directory import create_run
from ddpnas_ray.runs.files import read_evaluations
from ddpnas_ray.storage.folder import Folder
from ddpnas_ray.training.device import find_device
from ddpnas_ray.training.group import ALONE, Group
from ddpnas_ray.training.trainer import Trainer

SMALL = ("space.cells=3", "space.channels=8", "pruning.epochs_per_round=1")
GPUS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
IMAGES = 32  # at least so many of a batch on one GPU
TROUBLES = {
    "calm": {},
    "1 crash in 100 worker-hours": {"crashes_per_hour": 0.01},
    "5 % stragglers, twice as long": {"slow_share": 0.05, "slow_factor": 2.0},
    "spot, 1 loss in 20 hours, 2 min notice": {"preemptions_per_hour": 0.05, "notice_s": 120.0},
    "spot, 1 loss in 20 hours, no notice": {"preemptions_per_hour": 0.05},
}
Numbers = dict[str, Any]


@guarded
def main(argv: Sequence[str] | None = None) -> int:
    """Run one of the three."""
    parser = Parser(prog="scale.py", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    p = commands.add_parser("compare", help="predictions against real searches on 1 to 4 workers")
    p.add_argument("--run", metavar="RUN", help="run directory of a search on one worker; default: record one")
    p.add_argument("--workers", type=positive, nargs="+", default=[1, 2, 3, 4], help="numbers of sleeping workers")
    p.add_argument("--set", dest="overrides", action="append", metavar="KEY=VALUE", help=f"to record; default: {SMALL}")
    p = commands.add_parser("draw", help="time and cost up to 1,024 GPUs")
    p.add_argument("--config", default="cifar10_cell", help="configuration (default cifar10_cell)")
    p.add_argument("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE", help="override a key")
    p.add_argument("--constants", metavar="FILE", help="JSON: times of one GPU; default: measured on this machine")
    p.add_argument("--searches", type=positive, default=20, help="simulated searches per row (default 20)")
    p.add_argument("--plot", metavar="DIR", help="write scale.png and scale.svg")
    p = commands.add_parser("driver", help="architectures a second that the driver can feed")
    p.add_argument("--workers", type=positive, nargs="+", default=[1, 10, 100, 1000], help="numbers of workers")
    p.add_argument("--seconds", type=_seconds, default=1.0, help="how long an architecture takes (default 1)")
    p.add_argument("--rounds", type=positive, default=5, help="architectures per worker (default 5)")
    p.add_argument("--processes", type=positive, default=4, help="processes that the workers live in (default 4)")
    p.add_argument("--set", dest="overrides", action="append", metavar="KEY=VALUE", help="whose weights; default: tiny")
    for command in commands.choices.values():
        command.add_argument("--json", metavar="FILE", help="write the numbers as JSON")
    args = parser.parse_args(argv)
    numbers = {"compare": compare, "draw": draw, "driver": driver}[args.command](args)
    if args.json is not None:
        Path(args.json).write_text(json.dumps(numbers, indent=1) + "\n", encoding="utf-8")
    return 0


# --- predicted against measured ---


@dataclass(frozen=True)
class Recording:
    """A search on one worker.

    Args:
        evaluations: Its evaluations.
        send_s: Mean seconds per architecture of sending weights and waiting for the reply.
        between_s: Mean seconds per epoch beside the architectures: merge, checkpoint, records.
    """

    evaluations: tuple[Evaluation, ...]
    send_s: float
    between_s: float

    @classmethod
    def read(cls, run: str) -> Recording:
        """Read a run directory.

        Raises:
            RunDirError: It is no finished search on one worker.
        """
        folder = Folder.open(run)
        if not folder.has("result.json"):
            raise RunDirError(f"{run} has no result.json; give the run directory of a finished search")
        evaluations = read_evaluations(folder.read("evaluations.parquet"))
        workers = {row.worker for row in evaluations}
        if len(workers) != 1:
            raise RunDirError(f"{run} was searched by {len(workers)} workers; record with execution.workers=1")
        epochs = _epochs(folder)
        send_s = epochs[-1]["seconds_in"]["transfer"] / len(evaluations)
        total_s = sum(row.seconds for row in evaluations)
        between_s = (sum(line["epoch_s"] for line in epochs) - total_s) / len(epochs)
        return cls(evaluations, send_s, between_s - send_s * len(evaluations) / len(epochs))

    def result(self, request: EvalRequest) -> EvalResult:
        """Return the recorded result of a request."""
        if request.epoch > self.evaluations[-1].epoch:  # the search scores its result after the last epoch
            return EvalResult(score=0.5, loss=0.0)
        row = next(r for r in self.evaluations if (r.epoch, r.architecture) == (request.epoch, request.architecture))
        if row.alpha_E != tuple(request.alpha_E.tolist()):
            raise RunDirError("the search asks for other architectures than the recorded one; record it again")
        return EvalResult(score=row.score, loss=row.loss, ok=row.ok, seconds=row.seconds, device=row.device)

    def constants(self) -> tuple[Workload, Constants]:
        """Return what the cost model needs, with the mean duration."""
        epochs = [row.epoch for row in self.evaluations]
        architectures = tuple(epochs.count(epoch) for epoch in sorted(set(epochs)))
        mean_s = float(np.mean([row.seconds for row in self.evaluations])) + self.send_s
        constants = Constants(
            **dict.fromkeys((field.name for field in fields(Constants)), 0.0)
            | {"allreduce_bytes_per_s": 1.0, "transfer_bytes_per_s": 1.0}
            | {"architecture_s": mean_s, "checkpoint_s": self.between_s}
        )
        work = Workload(architectures=architectures, steps=0, validation_batches=0, shared_bytes=0, own_bytes=0)
        return work, constants


@dataclass(frozen=True, kw_only=True)
class SleepingTrainer(Trainer):
    """Trainer that sleeps as long as the outcome took, and returns it with the given weights."""

    outcome: Callable[[EvalRequest], EvalResult]

    def train_and_score(
        self, request: EvalRequest, layout: Layout, flat: Float32Array, group: Group = ALONE
    ) -> tuple[EvalResult, Float32Array]:
        """See ``Trainer``."""
        result = self.outcome(request)
        time.sleep(result.seconds)
        return result, flat


def compare(args: argparse.Namespace) -> Numbers:
    """Predict and measure one search on several numbers of workers."""
    with tempfile.TemporaryDirectory() as scratch:
        run, cores = args.run, os.cpu_count() or 1
        recording = None if run is None else Recording.read(run)
        ray.init(address="local", num_cpus=max(args.workers), include_dashboard=False, log_to_driver=False)
        try:
            if recording is None:
                job = Experiment.prepare(load(None, list(args.overrides or SMALL)))
                say("recording a search on one worker")
                run = str(Path(scratch, "recorded"))
                _measure(job, job.evaluator.trainer("cpu"), 1, run)
                recording = Recording.read(run)
            job = Experiment.prepare(load(str(Path(run, "config.yaml")), []))
            say("check: two batches")
            estimate, _ = try_out(job)
            work, constants = recording.constants()
            trainer = job.evaluator.trainer("cpu")
            sleeping = SleepingTrainer(**_parts(trainer), outcome=recording.result)
            cases = [("sleeping", n, sleeping) for n in args.workers]
            cases += [("training", n, trainer) for n in args.workers if n <= cores]
            rows = []
            for kind, workers, contender in cases:
                simulated = _simulated(job, recording, workers)
                say(f"{kind}, {workers} worker(s)")
                load_before = os.getloadavg()[0]
                measured_s, retries = _measure(job, contender, workers, str(Path(scratch, f"{kind}-{workers}")))
                rows.append(
                    {
                        "workers": workers,
                        "kind": kind,
                        "check_s": estimate.seconds(workers),
                        "cost_model_s": predict(work, constants, workers).seconds,
                        "simulated_s": simulated.now_s,
                        "measured_s": measured_s,
                        "retries": retries,
                        "load_before": load_before,
                    }
                )
        finally:
            ray.shutdown()
    sum_s = sum(row.seconds for row in recording.evaluations)
    about = (
        f"{len(recording.evaluations)} architecture-epochs of {sum_s / len(recording.evaluations):.2f} s on average, "
        f"{1000 * recording.send_s:.0f} ms more to send each, {recording.between_s:.2f} s between two epochs"
    )
    print(facts(about))
    heads = ("workers", "what they do", "check, s", "cost model, s", "simulated, s", "measured, s")
    heads += ("check off by", "cost model off by", "simulator off by", "load before")
    print(f"\n| {' | '.join(heads)} |\n{'|---' * len(heads)}|")
    for row in rows:
        seconds = [row[key] for key in ("check_s", "cost_model_s", "simulated_s", "measured_s")]
        off = [f"{100 * (one / seconds[-1] - 1):+.1f} %" for one in seconds[:-1]]
        cells = [row["workers"], row["kind"], *(f"{one:.1f}" for one in seconds), *off, f"{row['load_before']:.1f}"]
        print(f"| {' | '.join(map(str, cells))} |")
    return {"rows": rows, "send_s": recording.send_s, "between_s": recording.between_s}


def _simulated(job: Experiment, recording: Recording, workers: int) -> SimulatedPool:
    """Simulate the recorded search."""

    def outcome(request: EvalRequest) -> EvalResult:
        result = recording.result(request)
        return replace(result, seconds=result.seconds + recording.send_s)

    return _simulate(job, Cluster(workers=workers), outcome, lambda n: recording.between_s)


def _simulate(
    job: Experiment,
    cluster: Cluster,
    outcome: Callable[[EvalRequest], EvalResult],
    between_s: Callable[[int], float],
    seed: int = 0,
) -> SimulatedPool:
    """Run a whole search on simulated workers."""
    inputs, space = job.task.inputs, job.spec.space  # type: ignore[union-attr]
    config = job.config.execution
    pool = SimulatedPool(cluster, outcome, lambda alpha_E: job.spec.effort(alpha_E, inputs), between_s, config, seed)
    run_search(job.strategy(), pool, space, initial_state(space, job.config.seed), save=lambda state, tensors: None)
    return pool


def _measure(job: Experiment, trainer: Trainer, workers: int, out: str) -> tuple[float, int]:
    """Run a search on real Ray workers; returns the seconds of its epochs, without start and end, and its retries."""
    pool = RayPool(trainer, job.config.execution, PoolSize(workers))
    try:
        if len(pool.worker_names) < workers:
            raise SystemExit(f"only {len(pool.worker_names)} of {workers} workers started; the machine is too busy")
        folder = create_run(out, job.first_files(dump(job.config)))
        run_experiment(job, folder, pool, job.progress())
        return sum(epoch["epoch_s"] for epoch in _epochs(folder)), pool.work.retries
    finally:
        pool.close()


def _epochs(folder: Folder) -> list[Numbers]:
    """Read the epochs from a run's log."""
    log = [json.loads(line) for line in folder.read("log.jsonl").decode().splitlines()]
    return [line for line in log if line["event"] == "epoch"]


# --- up to 1,024 ---


def draw(args: argparse.Namespace) -> Numbers:
    """Predict and simulate a search on up to 1,024 GPUs."""
    constants = None if args.constants is None else read_constants(args.constants)
    job = Experiment.prepare(load(args.config, args.overrides))
    if constants is None:
        say("check: two batches")
        estimate, _ = try_out(job)
        constants, work, source = estimate.constants, estimate.work, "measured on this machine, one CPU worker"
    else:
        work, source = workload(job.evaluator.trainer("cpu"), job.strategy()), args.constants
    most = 2 ** int(np.log2(max(1, job.config.training.batch_size / IMAGES)))
    groups = [2**i for i in range(int(np.log2(most)) + 1)]
    alone = [asdict(predict(work, constants, gpus)) for gpus in GPUS]
    best = [
        min((asdict(predict(work, constants, gpus, w)) for w in groups if w <= gpus), key=lambda row: row["seconds"])
        for gpus in GPUS
    ]
    outcome, failures = _by_effort(job, work, constants), []
    for name, trouble in TROUBLES.items():
        for gpus in (1, 8, 64, 1024):
            say(f"{name}, {gpus}")
            cluster = Cluster(workers=gpus, start_s=constants.start_s, **trouble)
            searches = args.searches if trouble else 1
            between_s = partial(between_seconds, work, constants)
            failures.append({"what": name, "gpus": gpus} | _searches(job, cluster, outcome, between_s, searches))
    print(facts(f"configuration: {' '.join([args.config, *args.overrides])}; constants: {source}"))
    print(f"- {architecture_seconds(work, constants):.3g} s per architecture-epoch; {json.dumps(asdict(constants))}\n")
    print("| GPUs | time, W = 1 | GPU-hours | efficiency | idle | best W | time | GPU-hours | efficiency | idle |")
    print(f"{'|---' * 10}|")
    for one, two in zip(alone, best, strict=True):
        print(f"| {one['gpus']} | {_cells(one)} | {two['group']} | {_cells(two)} |")
    print(f"\n| simulated, W = 1, means of {args.searches} | GPUs | time | GPU-hours | in work | lost | ended early |")
    print(f"{'|---' * 7}|")
    for row in failures:
        print(
            f"| {row['what']} | {row['gpus']} | {duration(row['seconds'])} | {row['gpu_hours']:,.1f} | "
            f"{row['busy']:.1%} | {row['lost']:.1f} | {row['ended']} |"
        )
    if args.plot is not None:
        for name, data in _plot(job.config.space.name, alone, best, failures).items():
            Path(args.plot, name).write_bytes(data)
    return {"constants": asdict(constants), "work": asdict(work), "alone": alone, "best": best, "failures": failures}


def _cells(row: Numbers) -> str:
    return f"{duration(row['seconds'])} | {row['gpu_hours']:,.1f} | {row['efficiency']:.1%} | {row['idle']}"


def _by_effort(job: Experiment, work: Workload, constants: Constants) -> Callable[[EvalRequest], EvalResult]:
    """Durations whose mean is the cost model's, in the ratios of ``effort``; scores at random."""
    mean_s, space, inputs = architecture_seconds(work, constants), job.spec.space, job.task.inputs  # type: ignore[union-attr]
    state = initial_state(space, job.config.seed)
    alphas_NE = np.concatenate(
        [disjoint_sample(state.theta_EK, state.live_EK, rng_for(job.config.seed, 0, t)) for t in range(20)]
    )
    mean_effort = float(np.mean([job.spec.effort(alpha_E, inputs) for alpha_E in alphas_NE]))

    def outcome(request: EvalRequest) -> EvalResult:
        score = float(rng_for(job.config.seed, request.epoch, request.architecture).random())
        return EvalResult(score, 1.0, seconds=mean_s * job.spec.effort(request.alpha_E, inputs) / mean_effort)

    return outcome


def _searches(
    job: Experiment,
    cluster: Cluster,
    outcome: Callable[[EvalRequest], EvalResult],
    between_s: Callable[[int], float],
    searches: int,
) -> Numbers:
    """Simulate some searches; means over those that did not end by the retry limits, and how many did."""
    pools, ended = [], 0
    for seed in range(searches):
        try:
            pools.append(_simulate(job, cluster, outcome, between_s, seed))
        except WorkerLostError:
            ended += 1

    def mean(values: list[float]) -> float:
        return float(np.mean(values)) if values else float("nan")

    return {
        "seconds": mean([pool.now_s for pool in pools]),
        "gpu_hours": mean([pool.held_s / 3600 for pool in pools]),
        "busy": mean([pool.busy_s / pool.held_s for pool in pools]),
        "lost": mean([pool.work.retries for pool in pools]),
        "ended": ended,
    }


def _plot(
    space: str, alone: Sequence[Numbers], best: Sequence[Numbers], failures: Sequence[Numbers]
) -> dict[str, bytes]:
    """Draw time and GPU-hours over the number of GPUs."""
    from ddpnas_ray.reporting.figures import drawing, saved

    with drawing(9.0, 4.0) as figure:
        panels = figure.subplots(1, 2)
        for axes, key, label in zip(panels, ("seconds", "gpu_hours"), ("time, hours", "GPU-hours"), strict=True):
            lines = [("model, one GPU per architecture", "o-", alone), ("model, groups", "s-", best)]
            for marker, what in zip("x+1v^", TROUBLES, strict=True):
                lines.append((f"simulated, {what}", marker, [row for row in failures if row["what"] == what]))
            for name, style, rows in lines:
                ys = [row[key] / (3600 if key == "seconds" else 1) for row in rows]
                axes.plot([row["gpus"] for row in rows], ys, style, label=name, ms=4)
            axes.set(xscale="log", yscale="log", xlabel="GPUs", ylabel=label, title=f"{space}: {label}")
            axes.set_xscale("log", base=2)
            axes.grid(alpha=0.3)
        panels[1].legend(frameon=False, fontsize=7)
        return saved(figure, "scale")


# --- what the driver can feed ---


def _idle(seconds: float, device: str, request: EvalRequest) -> EvalResult:
    """Return the result of an architecture that takes a fixed time, whatever it is."""
    return EvalResult(score=0.5, loss=1.0, seconds=seconds, device=find_device(device).kind)


class Hosted:
    """Looks like the actor handle of one worker; the worker is a thread of a host process."""

    def __init__(self, host: Any) -> None:
        self.ready, self.evaluate = host.ready, host.evaluate


class HostedMembers(Members):
    """Members whose workers live in a few processes."""

    processes = 4

    def resize(self, workers: int) -> None:
        """Start all workers, or end them all."""
        if not workers:
            for host in self._hosts:
                ray.kill(host)
            self._all.clear()
            return
        hosts = min(self.processes, workers)
        threads = -(-workers // hosts) + 1
        host_class = ray.remote(Worker).options(num_cpus=0, max_concurrency=threads)
        self._hosts = [host_class.remote(f"host-{i}", 0.0) for i in range(hosts)]
        self._all += [Member(f"ddpnas-worker-{i}", Hosted(self._hosts[i % hosts])) for i in range(workers)]


def driver(args: argparse.Namespace) -> Numbers:
    """Measure architectures a second by number of workers."""
    tiny = ("space.cells=2", "space.nodes=2", "space.channels=4")
    job = Experiment.prepare(load(None, list(args.overrides or tiny)))
    trainer, space = job.evaluator.trainer("cpu"), job.spec.space
    idle = SleepingTrainer(**_parts(trainer), outcome=partial(_idle, args.seconds, trainer.device))
    state = initial_state(space, 0)
    ray.init(address="local", num_cpus=args.processes, include_dashboard=False, log_to_driver=False)
    rows = []
    try:
        for workers in args.workers:
            HostedMembers.processes = args.processes
            with patch.object(ray_pool, "Members", HostedMembers):
                pool = RayPool(idle, ExecutionConfig(), PoolSize(workers))
            say(f"{workers} workers are ready")
            n = max(args.rounds * workers, 10)
            alphas = [alpha_E for t in range(-(-n // 8)) for alpha_E in _sample(state, t)]
            requests = [EvalRequest(0, 0, i, alpha_E, 0.1) for i, alpha_E in enumerate(alphas[:n])]
            pool.evaluate(requests[:workers])  # connections and threads are made
            start_s, cpu_s = time.perf_counter(), time.process_time()
            pool.evaluate(requests)
            total_s, busy_s = time.perf_counter() - start_s, time.process_time() - cpu_s
            pool.close()
            offered = workers / args.seconds if args.seconds else float("inf")
            row = {
                "workers": workers,
                "architectures": n,
                "seconds": total_s,
                "per_s": n / total_s,
                "offered_per_s": offered,
                "driver_cpu_s": busy_s,
                "bytes": sum(tensor.nbytes for tensor in pool.weights().values()),
            }
            rows.append(row)
            say(f"{row['per_s']:.1f} architectures a second")
    finally:
        ray.shutdown()
    print(facts(f"an architecture sleeps {args.seconds:g} s; supernet of {rows[0]['bytes'] / 2**20:.2f} MiB"))
    heads = ("workers", "architectures", "s", "architectures/s", "of what the workers could do")
    heads += ("driver's CPU, ms/architecture",)
    print(f"\n| {' | '.join(heads)} |\n{'|---' * len(heads)}|")
    for row in rows:
        print(
            f"| {row['workers']:,} | {row['architectures']:,} | {row['seconds']:.1f} | {row['per_s']:.1f} | "
            f"{row['per_s'] / row['offered_per_s']:.1%} | {1000 * row['driver_cpu_s'] / row['architectures']:.1f} |"
        )
    return {"rows": rows}


def _seconds(text: str) -> float:
    with suppress(ValueError):
        if 0 <= (seconds := float(text)) < float("inf"):
            return seconds
    raise argparse.ArgumentTypeError(f"{text!r} is not a number of at least 0")


def _parts(trainer: Trainer) -> Numbers:
    return {field.name: getattr(trainer, field.name) for field in fields(Trainer)}


def _sample(state: Any, t: int) -> Any:
    return disjoint_sample(state.theta_EK, state.live_EK, rng_for(0, 0, t))


if __name__ == "__main__":
    sys.exit(main())
