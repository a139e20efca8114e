"""Search for an architecture: ``python -m ddpnas_ray.search``, and ``ddpnas_ray.search()`` of the Python API."""

from __future__ import annotations

import argparse
import importlib
import inspect
import json
import sys
import time
from collections.abc import Sequence
from types import ModuleType
from typing import Any

from ddpnas_ray import api
from ddpnas_ray.console.cluster import kept
from ddpnas_ray.console.command import INTERRUPTED, OK, Parser, guarded, say
from ddpnas_ray.console.options import add_address_option, add_config_options, seconds
from ddpnas_ray.console.out import resume_command, saved_text
from ddpnas_ray.console.progress import Display
from ddpnas_ray.core.errors import RunDirError
from ddpnas_ray.experiment.config import SearchConfig, describe, load
from ddpnas_ray.launch import search as launch
from ddpnas_ray.launch.stages import STAGES, Searched, check_stages, parse_stages, run_stages
from ddpnas_ray.reporting.summary import summary
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
  python -m ddpnas_ray.search --config configs/nasbench201_table.yaml --set evaluation.table=FILE --budget macs=50%
  python -m ddpnas_ray.search --config cifar10_cell --set data.path=DIR --out runs/net --then retrain,export
  python -m ddpnas_ray.search --out runs/cifar --resume              resume after a kill, on this or another machine
  python -m ddpnas_ray.search --address auto --out s3://bucket/run   on this machine's Ray cluster

Run `python -m ddpnas_ray.check` with the same options first: it dry-runs the pipeline on two batches and estimates
time, memory and disk. The run directory holds the configuration, theta by round, every evaluation, checkpoints and the
result; `generate` and `report` read it.
"""


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
    p.add_argument(
        "--budget",
        metavar="BUDGET",
        action="append",
        default=[],
        help="search only among networks that fit: macs=400M, or macs=50%%..100%%:10 for the best of ten at once "
        "(as `generate --budget`; %% of the largest cost in the space); repeat for more. Same as target.budgets; for "
        "strategy=surrogate, evolution or random",
    )
    p.add_argument("--resume", action="store_true", help="resume the run in --out from its latest checkpoint")
    p.add_argument(
        "--then",
        metavar="STAGES",
        default="",
        help=f"what to do with the result: {','.join(STAGES)} (any of these, in this order). finals: train the "
        "best candidates by successive halving, the winner is the result (section finals). retrain: the networks of "
        "retraining.budgets, or the result; with --resume each stage goes on where it stopped",
    )
    add_address_option(p)
    p.add_argument(
        "--time-limit", metavar="TIME", type=seconds, help="stop cleanly between epochs within TIME (90s, 30m, 2h)"
    )
    p.add_argument("--json", action="store_true", help="print each result as one JSON object; progress goes to stderr")
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
    if args.budget:
        args.overrides.append(f"target.budgets={json.dumps(args.budget)}")
    args.until_s = None if args.time_limit is None else time.time() + args.time_limit
    if args.keys:
        for key, default, meaning in describe(load(args.config, args.overrides).strategy):
            print(f"{key:<28} {default:<10} {meaning}")
        return OK
    args.stages = parse_stages(args.then) if args.then else ()
    if args.stages and args.out == launch.NO_RUN:
        raise RunDirError("--then needs a run directory; omit --out none")
    if args.resume:
        if args.out in (None, launch.NO_RUN):
            raise RunDirError("--resume needs the run directory; give it with --out")
        given = load(args.config, args.overrides) if args.config else None
        folder, config = launch.resumed_config(args.out, given, args.overrides)
        return _run(config, args.out, args, folder)
    config = load(args.config, args.overrides)
    return _run(config, launch.folder_of(config, args.out), args)


def _run(config: SearchConfig, out: str, args: argparse.Namespace, resumed: Folder | None = None) -> int:
    """Run the search and its stages, on one connection to Ray."""
    if not args.stages:
        return _search(config, out, args, resumed)[0]
    use_level(config.training.cpu_isa)  # a finished search is only read, and its stages come after torch is imported
    check_stages(args.stages, config, out)
    with kept(config.retraining.workers):
        code, finished = _search(config, out, args, resumed)
        if not finished:
            return code
        try:
            lines = sys.stderr if args.json else sys.stdout
            for done in run_stages(args.stages, Searched(run=out, config=config, lines=lines, address=args.address)):
                print(json.dumps(done.result) if args.json else done.text, flush=True)
        except KeyboardInterrupt:
            say(f"interrupted; finished epochs are saved. Resume with: {_resume_command(out, args)}")
            return INTERRUPTED
    return OK


def _search(
    config: SearchConfig, out: str, args: argparse.Namespace, resumed: Folder | None = None
) -> tuple[int, bool]:
    """Run the search; returns the exit code, and whether it has finished."""
    display = Display(launch.title_of(config), sys.stderr if args.json else sys.stdout)
    try:
        result = launch.search(config, out, display, resumed=resumed, address=args.address, until_s=args.until_s)
    except KeyboardInterrupt:
        if out == launch.NO_RUN:
            raise
        if Folder.open(out).has("config.yaml"):
            say(f"interrupted; {saved_text(Folder.open(out))}. Resume with: {_resume_command(out, args)}")
        else:
            say("interrupted before the search began; nothing was written")
        return INTERRUPTED, False
    if result is not None:
        print(json.dumps(result) if args.json else summary(result, out), flush=True)
    elif out == launch.NO_RUN:
        say("time limit reached before the end; --out none keeps nothing")
    else:
        say(f"time limit reached; {saved_text(Folder.open(out))}. Resume with: {_resume_command(out, args)}")
    return OK, result is not None


def _resume_command(out: str, args: argparse.Namespace) -> str:
    return resume_command(out) + (f" --then {','.join(args.stages)}" if args.stages else "")


class _Callable(ModuleType):
    """This module, callable as ``ddpnas_ray.search``, a name that it shares with the function of the Python API."""

    def __call__(self, *args: Any, **options: Any) -> api.Run:
        return api.search(*args, **options)

    def __reduce__(self) -> tuple[Any, ...]:
        return importlib.import_module, ("ddpnas_ray.search",)  # as modules are, so that Ray tasks can name it


sys.modules[__name__].__class__ = _Callable
__signature__ = inspect.signature(api.search)

if __name__ == "__main__":
    sys.exit(main())
