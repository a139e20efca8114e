"""Search for an architecture: ``python -m ddpnas_ray.search``."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

from ddpnas_ray.console.cluster import checked_address, cluster
from ddpnas_ray.console.command import INTERRUPTED, OK, Parser, guarded, say
from ddpnas_ray.console.options import add_address_option, add_config_options, seconds
from ddpnas_ray.console.out import default_name, new_out, resume_command, saved_text
from ddpnas_ray.console.progress import Display
from ddpnas_ray.core.errors import RunDirError
from ddpnas_ray.experiment.config import SearchConfig, check, describe, dump, fixed_keys, load, set_key
from ddpnas_ray.experiment.yaml_text import parse
from ddpnas_ray.reporting.summary import summary
from ddpnas_ray.runs.directory import create_run, existing_run, read_config, read_result, refuse_other_data
from ddpnas_ray.runs.lock import Lock, locked
from ddpnas_ray.runs.log import failure_logged
from ddpnas_ray.storage.folder import Folder
from ddpnas_ray.training.cpu_isa import use_level

DESCRIPTION = """\
Search for a network architecture with DDPNAS: sample disjoint architectures that share one supernet's weights, train
each for an epoch on a Ray worker, score it, and prune the least probable operation of every edge, round by round.

examples:
  python -m ddpnas_ray.search                                        digits, on this machine, about two minutes
  python -m ddpnas_ray.search --config configs/cifar10_cell_cpu.yaml --set data.path=DIR --out runs/cifar
  python -m ddpnas_ray.search --set data.name=folder --set data.path=photos --set data.image_size=32
  python -m ddpnas_ray.search --config configs/nasbench201_table.yaml --set evaluation.table=FILE    score from a table
  python -m ddpnas_ray.search --out runs/cifar --resume              resume after a kill, on this or another machine
  python -m ddpnas_ray.search --address auto --out s3://bucket/run   on this machine's Ray cluster

