"""Repeat the paper's ablations and others like them: ``python -m ddpnas_ray.ablate``."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ddpnas_ray.commandline import (
    INTERRUPTED,
    OK,
    Parser,
    add_config_options,
    add_set_option,
    guarded,
    positive,
    refuse_dead_address,
)
from ddpnas_ray.core.errors import ConfigError
from ddpnas_ray.experiment.config import load, source_name
from ddpnas_ray.runs.directory import create_run, free_name, parsed, refuse_existing
from ddpnas_ray.runs.files import read_history
from ddpnas_ray.runs.lock import locked
from ddpnas_ray.storage.folder import Folder

if TYPE_CHECKING:
    from ddpnas_ray.ablations.folder import Report, Saved
    from ddpnas_ray.ablations.outcomes import Outcome
    from ddpnas_ray.ablations.sweeps import Planned, Sweep
    from ddpnas_ray.execution.base import ExecutionConfig
    from ddpnas_ray.experiment.finished import FinishedRun

DESCRIPTION = """\
Ablations as commands: searches over values and seeds, or a closer look at one finished run, each with a table, a
picture and all numbers in one directory. Searches run on Ray, as many at a time as fit, or in this process with
execution.backend=local; results do not depend on it.

examples:
  python -m ddpnas_ray.ablate interval --config configs/nasbench201_table.yaml --set evaluation.table=FILE --seeds 300
  python -m ddpnas_ray.ablate correlation --help        every sub-command tells what it shows and how long it takes
"""
TABLE = "--config configs/nasbench201_table.yaml --set evaluation.table=FILE"
SUPERNET = "--config configs/cifar10_nasbench201_cpu.yaml \\\n      --set data.path=DIR --set evaluation.table=FILE"
EPILOG = """\
--out gets config.yaml, ablation.json, trials.parquet, table.md, plot.png and plot.svg; searches also trials.jsonl,
from which --resume goes on after a kill.
exit codes: 0 done; 1 failure; 2 bad input; 130 Ctrl-C (finished searches are saved)
"""
SWEEPS = {
    "interval": (
        "T against quality and cost (Fig. 6)",
        f"""\
The pruning interval T of Algorithm 1 (Fig. 6): quality of the answer and evaluations, mean and standard deviation over
seeds. A search costs what its T needs, unless --budget says otherwise; then what pruning leaves verifies the likeliest
networks. By table 300 seeds of 6 values take less than a minute; with a supernet it is seeds x values searches.

examples:
  python -m ddpnas_ray.ablate interval {TABLE} --seeds 300
  python -m ddpnas_ray.ablate interval --values 2..4 --set pruning.keep_per_group=1 --seeds 10..13 --out runs/T
""",
    ),
    "gamma": (
        "momentum gamma against quality (Sec. 4.3)",
        f"""\
The momentum gamma of Eq. 4 against the quality of the answer; the paper sees no difference within 0.7-0.9 (Sec. 4.3).
By table 300 seeds of 11 values take about a minute. All values cost the same: evaluation.budget, where it is set.

examples:
  python -m ddpnas_ray.ablate gamma {TABLE} --seeds 300
  python -m ddpnas_ray.ablate gamma {TABLE} --values 0.7,0.8,0.9
""",
    ),
    "noprune": (
        "pruning on and off at equal evaluations (NoPrune of Table 2)",
        f"""\
Algorithm 1 with and without pruning (NoPrune of Tables 2 and 5). Both get the evaluations that pruning needs, so it is
pruning alone that differs; the difference is also given seed by seed. By table 300 seeds take seconds.

examples:
  python -m ddpnas_ray.ablate noprune {TABLE} --seeds 300
""",
    ),
    "strategies": (
        "every strategy at equal evaluations",
        f"""\
Every strategy with the same evaluations: pruning and noprune, random, evolution, surrogate, and multinomial and
reinforce without and with pruning as a plug-in. By table all take milliseconds a search but surrogate, which takes a
second or two: 100 seeds of three budgets are some minutes. With a supernet it is seeds x budgets x strategies searches.

examples:
  python -m ddpnas_ray.ablate strategies {TABLE} --seeds 100
  python -m ddpnas_ray.ablate strategies {TABLE} --only pruning,random,evolution --budgets 42,100 --seeds 1000
""",
    ),
    "correlation": (
        "Kendall's tau of supernet scores against the benchmark, by epoch (Fig. 7)",
        f"""\
