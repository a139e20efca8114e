"""Search for every combination of configuration values: ``python -m ddpnas_ray.sweep``."""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import importlib.util
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ddpnas_ray.console.cluster import checked_address, cluster
from ddpnas_ray.console.command import FAILED, INTERRUPTED, OK, Parser, guarded, say
from ddpnas_ray.console.options import add_address_option, add_config_options, positive
from ddpnas_ray.console.out import default_name, new_out, resume_command, resumed_out
from ddpnas_ray.core.errors import ConfigError, ResourceError, RunDirError, did_you_mean
from ddpnas_ray.experiment.config import SearchConfig, check, load, source_name, to_dict
from ddpnas_ray.experiment.yaml_text import parse, to_yaml
from ddpnas_ray.runs.directory import create_run, parsed, read_result
from ddpnas_ray.runs.files import read_evaluations
from ddpnas_ray.runs.lock import locked
from ddpnas_ray.storage.folder import Folder

if TYPE_CHECKING:
    from ddpnas_ray.ablations.grid_report import Ended
    from ddpnas_ray.ablations.variants import Planned
    from ddpnas_ray.ablations.variants import Study as Sweep
    from ddpnas_ray.distributed import ray_tune

DESCRIPTION = """\
Search for every combination of the values of some configuration keys, and for several seeds, on Ray Tune, with as
many searches at a time as fit. Each has a run directory of its own, the same as search would write.

examples:
  python -m ddpnas_ray.sweep --grid pruning.gamma=0.7,0.8,0.9 --grid pruning.epochs_per_round=2,3,4 --seeds 3
  python -m ddpnas_ray.sweep --config configs/nasbench201_table.yaml --set evaluation.table=FILE \\
      --set strategy=pruning --grid pruning.gamma=0.5,0.6,0.7,0.8,0.9 --seeds 10
  python -m ddpnas_ray.sweep --config configs/cifar10_cell.yaml --set data.path=DIR --grid training.lr=0.0125,0.025 \\
      --set execution.workers=4 --address auto --out s3://bucket/sweep
  python -m ddpnas_ray.sweep --out runs/sweep-cell-digits --resume         resume after a kill, or retry failed searches
  python -m ddpnas_ray.report runs/sweep-cell-digits/trials/* --html all.html   its searches side by side

A search takes one worker, a CPU or a GPU, unless execution.workers asks for more; its workers are reserved together, so
searches never wait for each other's. With a local --out, searches run on this machine and only workers elsewhere.

--stop none finishes every search. After a third of the epochs, asha stops those whose mean score of an epoch is in the
lower half, and median those below the median. Early supernet scores say little about the result, and different values
of pruning.epochs_per_round are compared at the same epoch but at different stages: stop early only if time is short.
"""
EPILOG = """\
--out gets sweep.yaml, trials/<name>/ (run directories), results.parquet, results.md, plot.png and plot.svg, and tune/
for TensorBoard.
exit codes: 0 done; 1 a search failed (the others finished); 2 bad input; 130 Ctrl-C (finished epochs are saved)
"""
SCHEMA_VERSION = 1
STOPPED = "stopped.txt"  # names of searches that a scheduler stopped
LOGGERS = {"tensorboard": "tensorboardX", "mlflow": "mlflow", "wandb": "wandb"}  # what each imports


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = Parser(prog="ddpnas sweep", description=DESCRIPTION, epilog=EPILOG)
    add_config_options(p)
    p.add_argument(
        "--grid",
        metavar="KEY=V1,V2,..",
        action="append",
        default=[],
        help="values of one key, as YAML; may be repeated",
    )
    p.add_argument("--seeds", metavar="N|A..B", help="N seeds from 0, or seeds A to B (default 1)")
    p.add_argument("--out", metavar="DIR", help="directory, local or a URI; default: a new runs/sweep-<space>-<data>")
    p.add_argument("--resume", action="store_true", help="resume the sweep in --out, and retry failed searches")
    add_address_option(p)
    p.add_argument("--concurrent", metavar="N", type=positive, help="searches at a time, at most; default: as fit")
    p.add_argument("--stop", choices=("none", "asha", "median"), help="stop weak searches early (none); see above")
    p.add_argument(
        "--log", metavar="WHERE,..", help="tensorboard, mlflow, wandb, or none; default: tensorboard if it is installed"
    )
    return p


@dataclass(frozen=True)
class Plan:
    """A sweep as ``sweep.yaml`` holds it.

    Args:
        config: What is varied.
        grid: Keys and values.
        seeds: As ``--seeds`` has them.
        stop: As ``--stop`` has it.
        source: What the configuration is called.
        digest: SHA-256 of all data; empty before they were loaded.
    """

    config: SearchConfig
    grid: dict[str, list[Any]]
    seeds: str
    stop: str
    source: str
    digest: str = ""


