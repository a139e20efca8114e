"""Theta of every operation by round (Fig. 4). Axes: L rounds, E edges, K candidates."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from ddpnas_ray.ablations.folder import Report
from ddpnas_ray.ablations.outcomes import markdown
from ddpnas_ray.ablations.study import Desk, Finding, Look
from ddpnas_ray.core.errors import RunDirError
from ddpnas_ray.core.space import SearchSpace
from ddpnas_ray.core.state import RoundRecord, initial_state
from ddpnas_ray.experiment.finished import FinishedRun
from ddpnas_ray.reporting.ablation_plots import theta_by_round
from ddpnas_ray.runs.directory import parsed
from ddpnas_ray.runs.files import read_history
from ddpnas_ray.storage.parquet import parquet_bytes

DESCRIPTION = """\
Plot theta of every operation by round, one panel per edge (Fig. 4), from a run's theta.parquet. A pruned operation
keeps its theta for the normalisation: its line continues dotted after a cross. Takes seconds.

examples:
  python -m ddpnas_ray.ablate theta runs/cell-digits-s0 --out runs/theta
"""


def ablation() -> Look:
    """Define the ablation."""
    return Look(
        help="theta of a run by round (Fig. 4)",
        description=DESCRIPTION,
        add_options=add_options,
        look=look,
        scores=False,
    )


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the run."""
    parser.add_argument("run", metavar="RUN", help="run directory of a finished search")


def look(args: argparse.Namespace, desk: Desk) -> Finding:
    """Read a run's rounds and plot them."""
    run = FinishedRun.load(args.run)
    run.refuse_without_theta()
    desk.begin(run.config)
    space = run.spec.space
    history = parsed(run.folder, "theta.parquet", lambda data: read_history(data, space))
    arguments = {"run": args.run, "search_fingerprint": run.fingerprint}
    return Finding(run.config, arguments, run.data_digest, report(space, history, run.name, run.config.seed))


def report(space: SearchSpace, history: Sequence[RoundRecord], source: str, seed: int) -> Report:
    """Report as a table and a figure.

    Args:
        space: The run's space.
        history: Its rounds.
        source: The run's name.
        seed: The run's seed.

    Raises:
        RunDirError: The run has no rounds: its strategy has no theta.
    """
    if not history:
        raise RunDirError(
            f"{source}: theta.parquet has no rounds; search with strategy pruning, multinomial or reinforce"
        )
    last = history[-1]
    theta_LEK = np.stack([initial_state(space, 0).theta_EK, *(record.theta_EK for record in history)])
    cells, rows = [], []
    for e, edge in enumerate(space.edges):
        names = [op.name for op in edge.candidates]
        pruned = [k for k in range(len(names)) if last.pruned_at_EK[e, k] >= 0]
        gone = [names[k] for k in sorted(pruned, key=lambda k: last.pruned_at_EK[e, k])]
        left = [k for k in np.argsort(-last.theta_EK[e, : len(names)], kind="stable") if last.live_EK[e, k]]
        kept = ", ".join(f"{names[k]} {last.theta_EK[e, k]:.4f}" for k in left)
        cells.append([edge.name, kept, ", ".join(gone) or "none"])
        for k, name in enumerate(names):
            at = int(last.pruned_at_EK[e, k])
            theta = [float(value) for value in theta_LEK[:, e, k]]
            rows.append(
                {
                    "label": f"{edge.name}={name}",
                    "edge": edge.name,
                    "operation": name,
                    "pruned_in_round": at + 1 if at >= 0 else None,
                    "theta_by_round": theta,
                }
            )
    table = markdown(["edge", "left, with theta", "pruned, in order"], cells, left=3) + "\n"
    title = f"theta by round (Fig. 4)\n{space.name}, {source}, seed {seed}, {len(history)} rounds"
    operations = [[op.name for op in edge.candidates] for edge in space.edges]
    figures = theta_by_round(title, [edge.name for edge in space.edges], operations, theta_LEK, last.pruned_at_EK)
    schema = pa.schema(
        [
            ("label", pa.string()),
            ("edge", pa.string()),
            ("operation", pa.string()),
            ("pruned_in_round", pa.int32()),
            ("theta_by_round", pa.list_(pa.float64())),
        ]
    )
    summary = [{"edge": edge, "left": kept, "pruned": gone} for edge, kept, gone in cells]
    return Report(summary, table, parquet_bytes(pa.Table.from_pylist(rows, schema=schema)), figures)