Do networks with inherited weights rank as networks trained alone do (Fig. 7)? After every epoch the same random
networks are scored with the supernet's weights and compared with the table by Kendall's tau; mean and standard
deviation over seeds, the paper's 0.5722 dashed. Each seed is a search of several minutes in one process;
--merge mean,sequential compares both ways to share weights.

examples:
  python -m ddpnas_ray.ablate correlation {SUPERNET} --seeds 4
  python -m ddpnas_ray.ablate correlation {SUPERNET} --merge mean,sequential --networks 100
""",
    ),
}
OPERATION = f"""\
Fix an operation on an edge, draw random networks that have it, and ask whether their scores are Gaussian (Fig. 3):
mean and deviation, Shapiro-Wilk and D'Agostino, and a histogram with the fitted density. By table a second or two, of
networks trained to the end as in the paper; otherwise give a finished run, whose inherited weights score them (val).

examples:
  python -m ddpnas_ray.ablate operation --edge 0-1 --operation nor_conv_3x3 {TABLE}
  python -m ddpnas_ray.ablate operation --edge normal.3 --operation sep_conv_3x3 --run runs/cell-digits-s0
"""
THETA = """\
Draw theta of every operation by round, a small picture an edge (Fig. 4), from a run's theta.parquet. A pruned operation
keeps its theta for the normalisation: its line goes on dotted after a cross. Seconds.

examples:
  python -m ddpnas_ray.ablate theta runs/cell-digits-s0 --out runs/theta
"""
TOPOLOGY = """\
From one finished search, the best network of every height H and number N of non-parameter operations ({N, H} of Table
4): E[alpha], exact params and macs, or that there is none. Seconds; --verify scores each with inherited weights (val).

examples:
  python -m ddpnas_ray.ablate topology runs/cell-digits-s0
  python -m ddpnas_ray.ablate topology runs/cell-digits-s0 --heights 1..3 --nonparametric 2,4,6 --verify
