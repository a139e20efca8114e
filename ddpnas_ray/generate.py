"""Generate the best network for each budget from a finished search: ``python -m ddpnas_ray.generate``."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from typing import TYPE_CHECKING, TextIO

from ddpnas_ray.console.cluster import checked_address, cluster
from ddpnas_ray.console.command import BAD_INPUT, INTERRUPTED, OK, Parser, guarded, redirected, say
from ddpnas_ray.console.options import add_address_option, add_set_option, at_least_two, positive
from ddpnas_ray.console.progress import counting

if TYPE_CHECKING:
    from ddpnas_ray.core.generation.budgets import Budget
    from ddpnas_ray.core.generation.solve import Solution
    from ddpnas_ray.core.space import CostTable
    from ddpnas_ray.devices.config import TimingOptions
    from ddpnas_ray.experiment.experiment import Experiment
    from ddpnas_ray.experiment.finished import FinishedRun, Generated

DESCRIPTION = """\
Generate the best network for each budget from one finished search, in seconds, with a proof of optimality: no other
network within the budget has a higher E[alpha] (Eq. 9-10). Nothing is trained, unless --finals asks for it: then the
M best networks are trained by successive halving, and the best by validation wins. If no network meets a tight budget,
--include-pruned also considers the operations that the search pruned.

examples:
  python -m ddpnas_ray.generate RUN                                        the best network without a budget
  python -m ddpnas_ray.generate RUN --budget macs=600M --budget macs=400M
  python -m ddpnas_ray.generate RUN --budget "params=3M,height=3..3,nonparametric=4..4"
  python -m ddpnas_ray.generate RUN --sweep macs=200M..600M:20             20 evenly spaced budgets
  python -m ddpnas_ray.generate RUN --sweep macs=50%..100%:11              relative to the best network's cost
  python -m ddpnas_ray.generate RUN --budget latency=20ms --latency table.parquet --device-label phone
  python -m ddpnas_ray.generate RUN --sweep macs=200M..600M:5 --verify 16  score the 16 best of each, take the best
  python -m ddpnas_ray.generate RUN --finals 8                             train the 8 best for real, take the best
  python -m ddpnas_ray.generate RUN --finals 16 --budget macs=400M --set finals.epochs=48 --set finals.distance=2

budgets: key=V (at most), key=L..U (between), key=V..V (exactly); join several with commas. Suffixes: k, M, G, and % of
the best network's cost; ns, us, ms, s for latencies. A key bounds every cost of its family: height bounds
height.normal and height.reduce. `--costs` lists all keys.

