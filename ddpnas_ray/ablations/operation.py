"""Distribution of the scores of networks that share an operation (Fig. 3). Axes: N networks, E edges."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from ddpnas_ray.ablations.folder import Report
from ddpnas_ray.ablations.outcomes import markdown
from ddpnas_ray.ablations.study import TABLE, Desk, Finding, Look
from ddpnas_ray.console.options import add_config_options, positive
from ddpnas_ray.core.errors import ConfigError, did_you_mean
from ddpnas_ray.core.generation.problem import Problem, random_alphas
from ddpnas_ray.core.sampling import rng_for
from ddpnas_ray.core.space import FloatArray, SearchSpace
from ddpnas_ray.core.state import initial_state
from ddpnas_ray.experiment.changes import source_name
from ddpnas_ray.experiment.config import load
from ddpnas_ray.experiment.experiment import Experiment
from ddpnas_ray.experiment.finished import FinishedRun
from ddpnas_ray.reporting.ablation_plots import histogram
from ddpnas_ray.reporting.figures import heading
from ddpnas_ray.runs.files import without_nan
from ddpnas_ray.spaces.base import SpaceSpec
from ddpnas_ray.storage.parquet import parquet_bytes

DESCRIPTION = f"""\
Fix an operation on an edge, draw random networks that contain it, and test whether their scores are Gaussian (Fig. 3):
mean and standard deviation, Shapiro-Wilk and D'Agostino tests, and a histogram with the fitted density. With a table,
the scores are of fully trained networks, as in the paper (a second or two); otherwise give a finished run, whose
inherited weights score the networks (val).

examples:
  python -m ddpnas_ray.ablate operation --edge 0-1 --operation nor_conv_3x3 {TABLE}
  python -m ddpnas_ray.ablate operation --edge normal.3 --operation sep_conv_3x3 --run runs/cell-digits-s0
"""
_OPERATION = 7  # key of the random generator
QUARTILES = 1.349  # standard deviations between the quartiles of a normal distribution
LEAST = 20  # networks: minimum of D'Agostino's test
DRAWS = 50  # maximum per requested network


def ablation() -> Look:
    """Define the ablation."""
    return Look(
        help="scores of networks that share an operation (Fig. 3)",
        description=DESCRIPTION,
        add_options=add_options,
        look=look,
    )


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--edge``, ``--operation``, ``--networks``, ``--run``, ``--config`` and ``--set``."""
    parser.add_argument("--edge", required=True, help="edge of the space; an unknown name lists them")
    parser.add_argument("--operation", required=True, help="operation on that edge")
    parser.add_argument("--networks", metavar="N", type=positive, default=100, help="number of networks (100)")
    parser.add_argument("--run", metavar="RUN", help="finished run whose weights score the networks")
    add_config_options(parser)


def look(args: argparse.Namespace, desk: Desk) -> Finding:
    """Draw the networks, look up or compute their scores, and fit."""
    if args.networks < LEAST:
        raise ConfigError(f"--networks {args.networks}: the tests need at least {LEAST}")
    run = None
    if args.run:
        if args.config:
            raise ConfigError("--config: --run has its own configuration; give only one of them")
        run = FinishedRun.load(args.run)
        config = run.config
    else:
        config = load(args.config, args.overrides)
        if config.trains:
            raise ConfigError(
                "operation: no source of scores; give --run RUN, to score with its weights, or a configuration with "
                "evaluation.kind=table"
            )
    desk.begin(config)
    spec = run.spec if run is not None else Experiment.prepare(config).spec
    e, k = _find_choice(spec.space, args.edge, args.operation)
    alphas = networks_with(spec.space, e, k, args.networks, config.seed)
    experiment = run.experiment(args.overrides) if run is not None else Experiment.prepare(config)
    scores: dict[str, list[float]] = {}
    if run is not None and config.trains:
        scores["val: inherited weights"] = desk.inherited(run, experiment, alphas)
    elif experiment.benchmark is not None:
        scores = experiment.benchmark.known([np.array(alpha_E) for alpha_E in alphas])
    source = source_name(args.config, args.overrides, config) if run is None else run.name
    arguments = {key: getattr(args, key) for key in ("edge", "operation", "networks", "run")}
    return Finding(config, arguments, experiment.digest, report(spec, e, k, alphas, scores, source, config.seed))


def _find_choice(space: SearchSpace, edge: str, operation: str) -> tuple[int, int]:
    """Return the indices of an edge and of its operation.

    Raises:
        ConfigError: There is no edge or operation of that name.
    """
    edges = [e.name for e in space.edges]
    if edge not in edges:
        raise ConfigError(f"--edge: space {space.name!r} has no edge {edge!r}{did_you_mean(edge, edges)}")
    e = edges.index(edge)
    names = [op.name for op in space.edges[e].candidates]
    if operation not in names:
        raise ConfigError(f"--operation: edge {edge} has no operation {operation!r}{did_you_mean(operation, names)}")
    return e, names.index(operation)


