"""Run the paper's ablations, and more: ``python -m ddpnas_ray.ablate``."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from ddpnas_ray.ablations import folder as folders
from ddpnas_ray.ablations.folder import Saved
from ddpnas_ray.ablations.outcomes import Outcome
from ddpnas_ray.ablations.report import report
from ddpnas_ray.ablations.study import ABLATIONS, Look, Searches, find, plan
from ddpnas_ray.ablations.variants import Planned, Study
from ddpnas_ray.console.cluster import checked_address, cluster
from ddpnas_ray.console.command import INTERRUPTED, OK, Parser, guarded, say
from ddpnas_ray.console.options import add_address_option, add_config_options
from ddpnas_ray.console.out import new_out, resume_command, resumed_out
from ddpnas_ray.console.progress import counting
from ddpnas_ray.core.errors import ConfigError
from ddpnas_ray.experiment.changes import source_name
from ddpnas_ray.experiment.config import SearchConfig, load
from ddpnas_ray.experiment.experiment import Experiment
from ddpnas_ray.experiment.finished import FinishedRun
from ddpnas_ray.runs.directory import create_run, parsed
from ddpnas_ray.runs.lock import locked
from ddpnas_ray.storage.folder import Folder
from ddpnas_ray.training.cpu_isa import use_level

DESCRIPTION = """\
Run an ablation: searches over values and seeds, or an analysis of one finished run. Each writes a table, a figure and
all numbers to one directory. Searches run on Ray, as many at a time as fit, or in this process with
execution.backend=local; on one kind of device the results are the same.

examples:
  python -m ddpnas_ray.ablate interval --config configs/nasbench201_table.yaml --set evaluation.table=FILE --seeds 300
  python -m ddpnas_ray.ablate correlation --help        what an ablation shows, and how long it takes
