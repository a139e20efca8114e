"""A tabular benchmark, with the column that guides a search and the one that judges its result."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ddpnas_ray.core.space import IntArray, SearchSpace
from ddpnas_ray.tabular.probe import Probe, Rows
from ddpnas_ray.tabular.table import ScoreTable, epochs_of, expected_best


@dataclass(frozen=True)
class RandomSearch:
    """Random search at the cost of a search: it trains networks to the end and takes the best by val.

    Args:
        networks: Their number.
        epochs: Training epochs of each, where the cost is epochs; None: where it is the number of networks.
    """

    networks: int
    epochs: int | None = None

    def __str__(self) -> str:
        if self.epochs is None:
            return f"{self.networks} evaluations"
        return f"as many training epochs, {self.networks} network(s) of {self.epochs}"


@dataclass(frozen=True)
class Benchmark:
    """Known scores of every architecture.

    Args:
        table: The scores.
        score: Column of the val split that guides the search.
        final: Column of the test split that judges the result.
    """

    table: ScoreTable
    score: str
    final: str

    @classmethod
    def read(
        cls,
        path: str,
        space: SearchSpace,
        encode: Callable[[dict[str, Any]], IntArray],
        score: str | None,
        final: str | None,
    ) -> Benchmark:
        """Read the table; columns that are None are chosen as ``ScoreTable.column`` says.

        Raises:
            DataError: The table cannot be used, or has no such column.
        """
        table = ScoreTable.read(path, space, encode)
        score = table.column(score, "val", "evaluation.score")
        return cls(table, score, table.column(final, "test", "evaluation.final"))

    def probe(self, space: SearchSpace, networks: int, before: Rows) -> Probe:
        """Draw random networks to score with a supernet's weights, compared by ``final``."""
        return Probe.make(space, self.table, self.final, networks, before)

    def known(self, alphas: Sequence[IntArray]) -> dict[str, list[float]]:
        """Return both scores of every architecture, as ``val: <column>`` and ``test: <column>``."""
        columns = {"val": self.score, "test": self.final}
        return {f"{split}: {name}": [self.table.score(name, a) for a in alphas] for split, name in columns.items()}

    def random_search(self, networks: int) -> float:
        """Return the expected ``final`` of random search over this many networks."""
        return expected_best(self.table.scores[self.score], self.table.scores[self.final], networks)

    def for_epochs(self, epochs: int) -> RandomSearch:
        """Return the random search with this many training epochs: each of its networks takes those of ``score``.

        To draw a single network costs nothing, so it has one at least.
        """
        each = epochs_of(self.score)
        return RandomSearch(max(1, epochs // each), each)