Output: RUN/generated/<budget>/genotype.json (networks, exact costs, certificates), table.csv, pareto.png, pareto.svg;
with --finals instead RUN/finals/<budget>/result.json (all networks with their curves), genotype.json (the winner, for
`retrain --genotype`), curves.png, curves.svg. Finals that were killed go on when the command is repeated.
"""
METHODS = ("auto", "programme", "mip", "enumeration")
RANDOM_POINTS = 1000  # of the figure
FRONT_POINTS = 200


def parser() -> argparse.ArgumentParser:
    """Build the argument parser."""
    p = Parser(prog="ddpnas generate", description=DESCRIPTION)
    p.add_argument("run", metavar="RUN", help="run directory of a finished search, local or a URI")
    _add_budget_options(p)
    _add_scoring_options(p)
    g = p.add_argument_group("execution")
    g.add_argument(
        "--backend",
        choices=("auto", "local", "ray"),
        default="auto",
        help="auto: Ray if --address is given, else this process (a budget takes milliseconds), and for --finals "
        "execution.backend",
    )
    add_address_option(
        g,
        "none; with --backend ray, --device-label or --finals on Ray: RAY_ADDRESS, else start one on this machine",
    )
    p.add_argument("--json", action="store_true", help="print the networks as one JSON list; the table goes to stderr")
    p.epilog = "exit codes: 0 done; 1 failure; 2 bad input, or no network meets a budget (the others are written)"
    return p


@guarded
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    p = parser()
    args = p.parse_args(argv)
    _refuse_conflicts(p, args)
    from ddpnas_ray.core.generation.budgets import parse_budgets, quantity
    from ddpnas_ray.experiment.finished import FinishedRun, Generated

    run = FinishedRun.load(args.run, target=args.target, include_pruned=args.include_pruned)
    if args.finals:
        return _finals(run, args)
    run.refuse_without_theta()
    timing = None
    if args.latency:
        cost, timing = _latency(args.latency, run)
        run = run.with_cost("latency", cost)
    _, unbounded = run.unbounded()
    if args.costs:
        print("\n".join(f"{name:<24} {quantity(name, value)}" for name, value in unbounded.items()))
        return OK
    budgets = [budget for text in args.budget for budget in parse_budgets(text, unbounded)] or [{}]
    experiment = run.experiment(args.overrides) if args.verify else None

    start = time.perf_counter()
    on_ray = args.backend == "ray" or (args.backend == "auto" and bool(args.address))
    with _cluster(run, args, on_ray):
        solutions = _solve(run, budgets, args, on_ray)
        seconds = time.perf_counter() - start
        networks = [Generated(budget, tuple(found)) for budget, found in zip(budgets, solutions, strict=True)]
        if experiment is not None:
            networks = _verify(run, experiment, networks, on_ray)
        if timing is not None and args.device_label:
            networks = _measure(run, networks, args.device_label, timing)
    return _write_and_print(run, networks, seconds, args)


def _add_budget_options(p: argparse.ArgumentParser) -> None:
    """Add what says which networks are generated."""
    p.add_argument("--budget", metavar="BUDGET", action="append", default=[], help="budget, as above; repeat for more")
    p.add_argument(
        "--sweep",
        metavar="KEY=L..U:N",
        dest="budget",
        action="append",
        help="N evenly spaced budgets; may be followed by fixed bounds: macs=2M..6M:5,height=3..3",
    )
    p.add_argument(
        "-k",
        "--best",
        metavar="K",
        type=positive,
        default=1,
        help="keep the K best networks of each budget (default 1)",
    )
    p.add_argument(
        "--method",
        choices=METHODS,
        default="auto",
        help="exact solver (docs/generation.md); auto: programme, or mip if that has too many states",
    )
    p.add_argument(
        "--include-pruned",
        action="store_true",
        help="also choose pruned operations; tight budgets may need them",
    )
    p.add_argument(
        "--target",
        metavar="KEY=V,...",
        help="count costs of another deploy network, such as image_size=224,classes=1000, or "
        "image_size=1024x2048,classes=19,head=aspp,head_width=64,output_stride=16",
    )
    p.add_argument(
        "--costs",
        action="store_true",
        help="list the costs that a budget can bound, with the best network's values, and exit",
    )


def _add_scoring_options(p: argparse.ArgumentParser) -> None:
    """Add what measures, scores or trains the networks."""
    g = p.add_argument_group("latency")
    g.add_argument("--latency", metavar="TABLE", help="a table from `ddpnas latency build`, or a published one (CSV)")
    g.add_argument("--device-label", metavar="LABEL", help="also measure the networks, on nodes with this label")
    g = p.add_argument_group("verification with inherited weights (imports torch, reads the run's data)")
    g.add_argument("--verify", metavar="M", type=positive, help="score the M best of each budget and take the best")
    g = p.add_argument_group("finals: training for real (imports torch, reads the run's data)")
    g.add_argument(
        "--finals",
        metavar="M",
        type=at_least_two,
        help="train the M best of each budget by successive halving (section finals), with the recipe of section "
        "retraining on the search's training images, and take the best by validation",
    )
    g = p.add_argument_group("verification and finals")
    add_set_option(g, "override data.path or execution.*; with --finals also finals.* and retraining.*")


def _refuse_conflicts(p: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Exit if options contradict each other."""
    if args.overrides and not (args.verify or args.finals):
        p.error("--set needs --verify or --finals: nothing else reads data")
    if args.finals and (args.verify or args.latency or args.target or args.best > 1 or args.costs):
        p.error("--finals trains and ranks networks itself: omit --verify, --latency, --target, --best and --costs")
    if args.finals and args.method != "auto":
        p.error("--method is for budgets; --finals chooses its networks with auto: omit it")
    if args.device_label and not args.latency:
        p.error("--device-label needs --latency: networks are timed with the table's settings")


def _write_and_print(run: FinishedRun, networks: Sequence[Generated], seconds: float, args: argparse.Namespace) -> int:
    """Write and print the networks, then one line per budget that none meets; returns the exit code."""
    from ddpnas_ray.experiment.finished import genotype_json, infeasible_text, write

    out = sys.stderr if args.json else sys.stdout
    if any(network.solutions for network in networks):
        write(run, networks, _figure(run, networks))
        _print_table(run, networks, out)
        count = sum(bool(network.solutions) for network in networks)
        print(
            f"{count} of {len(networks)} budgets in {seconds:.3f} s, target {run.target}: {run.folder.uri}/generated",
            file=out,
        )
    if args.json:
        print(json.dumps([genotype_json(run, network) for network in networks if network.solutions]))
    infeasible = [network.budget for network in networks if not network.solutions]
    with redirected(1, to=2):
        for budget in infeasible:
            say(f"BudgetError: {infeasible_text(run, budget)}")
    return BAD_INPUT if infeasible else OK


