"""Search every combination of configuration values: ``python -m ddpnas_ray.sweep``."""

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
from ddpnas_ray.experiment.changes import source_name
from ddpnas_ray.experiment.config import SearchConfig, check, load, to_dict
from ddpnas_ray.experiment.yaml_text import parse, to_yaml
from ddpnas_ray.runs.directory import create_run, parsed, read_result
from ddpnas_ray.runs.files import read_evaluations
from ddpnas_ray.runs.lock import locked
from ddpnas_ray.storage.folder import Folder
from ddpnas_ray.training.cpu_isa import use_level

if TYPE_CHECKING:
    from ddpnas_ray.ablations.grid_report import Ended
    from ddpnas_ray.ablations.variants import Planned, Study
    from ddpnas_ray.distributed import ray_tune

DESCRIPTION = """\
Search every combination of values of the given configuration keys, with several seeds, on Ray Tune; as many searches
run at a time as fit. Each writes its own run directory, exactly as `search` would.

examples:
  python -m ddpnas_ray.sweep --grid pruning.gamma=0.7,0.8,0.9 --grid pruning.epochs_per_round=2,3,4 --seeds 3
  python -m ddpnas_ray.sweep --config configs/nasbench201_table.yaml --set evaluation.table=FILE \\
      --set strategy=pruning --grid pruning.gamma=0.5,0.6,0.7,0.8,0.9 --seeds 10
  python -m ddpnas_ray.sweep --config configs/cifar10_cell.yaml --set data.path=DIR --grid training.lr=0.0125,0.025 \\
      --set execution.workers=4 --address auto --out s3://bucket/sweep
  python -m ddpnas_ray.sweep --out runs/sweep-cell-digits --resume         resume after a kill, or retry failed searches
  python -m ddpnas_ray.report runs/sweep-cell-digits/trials/* --html all.html   compare its searches on one page

A search takes one worker, a CPU or a GPU, unless execution.workers asks for more; its workers are reserved together, so
searches never deadlock. With a local --out, searches run on this machine and only their workers elsewhere.

--stop none finishes every search. After a third of the epochs, asha stops searches whose mean epoch score is in the
lower half, and median those below the median. Early supernet scores say little about the result, and different values
of pruning.epochs_per_round are compared at the same epoch but at different stages: stop early only if time is short.
"""
EPILOG = """\
--out receives sweep.yaml, trials/<name>/ (run directories), results.parquet, results.md, plot.png, plot.svg, and tune/
for TensorBoard.
exit codes: 0 done; 1 a search failed (the others finished); 2 bad input; 130 Ctrl-C (finished epochs are saved)
"""
SCHEMA_VERSION = 1
STOPPED = "stopped.txt"  # names of the searches that a scheduler stopped
LOGGERS = {"tensorboard": "tensorboardX", "mlflow": "mlflow", "wandb": "wandb"}  # name -> package


def parser() -> argparse.ArgumentParser:
    """Build the argument parser."""
    p = Parser(prog="ddpnas sweep", description=DESCRIPTION, epilog=EPILOG)
    add_config_options(p)
    p.add_argument(
        "--grid",
        metavar="KEY=V1,V2,..",
        action="append",
        default=[],
        help="values of one key, as YAML; repeat for more keys",
    )
    p.add_argument("--seeds", metavar="N|A..B", help="N seeds from 0, or seeds A to B (default 1)")
    p.add_argument(
        "--out", metavar="DIR", help="sweep directory, local or a URI; default: a new runs/sweep-<space>-<data>"
    )
    p.add_argument("--resume", action="store_true", help="resume the sweep in --out, and retry failed searches")
    add_address_option(p)
    p.add_argument("--concurrent", metavar="N", type=positive, help="at most N searches at a time; default: as fit")
    p.add_argument("--stop", choices=("none", "asha", "median"), help="stop weak searches early (none); see above")
    p.add_argument(
        "--log", metavar="WHERE,..", help="tensorboard, mlflow, wandb, or none; default: tensorboard if installed"
    )
    return p


@dataclass(frozen=True)
class Plan:
    """Content of ``sweep.yaml``.

    Args:
        config: Base configuration.
        grid: Keys and values.
        seeds: ``--seeds``.
        stop: ``--stop``.
        source: Name of the configuration.
        digest: SHA-256 of all data; empty until loaded.
    """

    config: SearchConfig
    grid: dict[str, list[Any]]
    seeds: str
    stop: str
    source: str
    digest: str = ""


