"""Start or resume a search, in this process or on Ray, and show its progress; for command and Python API."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

from ddpnas_ray.console.cluster import checked_address, cluster
from ddpnas_ray.console.out import default_name, new_out
from ddpnas_ray.console.progress import Display
from ddpnas_ray.core.errors import RunDirError
from ddpnas_ray.experiment.changes import FREE, fixed_keys, places
from ddpnas_ray.experiment.config import SearchConfig, check, dump, overridden
from ddpnas_ray.experiment.yaml_text import parse
from ddpnas_ray.launch.following import followed
from ddpnas_ray.runs.directory import create_run, existing_run, read_config, read_result, refuse_other_data
from ddpnas_ray.runs.lock import Lock, locked
from ddpnas_ray.runs.log import failure_logged
from ddpnas_ray.storage.folder import Folder
from ddpnas_ray.training.cpu_isa import use_level

if TYPE_CHECKING:
    from ddpnas_ray.experiment.experiment import Experiment

NO_RUN = "none"  # the run directory that keeps nothing


def folder_of(config: SearchConfig, out: str | None) -> str:
    """Return the run directory of a new search: ``out``, or a new one below ``runs/``; refuses one that is not empty.

    Raises:
        RunDirError: It exists, or the search needs one and ``out`` is ``none``.
    """
    if out == NO_RUN:
        if _on_workers(config):
            raise RunDirError("--out none: a search on Ray needs a run directory; set execution.backend=local")
        return NO_RUN
    return new_out(out, f"{default_name(config)}-s{config.seed}")


def resumed_config(out: str, given: SearchConfig | None, overrides: Sequence[str]) -> tuple[Folder, SearchConfig]:
    """Open a run to resume, with its configuration.

    Args:
        out: The run directory.
        given: The configuration, with the overrides; None: that of the run.
        overrides: ``section.key=value``.

    Raises:
        RunDirError: There is no run, or keys differ that can change its result.
    """
    folder = existing_run(out)
    values = parse(read_config(folder), out)
    saved = check(values, f"{out}/config.yaml")
    config = overridden(values, out, overrides) if given is None else given
    if changed := fixed_keys(saved, config):
        raise RunDirError(
            f"{out}: the run was started with other values of {', '.join(changed)}; only "
            f"{', '.join((*(f'{section}*' for section in FREE), *places(config)))} may change on --resume: omit them, "
            "or start a new run with another --out"
        )
    return folder, config


def title_of(config: SearchConfig) -> str:
    """Return the title of a search's display."""
    return f"ddpnas search: {config.space.name} on {config.searched_on}, seed {config.seed}"


def search(
    config: SearchConfig,
    out: str,
    display: Display,
    *,
    resumed: Folder | None = None,
    address: str | None = None,
    until_s: float | None = None,
) -> dict[str, Any] | None:
    """Search to the result, or read that of a finished run.

    Args:
        config: The configuration.
        out: From ``folder_of``.
        display: Shows progress.
        resumed: The run directory to resume; None starts a new one.
        address: Ray cluster.
        until_s: Unix time; see ``run_experiment``.

    Returns:
        The content of ``result.json``; None if the time was up.

    Raises:
        DdpnasError: Bad input, or what ended the search; finished epochs are saved.
    """
    if resumed is not None and resumed.has("result.json"):
        return read_result(resumed)
    found = checked_address(address, client=False) if _on_workers(config) else None
    use_level(config.training.cpu_isa)
    from ddpnas_ray.experiment.experiment import Experiment

    decoding = found is not None and config.data.cache is not None  # by Ray tasks, so the cluster comes first
    workers = config.execution.workers
    with cluster(found or "", "decode images", display.lines, workers=workers) if decoding else nullcontext():
        experiment = Experiment.prepare(config)
        if resumed is not None:
            refuse_other_data(resumed, experiment.digest)
        if found is None:
            return _in_process(experiment, out, display, resumed, until_s)
        return _on_ray(experiment, out, display, resumed, until_s, found)


def _in_process(
    experiment: Experiment, out: str, display: Display, resumed: Folder | None, until_s: float | None
) -> dict[str, Any] | None:
    from ddpnas_ray.experiment.run import run_experiment

    executor, progress = experiment.executor(), experiment.progress()
    progress.workers = ("local",)
    keeping = nullcontext(None) if out == NO_RUN else _run_folder(experiment, out, resumed)
    with keeping as run:
        _warn(experiment, display, resumed)
        with display, display.following(progress.snapshot):
            return run_experiment(experiment, run and run[0], executor, progress, until_s=until_s)


def _on_ray(
    experiment: Experiment, out: str, display: Display, resumed: Folder | None, until_s: float | None, address: str
) -> dict[str, Any] | None:
    config = experiment.config
    processes = config.execution.workers and config.execution.workers * config.execution.group
    with cluster(address, "train and score architectures", display.lines, workers=processes) as dashboard:
        from ddpnas_ray.distributed import ray_driver
        from ddpnas_ray.execution.ray_members import fitting_workers

        size = fitting_workers(config.execution, config.training.threads, experiment.widest_epoch())
        with _run_folder(experiment, out, resumed) as (folder, lock):
            print(f"{out}: {size}, {dashboard}", file=display.lines, flush=True)
            _warn(experiment, display, resumed)
            result: dict[str, Any] | None = followed(ray_driver.start(experiment, folder, until_s), lock, display)
            return result


def _warn(experiment: Experiment, display: Display, resumed: Folder | None) -> None:
    """Print the warnings of a new search, once its run directory exists."""
    if resumed is None:
        for warning in experiment.evaluator.warnings():
            print(f"warning: {warning}", file=display.lines, flush=True)


def _on_workers(config: SearchConfig) -> bool:
    """Return whether Ray workers are needed: reading a table takes less time than starting one."""
    return config.execution.backend == "ray" and config.trains


@contextmanager
def _run_folder(experiment: Experiment, out: str, resumed: Folder | None) -> Iterator[tuple[Folder, Lock]]:
    """Lock the run directory: a new one, or the one to resume."""
    folder = resumed or create_run(out, experiment.first_files(dump(experiment.config)))
    with locked(folder) as lock, failure_logged(folder):
        yield folder, lock