@guarded
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    from ddpnas_ray.ablations import grid as grids

    args = parser().parse_args(argv)
    log = _loggers(args.log)
    plan = _saved(args) if args.resume else _plan(args)
    sweep = grids.plan(plan.config, plan.grid, plan.seeds)
    if plan.stop != "none" and any(not variant.config.trains for variant in sweep.variants):
        raise ConfigError(f"--stop {plan.stop}: searches by table take milliseconds; --stop is for those that train")
    folder = Folder.open(args.out if args.resume else new_out(args.out, f"sweep-{default_name(plan.config)}"))
    errors: dict[str, str] = {}
    stopped = set(folder.read(STOPPED).decode().split("\n")) if folder.has(STOPPED) else set()
    left = [one for one in sweep.trials if grids.name(one) not in stopped and not _run(folder, one).has("result.json")]
    if left:
        address = checked_address(args.address, client=False)
        try:
            errors = _search(plan, sweep, left, stopped, folder, args, log, address)
        except KeyboardInterrupt:
            return _interrupted(sweep, folder)
    return _report(plan, sweep, folder, errors)


def _search(
    plan: Plan,
    sweep: Sweep,
    left: Sequence[Planned],
    stopped: set[str],
    folder: Folder,
    args: argparse.Namespace,
    log: Sequence[str],
    address: str,
) -> dict[str, str]:
    """Search what is left; tells which failed, and why. The directory appears when everything has been checked."""
    trials, evaluations, digest = _trials(plan, sweep, left, stopped, folder)

    from ddpnas_ray.console.progress import counting

    most = max(variant.config.execution.workers or 0 for variant in sweep.variants)
    with cluster(address, "run searches side by side", sys.stdout, workers=most) as dashboard:
        from ddpnas_ray.distributed import ray_tune

        placed = ray_tune.Placed.of(trials, folder)
        if not args.resume:
            content = _content(dataclasses.replace(plan, digest=digest))
            folder = create_run(folder.uri, {"sweep.yaml": to_yaml(content).encode()})
        sizes = ", ".join(dict.fromkeys(f"{size} each" for size in placed.sizes.values()))
        print(f"{folder.uri}: {len(left)} of {len(sweep.trials)} searches, {sizes}, {dashboard}", flush=True)
        unit = plan.config.unit
        with locked(folder), counting(unit, evaluations, sys.stdout) as advance:
            return ray_tune.run(
                placed,
                folder,
                stop=plan.stop,
                log=log,
                concurrent=args.concurrent,
                on_evaluations=advance,
                on_stopped=lambda name: folder.append(STOPPED, name.encode()),
            )


def _trials(
    plan: Plan, sweep: Sweep, left: Sequence[Planned], stopped: set[str], folder: Folder
) -> tuple[list[ray_tune.TuneTrial], int, str]:
    """What is searched, after its data were loaded and checked; how many evaluations that is; SHA-256 of all data."""
    from ddpnas_ray.ablations import grid as grids

    jobs, points = grids.prepare(sweep, plan.grid), grids.points(plan.grid)
    digest = hashlib.sha256("".join(job.digest for job in jobs.values()).encode()).hexdigest()
    if plan.digest not in ("", digest):
        raise RunDirError(
            f"{folder.uri}: the data are not those that the sweep was started with (SHA-256 {digest[:12]}, then "
            f"{plan.digest[:12]}); point data.path or evaluation.table at the same ones, or start anew elsewhere"
        )

    from ddpnas_ray.distributed.ray_tune import TuneTrial

    names = {grids.name(one) for one in left}
    # A scheduler that stops must know how the others did: they report again what they reported then.
    before = [] if plan.stop == "none" else [one for one in sweep.trials if grids.name(one) not in names]
    trials, evaluations = [], 0
    for one in [*before, *left]:
        config, name = one.config, grids.name(one)
        job = dataclasses.replace(jobs[grids.family(config)], config=config)
        evaluations += sum(job.strategy().epochs(job.spec.space))
        params = {**points[int(one.variant.value)], "seed": one.seed}
        by_table = not config.trains  # images depend on the seed: loaded as the trial starts
        trials.append(TuneTrial(name, params, config, job if by_table else None, name in stopped))
    return trials, evaluations, digest


def _report(plan: Plan, sweep: Sweep, folder: Folder, errors: dict[str, str]) -> int:
    """Write and print the results; returns the exit code."""
    from ddpnas_ray.ablations import grid as grids
    from ddpnas_ray.ablations.grid_report import report

    ended = [_ended(folder, one, errors.get(grids.name(one))) for one in sweep.trials]
    table, files = report(sweep, plan.grid, ended, plan.source)
    with locked(folder):
        for name, data in files.items():
            folder.write(name, data)
    print(f"{table}\n{folder.uri}")
    for name, error in errors.items():
        say(f"{name}: {error}")
    if errors:
        retry = resume_command(folder.uri, "sweep")
        say(f"{len(errors)} of {len(sweep.trials)} searches failed; try them again with: {retry}")
    return FAILED if errors else OK


