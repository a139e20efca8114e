"""Optuna's TPE (tree-structured Parzen estimator; Bergstra et al., 2011), for comparison and for those who know it.

Every epoch a study is made anew from all records, so a resumed search equals an uninterrupted one. A block's choice is
one categorical parameter. Needs the package ``optuna``: pip install "ddpnas-ray[optuna]".
"""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import numpy as np
from annotated_types import Ge

from ddpnas_ray.core.errors import ConfigError
from ddpnas_ray.core.requests import EvalResult, Plan
from ddpnas_ray.core.sampling import rng_for
from ddpnas_ray.core.space import IntArray, SearchSpace
from ddpnas_ray.core.state import SearchState
from ddpnas_ray.core.utility import record
from ddpnas_ray.strategies.base import Context, Strategy, best_seen, cosine, epoch_plan, equal_epochs
from ddpnas_ray.strategies.evolution import network_choices
from ddpnas_ray.strategies.random import new_alphas

if TYPE_CHECKING:
    from optuna import Study

INSTALLED = importlib.util.find_spec("optuna") is not None
VARIANTS: dict[str, dict[str, Any]] = {"optuna": {}} if INSTALLED else {}
TRIES = 20  # of a proposal that was not evaluated before


@dataclass(frozen=True, slots=True, kw_only=True)
class OptunaConfig:
    """Section ``optuna``."""

    initial: Annotated[int, Ge(1)] = 10
    """Random architectures before the first proposal (Optuna's n_startup_trials)"""
    multivariate: bool = False
    """Model all blocks together instead of each alone"""


def make(context: Context, section: OptunaConfig) -> Strategy:
    """Create TPE from its section.

    Raises:
        ConfigError: The package is missing.
    """
    if not INSTALLED:
        raise ConfigError('strategy optuna needs the package optuna: pip install "ddpnas-ray[optuna]"')
    return Optuna(**asdict(section), evaluations=context.evaluations, batch=context.batch, lr=context.lr)


@dataclass(frozen=True, slots=True, kw_only=True)
class Optuna:
    """TPE; the best score wins.

    Args:
        evaluations: Total number.
        batch: Proposals per epoch; while they are out, they count as bad (Optuna's constant liar).
        initial: Random architectures before the first proposal.
        multivariate: Model all blocks together.
        lr: Initial learning rate, annealed to zero by a cosine.
    """

    evaluations: int
    batch: int = 1
    initial: int = 10
    multivariate: bool = False
    lr: float = 0.025
    by_rounds: ClassVar[bool] = False

    def ask(self, state: SearchState, space: SearchSpace) -> Plan | None:
        """See ``Strategy``."""
        if state.epoch >= len(epochs := self.epochs(space)):
            return None
        rng, n = rng_for(state.seed, state.round, state.epoch), epochs[state.epoch]
        return epoch_plan(state, self._proposals(state, space, n, rng), cosine(self.lr, state.epoch, len(epochs)))

    def tell(self, state: SearchState, space: SearchSpace, plan: Plan, results: Sequence[EvalResult]) -> SearchState:
        """See ``Strategy``."""
        return record(state, plan, results, space)

    def answer(self, state: SearchState, space: SearchSpace) -> IntArray | None:
        """See ``Strategy``."""
        return best_seen(state, space)

    def epochs(self, space: SearchSpace) -> tuple[int, ...]:
        """See ``Strategy``."""
        return equal_epochs(self.evaluations, self.batch)

    def _proposals(self, state: SearchState, space: SearchSpace, n: int, rng: np.random.Generator) -> IntArray:
        """Ask a study that knows all records for n architectures that it does not; random ones if it has none."""
        from optuna.distributions import CategoricalDistribution

        choices = network_choices(space)
        asked: dict[str, Any] = {f"block {b}": CategoricalDistribution(range(len(c))) for b, c in enumerate(choices)}
        seen, found = {row.alpha_E for row in state.evaluations}, list[tuple[int, ...]]()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of options that Optuna calls experimental
            study = self._study(state, space, asked, int(rng.integers(2**32)))
            for _ in range(TRIES * n):
                trial = study.ask(asked)
                alpha_E = np.zeros(len(space.edges), dtype=np.int64)
                for b, (block, alphas_CB) in enumerate(zip(space.blocks, choices, strict=True)):
                    alpha_E[list(block)] = alphas_CB[trial.params[f"block {b}"]]
                if (alpha := tuple(alpha_E.tolist())) not in seen:
                    seen.add(alpha)
                    found.append(alpha)
                if len(found) == n:
                    return np.array(found)
        rest_NE = new_alphas(state, space, n, rng)[: n - len(found)]
        return np.concatenate([np.array(found, dtype=np.int64).reshape(-1, len(space.edges)), rest_NE])

    def _study(self, state: SearchState, space: SearchSpace, asked: dict[str, Any], seed: int) -> Study:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        sampler = optuna.samplers.TPESampler(
            seed=seed, n_startup_trials=self.initial, multivariate=self.multivariate, constant_liar=True
        )
        study = optuna.create_study(direction="maximize", sampler=sampler)
        number = [{tuple(row): c for c, row in enumerate(c_CB.tolist())} for c_CB in network_choices(space)]
        for row in state.evaluations:
            params = {name: number[b][tuple(row.alpha_E[e] for e in space.blocks[b])] for b, name in enumerate(asked)}
            study.add_trial(optuna.create_trial(params=params, distributions=asked, value=row.score))
        return study
