"""HTML page that compares several finished retrainings."""

from __future__ import annotations

from collections.abc import Sequence

from ddpnas_ray.core.generation.budgets import quantity
from ddpnas_ray.reporting.analysis import environment
from ddpnas_ray.reporting.compare import differences, differing_only, short_names, side_by_side
from ddpnas_ray.reporting.page import render
from ddpnas_ray.reporting.retrained import value_text
from ddpnas_ray.reporting.retrained_files import RetrainedFiles
from ddpnas_ray.reporting.retrained_page import curves, limits, metadata, origin
from ddpnas_ray.spaces.target import target_text


def compare_retrained(retrainings: Sequence[RetrainedFiles]) -> bytes:
    """Render the page that compares several retrainings."""
    names = short_names([files.folder.uri for files in retrainings])
    results = [files.result for files in retrainings if files.result is not None]
    differing, alike = differences([files.config for files in retrainings])
    every = {
        name if len(files.histories) == 1 else f"{name}, seed {seed}": rows
        for name, files in zip(names, retrainings, strict=True)
        for seed, rows in files.histories.items()
    }
    scores = [[(f"{score['metric']} ({score['split']})", value_text(score)) for score in r["scores"]] for r in results]
    costs = [[(name, quantity(name, value)) for name, value in files.network["costs"].items()] for files in retrainings]
    return render(
        "compare_retrained.html.j2",
        {},
        retrainings=retrainings,
        title=f"{len(retrainings)} trained networks compared",
        names=names,
        scores=side_by_side(scores),
        costs=[
            ("target network", [target_text(files.network["target"]) for files in retrainings]),
            *side_by_side(costs),
        ],
        metadata=side_by_side([metadata(files) for files in retrainings]),
        origin=side_by_side([origin(files) for files in retrainings]),
        lines=list(every),
        curves=curves(every, "training"),
        limits=[limits(files) for files in retrainings],
        same=all(files.network["genotype"] == retrainings[0].network["genotype"] for files in retrainings),
        differing=differing,
        alike=alike,
        environment=differing_only(side_by_side([environment(files.environment) for files in retrainings])),
    )
