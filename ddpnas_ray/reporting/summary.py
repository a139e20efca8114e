"""Summary of a finished run in a few lines of text."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from ddpnas_ray.console.progress import duration
from ddpnas_ray.core.generation.budgets import quantity
from ddpnas_ray.reporting.confidence import INHERITED, how_sure, inherited_text
from ddpnas_ray.spaces.target import target_text


def summary(result: Mapping[str, Any], out: str) -> str:
    """Summarise ``result.json``: genotype, costs and scores, each number with its split or target."""
    target, scores = result["target"], result["scores"]
    lines = [f"  {key}: {json.dumps(value)}" for key, value in result["genotype"].items()]
    costs = ", ".join(f"{value:,} {name}" for name, value in result["costs"].items())
    return "\n".join(
        [
            f"genotype (E[alpha] {result['expectation']:.4f})",
            *lines,
            f"costs of the target network ({target_text(target)}): {costs}",
            f"scores of {scores['of']}, {scores['split']} split: best {scores['best']:.4f}, "
            f"mean of the last epoch {scores['last_epoch_mean']:.4f}",
            *_budgets(result.get("budgets", ())),
            *_sheet([row for row in result.get("score_sheet", ()) if row["what"] not in INHERITED]),
            *inherited_text(result),
            f"{result['architecture_epochs']} {spent_on(result)} in {result['rounds'] or result['epochs']} "
            f"{'rounds' if result['rounds'] else 'epochs'}, "
            f"{duration(result['seconds'])}, {result['workers']} worker(s), seed {result['seed']}",
            *how_sure(result),
            *_devices(result.get("devices", {})),
            f"fingerprint {result['fingerprint']}",
            *([] if out == "none" else [f"run directory {out}"]),
            *(f"warning: {warning}" for warning in result.get("warnings", ())),
        ]
    )


def _sheet(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Format the score sheet, each number with its split."""
    if not rows:
        return []
    width = max(len(row["what"]) for row in rows)
    shown = ["not defined" if row["value"] is None else f"{row['value']:.4f}" for row in rows]
    return ["score sheet"] + [
        f"  {row['what']:<{width}}  {row['split']:<4}  {value}" for row, value in zip(rows, shown, strict=True)
    ]


def _budgets(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """List the best network within each budget of the search, with its scores."""
    if not rows:
        return []
    found = ["best network within each budget"]
    for row in rows:
        costs = ", ".join(quantity(name, row["costs"][name]) + f" {name}" for name in _budgeted(row))
        scores = [f"{row['score']['value']:.4f} ({row['score']['split']})"]
        scores += [f"{value:.4f} ({name})" for name, value in row.get("known", {}).items() if name[:4] == "test"]
        found.append(f"  {row['budget']}: {costs}; {', '.join(scores)}")
    return found


def _budgeted(row: Mapping[str, Any]) -> list[str]:
    """Return the costs that a budget bounds."""
    families = [bound.partition("=")[0] for bound in row["budget"].split(",")]
    return [name for name in row["costs"] if name in families or name.partition(".")[0] in families]


def _devices(evaluations: Mapping[str, int]) -> list[str]:
    """List the kinds of device, with a warning if there are several; empty for tabular searches."""
    if len(evaluations) < 2:
        return [f"device {kind}" for kind in evaluations]
    return [
        f"{len(evaluations)} kinds of device: a search on a single kind may give another result",
        *(f"  {kind}: {count} evaluations" for kind, count in evaluations.items()),
    ]


def spent_on(result: Mapping[str, Any]) -> str:
    """Return the unit of evaluations: ``architecture-epochs`` if they trained."""
    return "evaluations" if result["scores"]["of"].endswith("from the table") else "architecture-epochs"