Run `python -m ddpnas_ray.check` with the same options first: it dry-runs the pipeline on two batches and estimates
time, memory and disk. The run directory holds the configuration, theta by round, every evaluation, checkpoints and the
result; `generate` and `report` read it.
"""

NO_RUN = "none"


def parser() -> argparse.ArgumentParser:
    """Build the argument parser."""
    p = Parser(prog="ddpnas search", description=DESCRIPTION)
    add_config_options(p)
    p.add_argument(
        "--out",
        metavar="DIR",
        default=None,
        help="run directory, a local path or a URI; none keeps nothing; default: a new runs/<space>-<data>-s<seed>",
    )
    p.add_argument("--resume", action="store_true", help="resume the run in --out from its latest checkpoint")
    add_address_option(p)
    p.add_argument(
        "--time-limit", metavar="TIME", type=seconds, help="stop cleanly between epochs within TIME (90s, 30m, 2h)"
    )
    p.add_argument("--json", action="store_true", help="print the result as one JSON object; progress goes to stderr")
    p.add_argument(
        "--keys", action="store_true", help="list every configuration key with its default and meaning, and exit"
    )
    p.epilog = (
        "exit codes: 0 done, or time limit reached; 1 failure; 2 bad input; 130 Ctrl-C (finished epochs are saved)"
    )
    return p


@guarded
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    args = parser().parse_args(argv)
    args.until_s = None if args.time_limit is None else time.time() + args.time_limit
    if args.keys:
        for key, default, meaning in describe(load(args.config, args.overrides).strategy):
            print(f"{key:<28} {default:<10} {meaning}")
        return OK
    if args.resume:
        return _resume(args)
    config = load(args.config, args.overrides)
    if args.out == NO_RUN:
        if _on_workers(config):
            raise RunDirError("--out none: a search on Ray needs a run directory; set execution.backend=local")
        return _search(config, NO_RUN, args)
    return _search(config, new_out(args.out, f"{default_name(config)}-s{config.seed}"), args)


def _resume(args: argparse.Namespace) -> int:
    if args.out in (None, NO_RUN):
        raise RunDirError("--resume needs the run directory; give it with --out")
    folder = existing_run(args.out)
    text = read_config(folder)
    saved = check(parse(text, f"{args.out}/config.yaml"), f"{args.out}/config.yaml")
    if args.config:
        config = load(args.config, args.overrides)
    else:
        values = parse(text, args.out)
        for override in args.overrides:
            set_key(values, override)
        config = check(values, args.out, args.overrides)
    changed = fixed_keys(saved, config)
    if changed:
        raise RunDirError(
            f"{args.out}: the run was started with other values of {', '.join(changed)}; only execution.* may "
            "change on --resume: omit them, or start a new run with another --out"
        )
    if folder.has("result.json"):
        _print_result(read_result(folder), args)
        return OK
    return _search(config, args.out, args, resumed=folder)


def _search(config: SearchConfig, out: str, args: argparse.Namespace, resumed: Folder | None = None) -> int:
    address = checked_address(args.address, client=False) if _on_workers(config) else None
    use_level(config.training.cpu_isa)
    from ddpnas_ray.experiment.experiment import Experiment

    experiment = Experiment.prepare(config)
    if resumed is not None:
        refuse_other_data(resumed, experiment.digest)
    title = f"ddpnas search: {config.space.name} on {config.searched_on}, seed {config.seed}"
    display = Display(title, sys.stderr if args.json else sys.stdout)
    try:
        if address is None:
            result = _in_process(experiment, out, args, display, resumed)
        else:
            result = _on_ray(experiment, out, args, display, resumed, address)
    except KeyboardInterrupt:
        if out == NO_RUN:
            raise
        if Folder.open(out).has("config.yaml"):
            say(f"interrupted; {saved_text(Folder.open(out))}. Resume with: {resume_command(out)}")
        else:
            say("interrupted before the search began; nothing was written")
        return INTERRUPTED
    if result is not None:
        _print_result(result, args, out)
    elif out == NO_RUN:
        say("time limit reached before the end; --out none keeps nothing")
    else:
        say(f"time limit reached; {saved_text(Folder.open(out))}. Resume with: {resume_command(out)}")
    return OK


def _in_process(experiment: Any, out: str, args: argparse.Namespace, display: Display, resumed: Folder | None) -> Any:
    from ddpnas_ray.experiment.run import run_experiment

    executor, progress = experiment.executor(), experiment.progress()
    progress.workers = ("local",)
    keeping = nullcontext(None) if out == NO_RUN else _run_folder(experiment, out, resumed)
    with keeping as run:
        _warn(experiment, display, resumed)
        with display, display.following(progress.snapshot):
            return run_experiment(experiment, run and run[0], executor, progress, until_s=args.until_s)


def _on_ray(
    experiment: Any, out: str, args: argparse.Namespace, display: Display, resumed: Folder | None, address: str
) -> Any:
    config = experiment.config
    with cluster(
        address, "train and score architectures", display.lines, workers=config.execution.workers
    ) as dashboard:
        from ddpnas_ray.console import ray_connect
        from ddpnas_ray.distributed import ray_driver
        from ddpnas_ray.execution.ray_members import fitting_workers

        size = fitting_workers(config.execution, config.training.threads, experiment.widest_epoch())
        with _run_folder(experiment, out, resumed) as (folder, lock):
            print(f"{out}: {size}, {dashboard}", file=display.lines, flush=True)
            _warn(experiment, display, resumed)
            search = ray_driver.start(experiment, folder, args.until_s)
            here = {"address": ray_connect.gcs_address(), "auth": ray_connect.auth_mode()}
            lock.add(driver=search.name, **here)  # for `attach`
            with display:
                while not search.wait(timeout_s=0.25):
                    if (now := search.status()) is not None:
                        display.show(now)
            return search.outcome()


def _warn(experiment: Any, display: Display, resumed: Folder | None) -> None:
    """Print the warnings of a new search, once its run directory exists."""
    if resumed is None:
        for warning in experiment.evaluator.warnings():
            print(f"warning: {warning}", file=display.lines, flush=True)


def _on_workers(config: SearchConfig) -> bool:
    """Return whether Ray workers are needed: reading a table takes less time than starting one."""
    return config.execution.backend == "ray" and config.trains


@contextmanager
def _run_folder(experiment: Any, out: str, resumed: Folder | None) -> Iterator[tuple[Folder, Lock]]:
    """Lock the run directory: a new one, or the one to resume."""
    folder = resumed or create_run(out, experiment.first_files(dump(experiment.config)))
    with locked(folder) as lock, failure_logged(folder):
        yield folder, lock


def _print_result(result: dict[str, Any], args: argparse.Namespace, out: str | None = None) -> None:
    print(json.dumps(result) if args.json else summary(result, out or args.out))


if __name__ == "__main__":
    sys.exit(main())
