"""How good are networks that share an operation? (Fig. 3)

Axes: N networks, E edges.
"""

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
from ddpnas_ray.experiment.config import load, source_name
from ddpnas_ray.experiment.experiment import Experiment
from ddpnas_ray.experiment.finished import FinishedRun
from ddpnas_ray.reporting.ablation_plots import histogram
from ddpnas_ray.reporting.figures import heading
from ddpnas_ray.runs.files import without_nan
from ddpnas_ray.spaces.base import SpaceSpec
from ddpnas_ray.storage.parquet import parquet_bytes

DESCRIPTION = f"""\
Fix an operation on an edge, draw random networks that have it, and ask whether their scores are Gaussian (Fig. 3):
mean and deviation, Shapiro-Wilk and D'Agostino, and a histogram with the fitted density. By table a second or two, of
networks trained to the end as in the paper; otherwise give a finished run, whose inherited weights score them (val).

examples:
  python -m ddpnas_ray.ablate operation --edge 0-1 --operation nor_conv_3x3 {TABLE}
  python -m ddpnas_ray.ablate operation --edge normal.3 --operation sep_conv_3x3 --run runs/cell-digits-s0
"""
_OPERATION = 7  # key of the generator that draws the networks
QUARTILES = 1.349  # deviations between a normal distribution's quartiles
LEAST = 20  # networks: D'Agostino's test is not meant for fewer
DRAWS = 50  # at most, for every network that is wanted


def ablation() -> Look:
    """See ``DESCRIPTION``."""
    return Look(
        help="scores of networks that share an operation (Fig. 3)",
        description=DESCRIPTION,
        add_options=add_options,
        look=look,
    )


def add_options(parser: argparse.ArgumentParser) -> None:
    """Which networks, and what scores them."""
    parser.add_argument("--edge", required=True, help="an edge of the space; a wrong name lists them")
    parser.add_argument("--operation", required=True, help="one of its operations")
    parser.add_argument("--networks", metavar="N", type=positive, default=100, help="how many (100)")
    parser.add_argument("--run", metavar="RUN", help="a finished run, whose weights score them")
    add_config_options(parser)


def look(args: argparse.Namespace, desk: Desk) -> Finding:
    """Draw the networks, look their scores up or score them, and fit."""
    if args.networks < LEAST:
        raise ConfigError(f"--networks {args.networks}: at least {LEAST} are needed for the tests")
    run = None
    if args.run:
        if args.config:
            raise ConfigError("--config: --run has a configuration of its own; give one of them")
        run = FinishedRun.load(args.run)
        config = run.config
    else:
        config = load(args.config, args.overrides)
        if config.trains:
            raise ConfigError(
                "operation: nothing scores the networks; give --run RUN, whose weights do, or a configuration with "
                "evaluation.kind=table"
            )
    desk.begin(config)
    spec = run.spec if run is not None else Experiment.prepare(config).spec
    e, k = find_choice(spec.space, args.edge, args.operation)
    alphas = networks_with(spec.space, e, k, args.networks, config.seed)
    job = run.job(args.overrides) if run is not None else Experiment.prepare(config)
    scores: dict[str, list[float]] = {}
    if run is not None and config.trains:
        scores["val: inherited weights"] = desk.inherited(run, job, alphas)
    elif job.benchmark is not None:
        scores = job.benchmark.known([np.array(alpha_E) for alpha_E in alphas])
    source = source_name(args.config, args.overrides) if run is None else run.name
    arguments = {key: getattr(args, key) for key in ("edge", "operation", "networks", "run")}
    return Finding(config, arguments, job.digest, report(spec, e, k, alphas, scores, source, config.seed))


def find_choice(space: SearchSpace, edge: str, operation: str) -> tuple[int, int]:
    """The indices of an edge and of its operation.

    Raises:
        ConfigError: There is none of that name.
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
    """Different networks that could be generated and have operation k on edge e, drawn uniformly among those.

    Raises:
        ConfigError: There are not so many.
    """
    choosable_EK = space.generable_EK.copy()
    if choosable_EK[e, k]:
        choosable_EK[e] = np.arange(space.shape[1]) == k  # the edge may still be left out
    problem = Problem(space, initial_state(space, 0).theta_EK, choosable_EK)
    rng, found = rng_for(seed, _OPERATION), dict[tuple[int, ...], None]()
    for _ in range(DRAWS):
        found |= dict.fromkeys(alpha for alpha in random_alphas(problem, count, rng) if alpha[e] == k)
        if len(found) >= count:
            return list(found)[:count]
    name = f"{space.op(e, k).name} on {space.edges[e].name}"
    raise ConfigError(f"--networks {count}: only {len(found)} different networks with {name} were found; ask for fewer")


def report(
    spec: SpaceSpec,
    e: int,
    k: int,
    alphas: Sequence[Sequence[int]],
    scores: dict[str, list[float]],
    source: str,
    seed: int,
) -> Report:
    """Fit and tests.

    Args:
        spec: The space.
        e: The edge.
        k: The operation.
        alphas: The networks.
        scores: Name, with its split, -> a score a network; the last one is drawn.
        source: What the configuration is called.
        seed: That drew the networks.
    """
    edge, operation = spec.space.edges[e].name, spec.space.op(e, k).name
    fits = [{"score": name, **fit(np.array(values))} for name, values in scores.items()]
    last, values = fits[-1], np.array(list(scores.values())[-1])
    header = [
        "score",
        "networks",
        "mean [%]",
        "deviation [%]",
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
    verdict = "\np below 0.05: the scores are not those of a normal distribution, at that level.\n"
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
    curves = [("mean, deviation", last["mean"], last["deviation"])]
    curves.append(("median, quartiles", last["median"], last["deviation_by_quartiles"]))
    figures = histogram(title, f"{split} accuracy, {what}", known, curves, note)
    trials = parquet_bytes(pa.Table.from_pylist(rows))
    return Report(without_nan(fits), f"{markdown(header, cells)}\n{verdict}", trials, figures)


def fit(scores_N: FloatArray) -> dict[str, Any]:
    """A normal distribution's mean and deviation, and tests of whether it is one; NaN where all scores are equal.

    Median and quartiles say what the bulk is like where some networks fail altogether.
    """
    from scipy.stats import normaltest, shapiro, skew

    known_N = scores_N[np.isfinite(scores_N)]
    mean, deviation = float(known_N.mean()), float(known_N.std(ddof=1))
    skewness = w = shapiro_p = k2 = dagostino_p = math.nan
    if deviation > 0 and len(known_N) >= LEAST:
        skewness = float(skew(known_N))
        (w, shapiro_p), (k2, dagostino_p) = map(float, shapiro(known_N)), map(float, normaltest(known_N))
    return {
        "networks": len(known_N),
        "mean": mean,
        "deviation": deviation,
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