@guarded
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    from ddpnas_ray.ablations import grid as grids

    args = parser().parse_args(argv)
    log = _loggers(args.log)
    plan = _saved(args) if args.resume else _plan(args)
    use_level(plan.config.training.cpu_isa)
    study = grids.plan(plan.config, plan.grid, plan.seeds)
    if plan.stop != "none" and any(not variant.config.trains for variant in study.variants):
        raise ConfigError(f"--stop {plan.stop}: tabular searches take milliseconds; --stop is for those that train")
    folder = Folder.open(args.out if args.resume else new_out(args.out, f"sweep-{default_name(plan.config)}"))
    errors: dict[str, str] = {}
    stopped = set(folder.read(STOPPED).decode().split("\n")) if folder.has(STOPPED) else set()
    left = [one for one in study.trials if grids.name(one) not in stopped and not _run(folder, one).has("result.json")]
    if left:
        address = checked_address(args.address, client=False)
        try:
            errors = _search(plan, study, left, stopped, folder, args, log, address)
        except KeyboardInterrupt:
            return _interrupted(study, folder)
    return _report(plan, study, folder, errors)


def _search(
    plan: Plan,
    study: Study,
    left: Sequence[Planned],
    stopped: set[str],
    folder: Folder,
    args: argparse.Namespace,
    log: Sequence[str],
    address: str,
) -> dict[str, str]:
    """Run the remaining searches and return the errors by name; creates the directory after all checks."""
    trials, evaluations, digest = _trials(plan, study, left, stopped, folder)

    from ddpnas_ray.console.progress import counting

    most = max(variant.config.execution.workers or 0 for variant in study.variants)
    with cluster(address, "run searches side by side", sys.stdout, workers=most) as dashboard:
        from ddpnas_ray.distributed import ray_tune

        placed = ray_tune.Placed.of(trials, folder)
        if not args.resume:
            content = _content(dataclasses.replace(plan, digest=digest))
            folder = create_run(folder.uri, {"sweep.yaml": to_yaml(content).encode()})
        sizes = ", ".join(dict.fromkeys(f"{size} each" for size in placed.sizes.values()))
        print(f"{folder.uri}: {len(left)} of {len(study.trials)} searches, {sizes}, {dashboard}", flush=True)
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
    plan: Plan, study: Study, left: Sequence[Planned], stopped: set[str], folder: Folder
) -> tuple[list[ray_tune.TuneTrial], int, str]:
    """Load and check the data; return the trials, their total number of evaluations, and SHA-256 of all data."""
    from ddpnas_ray.ablations import grid as grids

    experiments, points = grids.prepare(study, plan.grid), grids.points(plan.grid)
    digest = hashlib.sha256("".join(experiment.digest for experiment in experiments.values()).encode()).hexdigest()
    if plan.digest not in ("", digest):
        raise RunDirError(
            f"{folder.uri}: the data differ from those of the sweep (SHA-256 {digest[:12]}, then {plan.digest[:12]}); "
            "point data.path, evaluation.table or a path of the task to the original data, or start a new sweep with "
            "another --out"
        )

    from ddpnas_ray.distributed.ray_tune import TuneTrial

    names = {grids.name(one) for one in left}
    # A scheduler compares with finished and stopped searches too: they report their epochs again.
    before = [] if plan.stop == "none" else [one for one in study.trials if grids.name(one) not in names]
    trials, evaluations = [], 0
    for one in [*before, *left]:
        config, name = one.config, grids.name(one)
        experiment = dataclasses.replace(experiments[grids.family(config)], config=config)
        evaluations += sum(experiment.strategy().epochs(experiment.spec.space))
        params = {**points[int(one.variant.value)], "seed": one.seed}
        tabular = not config.trains  # images depend on the seed: loaded when the trial starts
        trials.append(TuneTrial(name, params, config, experiment if tabular else None, name in stopped))
    return trials, evaluations, digest