def networks_with(space: SearchSpace, e: int, k: int, count: int, seed: int) -> list[tuple[int, ...]]:
    """Draw distinct selectable networks with operation k on edge e, uniformly.

    Raises:
        ConfigError: Fewer than ``count`` were found.
    """
    choosable_EK = space.generable_EK.copy()
    if choosable_EK[e, k]:
        choosable_EK[e] = np.arange(space.shape[1]) == k  # the edge may still be omitted
    problem = Problem(space, initial_state(space, 0).theta_EK, choosable_EK)
    rng, found = rng_for(seed, _OPERATION), dict[tuple[int, ...], None]()
    for _ in range(DRAWS):
        drawn = random_alphas(problem, count, rng)
        found |= dict.fromkeys(alpha for alpha in drawn if alpha[e] == k and space.active(np.array(alpha))[e])
        if len(found) >= count:
            return list(found)[:count]
    name = f"{space.op(e, k).name} on {space.edges[e].name}"
    raise ConfigError(
        f"--networks {count}: found only {len(found)} distinct networks with {name}; give a smaller number"
    )


def report(
    spec: SpaceSpec,
    e: int,
    k: int,
    alphas: Sequence[Sequence[int]],
    scores: dict[str, list[float]],
    source: str,
    seed: int,
) -> Report:
    """Fit the scores, test for normality, and report.

    Args:
        spec: The space.
        e: Index of the edge.
        k: Index of the operation.
        alphas: The networks.
        scores: Name with split -> one score per network; the last one is plotted.
        source: Name of the configuration.
        seed: Seed of the draw.
    """
    edge, operation = spec.space.edges[e].name, spec.space.op(e, k).name
    fits = [{"score": name, **fit(np.array(values))} for name, values in scores.items()]
    last, values = fits[-1], np.array(list(scores.values())[-1])
    header = [
        "score",
        "networks",
        "mean [%]",
        "standard deviation [%]",
        "median [%]",
        "by quartiles [%]",
        "skewness",
        "Shapiro-Wilk W",
        "p",
        "D'Agostino K2",
        "p",
    ]
    cells = [
        [
            str(row["score"]),
            str(row["networks"]),
            *(f"{100 * row[key]:.2f}" for key in ("mean", "deviation", "median", "deviation_by_quartiles")),
            *(_text(row[key]) for key in ("skewness", "shapiro_w", "shapiro_p", "dagostino_k2", "dagostino_p")),
        ]
        for row in fits
    ]
    verdict = "\np below 0.05: the scores are not normally distributed, at that level.\n"
    rows = [
        {
            "label": f"{edge}={operation}",
            "network": n,
            "seed": seed,
            "genotype": json.dumps(spec.decode(np.array(alpha_E))),
            **{name: column[n] for name, column in scores.items()},
        }
        for n, alpha_E in enumerate(alphas)
    ]
    note = f"Shapiro-Wilk p = {_text(last['shapiro_p'])}, D'Agostino p = {_text(last['dagostino_p'])}"
    title = heading(f"Networks with {operation} on edge {edge} (Fig. 3)", spec.space.name, f"seed {seed}", source)
    split, _, what = str(last["score"]).partition(": ")
    known = values[np.isfinite(values)]
    curves = [("mean, standard deviation", last["mean"], last["deviation"])]
    curves.append(("median, quartiles", last["median"], last["deviation_by_quartiles"]))
    figures = histogram(title, f"{split} accuracy, {what}", known, curves, note)
    trials = parquet_bytes(pa.Table.from_pylist(rows))
    return Report(without_nan(fits), f"{markdown(header, cells)}\n{verdict}", trials, figures)


def fit(scores_N: FloatArray) -> dict[str, Any]:
    """Fit a normal distribution and test for normality; NaN if all scores are equal.

    Median and quartiles describe the bulk if some networks fail to train.
    """
    from scipy.stats import normaltest, shapiro, skew

    known_N = scores_N[np.isfinite(scores_N)]
    mean, std = float(known_N.mean()), float(known_N.std(ddof=1))
    skewness = w = shapiro_p = k2 = dagostino_p = math.nan
    if std > 0 and len(known_N) >= LEAST:
        skewness = float(skew(known_N))
        (w, shapiro_p), (k2, dagostino_p) = map(float, shapiro(known_N)), map(float, normaltest(known_N))
    return {
        "networks": len(known_N),
        "mean": mean,
        "deviation": std,
        "median": float(np.median(known_N)),
        "deviation_by_quartiles": float(np.subtract(*np.quantile(known_N, [0.75, 0.25]))) / QUARTILES,
        "skewness": skewness,
        "shapiro_w": w,
        "shapiro_p": shapiro_p,
        "dagostino_k2": k2,
        "dagostino_p": dagostino_p,
    }


def _text(value: float) -> str:
    return "not defined" if math.isnan(value) else f"{value:.3g}"
