"""Many whole searches as the trials of Ray Tune.

A trial's run directory is its checkpoint: a trial that is started again goes on from there, so Tune saves nothing of a
search and is never restored. Its own state, in ``tune/``, is for loggers and can be thrown away.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import pickle
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.exceptions import RayTaskError
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, MedianStoppingRule, TrialScheduler

from ddpnas_ray.ablations.outcomes import result_scores
from ddpnas_ray.core.errors import ResourceError
from ddpnas_ray.core.space import SearchSpace
from ddpnas_ray.core.state import SearchState
from ddpnas_ray.distributed.ray_data import DataSource
from ddpnas_ray.distributed.ray_metrics import Metrics
from ddpnas_ray.execution.base import Executor
from ddpnas_ray.execution.ray_members import PoolSize, fitting_workers
from ddpnas_ray.execution.ray_pool import RayPool
from ddpnas_ray.experiment.config import SearchConfig, dump, make_strategy
from ddpnas_ray.experiment.experiment import Experiment
from ddpnas_ray.experiment.run import run_experiment
from ddpnas_ray.runs import checkpoint
from ddpnas_ray.runs.directory import create_run, read_result, refuse_other_data
from ddpnas_ray.runs.lock import lock_holder, locked
from ddpnas_ray.runs.log import failure_logged
from ddpnas_ray.spaces.base import find_space
from ddpnas_ray.storage.folder import Folder

RESTARTS = 2  # so often a trial is started again by itself, whatever ended it; it goes on from its run directory
LOCK_S = 30.0  # what the processes of a killed sweep are given to end
SYNC_S = 10  # between two copies of what loggers wrote into the sweep's directory
HERE = 0.001  # of the resource that every node has one of: a trial with it runs on that node
ENVIRONMENT = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # only the loggers that were asked for
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Ctrl-C is the command's
    "RAY_AIR_NEW_OUTPUT": "0",  # the other one prints its settings even where it is told to be silent
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # relative paths in a configuration mean what they mean for search
}


@dataclass(frozen=True, slots=True)
class TuneTrial:
    """One search.

    Args:
        name: Of its run directory, in ``trials/``.
        params: What it has of its own: a value for every key of the grid, and the seed.
        config: All of its configuration.
        job: Its table, loaded; None: its images are loaded when it starts, where the command runs.
        stopped: A scheduler stopped it before; its epochs are reported again, and it does not go on.
    """

    name: str
    params: Mapping[str, Any]
    config: SearchConfig
    job: Experiment | None = None
    stopped: bool = False


@dataclass(frozen=True)
class Placed:
    """Trials with what each reserves in the connected cluster."""

    trials: Mapping[str, TuneTrial]
    sizes: Mapping[str, PoolSize]
    requests: Mapping[str, tune.PlacementGroupFactory]

    @classmethod
    def of(cls, trials: Sequence[TuneTrial], out: Folder) -> Placed:
        """Find out what trials need, and whether it is there.

        With a local sweep directory a trial runs on this node, where the directory is; its workers may be anywhere.

        Raises:
            ResourceError: A trial could never start.
        """
        nodes = {node["NodeID"]: node["Resources"] for node in ray.nodes() if node["Alive"]}
        here = nodes[ray.get_runtime_context().get_node_id()] if out.is_local else {}
        pin = {key: HERE for key in here if key.startswith("node:") and key != "node:__internal_head__"}
        sizes = {trial.name: pool_size(trial.config) for trial in trials}
        requests = {name: request(size, pin) for name, size in sizes.items()}
        for trial in trials:
            bundles, elastic = requests[trial.name].bundles, trial.config.execution.elastic
            if pin and not fits(bundles[:1], [here]):  # no new node helps a trial that must run on this one
                raise ResourceError(
                    f"trial {trial.name}: needs {sizes[trial.name]} on this node, where the directory is, and it has "
                    f"{here.get('CPU', 0):g} CPU and {here.get('GPU', 0):g} GPU; give an --out that every node reaches "
                    "(s3://...), or execution.workers=2 or more, which may run elsewhere"
                )
            if not elastic and not fits(bundles, list(nodes.values())):
                there = ", ".join(f"{n.get('CPU', 0):g} CPU and {n.get('GPU', 0):g} GPU" for n in nodes.values())
                raise ResourceError(
                    f"trial {trial.name}: needs {sizes[trial.name]} at once; the cluster's nodes have {there}; "
                    "lower execution.workers, execution.cpus_per_worker or execution.gpus_per_worker, or set "
                    "execution.elastic=true where an autoscaler adds nodes"
                )
        return cls({trial.name: trial for trial in trials}, sizes, requests)


def pool_size(config: SearchConfig) -> PoolSize:
    """Workers of one trial: one, unless ``execution.workers`` says more; all are reserved before it starts.

    Raises:
        ResourceError: GPUs were asked for and there are none, or not one worker fits into the connected cluster.
    """
    if not config.trains:
        return PoolSize(1)
    execution = config.execution
    one = fitting_workers(dataclasses.replace(execution, workers=None), config.training.threads)
    workers = (execution.workers or 1) if execution.backend == "ray" else 1
    return dataclasses.replace(one, workers=workers, elastic=False)


def request(size: PoolSize, pin: Mapping[str, float]) -> tune.PlacementGroupFactory:
    """What Ray reserves for a trial, all of it or nothing: so trials that wait hold nothing, and none blocks another.

    One worker is the trial's own process. Several are actors beside it, which then only merges and saves.
    """
    worker = {"CPU": size.cpus_per_worker, "GPU": size.gpus_per_worker}
    bundles = [{**worker, **pin}] if size.workers == 1 else [dict(pin), *[worker] * size.workers]
    return tune.PlacementGroupFactory(bundles)


def fits(bundles: Sequence[Mapping[str, float]], nodes: Sequence[Mapping[str, float]]) -> bool:
    """Whether nodes that are idle can hold all bundles at once, each bundle on one node.

    Bundles are placed one by one, those with most needs first; exact where, as here, all large ones are equal.

    Example:
        >>> fits([{"CPU": 2}, {"CPU": 2}], [{"CPU": 3}, {"CPU": 1}]), fits([{"CPU": 2}] * 2, [{"CPU": 2}, {"CPU": 3}])
        (False, True)
    """
    left = [dict(node) for node in nodes]
    for bundle in sorted(bundles, key=lambda bundle: (-len(bundle), -sum(bundle.values()))):
        for node in left:
            if all(node.get(name, 0.0) + 1e-9 >= amount for name, amount in bundle.items()):
                for name, amount in bundle.items():
                    node[name] = node.get(name, 0.0) - amount
                break
        else:
            return False
    return True


def run(
    placed: Placed,
    out: Folder,
    *,
    stop: str,
    log: Sequence[str],
    concurrent: int | None,
    on_evaluations: Callable[[int], None],
    on_stopped: Callable[[str], None],
) -> dict[str, str]:
    """Search every trial, as many at a time as the connected cluster holds.

    Args:
        placed: The trials.
        out: The sweep's directory; run directories are made in ``trials/``.
        stop: ``none``, ``asha`` or ``median``.
        log: ``tensorboard``, ``mlflow``, ``wandb``: what follows along.
        concurrent: At most so many trials at once; None: as many as fit.
        on_evaluations: Told how many architectures more were evaluated.
        on_stopped: Told the name of a trial that a scheduler stopped.

    Returns:
        By trial that failed, why, on one line.
    """
    watch = _Watch(out, placed.trials, on_evaluations, on_stopped)
    names = list(placed.trials)
    keys = placed.trials[names[0]].params
    params = {key: tune.sample_from(_Param({name: placed.trials[name].params[key] for name in names})) for key in keys}
    path = out.path if out.is_local else out.uri
    for name in names:
        if (out / "tune").has(name):
            (out / "tune" / name).delete()  # a trial reports all of its epochs again
        _forget_lock(out, name)
    by_table = all(trial.job is not None for trial in placed.trials.values())
    source = None if by_table or out.is_local else DataSource.here()
    here = {"out": path, "cwd": os.getcwd(), "source": source}
    trainable = tune.with_parameters(_search, **here, trials=placed.trials, sizes=placed.sizes)
    with _quietly(ENVIRONMENT):
        tune.Tuner(
            tune.with_resources(trainable, lambda config: placed.requests[config["trial"]]),
            param_space={"trial": tune.grid_search(names), **params},
            tune_config=tune.TuneConfig(
                scheduler=_scheduler(stop, list(placed.trials.values())),
                max_concurrent_trials=concurrent,
                reuse_actors=True,
                trial_name_creator=lambda trial: trial.config["trial"],
                trial_dirname_creator=lambda trial: trial.config["trial"],
            ),
            run_config=tune.RunConfig(
                name="tune",
                storage_path=path,
                callbacks=[*_loggers(log, out), watch],
                failure_config=tune.FailureConfig(max_failures=RESTARTS),
                sync_config=tune.SyncConfig(sync_period=SYNC_S),
                verbose=0,
            ),
        ).fit()
    return watch.failed


def curve(state: SearchState, space: SearchSpace) -> list[dict[str, float]]:
    """What a search reports of each of its epochs so far."""
    ends = {row.round: row.epoch for row in state.evaluations}  # the last epoch of every round
    live = {ends[record.round]: int(record.live_EK.sum()) for record in state.history}
    rows: list[dict[str, float]] = []
    best, count, left = float("-inf"), 0, int(space.exists_EK.sum())
    for epoch, group in groupby(state.evaluations, key=lambda row: row.epoch):
        scores = [row.score for row in group]
        best, count, left = max(best, *scores), count + len(scores), live.get(epoch, left)
        rows.append(
            {
                "epoch": epoch + 1,
                "architecture_epochs": count,
                "best": best,
                "mean": sum(scores) / len(scores),
                "candidates_left": left,
            }
        )
    return rows


# --- in the trial's process -----------------------------------------------------------------------------------------


def _search(
    params: Mapping[str, Any],
    *,
    out: str,
    cwd: str,
    source: DataSource | None,
    trials: Mapping[str, TuneTrial],
    sizes: Mapping[str, PoolSize],
) -> dict[str, Any]:
    """The body of a trial; what it returns is its last report."""
    if os.path.isdir(cwd):  # relative paths mean what they mean for the command
        os.chdir(cwd)
    trial = trials[params["trial"]]
    folder = Folder.open(out) / "trials" / trial.name
    if folder.has("result.json") or trial.stopped:
        return _again(trial, folder)
    job = trial.job or (Experiment.prepare(trial.config) if source is None else source.job(trial.config))
    if folder.has("config.yaml"):
        refuse_other_data(folder, job.digest)
    else:
        if not folder.is_local and folder.names():
            folder.delete()  # a kill came while the first files were written
        create_run(folder.path if folder.is_local else folder.uri, job.first_files(dump(job.config)))
    progress = job.progress()
    rows: list[dict[str, float]] = []
    last = len(job.strategy().epochs(job.spec.space))  # told with the result: nobody is stopped just before that

    def report(state: SearchState) -> None:
        known = len(rows)
        rows[:] = curve(state, job.spec.space)
        for row in rows[known:]:
            if row["epoch"] != last:
                tune.report(row)

    if job.config.trains:  # a tabular search by table is over before anybody looks
        progress.on_epoch = report
        progress.on_change = Metrics(folder.path if folder.is_local else folder.uri, job.spec.space.name).show
    with locked(folder, wait_s=LOCK_S) as lock, failure_logged(folder):
        lock.add(sweep=out)
        with closing(_executor(job, sizes[trial.name])) as executor:
            progress.workers = executor.worker_names if isinstance(executor, RayPool) else ("local",)
            result = run_experiment(job, folder, executor, progress)
    assert result is not None  # there is no time limit
    return _last(result, rows)


def _executor(job: Experiment, size: PoolSize) -> Executor:
    if not job.config.trains:
        return job.executor()
    trainer = job.evaluator.trainer("cuda" if size.gpus_per_worker else "cpu")
    if size.workers > 1:
        return RayPool(trainer, job.config.execution, size)
    from ddpnas_ray.execution.local import LocalExecutor

    return LocalExecutor(trainer)


def _again(trial: TuneTrial, folder: Folder) -> dict[str, Any]:
    """What a trial reported when it ran, for a scheduler that has not seen it."""
    rows: list[dict[str, float]] = []
    if trial.job is None and (restored := checkpoint.restore(folder / "checkpoints")) is not None:
        rows = curve(restored[0], _space(trial.config))
    for row in rows if trial.stopped else rows[:-1]:
        tune.report(row)
    return {} if trial.stopped else _last(read_result(folder), rows)


def _space(config: SearchConfig) -> SearchSpace:
    return find_space(config.space.name)(**config.space.options).space


def _last(result: Mapping[str, Any], rows: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    scores = {name.replace(": ", "/").replace(",", ""): value for name, value in result_scores(result).items()}
    counted = {
        "epoch": result["epochs"],
        "architecture_epochs": result["architecture_epochs"],
        "best": result["scores"]["best"],
        "mean": result["scores"]["last_epoch_mean"],
    }
    costs = {f"costs/{name}": cost for name, cost in result["costs"].items()}
    return {**(rows[-1] if rows else {}), **counted, **scores, **costs}


# --- in the command's process ---------------------------------------------------------------------------------------


@dataclass
class _Watch(tune.Callback):
    """Tells the command what trials report and how they end."""

    out: Folder
    trials: Mapping[str, TuneTrial]
    on_evaluations: Callable[[int], None]
    on_stopped: Callable[[str], None]
    failed: dict[str, str] = field(default_factory=dict)
    _counted: dict[str, int] = field(default_factory=dict)

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune pickles its callbacks for a restore, which there never is."""
        return {}

    def on_trial_result(self, iteration: int, trials: Any, trial: Any, result: Mapping[str, Any], **info: Any) -> None:
        name, count = trial.config["trial"], result.get("architecture_epochs", 0)
        self.on_evaluations(max(0, count - self._counted.get(name, 0)))
        self._counted[name] = max(count, self._counted.get(name, 0))

    def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        name = trial.config["trial"]
        if not self.trials[name].stopped and not (self.out / "trials" / name).has("result.json"):
            self.on_stopped(name)

    def on_trial_recover(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        _forget_lock(self.out, trial.config["trial"])

    def on_trial_error(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        # Tune has just written the error beside its logs; trial.get_error() reads a copy that comes later.
        if trial.pickled_error_file is None:
            reason = Path(trial.error_file).read_text().strip().splitlines()[-1]
        else:
            error = pickle.loads(Path(trial.pickled_error_file).read_bytes())
            cause = error.cause if isinstance(error, RayTaskError) else error
            first_line, _, _ = str(cause).strip().partition("\n")
            reason = f"{type(cause).__name__}: {first_line}"
        self.failed[trial.config["trial"]] = reason


def _forget_lock(out: Folder, name: str) -> None:
    """Remove the lock that a dead trial of this sweep left on an object store; elsewhere it ended with its process.

    Only one command at a time holds the sweep, so that no other trial of it can be alive.
    """
    folder = out / "trials" / name
    sweep = (lock_holder(folder) or {}).get("sweep", "")
    if not folder.is_local and sweep.rstrip("/") == out.uri.rstrip("/"):
        with suppress(FileNotFoundError):  # it has just ended by itself
            folder.filesystem.delete_file(f"{folder.path}/LOCK")


@dataclass(frozen=True)
class _Param:
    """A parameter of every trial, by its name: what loggers show."""

    values: Mapping[str, Any]

    def __call__(self, config: Mapping[str, Any]) -> Any:
        value = self.values[config["trial"]]
        return value if isinstance(value, (bool, int, float, str)) else str(value)


def _scheduler(stop: str, trials: Sequence[TuneTrial]) -> TrialScheduler:
    """Who stops trials early. Both compare the mean score of an epoch; none is stopped in its first third."""
    if stop == "none":
        return FIFOScheduler()
    spaces = [_space(trial.config) for trial in trials]
    plans = [make_strategy(t.config, space).epochs(space) for t, space in zip(trials, spaces, strict=True)]
    epochs = max(map(len, plans))
    common: dict[str, Any] = {"time_attr": "epoch", "metric": "mean", "mode": "max", "grace_period": -(-epochs // 3)}
    if stop == "asha":
        return ASHAScheduler(**common, max_t=epochs + 1, reduction_factor=2)
    # By default it pauses trials while it knows few others, and every pause starts one again.
    return MedianStoppingRule(**common, min_time_slice=float("inf"))  # type: ignore[arg-type]


def _loggers(log: Sequence[str], out: Folder) -> Iterator[tune.Callback]:
    name = out.path.rpartition("/")[2]
    if "tensorboard" in log:
        from ray.tune.logger import TBXLoggerCallback

        yield TBXLoggerCallback()
    if "mlflow" in log:
        from ray.tune.logger.mlflow import MLflowLoggerCallback

        yield MLflowLoggerCallback(experiment_name=name, tracking_uri=os.environ.get("MLFLOW_TRACKING_URI"))
    if "wandb" in log:
        from ray.tune.logger.wandb import WandbLoggerCallback

        yield WandbLoggerCallback(project="ddpnas_ray", group=name)


@contextmanager
def _quietly(values: Mapping[str, str]) -> Iterator[None]:
    """Environment variables for Tune; what it warns of concerns its own files, which nobody reads."""
    log = logging.getLogger("ray.tune")
    level = log.level
    log.setLevel(logging.CRITICAL)
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        log.setLevel(level)
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