def _finals(run: FinishedRun, args: argparse.Namespace) -> int:
    """Run the finals of every budget, one after the other, on one connection to Ray."""
    from ddpnas_ray.console.cluster import kept
    from ddpnas_ray.launch.finals import budgets_of, finals, finals_config, planned
    from ddpnas_ray.reporting.finals import finals_summary
    from ddpnas_ray.training.cpu_isa import use_level

    chosen = "ray" if args.backend == "auto" and args.address else args.backend
    backend = [] if chosen == "auto" else [f"execution.backend={chosen}"]
    config = finals_config(run, [*args.overrides, *backend, f"finals.networks={args.finals}"])
    use_level(config.training.cpu_isa)
    lines, results = sys.stderr if args.json else sys.stdout, []
    try:
        with kept(config.execution.workers):
            for plan in planned(run, budgets_of(run, args.budget), config, lines):
                result = finals(run, plan, lines, address=args.address)
                results.append(result)
                if not args.json:
                    print(finals_summary(result, plan.folder.uri), flush=True)
    except KeyboardInterrupt:
        say("interrupted; finished epochs are saved: repeat the command to go on")
        return INTERRUPTED
    finally:
        if args.json and results:
            print(json.dumps(results), flush=True)
    return OK


def _solve(run: FinishedRun, budgets: Sequence[Budget], args: argparse.Namespace, on_ray: bool) -> list[list[Solution]]:
    """Find the k best networks of each budget, in order."""
    from ddpnas_ray.core.generation.solve import groups_that_share, solve_many

    k = max(args.best, args.verify or 1)
    groups = groups_that_share(run.problem, budgets)
    solutions: list[list[Solution]] = []
    with counting("budgets", len(budgets), sys.stderr) as advance, redirected(1, to=2):  # HiGHS may print
        if on_ray:
            from ddpnas_ray.distributed.ray_budgets import solve_budgets

            return solve_budgets(run.problem, budgets, k=k, method=args.method, on_done=advance)
        for group in groups:
            solutions += solve_many(run.problem, group, k=k, method=args.method)
            advance(len(group))
    return solutions


def _verify(run: FinishedRun, experiment: Experiment, networks: Sequence[Generated], on_ray: bool) -> list[Generated]:
    """Score each distinct architecture with inherited weights, and choose the best one of each budget."""
    from ddpnas_ray.distributed.ray_scoring import inherited_scores

    alphas = list(dict.fromkeys(solution.alpha_E for network in networks for solution in network.solutions))
    with counting("networks scored", len(alphas), sys.stderr) as advance:
        scores = dict(
            zip(alphas, inherited_scores(run, experiment, alphas, on_ray=on_ray, on_done=advance), strict=True)
        )
    return [n.choose([scores[s.alpha_E] for s in n.solutions], ()) if n.solutions else n for n in networks]


def _latency(path: str, run: FinishedRun) -> tuple[CostTable, TimingOptions]:
    """Read the cost ``latency`` and the timing options of its table."""
    from ddpnas_ray.devices.config import TimingOptions

    if path.endswith(".csv"):
        from ddpnas_ray.core.errors import DataError
        from ddpnas_ray.devices.published import EXACT, read_published
        from ddpnas_ray.spaces.mobile.space import backbone

        if run.config.space.name != "mobile":
            raise DataError(f"{path}: published tables cover the mobile space; this run is of {run.config.space.name}")
        run.target.refuse_head("published latency")
        published = read_published(path)
        if published.note != EXACT:
            say(f"{path}: {published.note}")
        shape = backbone(**run.config.space.options)
        cost = published.cost(shape, image_size=run.target.inputs.image_size, classes=run.target.classes)
        return cost, TimingOptions()
    from ddpnas_ray.devices.table import read_table

    table = read_table(path)
    table.require_target(asdict(run.target))
    return table.cost(run.problem.space), TimingOptions(**table.timing)


