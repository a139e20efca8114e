"""Run many whole searches as trials of Ray Tune.

A trial's run directory is its checkpoint: a restarted trial resumes from there, so Tune saves nothing of a search and
is never restored. Tune's own state, in ``tune/``, is for loggers and disposable.
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

RESTARTS = 2  # automatic restarts of a failed trial, which resumes from its run directory
LOCK_S = 30.0  # grace period for the processes of a killed sweep
SYNC_S = 10  # between copies of the loggers' files into the sweep's directory
HERE = 0.001  # share of a node's own ``node:`` resource: pins a trial to that node
ENVIRONMENT = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # only the requested loggers
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # the command handles Ctrl-C
    "RAY_AIR_NEW_OUTPUT": "0",  # the new output prints its settings even if silenced
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # relative paths in a configuration resolve as in search
}


@dataclass(frozen=True, slots=True)
class TuneTrial:
    """One search.

    Args:
        name: Name of its run directory in ``trials/``.
        params: Its value for every key of the grid, and its seed.
        config: Its complete configuration.
        experiment: Its loaded table; None: its images are loaded on the command's node when it starts.
        stopped: A scheduler stopped it earlier; its epochs are reported again, and it does not resume.
    """

    name: str
    params: Mapping[str, Any]
    config: SearchConfig
    experiment: Experiment | None = None
    stopped: bool = False


@dataclass(frozen=True)
class Placed:
    """Trials with the resources that each reserves in the connected cluster."""

    trials: Mapping[str, TuneTrial]
    sizes: Mapping[str, PoolSize]
    requests: Mapping[str, tune.PlacementGroupFactory]

    @classmethod
    def of(cls, trials: Sequence[TuneTrial], out: Folder) -> Placed:
        """Compute the resources of every trial and check that the cluster has them.

        With a local sweep directory, a trial runs on this node, where the directory is; its workers may run anywhere.

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
            if pin and not fits(bundles[:1], [here]):  # new nodes do not help a trial pinned to this one
                raise ResourceError(
                    f"trial {trial.name}: needs {sizes[trial.name]} on this node, where the directory is, but it has "
                    f"{here.get('CPU', 0):g} CPU and {here.get('GPU', 0):g} GPU; set --out to a store that every node "
                    "reaches (s3://...), or execution.workers=2 or more, which may run elsewhere"
                )
            if not elastic and not fits(bundles, list(nodes.values())):
                held = ", ".join(f"{n.get('CPU', 0):g} CPU and {n.get('GPU', 0):g} GPU" for n in nodes.values())
                raise ResourceError(
                    f"trial {trial.name}: needs {sizes[trial.name]} at once; the cluster's nodes have {held}; "
                    "lower execution.workers, execution.cpus_per_worker or execution.gpus_per_worker, or set "
                    "execution.elastic=true if an autoscaler adds nodes"
                )
        return cls({trial.name: trial for trial in trials}, sizes, requests)


def pool_size(config: SearchConfig) -> PoolSize:
    """Return the workers of one trial: ``execution.workers``, default one; all are reserved before it starts.

    Raises:
        ResourceError: GPUs were requested and there are none, or no worker fits into the connected cluster.
    """
    if not config.trains:
        return PoolSize(1)
    execution = config.execution
    workers = (execution.workers or 1) if execution.backend == "ray" else 1
    group = execution.group if workers > 1 else 1  # one worker is the trial's own process
    one = fitting_workers(dataclasses.replace(execution, workers=None, group=group), config.training.threads)
    return dataclasses.replace(one, workers=workers, elastic=False)


def request(size: PoolSize, pin: Mapping[str, float]) -> tune.PlacementGroupFactory:
    """Return a trial's placement group: gang-scheduled, so waiting trials hold nothing and none blocks another.

    A single worker is the trial's own process. Several are actors beside it; the trial then only merges and saves.
    """
    worker = {"CPU": size.cpus_per_worker, "GPU": size.gpus_per_worker}
    bundles = [{**worker, **pin}] if size.workers == 1 else [dict(pin), *[worker] * size.workers]
    return tune.PlacementGroupFactory(bundles)


