"""What every strategy offers: ask for the next architectures, and be told how they did."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from ddpnas_ray.core.types import EvalResult, Plan, SearchSpace, SearchState


class Strategy(Protocol):
    """A pure proposer: all it knows is in the state, so a resumed search goes on as if never stopped."""

    def ask(self, state: SearchState, space: SearchSpace) -> Plan | None:
        """The next epoch's architectures; None when nothing is left to do."""
        ...

    def tell(self, state: SearchState, space: SearchSpace, plan: Plan, results: Sequence[EvalResult]) -> SearchState:
        """The state after an epoch.

        Args:
            state: The state that ``ask`` was given.
            space: The space that ``ask`` was given.
            plan: What ``ask`` returned.
            results: One result a request, in request order.

        Raises:
            DivergedError: No result is finite.
        """
        ...
