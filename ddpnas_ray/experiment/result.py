"""Content of ``result.json``."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from ddpnas_ray.core.generation.limits import Limits
from ddpnas_ray.core.space import expectation
from ddpnas_ray.core.state import SearchState
from ddpnas_ray.execution.base import Executor
from ddpnas_ray.execution.mixed_devices import kinds
from ddpnas_ray.experiment.experiment import Experiment
from ddpnas_ray.runs.files import SCHEMA_VERSION
from ddpnas_ray.runs.fingerprint import search_fingerprint
from ddpnas_ray.strategies.confidence import confidence
from ddpnas_ray.tabular.probe import Probe


def result_content(
    experiment: Experiment, executor: Executor, state: SearchState, probe: Probe | None, seconds: float
) -> dict[str, Any]:
    """Return the result architecture, its costs, scores and confidence, and the fingerprint of the search.

    Args:
        experiment: The search.
        executor: Holds the final weights.
        state: The last state.
        probe: The probe, if any.
        seconds: Wall time.
    """
    spec, strategy, evaluator = experiment.spec, experiment.strategy(), experiment.evaluator
    space = spec.space
    answer_E = strategy.answer(state, space)
    alpha_E = spec.argmax(state.theta_EK, state.live_EK) if answer_E is None else space.canonical(answer_E)
    last = [row.score for row in state.evaluations if row.epoch == state.epoch - 1]
    return {
        "schema_version": SCHEMA_VERSION,
        "space": space.name,
        "strategy": experiment.config.strategy,
        "seed": state.seed,
        "genotype": spec.decode(alpha_E),
        "alpha": [int(k) for k in alpha_E],
        "expectation": expectation(alpha_E, state.theta_EK, space, state.live_EK),
        "target": dataclasses.asdict(experiment.target),
        "costs": experiment.costs(alpha_E),
        **({} if experiment.limits is None else {"budgets": _by_budget(experiment, experiment.limits, state)}),
        "scores": {
            "split": "val",
            "of": evaluator.scores_of,
            "best": max(row.score for row in state.evaluations),
            "last_epoch_mean": float(np.mean(last)),
        },
        "score_sheet": evaluator.score_sheet(executor, state, alpha_E, probe),
        "confidence": confidence(strategy, state, space, alpha_E, spec.argmax, by_expectation=answer_E is None),
        **({} if probe is None else {"tau_by_epoch": list(probe.tau_by_epoch().values())}),
        "architecture_epochs": len(state.evaluations),
        "epochs": state.epoch,
        "rounds": state.round,
        "seconds": round(seconds, 3),
        "workers": len({row.worker for row in state.evaluations}),
        "warnings": evaluator.warnings(last),
        "devices": kinds(state.evaluations),
        "theta": state.theta_EK.tolist(),
        "live": state.live_EK.tolist(),
        "fingerprint": search_fingerprint(
            state.theta_EK, state.momentum_EK, state.pruned_at_EK, state.evaluations, executor.weights()
        ),
    }


def _by_budget(experiment: Experiment, limits: Limits, state: SearchState) -> list[dict[str, Any]]:
    """Return the network with the best score for each of ``target.budgets`` that one fits; the first of equals."""
    alphas_NE = np.array([row.alpha_E for row in state.evaluations])
    scores_N = np.array([row.score for row in state.evaluations])
    rows: list[dict[str, Any]] = []
    for text, fits_N in zip(limits.texts, limits.fits(alphas_NE), strict=True):
        if not fits_N.any():
            continue
        best = int(np.where(fits_N, scores_N, -np.inf).argmax())
        alpha_E = alphas_NE[best]
        known = {} if experiment.benchmark is None else experiment.benchmark.known([alpha_E])
        rows.append(
            {
                "budget": text,
                "genotype": experiment.spec.decode(alpha_E),
                "alpha": alpha_E.tolist(),
                "costs": experiment.costs(alpha_E),
                "score": {"split": "val", "value": float(scores_N[best])},
                **({"known": {name: values[0] for name, values in known.items()}} if known else {}),
            }
        )
    return rows