def fits(bundles: Sequence[Mapping[str, float]], nodes: Sequence[Mapping[str, float]]) -> bool:
    """Return whether idle nodes can hold all bundles at once, each bundle on one node.

    Bundles are placed greedily, largest first; this is exact if, as here, all large ones are equal.

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
    """Run every trial, as many at a time as fit into the connected cluster.

    Args:
        placed: The trials.
        out: The sweep's directory; run directories are created in ``trials/``.
        stop: ``none``, ``asha`` or ``median``.
        log: Loggers: ``tensorboard``, ``mlflow``, ``wandb``.
        concurrent: Maximum number of concurrent trials; None: as many as fit.
        on_evaluations: Called with the number of newly evaluated architectures.
        on_stopped: Called with the name of a trial that a scheduler stopped.

    Returns:
        One-line reason by failed trial.
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
    tabular = all(trial.experiment is not None for trial in placed.trials.values())
    source = None if tabular or out.is_local else DataSource.here()
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
    """Return the reported metrics of each epoch so far."""
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
    """The body of a trial; returns its last report."""
    if os.path.isdir(cwd):  # resolve relative paths as the command does
        os.chdir(cwd)
    trial = trials[params["trial"]]
    folder = Folder.open(out) / "trials" / trial.name
    if folder.has("result.json") or trial.stopped:
        return _reported(trial, folder)
    experiment = trial.experiment or (source.experiment if source else Experiment.prepare)(trial.config)
    space = experiment.spec.space
    if folder.has("config.yaml"):
        refuse_other_data(folder, experiment.digest)
    else:
        if not folder.is_local and folder.names():
            folder.delete()  # killed while the first files were written
        create_run(folder.path if folder.is_local else folder.uri, experiment.first_files(dump(experiment.config)))
    progress = experiment.progress()
    rows: list[dict[str, float]] = []
    last = len(experiment.strategy().epochs(space))  # reported with the result, so no trial is stopped just before it

    def report(state: SearchState) -> None:
        known = len(rows)
        rows[:] = curve(state, space)
        for row in rows[known:]:
            if row["epoch"] != last:
                tune.report(row)

    if experiment.config.trains:  # a tabular search is too short to watch
        progress.on_epoch = report
        progress.on_change = Metrics(folder.path if folder.is_local else folder.uri, space.name).show
    with locked(folder, wait_s=LOCK_S) as lock, failure_logged(folder):
        lock.add(sweep=out)
        with closing(_executor(experiment, sizes[trial.name])) as executor:
            progress.workers = executor.worker_names if isinstance(executor, RayPool) else ("local",)
            result = run_experiment(experiment, folder, executor, progress)
    assert result is not None  # there is no time limit
    return _last(result, rows)


def _executor(experiment: Experiment, size: PoolSize) -> Executor:
    if not experiment.config.trains:
        return experiment.executor()
    trainer = experiment.evaluator.trainer("cuda" if size.gpus_per_worker else "cpu")
    if size.workers > 1:
        return RayPool(trainer, experiment.config.execution, size)
    from ddpnas_ray.execution.local import LocalExecutor

    return LocalExecutor(trainer)


def _reported(trial: TuneTrial, folder: Folder) -> dict[str, Any]:
    """Replay the reports of an earlier run of a trial, for a scheduler that has not seen them."""
    rows: list[dict[str, float]] = []
    if trial.experiment is None and (restored := checkpoint.restore(folder / "checkpoints")) is not None:
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
    """Passes trials' reports and ends on to the command."""

    out: Folder
    trials: Mapping[str, TuneTrial]
    on_evaluations: Callable[[int], None]
    on_stopped: Callable[[str], None]
    failed: dict[str, str] = field(default_factory=dict)
    _counted: dict[str, int] = field(default_factory=dict)

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune pickles its callbacks for a restore, which never happens."""
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
        # Tune has just written the error beside its logs; trial.get_error() reads a copy made later.
        if trial.pickled_error_file is None:
            reason = Path(trial.error_file).read_text().strip().splitlines()[-1]
        else:
            error = pickle.loads(Path(trial.pickled_error_file).read_bytes())
            cause = error.cause if isinstance(error, RayTaskError) else error
            first_line, _, _ = str(cause).strip().partition("\n")
            reason = f"{type(cause).__name__}: {first_line}"
        self.failed[trial.config["trial"]] = reason


def _forget_lock(out: Folder, name: str) -> None:
    """Remove the lock that a dead trial of this sweep left on an object store; local locks end with their process.

    Only one command at a time holds the sweep, so no other process of this trial can be alive.
    """
    folder = out / "trials" / name
    sweep = (lock_holder(folder) or {}).get("sweep", "")
    if not folder.is_local and sweep.rstrip("/") == out.uri.rstrip("/"):
        with suppress(FileNotFoundError):  # it was released in the meantime
            folder.filesystem.delete_file(f"{folder.path}/LOCK")


@dataclass(frozen=True)
class _Param:
    """Value of one parameter by trial name, as loggers show it."""

    values: Mapping[str, Any]

    def __call__(self, config: Mapping[str, Any]) -> Any:
        value = self.values[config["trial"]]
        return value if isinstance(value, (bool, int, float, str)) else str(value)


def _scheduler(stop: str, trials: Sequence[TuneTrial]) -> TrialScheduler:
    """Return the early-stopping scheduler. Both compare an epoch's mean score; no trial stops in its first third."""
    if stop == "none":
        return FIFOScheduler()
    spaces = [_space(trial.config) for trial in trials]
    plans = [make_strategy(t.config, space).epochs(space) for t, space in zip(trials, spaces, strict=True)]
    epochs = max(map(len, plans))
    common: dict[str, Any] = {"time_attr": "epoch", "metric": "mean", "mode": "max", "grace_period": -(-epochs // 3)}
    if stop == "asha":
        return ASHAScheduler(**common, max_t=epochs + 1, reduction_factor=2)
    # By default it pauses trials while it knows few others, and every pause restarts one.
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
    """Set environment variables for Tune and silence its warnings, which concern its own, unused files."""
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