def _report(plan: Plan, study: Study, folder: Folder, errors: dict[str, str]) -> int:
    """Write and print the results, and return the exit code."""
    from ddpnas_ray.ablations import grid as grids
    from ddpnas_ray.ablations.grid_report import report

    ended = [_ended(folder, one, errors.get(grids.name(one))) for one in study.trials]
    table, files = report(study, plan.grid, ended, plan.source)
    with locked(folder):
        for name, data in files.items():
            folder.write(name, data)
    print(f"{table}\n{folder.uri}")
    for name, error in errors.items():
        say(f"{name}: {error}")
    if errors:
        retry = resume_command(folder.uri, "sweep")
        say(f"{len(errors)} of {len(study.trials)} searches failed; retry with: {retry}")
    return FAILED if errors else OK


def _ended(folder: Folder, one: Planned, error: str | None) -> Ended:
    from ddpnas_ray.ablations.grid import name
    from ddpnas_ray.ablations.grid_report import Ended

    own, run = _run(folder, one), f"trials/{name(one)}"
    if own.has("result.json"):
        result = read_result(own)
        return Ended(one, run, result, result["scores"]["best"], result["architecture_epochs"])
    rows = parsed(own, "evaluations.parquet", read_evaluations) if own.has("evaluations.parquet") else ()
    return Ended(one, run, None, max((row.score for row in rows), default=None), len(rows), error)


def _interrupted(study: Study, folder: Folder) -> int:
    if not folder.has("sweep.yaml"):
        say("interrupted before the searches began; nothing was written")
        return INTERRUPTED
    done = sum(_run(folder, one).has("result.json") for one in study.trials)
    say(
        f"interrupted; {done} of {len(study.trials)} searches are finished, and the finished epochs of the others are "
        f"saved. Resume with: {resume_command(folder.uri, 'sweep')}"
    )
    return INTERRUPTED


# --- plan -----------------------------------------------------------------------------------------------------------


def _plan(args: argparse.Namespace) -> Plan:
    from ddpnas_ray.ablations.grid import parse_grid

    config = load(args.config, args.overrides)
    source = source_name(args.config, args.overrides, config)
    return Plan(config, parse_grid(args.grid), args.seeds or "1", args.stop or "none", source)


def _content(plan: Plan) -> dict[str, Any]:
    return {
        "schema_version": SCHEMA_VERSION,
        **{key: getattr(plan, key) for key in ("grid", "seeds", "stop", "source", "digest")},
        "config": to_dict(plan.config),
    }


def _saved(args: argparse.Namespace) -> Plan:
    """Read the sweep to resume; given options must equal those it was started with."""
    from ddpnas_ray.ablations.folder import overridden
    from ddpnas_ray.ablations.grid import parse_grid
    from ddpnas_ray.ablations.variants import parse_seeds

    folder = Folder.open(resumed_out(args, "sweep", "sweep.yaml"))
    if not folder.has("sweep.yaml"):
        raise RunDirError(f"{args.out}: is not a sweep (no sweep.yaml in it); give the --out of a sweep")
    plan = parsed(folder, "sweep.yaml", lambda data: _read(data, f"{args.out}/sweep.yaml"))
    given = {"grid": parse_grid(args.grid) if args.grid else None, "seeds": args.seeds, "stop": args.stop}
    for key, value in given.items():
        before = getattr(plan, key)
        same = key == "seeds" and value is not None and parse_seeds(value) == parse_seeds(before)
        if value not in (None, before) and not same:
            raise RunDirError(
                f"{args.out}: the sweep was started with --{key} {_shown(before)}; remove --{key}, or start a new "
                "sweep with another --out"
            )
    return dataclasses.replace(plan, config=overridden(plan.config, args.overrides, args.out, "sweep"))


def _read(data: bytes, source: str) -> Plan:
    content = parse(data.decode(), source)
    if content.get("schema_version") != SCHEMA_VERSION:
        raise ValueError(f"not of schema version {SCHEMA_VERSION}")
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
    """Return the loggers to use; requested ones must be installed."""
    if text is None:
        return [name for name in ("tensorboard",) if importlib.util.find_spec(LOGGERS[name])]
    names = [name.strip() for name in text.split(",")] if text != "none" else []
    for name in names:
        if name not in LOGGERS:
            raise ConfigError(f"--log: {name!r} is not a logger{did_you_mean(name, [*LOGGERS, 'none'])}")
        if not importlib.util.find_spec(LOGGERS[name]):
            raise ResourceError(f"--log {name}: is not installed; pip install {LOGGERS[name]}, or remove it")
    return names


if __name__ == "__main__":
    sys.exit(main())
