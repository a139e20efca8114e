"""Best network of every height and number of non-parameter operations: {N, H} of Table 4."""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from ddpnas_ray.ablations.folder import Report
from ddpnas_ray.ablations.outcomes import markdown
from ddpnas_ray.ablations.study import Desk, Finding, Look
from ddpnas_ray.ablations.variants import numbers
from ddpnas_ray.console.options import add_set_option
from ddpnas_ray.console.progress import counting
from ddpnas_ray.core.errors import BudgetError, ConfigError
from ddpnas_ray.core.generation.budgets import Budget, parse_budgets
from ddpnas_ray.core.generation.solve import Solution, solve
from ddpnas_ray.experiment.finished import FinishedRun
from ddpnas_ray.reporting.ablation_plots import heat_maps
from ddpnas_ray.storage.parquet import parquet_bytes

DESCRIPTION = """\
Generate, from one finished search, the best network of every height H and number N of non-parameter operations ({N, H}
of Table 4), with E[alpha] and exact params and macs. Takes seconds; --verify scores each with inherited weights (val).

examples:
  python -m ddpnas_ray.ablate topology runs/cell-digits-s0
  python -m ddpnas_ray.ablate topology runs/cell-digits-s0 --heights 1..3 --nonparametric 2,4,6 --verify
"""
ANY = "any"
VERIFIED = "val: inherited weights"
SCHEMA = pa.schema(
    [
        ("label", pa.string()),
        ("height", pa.int32()),
        ("nonparametric", pa.int32()),
        ("feasible", pa.bool_()),
        ("expectation", pa.float64()),
        ("params", pa.int64()),
        ("macs", pa.int64()),
        ("genotype", pa.string()),
    ]
)