"""
NEVER_SAVED = {"what", "out", "resume", "address", "json", "overrides", "config"}  # what an ablation is not told by
GAMMAS = "0.0,0.1,0.2,0.3,0.4,0.5,0.6,0.7,0.8,0.9,0.99"


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = Parser(prog="ddpnas ablate", description=DESCRIPTION)
    whats = p.add_subparsers(dest="what", metavar="WHAT", required=True)
    for name, (meaning, description) in SWEEPS.items():
        sub = whats.add_parser(name, help=meaning, description=description, epilog=EPILOG)
        _add_own_options(name, sub)
        sub.add_argument(
            "--seeds", metavar="N|A..B", default="4", help="so many seeds from 0, or those from A to B (4)"
        )
        add_config_options(sub)
        sub.add_argument("--resume", action="store_true", help="go on with the ablation in --out")
    p_operation = whats.add_parser(
        "operation", help="scores of networks that share an operation (Fig. 3)", description=OPERATION, epilog=EPILOG
    )
    p_operation.add_argument("--edge", required=True, help="an edge of the space; a wrong name lists them")
    p_operation.add_argument("--operation", required=True, help="one of its operations")
    p_operation.add_argument("--networks", metavar="N", type=positive, default=100, help="how many (100)")
    p_operation.add_argument("--run", metavar="RUN", help="a finished run, whose weights score them")
    add_config_options(p_operation)
    p_theta = whats.add_parser("theta", help="theta of a run by round (Fig. 4)", description=THETA, epilog=EPILOG)
    p_theta.add_argument("run", metavar="RUN", help="run directory of a finished search")
    p_topology = whats.add_parser(
        "topology", help="the best network of every height and width of a run", description=TOPOLOGY, epilog=EPILOG
    )
    p_topology.add_argument("run", metavar="RUN", help="run directory of a finished search of a cell space")
    p_topology.add_argument("--heights", metavar="H,..", default="1..4", help="values of H (1..4)")
    p_topology.add_argument("--nonparametric", metavar="N,..", default="0..8", help="values of N (0..8)")
    p_topology.add_argument("--verify", action="store_true", help="score them with inherited weights (val split)")
    add_set_option(p_topology, "data.path and execution.* only, for --verify")
    for sub in whats.choices.values():
        sub.add_argument("--out", metavar="DIR", help="where to; default: a new runs/ablate-<what>-...")
        sub.add_argument("--json", action="store_true", help="print ablation.json; the table goes to stderr")
        if sub is not p_theta:
            sub.add_argument("--address", metavar="HOST:PORT", help="a running Ray cluster, or auto")
    return p


def _add_own_options(name: str, sub: argparse.ArgumentParser) -> None:
    if name == "interval":
        sub.add_argument("--values", metavar="T,..", default="1..6", help="values of T (1..6)")
        sub.add_argument(
            "--budget", metavar="N", type=positive, help="equal evaluations for all; default: what each needs"
        )
    elif name == "gamma":
        sub.add_argument("--values", metavar="G,..", default=GAMMAS, help="values of gamma (0.0 to 0.9, and 0.99)")
    elif name == "strategies":
        sub.add_argument("--budgets", metavar="N,..", default="42,58,100", help="evaluations (42,58,100)")
        sub.add_argument("--only", metavar="NAME,..", help="some of the strategies; default: all nine")
    elif name == "correlation":
        sub.add_argument("--networks", metavar="N", type=positive, default=50, help="networks that are ranked (50)")
        sub.add_argument("--merge", metavar="WAY,..", default="mean", help="mean, sequential, or both (mean)")


@guarded
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    args = parser().parse_args(argv)
    if args.what in SWEEPS:
        return _sweep(args)
    return {"operation": _operation, "theta": _theta, "topology": _topology}[args.what](args)


# --- ablations that search ------------------------------------------------------------------------------------------


def _sweep(args: argparse.Namespace) -> int:
    from ddpnas_ray.ablations import folder as folders
    from ddpnas_ray.ablations.report import report
    from ddpnas_ray.ablations.sweeps import plan
    from ddpnas_ray.job import Job

    saved = _restored(args) if args.resume else None
    if saved is not None and saved.finished:
        _print(parsed(saved.folder, "table.md", bytes.decode), saved.content, args, saved.folder.uri)
        return OK
    if saved is not None:
        config, arguments = saved.config, saved.content["arguments"]
    else:
        config = load(args.config, args.overrides)
        arguments = {key: value for key, value in vars(args).items() if key not in NEVER_SAVED}
        arguments["config"] = source_name(args.config, args.overrides)
    sweep = plan(args.what, config, arguments)
    out = args.out or free_name(f"runs/ablate-{args.what}-{config.space.name}")
    if saved is None:
        refuse_existing(Folder.open(out))
    _refuse_dead(args, sweep.base.execution)
    job = Job.prepare(sweep.base)
    if saved is not None:
        folders.refuse_other_data(saved, job.digest)
        folder = saved.folder
    else:
        folder = create_run(out, folders.first_files(args.what, config, arguments, job.digest))
    with locked(folder):
        if saved is not None:
            folders.mend(saved)
        done = {outcome.key: outcome for outcome in saved.outcomes} if saved is not None else {}
        try:
            _search(sweep, job, folder, done, args)
        except KeyboardInterrupt:
            command = f"python -m ddpnas_ray.ablate {args.what} --out {shlex.quote(out)} --resume"
            print(
                f"interrupted; {len(done)} of {len(sweep.trials)} searches are saved. Go on with: {command}",
                file=sys.stderr,
            )
            return INTERRUPTED
        found = report(sweep, [done[planned.key] for planned in sweep.trials], arguments["config"])
        facts = folders.content(args.what, config, arguments, job.digest, None)
        facts = folders.finish(folder, facts, found)
    _print(found.table, facts, args, out)
    return OK


def _search(sweep: Sweep, job: Any, folder: Folder, done: dict[Any, Outcome], args: argparse.Namespace) -> None:
    """Search what has not been searched yet; every finished search is kept at once."""
    from ddpnas_ray.ablations.folder import keep
    from ddpnas_ray.ablations.outcomes import Outcome
    from ddpnas_ray.distributed.ray_trials import Trial, run_trials, search_all
    from ddpnas_ray.experiment.progress import counting

    left = [planned for planned in sweep.trials if planned.key not in done]
    trials = [Trial(planned.variant.label, planned.config) for planned in left]
    lines = sys.stderr if args.json else sys.stdout

    def kept(planned: Planned, result: dict[str, Any]) -> None:
        done[planned.key] = Outcome.of(planned, result)
        keep(folder, done[planned.key])

    with (
        _cluster(args.address, sweep.base.execution, needed=bool(left)) as (on_ray, where),
        counting("searches", len(sweep.trials), lines, done=len(done)) as advance,
    ):
        print(f"{folder.uri}: {len(left)} of {len(sweep.trials)} searches {where}", file=lines, flush=True)
        if on_ray:
            run_trials(job, trials, on_done=advance, on_result=lambda i, result: kept(left[i], result))
            return
        for planned, trial in zip(left, trials, strict=True):
            [result] = search_all(job if job.images is None else None, [trial])
            kept(planned, result)
            advance(1)


def _restored(args: argparse.Namespace) -> Saved:
    """The ablation to go on with; options that are given must be those that it was started with."""
    from ddpnas_ray.ablations.folder import restore

    if args.out is None:
        raise ConfigError("--resume: which ablation? give its directory with --out")
    if args.config:
        raise ConfigError("--config: an ablation goes on with its own config.yaml; leave --config out")
    saved = restore(args.out, args.what, args.overrides)
    defaults = vars(parser().parse_args([args.what]))
    for key, value in vars(args).items():
        before = saved.content["arguments"].get(key)
        if key not in NEVER_SAVED and value not in (defaults[key], before):
            raise ConfigError(
                f"--{key} {value}: the ablation was started with {before}; leave it out, or start anew elsewhere"
            )
    return saved


# --- ablations that look at what is there ---------------------------------------------------------------------------


def _operation(args: argparse.Namespace) -> int:
    from ddpnas_ray.ablations import operation
    from ddpnas_ray.ablations.folder import first_files
    from ddpnas_ray.experiment.finished import FinishedRun
    from ddpnas_ray.job import Job

    if args.networks < operation.LEAST:
        raise ConfigError(f"--networks {args.networks}: at least {operation.LEAST} are needed for the tests")
    run = None
    if args.run:
        if args.config:
            raise ConfigError("--config: --run has a configuration of its own; give one of them")
        run = FinishedRun.load(args.run)
        config = run.config
    else:
        config = load(args.config, args.overrides)
        if config.evaluation.kind != "table":
            raise ConfigError(
                "operation: nothing scores the networks; give --run RUN, whose weights do, or a configuration with "
                "evaluation.kind=table"
            )
    out = _new_out(args, config.space.name)
    _refuse_dead(args, config.execution)
    spec = run.spec if run is not None else Job.prepare(config).spec
    e, k = operation.find_choice(spec.space, args.edge, args.operation)
    alphas = operation.networks_with(spec.space, e, k, args.networks, config.seed)
    job = run.job(args.overrides) if run is not None else Job.prepare(config)
    scores: dict[str, list[float]] = {}
    if run is not None and job.images is not None:
        scores["val: inherited weights"] = _inherited(run, job, alphas, args)
    elif job.scores is not None:
        val = job.scores.column(config.evaluation.score, "val", "evaluation.score")
        final = job.scores.column(config.evaluation.final, "test", "evaluation.final")
        for split, column in (("val", val), ("test", final)):
            scores[f"{split}: {column}"] = [job.scores.score(column, alpha_E) for alpha_E in alphas]  # type: ignore[arg-type]
    source = _name(args.run) if args.run else source_name(args.config, args.overrides)
    report = operation.report(spec, e, k, alphas, scores, source, config.seed)
    arguments = {key: getattr(args, key) for key in ("edge", "operation", "networks", "run")}
    return _written(out, report, first_files(args.what, config, arguments, job.digest, report), args)


def _theta(args: argparse.Namespace) -> int:
    from ddpnas_ray.ablations import theta
    from ddpnas_ray.ablations.folder import first_files
    from ddpnas_ray.experiment.finished import FinishedRun

    run = FinishedRun.load(args.run)
    run.refuse_without_theta()
    out = _new_out(args, run.config.space.name)
    space = run.spec.space
    history = parsed(run.folder, "theta.parquet", lambda data: read_history(data, space))
    report = theta.report(space, history, _name(args.run), run.config.seed)
    files = first_files(
        args.what, run.config, {"run": args.run, "search_fingerprint": run.fingerprint}, _digest(run), report
    )
    return _written(out, report, files, args)


def _topology(args: argparse.Namespace) -> int:
    from ddpnas_ray.ablations import topology
    from ddpnas_ray.ablations.folder import first_files
    from ddpnas_ray.ablations.sweeps import numbers
    from ddpnas_ray.core.generation.solve import solve
    from ddpnas_ray.experiment.finished import FinishedRun
    from ddpnas_ray.experiment.progress import counting

    if args.overrides and not args.verify:
        raise ConfigError("--set is for --verify, the only thing that reads data")
    heights, counts = (numbers(f"--{key}", getattr(args, key)) for key in ("heights", "nonparametric"))
    for option, values in (("--heights", heights), ("--nonparametric", counts)):
        if fractions := [value for value in values if isinstance(value, float)]:
            raise ConfigError(f"{option}: {fractions[0]} is no whole number")
    run = FinishedRun.load(args.run)
    run.refuse_without_theta()
    if args.verify and run.config.evaluation.kind == "table":
        raise ConfigError(f"--verify: {args.run} was searched by table and has no weights; leave --verify out")
    out = _new_out(args, run.config.space.name)
    wanted = topology.shapes(run, heights, counts)  # type: ignore[arg-type]
    _refuse_dead(args, run.config.execution)
    job = run.job(args.overrides) if args.verify else None
    costs, found = run.unbounded()[1], []
    with counting("shapes", len(wanted), sys.stderr if args.json else sys.stdout) as advance:
        for shape in wanted:
            found.append(next(iter(solve(run.problem, shape.budget(costs))), None))
            advance(1)
    scores = None
    if job is not None:
        alphas = list(dict.fromkeys(best.alpha_E for best in found if best is not None))
        score_of = dict(zip(alphas, _inherited(run, job, alphas, args), strict=True))
        scores = [None if best is None else score_of[best.alpha_E] for best in found]
    report = topology.report(run, wanted, found, scores, _name(args.run))
    arguments = {key: getattr(args, key) for key in ("run", "heights", "nonparametric", "verify")}
    arguments["search_fingerprint"] = run.fingerprint
    return _written(out, report, first_files(args.what, run.config, arguments, _digest(run), report), args)


# --- what they have in common ---------------------------------------------------------------------------------------


def _inherited(run: FinishedRun, job: Any, alphas: Sequence[Sequence[int]], args: argparse.Namespace) -> list[float]:
    """Scores with inherited weights: on Ray where --address is given, else in this process, as generate does."""
    from ddpnas_ray.distributed.ray_scoring import inherited_scores
    from ddpnas_ray.experiment.progress import counting

    with (
        _cluster(args.address, job.config.execution, needed=bool(args.address)) as (on_ray, _),
        counting("networks", len(alphas), sys.stderr if args.json else sys.stdout) as advance,
    ):
        return inherited_scores(run, job, alphas, on_ray=on_ray, on_done=advance)


@contextmanager
def _cluster(address: str | None, config: ExecutionConfig, *, needed: bool) -> Iterator[tuple[bool, str]]:
    """Connect to Ray, unless everything is to stay in this process; tells which, in words too."""
    if not needed or config.backend == "local":
        yield False, "in this process"
        return
    from ddpnas_ray.distributed import ray_driver

    with ray_driver.cluster(address, config) as dashboard:
        yield True, f"on Ray, dashboard http://{dashboard}" if dashboard else "on Ray, no dashboard"


def _refuse_dead(args: argparse.Namespace, config: ExecutionConfig) -> None:
    """An address where nobody answers is bad input, to be said before anything is written."""
    if config.backend != "local" and (args.address or args.what in SWEEPS):
        refuse_dead_address(args.address or os.environ.get("RAY_ADDRESS") or "")


def _new_out(args: argparse.Namespace, space: str) -> str:
    out = args.out or free_name(f"runs/ablate-{args.what}-{space}")
    refuse_existing(Folder.open(out))
    return str(out)


def _written(out: str, report: Report, files: dict[str, bytes], args: argparse.Namespace) -> int:
    create_run(out, files)
    _print(report.table, json.loads(files["ablation.json"]), args, out)
    return OK


def _print(table: str, facts: dict[str, Any], args: argparse.Namespace, out: str) -> None:
    print(f"{table}\n{out}", file=sys.stderr if args.json else sys.stdout)
    if args.json:
        print(json.dumps(facts))


def _digest(run: FinishedRun) -> str:
    return parsed(run.folder, "environment.json", lambda data: str(json.loads(data)["data_digest"]))


def _name(run: str) -> str:
    return run.rstrip("/").rpartition("/")[2]


if __name__ == "__main__":
    sys.exit(main())
