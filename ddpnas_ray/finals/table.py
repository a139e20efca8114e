"""Finals by a benchmark table: the scores of its val columns, from that of the search to the longest training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ddpnas_ray.core.errors import DataError
from ddpnas_ray.core.halving import Rung, halve, sizes
from ddpnas_ray.finals.finals import OnRung, result_content, standings
from ddpnas_ray.retraining.choice import Chosen
from ddpnas_ray.tabular.benchmark import Benchmark
from ddpnas_ray.tabular.table import NAME, epochs_of, split_of
from ddpnas_ray.tasks.recipe import FinalsConfig


def columns(benchmark: Benchmark) -> list[str]:
    """Return the val columns of the search's data by epochs, the search's own first; not those that lack scores.

    Raises:
        DataError: Not every network was trained longer than in the search.
    """
    of = NAME.fullmatch(benchmark.score)
    assert of is not None
    found = [benchmark.score]
    for name in sorted(benchmark.table.scores, key=epochs_of):
        match = NAME.fullmatch(name)
        assert match is not None
        same = match["data"] == of["data"] and split_of(name) == "val" and match["seed"] is None
        if same and epochs_of(name) > epochs_of(found[-1]) and not np.isnan(benchmark.table.scores[name]).any():
            found.append(name)
    if len(found) == 1:
        raise DataError(
            f"{benchmark.table.source}: no val column of {of['data']} has the scores of all networks after more epochs "
            f"than {benchmark.score}, which the search reads: finals would learn nothing"
        )
    return found


def table_finals(
    benchmark: Benchmark,
    config: FinalsConfig,
    networks: Sequence[Chosen],
    on_rung: OnRung = lambda epochs, scores, left: None,
) -> dict[str, Any]:
    """Run finals by a table; a rung's networks are trained anew, as the table's trainings were.

    Args:
        benchmark: The scores.
        config: Section ``finals``; its epochs are those of the columns.
        networks: The networks, best first.
        on_rung: See ``halve``.

    Returns:
        The content of ``result.json``.
    """
    names = columns(benchmark)
    counts = sizes(len(networks), len(names), config.eta)
    steps = [Rung(count, epochs_of(name)) for count, name in zip(counts, names, strict=True)]
    alphas = [chosen.spec.encode(dict(chosen.genotype)) for chosen in networks]
    curves: dict[int, list[tuple[int, float]]] = {i: [] for i in range(len(networks))}

    def score(alive: Sequence[int], epochs: int) -> list[float | None]:
        column = next(name for name in names if epochs_of(name) == epochs)
        for i in alive:
            curves[i].append((epochs, benchmark.table.score(column, np.asarray(alphas[i]))))
        return [curves[i][-1][1] for i in alive]

    ended = halve(steps, score, on_rung)
    rows = standings(networks, ended, curves)
    for row in rows:
        del row["number"]
    return result_content(steps, rows, sum(step.networks * step.epochs for step in steps))
