"""Rank correlation (Kendall's tau) of supernet scores with the benchmark, by epoch (Fig. 7)."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ddpnas_ray.ablations.outcomes import TAU, Row, Spread, markdown
from ddpnas_ray.ablations.study import Searches
from ddpnas_ray.ablations.variants import Arguments, Study, Variant, refuse_duplicates, varied
from ddpnas_ray.console.options import positive
from ddpnas_ray.core.errors import ConfigError, did_you_mean
from ddpnas_ray.experiment.config import SearchConfig
from ddpnas_ray.reporting.ablation_plots import Point, taus

PAPER_TAU = 0.5722  # Fig. 7
MERGES = ("mean", "sequential")
SUPERNET = "--config configs/cifar10_nasbench201_cpu.yaml \\\n      --set data.path=DIR --set evaluation.table=FILE"
DESCRIPTION = f"""\
Measure how well networks with inherited weights rank like networks trained alone (Fig. 7). After every epoch the same
random networks are scored with the supernet's weights and compared with the table by Kendall's tau; the figure shows
mean and standard deviation over seeds, and the paper's 0.5722 dashed. Each seed is a search of several minutes in one
process; --merge mean,sequential compares both ways to share weights.

examples:
  python -m ddpnas_ray.ablate correlation {SUPERNET} --seeds 4
  python -m ddpnas_ray.ablate correlation {SUPERNET} --merge mean,sequential --networks 100
"""


def ablation() -> Searches:
    """Define the ablation."""
    return Searches(
        help="Kendall's tau of supernet scores against the benchmark, by epoch (Fig. 7)",
        description=DESCRIPTION,
        title="Do shared weights rank as the benchmark does? (Fig. 7)",
        variants=variants,
        figures=figures,
        add_options=add_options,
        details=details,
    )


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--networks`` and ``--merge``."""
    parser.add_argument("--networks", metavar="N", type=positive, default=50, help="number of ranked networks (50)")
    parser.add_argument("--merge", metavar="WAY,..", default="mean", help="mean, sequential, or both (mean)")


def variants(config: SearchConfig, arguments: Arguments) -> list[Variant]:
    """Return one variant per ``training.merge``, with a probe."""
    evaluation = config.evaluation
    if not config.trains or evaluation.table is None:
        given = "evaluation.kind is table" if not config.trains else "evaluation.table is null"
        raise ConfigError(
            f"correlation: {given}; it compares a supernet with a table: use a configuration that trains, such as "
            "configs/cifar10_nasbench201_cpu.yaml, and --set evaluation.table=FILE"
        )
    merges = [merge.strip() for merge in arguments["merge"].split(",")]
    refuse_duplicates("--merge", merges)
    found = []
    for merge in merges:
        if merge not in MERGES:
            raise ConfigError(f"--merge: {merge!r} is not allowed{did_you_mean(merge, MERGES)}")
        # Each trial runs within one process anyway; other backends refuse sequential merging.
        local = {"execution.backend": "local"} if merge == "sequential" else {}
        changes = {"evaluation.probe": arguments["networks"], "training.merge": merge, **local}
        found.append(Variant(merge, merge, varied(config, changes, "correlation")))
    return found


def figures(study: Study, rows: Sequence[Row], title: str) -> Mapping[str, bytes]:
    """Plot tau by epoch, one line per ``training.merge``."""
    lines = {
        row.variant.label: [
            Point(epoch, spread.mean, spread.deviation)
            for epoch, spread in enumerate(_by_epoch(row), start=1)
            if spread.n
        ]
        for row in rows
    }
    networks = study.base.evaluation.probe or 0
    every = study.base.pruning.epochs_per_round
    return taus(title, lines, paper=PAPER_TAU, epochs_per_round=every, networks=networks)


def details(rows: Sequence[Row]) -> tuple[str, list[dict[str, Any]]]:
    """Return tau by epoch, as a table and for ``ablation.json``."""
    by_epoch = {row.variant.label: _by_epoch(row) for row in rows}
    return _tau_table(by_epoch), [
        {"tau_by_epoch": [dataclasses.asdict(spread) for spread in spreads]} for spreads in by_epoch.values()
    ]


def _by_epoch(row: Row) -> list[Spread]:
    length = max((len(outcome.tau_by_epoch) for outcome in row.outcomes), default=0)
    return [Spread.of(outcome.tau_by_epoch[i] for outcome in row.outcomes) for i in range(length)]


def _tau_table(by_epoch: dict[str, list[Spread]]) -> str:
    epochs = max(len(spreads) for spreads in by_epoch.values())
    rows = []
    for i in range(epochs):
        cells = [spreads[i].text(digits=3) if i < len(spreads) else "" for spreads in by_epoch.values()]
        rows.append([str(i + 1), *cells])
    means = [np.array([spread.mean for spread in spreads if spread.n]) for spreads in by_epoch.values()]
    rows.append(["mean", *(f"{values.mean():.3f}" if len(values) else "not defined" for values in means)])
    header = ["epoch", *(f"{TAU}, merge {name}" for name in by_epoch)]
    return markdown(header, rows) + f"\n\nThe paper: about {PAPER_TAU:g} in every epoch (Fig. 7)."