"""
EPILOG = """\
--out receives config.yaml, ablation.json, trials.parquet, table.md, plot.png and plot.svg; searches also write
trials.jsonl, from which --resume continues after a kill.
exit codes: 0 done; 1 failure; 2 bad input; 130 Ctrl-C (finished searches are saved)
"""
NEVER_SAVED = {"what", "out", "resume", "address", "json", "overrides", "config"}  # not part of an ablation's identity


def parser(own: Sequence[str] = ()) -> argparse.ArgumentParser:
    """Build the argument parser.

    Args:
        own: User-defined ablations, as ``module:function``.
    """
    p = Parser(prog="ddpnas ablate", description=DESCRIPTION)
    whats = p.add_subparsers(dest="what", metavar="WHAT", required=True)
    for name in (*ABLATIONS.names(), *own):
        ablation = find(name)
        sub = whats.add_parser(name, help=ablation.help, description=ablation.description, epilog=EPILOG)
        ablation.add_options(sub)
        if isinstance(ablation, Searches):
            sub.add_argument(
                "--seeds", metavar="N|A..B", default="4", help="N seeds from 0, or seeds A to B (default 4)"
            )
            add_config_options(sub)
            sub.add_argument("--resume", action="store_true", help="resume the ablation in --out")
        sub.add_argument("--out", metavar="DIR", help="output directory; default: a new runs/ablate-<what>-...")
        sub.add_argument("--json", action="store_true", help="print ablation.json; the table goes to stderr")
        if isinstance(ablation, Searches) or ablation.scores:
            add_address_option(sub, *([] if isinstance(ablation, Searches) else ["score in this process"]))
    return p


@guarded
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    words = sys.argv[1:] if argv is None else argv
    args = parser([word for word in words[:1] if ":" in word]).parse_args(words)
    ablation = find(args.what)
    return _search_all(ablation, args) if isinstance(ablation, Searches) else _look(ablation, args)


# --- ablations that search ------------------------------------------------------------------------------------------


def _search_all(ablation: Searches, args: argparse.Namespace) -> int:
    saved = _restored(args) if args.resume else None
    if saved is not None and saved.finished:
        _print(parsed(saved.folder, "table.md", bytes.decode), saved.content, args, saved.folder.uri)
        return OK
    if saved is not None:
        config, arguments = saved.config, saved.content["arguments"]
    else:
        config = load(args.config, args.overrides)
        arguments = {key: value for key, value in vars(args).items() if key not in NEVER_SAVED}
        arguments["config"] = source_name(args.config, args.overrides, config)
    use_level(config.training.cpu_isa)
    study = plan(args.what, config, arguments)
    out = args.out if saved is not None else _new_out(args, config)
    address = None if study.base.execution.backend == "local" else checked_address(args.address)
    experiment = Experiment.prepare(study.base)
    if saved is not None:
        folders.refuse_other_data(saved, experiment.digest)
        folder = saved.folder
    else:
        folder = create_run(out, folders.first_files(args.what, config, arguments, experiment.digest))
    with locked(folder):
        if saved is not None:
            folders.mend(saved)
        done = {outcome.key: outcome for outcome in saved.outcomes} if saved is not None else {}
        try:
            _search(study, experiment, folder, done, args, address)
        except KeyboardInterrupt:
            command = resume_command(out, f"ablate {args.what}")
            say(f"interrupted; {len(done)} of {len(study.trials)} searches are saved. Resume with: {command}")
            return INTERRUPTED
        found = report(ablation, study, [done[planned.key] for planned in study.trials], arguments["config"])
        started = folders.content(args.what, config, arguments, experiment.digest, None)
        content = folders.finish(folder, started, found)
    _print(found.table, content, args, out)
    return OK


def _search(
    study: Study,
    experiment: Experiment,
    folder: Folder,
    done: dict[Any, Outcome],
    args: argparse.Namespace,
    address: str | None,
) -> None:
    """Run the remaining searches, saving each as it finishes.

    Args:
        address: Address of the cluster; None searches in this process.
    """
    left = [planned for planned in study.trials if planned.key not in done]
    lines = sys.stderr if args.json else sys.stdout
    workers = study.base.execution.workers
    where: AbstractContextManager[str] = nullcontext("")
    if address is not None and left:
        where = cluster(address, "run searches side by side", lines, workers=workers)

    def kept(planned: Planned, result: dict[str, Any]) -> None:
        done[planned.key] = Outcome.of(planned, result)
        folders.keep(folder, done[planned.key])

    with where as place, counting("searches", len(study.trials), lines, done=len(done)) as advance:
        from ddpnas_ray.distributed.ray_trials import Trial, run_trials, search_all

        on = f"on Ray, {place}" if place else "in this process"
        print(f"{folder.uri}: {len(left)} of {len(study.trials)} searches {on}", file=lines, flush=True)
        trials = [Trial(planned.variant.label, planned.config) for planned in left]
        if place:
            run_trials(experiment, trials, on_done=advance, on_result=lambda i, result: kept(left[i], result))
            return
        for planned, trial in zip(left, trials, strict=True):
            [result] = search_all(None if experiment.config.trains else experiment, [trial])
            kept(planned, result)
            advance(1)


def _restored(args: argparse.Namespace) -> Saved:
    """Read the ablation to resume; given options must equal those it was started with."""
    saved = folders.restore(resumed_out(args, "ablation", "config.yaml"), args.what, args.overrides)
    defaults = vars(parser([args.what] if ":" in args.what else []).parse_args([args.what]))
    for key, value in vars(args).items():
        before = saved.content["arguments"].get(key)
        if key not in NEVER_SAVED and value not in (defaults[key], before):
            raise ConfigError(
                f"--{key} {value}: the ablation was started with {before}; remove it, or start a new one with "
                "another --out"
            )
    return saved


# --- ablations that analyse a finished run or a table ---------------------------------------------------------------


def _look(ablation: Look, args: argparse.Namespace) -> int:
    desk = _Desk(args)
    found = ablation.look(args, desk)
    files = folders.first_files(args.what, found.config, found.arguments, found.digest, found.report)
    create_run(desk.out, files)
    _print(found.report.table, json.loads(files["ablation.json"]), args, desk.out)
    return OK


class _Desk:
    """Implementation of ``Desk``."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args

    def begin(self, config: SearchConfig) -> None:
        """Choose the folder, before anything is computed."""
        self.out = _new_out(self.args, config)
        if getattr(self.args, "address", None) and config.execution.backend != "local":
            checked_address(self.args.address)

    def inherited(self, run: FinishedRun, experiment: Experiment, alphas: Sequence[Sequence[int]]) -> list[float]:
        """Return the scores of networks with inherited weights."""
        lines = sys.stderr if self.args.json else sys.stdout
        address, execution = self.args.address, experiment.config.execution
        on_ray = bool(address) and execution.backend != "local"
        with (
            cluster(address, "score networks", lines, workers=execution.workers) if on_ray else nullcontext(),
            counting("networks", len(alphas), lines) as advance,
        ):
            from ddpnas_ray.distributed.ray_scoring import inherited_scores

            return inherited_scores(run, experiment, alphas, on_ray=on_ray, on_done=advance)


# --- both -----------------------------------------------------------------------------------------------------------


def _new_out(args: argparse.Namespace, config: SearchConfig) -> str:
    return new_out(args.out, f"ablate-{args.what}-{config.space.name}")


def _print(table: str, content: dict[str, Any], args: argparse.Namespace, out: str) -> None:
    print(f"{table}\n{out}", file=sys.stderr if args.json else sys.stdout)
    if args.json:
        print(json.dumps(content))


if __name__ == "__main__":
    sys.exit(main())