def _measure(run: FinishedRun, networks: Sequence[Generated], label: str, options: TimingOptions) -> list[Generated]:
    """Measure each network end to end on the device; drop or flag those above their latency budget."""
    import numpy as np

    from ddpnas_ray.distributed.ray_timing import measure_networks

    alphas = list(dict.fromkeys(solution.alpha_E for network in networks for solution in network.solutions))
    if not alphas:
        return list(networks)
    with counting("timings", options.passes * len(alphas), sys.stderr) as advance:
        latencies = measure_networks(
            run.spec, run.target, [np.array(alpha_E) for alpha_E in alphas], label, options, on_timed=advance
        )
    measured_ns = {alpha_E: latency.median_ns for alpha_E, latency in zip(alphas, latencies, strict=True)}
    return [n.choose(n.scores, [measured_ns[s.alpha_E] for s in n.solutions]) if n.solutions else n for n in networks]


def _cluster(run: FinishedRun, args: argparse.Namespace, on_ray: bool) -> AbstractContextManager[object]:
    """Connect to Ray if needed: for budgets and scores, or for nodes with a label."""
    if not on_ray and not args.device_label:
        return nullcontext()
    from ddpnas_ray.devices.config import device_label

    label = device_label(args.device_label) if args.device_label else None
    purpose, workers = "solve budgets" if on_ray else "measure networks", run.config.execution.workers
    return cluster(checked_address(args.address), purpose, sys.stderr, workers=workers, label=label)


def _print_table(run: FinishedRun, networks: Sequence[Generated], out: TextIO) -> None:
    """Print one row per budget: E[alpha], bounded costs, params, macs and the method."""
    from rich.console import Console
    from rich.table import Table

    from ddpnas_ray.core.generation.budgets import quantity

    bounded = [name for network in networks for name in network.budget]
    costs = [name for name in run.problem.costs if name in bounded or name in ("params", "macs")]
    table = Table(box=None, pad_edge=False)
    scored, measured = any(n.scores for n in networks), any(n.measured_ns for n in networks)
    for name in ("budget", "E[alpha]", *costs, "method", *["val score"] * scored, *["measured"] * measured, "note"):
        table.add_column(name, justify="left" if name in ("budget", "method", "note") else "right", overflow="fold")
    for network in networks:
        text = run.text_of(network.budget)
        if not network.solutions:
            table.add_row(text, *[""] * (len(table.columns) - 2), "infeasible")
            continue
        best, i = network.best, network.chosen
        table.add_row(
            text,
            f"{best.expectation:.6f}",
            *(quantity(name, best.costs[name]) for name in costs),
            best.certificate.method,
            *([f"{network.scores[i]:.4f}"] if scored else []),
            *([quantity("latency", network.measured_ns[i])] if measured else []),
            "; ".join(network.flags),
        )
    width = None if out.isatty() else 200
    Console(file=out, markup=False, emoji=False, highlight=False, width=width).print(table)


def _figure(run: FinishedRun, networks: Sequence[Generated]) -> dict[str, bytes]:
    """Plot E[alpha] against the first bounded additive cost, or against macs."""
    import numpy as np

    from ddpnas_ray.core.generation.budgets import Bound, is_time
    from ddpnas_ray.core.generation.problem import evaluate, random_alphas
    from ddpnas_ray.core.generation.solve import solve_many
    from ddpnas_ray.core.space import CostTable
    from ddpnas_ray.reporting.plots import pareto

    problem = run.problem
    additive = [name for name, cost in problem.costs.items() if isinstance(cost, CostTable)]
    bounded = [name for network in networks for name in network.budget if name in additive]
    name = next(iter([*bounded, *(n for n in ("macs", *additive) if n in additive)]), None)
    if name is None:
        return {}
    scale = 1e-9 if is_time(name) else 1.0
    sampled = [evaluate(problem, a) for a in random_alphas(problem, RANDOM_POINTS, np.random.default_rng(0))]
    networks = [network for network in networks if network.solutions]
    limits = [costs[name] for _, costs in sampled] + [network.best.costs[name] for network in networks]
    budgets = [{name: Bound(None, int(v))} for v in np.linspace(min(limits), max(limits), FRONT_POINTS)]
    front = [found[0] for found in solve_many(problem, budgets) if found]
    return pareto(
        f"{problem.space.name} ({run.target})",
        f"{name} [s]" if is_time(name) else name,
        [(scale * solution.costs[name], solution.expectation) for solution in front],
        [(scale * costs[name], value) for value, costs in sampled],
        [(scale * n.best.costs[name], n.best.expectation, run.text_of(n.budget)) for n in networks],
    )


if __name__ == "__main__":
    sys.exit(main())