def _ended(folder: Folder, one: Planned, error: str | None) -> Ended:
    from ddpnas_ray.ablations.grid import name
    from ddpnas_ray.ablations.grid_report import Ended

    own, run = _run(folder, one), f"trials/{name(one)}"
    if own.has("result.json"):
        result = read_result(own)
        return Ended(one, run, result, result["scores"]["best"], result["architecture_epochs"])
    is_there = own.has("evaluations.parquet")
    rows = parsed(own, "evaluations.parquet", read_evaluations) if is_there else ()
    return Ended(one, run, None, max((row.score for row in rows), default=None), len(rows), error)


def _interrupted(sweep: Sweep, folder: Folder) -> int:
    if not folder.has("sweep.yaml"):
        say("interrupted before the searches began; nothing was written")
        return INTERRUPTED
    done = sum(_run(folder, one).has("result.json") for one in sweep.trials)
    say(
        f"interrupted; {done} of {len(sweep.trials)} searches are finished, and the finished epochs of the others are "
        f"saved. Resume with: {resume_command(folder.uri, 'sweep')}"
    )
    return INTERRUPTED


# --- what is planned ------------------------------------------------------------------------------------------------


def _plan(args: argparse.Namespace) -> Plan:
    from ddpnas_ray.ablations.grid import parse_grid

    config = load(args.config, args.overrides)
    source = source_name(args.config, args.overrides)
    return Plan(config, parse_grid(args.grid), args.seeds or "1", args.stop or "none", source)


def _content(plan: Plan) -> dict[str, Any]:
    return {
        "schema_version": SCHEMA_VERSION,
        **{key: getattr(plan, key) for key in ("grid", "seeds", "stop", "source", "digest")},
        "config": to_dict(plan.config),
    }


def _saved(args: argparse.Namespace) -> Plan:
    """The sweep to resume; options that are given must be those that it was started with."""
    from ddpnas_ray.ablations.folder import overridden
    from ddpnas_ray.ablations.grid import parse_grid
    from ddpnas_ray.ablations.variants import parse_seeds

    folder = Folder.open(resumed_out(args, "sweep", "sweep.yaml"))
    if not folder.has("sweep.yaml"):
        raise RunDirError(f"{args.out}: is not a sweep (no sweep.yaml there); give the --out of a sweep")
    plan = parsed(folder, "sweep.yaml", lambda data: _read(data, f"{args.out}/sweep.yaml"))
    given = {"grid": parse_grid(args.grid) if args.grid else None, "seeds": args.seeds, "stop": args.stop}
    for key, value in given.items():
        before = getattr(plan, key)
        same = key == "seeds" and value is not None and parse_seeds(value) == parse_seeds(before)
        if value not in (None, before) and not same:
            raise RunDirError(
                f"{args.out}: the sweep was started with --{key} {_shown(before)}; leave --{key} out, or start a new "
                "sweep with another --out"
            )
    return dataclasses.replace(plan, config=overridden(plan.config, args.overrides, args.out, "sweep"))


def _read(data: bytes, source: str) -> Plan:
    content = parse(data.decode(), source)
    if content.get("schema_version") != SCHEMA_VERSION:
        raise ValueError(f"it is not of schema version {SCHEMA_VERSION}")
    config = check(content["config"], source)
    return Plan(config, *(content[key] for key in ("grid", "seeds", "stop", "source", "digest")))


def _shown(value: Any) -> str:
    from ddpnas_ray.reporting.analysis import value_text

    if isinstance(value, dict):
        return " --grid ".join(f"{key}={','.join(map(value_text, values))}" for key, values in value.items())
    return str(value)


def _run(folder: Folder, one: Planned) -> Folder:
    from ddpnas_ray.ablations.grid import name

    return folder / "trials" / name(one)


def _loggers(text: str | None) -> list[str]:
    """The loggers to use; those that were asked for are installed."""
    if text is None:
        return [name for name in ("tensorboard",) if importlib.util.find_spec(LOGGERS[name])]
    names = [name.strip() for name in text.split(",")] if text != "none" else []
    for name in names:
        if name not in LOGGERS:
            raise ConfigError(f"--log: {name!r} is not one of them{did_you_mean(name, [*LOGGERS, 'none'])}")
        if not importlib.util.find_spec(LOGGERS[name]):
            raise ResourceError(f"--log {name}: is not installed here; pip install {LOGGERS[name]}, or leave it out")
    return names


if __name__ == "__main__":
    sys.exit(main())