def ablation() -> Look:
    """Define the ablation."""
    return Look(
        help="best network of every height and number of non-parameter operations (Table 4)",
        description=DESCRIPTION,
        add_options=add_options,
        look=look,
    )


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the run, its shapes, ``--verify`` and ``--set``."""
    parser.add_argument("run", metavar="RUN", help="run directory of a finished search of a cell space")
    parser.add_argument("--heights", metavar="H,..", default="1..4", help="values of H (1..4)")
    parser.add_argument("--nonparametric", metavar="N,..", default="0..8", help="values of N (0..8)")
    parser.add_argument("--verify", action="store_true", help="score them with inherited weights (val split)")
    add_set_option(parser, "with --verify: override data.path or execution.*")


def look(args: argparse.Namespace, desk: Desk) -> Finding:
    """Generate the best network of every shape."""
    if args.overrides and not args.verify:
        raise ConfigError("--set needs --verify: nothing else reads data")
    heights, counts = (numbers(f"--{key}", getattr(args, key)) for key in ("heights", "nonparametric"))
    for option, values in (("--heights", heights), ("--nonparametric", counts)):
        if fractions := [value for value in values if isinstance(value, float)]:
            raise ConfigError(f"{option}: {fractions[0]} is not an integer")
    run = FinishedRun.load(args.run)
    run.refuse_without_theta()
    if args.verify and not run.config.trains:
        raise ConfigError(f"--verify: {args.run} is a tabular search without weights; remove --verify")
    desk.begin(run.config)
    wanted = shapes(run, heights, counts)  # type: ignore[arg-type]
    experiment = run.experiment(args.overrides) if args.verify else None
    costs, found = run.unbounded()[1], []
    with counting("shapes", len(wanted), sys.stderr if args.json else sys.stdout) as advance:
        for shape in wanted:
            found.append(next(iter(solve(run.problem, shape.budget(costs))), None))
            advance(1)
    scores = None
    if experiment is not None:
        alphas = list(dict.fromkeys(best.alpha_E for best in found if best is not None))
        score_of = dict(zip(alphas, desk.inherited(run, experiment, alphas), strict=True))
        scores = [None if best is None else score_of[best.alpha_E] for best in found]
    arguments = {key: getattr(args, key) for key in ("run", "heights", "nonparametric", "verify")}
    arguments["search_fingerprint"] = run.fingerprint
    return Finding(run.config, arguments, run.data_digest, report(run, wanted, found, scores, run.name))


@dataclass(frozen=True, slots=True)
class Shape:
    """Required shape of every cell.

    Args:
        height: H; None for any.
        nonparametric: N; None for any.
    """

    height: int | None
    nonparametric: int | None

    def __str__(self) -> str:
        parts = [
            f"{name}={value}" for name, value in (("H", self.height), ("N", self.nonparametric)) if value is not None
        ]
        return f"{{{', '.join(parts)}}}" if parts else ANY

    def budget(self, costs: dict[str, int]) -> Budget:
        """Return the budget that enforces it."""
        bounds = (("height", self.height), ("nonparametric", self.nonparametric))
        text = ",".join(f"{name}={value}..{value}" for name, value in bounds if value is not None)
        return parse_budgets(text, costs)[0] if text else {}


def shapes(run: FinishedRun, heights: Sequence[int], nonparametric: Sequence[int]) -> list[Shape]:
    """Return all combinations, including a free height or number; the number varies fastest.

    Raises:
        BudgetError: The space does not have these costs.
    """
    families = {name.partition(".")[0] for name in run.problem.costs}
    for needed in ("height", "nonparametric"):
        if needed not in families:
            raise BudgetError(
                f"topology: space {run.problem.space.name!r} has no cost {needed}; {{N, H}} describes cells: give a "
                "run of space cell or nasbench201"
            )
    return [Shape(h, n) for h, n in itertools.product([None, *heights], [None, *nonparametric])]


def report(
    run: FinishedRun,
    wanted: Sequence[Shape],
    found: Sequence[Solution | None],
    scores: Sequence[float | None] | None,
    source: str,
) -> Report:
    """Report as a table and heat maps.

    Args:
        run: The finished search.
        wanted: The shapes.
        found: Best network of each shape; None if infeasible.
        scores: Validation scores with inherited weights; None if not verified.
        source: Name of the run.
    """
    verified = scores is not None
    each = list(zip(wanted, found, scores or [None] * len(wanted), strict=True))
    rows, cells = [], []
    for shape, best, score in each:
        rows.append(_row(run, shape, best) | ({VERIFIED: score} if verified else {}))
        if best is not None:
            numbers = [f"{best.expectation:.6f}", f"{best.costs['params']:,}", f"{best.costs['macs']:,}"]
            cells.append([str(shape), *numbers, *([f"{100 * (score or 0.0):.2f}"] if verified else [])])
    header = ["{N, H}", "E[alpha]", "params", "macs", *[f"{VERIFIED} [%]"] * verified]
    heights = list(dict.fromkeys(shape.height for shape in wanted))
    counts = list(dict.fromkeys(shape.nonparametric for shape in wanted))
    names = [[ANY if value is None else str(value) for value in values] for values in (heights, counts)]
    title = f"The best network of every {{N, H}} (Table 4)\n{run.problem.space.name}, {source}, seed {run.config.seed}"
    panels = _panels(rows, (len(heights), len(counts)))
    figures = heat_maps(title, names[0], names[1], panels, "-: infeasible")
    schema = SCHEMA.append(pa.field(VERIFIED, pa.float64())) if verified else SCHEMA
    trials = parquet_bytes(pa.Table.from_pylist(rows, schema=schema))
    return Report(rows, f"{markdown(header, cells)}\n{_note(run, wanted, found)}", trials, figures)


def _row(run: FinishedRun, shape: Shape, best: Solution | None) -> dict[str, Any]:
    """Return the row of a shape in ``trials.parquet``."""
    return {
        "label": str(shape),
        "height": shape.height,
        "nonparametric": shape.nonparametric,
        "feasible": best is not None,
        "expectation": None if best is None else best.expectation,
        "params": None if best is None else best.costs["params"],
        "macs": None if best is None else best.costs["macs"],
        "genotype": None if best is None else json.dumps(run.spec.decode(np.array(best.alpha_E))),
    }


def _note(run: FinishedRun, wanted: Sequence[Shape], found: Sequence[Solution | None]) -> str:
    """Return the notes below the table: infeasible shapes, the most general only, and the target."""
    absent = {shape for shape, best in zip(wanted, found, strict=True) if best is None}
    lacking = [str(shape) for shape in wanted if shape in absent and not _covered(shape, absent)]
    note = f"\nInfeasible: {', '.join(lacking)}.\n" if lacking else ""
    return f"{note}\nExact costs of the target network ({run.target}); H and N hold in every cell.\n"


def _panels(rows: Sequence[dict[str, Any]], shape: tuple[int, int]) -> list[tuple[str, Any, str]]:
    """Return the panels: title, values by height and count, and format, with enough digits to distinguish E[alpha]."""

    def grid(key: str, scale: float) -> Any:
        values = [np.nan if row.get(key) is None else scale * row[key] for row in rows]
        return np.array(values, dtype=np.float64).reshape(shape)

    expectations = [row["expectation"] for row in rows if row["feasible"]]
    spread = max(expectations, default=0.0) - min(expectations, default=0.0)
    digits = int(np.clip(2 - np.floor(np.log10(spread)), 3, 6)) if spread > 0 else 4
    panels = [
        ("E[alpha] (Eq. 9)", grid("expectation", 1.0), f".{digits}f"),
        ("params [k]", grid("params", 1e-3), ".0f"),
    ]
    if VERIFIED in rows[0]:
        panels.append(("val accuracy with inherited weights [%]", grid(VERIFIED, 100.0), ".1f"))
    return panels


def _covered(shape: Shape, absent: set[Shape]) -> bool:
    """Return whether a more general shape is absent too."""
    wider = {Shape(None, None), Shape(shape.height, None), Shape(None, shape.nonparametric)} - {shape}
    return bool(wider & absent)
