"""The ledger of a search: every round's prunings, margins, and error probabilities.

Axes: E edges, K candidates.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from ddpnas_ray.core.ledger import LedgerRow, ledger
from ddpnas_ray.core.pruning import prunable
from ddpnas_ray.core.requests import EvalRequest, EvalResult
from ddpnas_ray.core.risks import round_risks
from ddpnas_ray.core.sampling import rng_for
from ddpnas_ray.core.space import SearchSpace
from ddpnas_ray.core.state import RoundRecord, SearchState
from ddpnas_ray.runs.files import LEDGER, ledger_table
from ddpnas_ray.storage.parquet import read_parquet
from ddpnas_ray.strategies.pruning import Pruning
from ddpnas_ray.testing import counted_space
from ddpnas_ray.testing.strategy_contract import SPACES, Script, search

SPACE = counted_space("two", (3, 1, 0), (2, 2, 1), (1, 1, 0))
EDGES = [edge.name for edge in SPACE.edges]


def noisy(request: EvalRequest) -> EvalResult:
    """An operation's worth is its index; a little noise per architecture and epoch, and progress between epochs."""
    noise = rng_for(request.epoch, request.architecture).normal(0, 0.01)
    return EvalResult(score=float(0.2 + 0.05 * request.alpha_E.sum() + 0.01 * request.epoch + noise), loss=1.0)


def searched(strategy: Pruning, space: SearchSpace = SPACE, script: Script = noisy) -> SearchState:
    return search(strategy, space, 0, script).states[-1]


@pytest.fixture(scope="module")
def state() -> SearchState:
    return searched(Pruning(epochs_per_round=3))


@pytest.fixture(scope="module")
def rows(state: SearchState) -> list[LedgerRow]:
    return ledger(state.history, state.evaluations, SPACE, 1)


def test_there_is_one_row_per_round_and_edge(state: SearchState, rows: list[LedgerRow]) -> None:
    assert [(row.round, row.edge) for row in rows] == [(r, edge) for r in range(state.round) for edge in EDGES]
    assert state.round == 3


def test_it_names_what_was_pruned_and_when(state: SearchState, rows: list[LedgerRow]) -> None:
    for row in rows:
        e = EDGES.index(row.edge)
        gone = np.flatnonzero(state.pruned_at_EK[e] == row.round)
        assert row.pruned == (SPACE.op(e, int(gone[0])).name if len(gone) else None)
    assert sum(row.pruned is not None for row in rows) == (state.pruned_at_EK >= 0).sum()
    assert not [row for row in rows if row.edge == "e2" and row.pruned], "one of each group stays"


def test_the_margin_is_to_the_next_prunable_one(state: SearchState, rows: list[LedgerRow]) -> None:
    margins = 0
    live_EK = SPACE.exists_EK
    for record in state.history:
        prunable_EK = prunable(record.theta_EK, live_EK, SPACE, 1)
        for e in range(3):
            row = rows[record.round * 3 + e]
            thetas = sorted(record.theta_EK[e, prunable_EK[e]])
            if len(thetas) < 2:
                assert math.isnan(row.margin)
            else:
                assert row.margin == thetas[1] - thetas[0] >= 0
                margins += 1
        live_EK = record.live_EK
    assert margins > 0


def test_probabilities_are_those_of_the_rounds_own_scores(state: SearchState, rows: list[LedgerRow]) -> None:
    live_EK = SPACE.exists_EK
    for record in state.history:
        of_round = [row for row in state.evaluations if row.round == record.round]
        risks = round_risks(
            np.array([row.alpha_E for row in of_round]),
            np.array([row.score for row in of_round]),
            np.array([row.epoch for row in of_round]),
            live_EK,
            prunable_EK=prunable(record.theta_EK, live_EK, SPACE, 1),
        )
        for e, row in enumerate(rows[record.round * 3 : record.round * 3 + 3]):
            assert row.sigma == risks.estimate.sigma > 0
            np.testing.assert_array_equal(row.p_worst_two_confused, risks.p_confused_E[e])
            np.testing.assert_array_equal(row.p_best_pruned, risks.p_best_pruned_E[e])
        live_EK = record.live_EK


def test_what_is_clear_is_no_risk_and_what_is_noise_is_one() -> None:
    """Operations 0.05 apart in noise of 0.01, then the same noise alone."""
    clear = counted_space("clear", (4, 0, 0))
    state = searched(Pruning(epochs_per_round=4), clear)
    rows = ledger(state.history, state.evaluations, clear, 1)
    assert [row.pruned for row in rows] == ["p0", "p1", "p2"]
    assert max(row.p_best_pruned for row in rows) < 1e-3
    assert rows[0].p_worst_two_confused < 0.01
    assert math.isnan(rows[2].p_worst_two_confused), "only one could go"

    def noise_alone(request: EvalRequest) -> EvalResult:
        return EvalResult(score=noisy(request).score - 0.05 * float(request.alpha_E.sum()), loss=1.0)

    state = searched(Pruning(epochs_per_round=4), clear, script=noise_alone)
    first = ledger(state.history, state.evaluations, clear, 1)[0]
    assert first.p_best_pruned > 0.05
    assert first.p_worst_two_confused > 0.2


def test_one_epoch_per_round_leaves_nothing_to_estimate() -> None:
    """Where every operation of every edge has been seen once; what came again says something about the noise."""
    equal = counted_space("equal", (4, 0, 0), (4, 0, 0))
    state = searched(Pruning(epochs_per_round=1), equal)
    rows = ledger(state.history, state.evaluations, equal, 1)
    assert len(rows) == 6
    assert all(row.pruned is not None for row in rows)
    assert all(math.isnan(x) for row in rows for x in (row.sigma, row.p_worst_two_confused, row.p_best_pruned))


def test_scores_without_training_do_not_count(rows: list[LedgerRow]) -> None:
    state = searched(Pruning(epochs_per_round=3, evaluations=40))
    assert not state.evaluations[-1].trained
    assert ledger_table(ledger(state.history, state.evaluations, SPACE, 1)) == ledger_table(rows)


def test_without_pruning_nothing_is_listed_as_pruned() -> None:
    state = searched(Pruning(epochs_per_round=2, prune=False, evaluations=20))
    rows = ledger(state.history, state.evaluations, SPACE, 1)
    assert len(rows) == 6
    assert {row.pruned for row in rows} == {None}
    assert all(math.isnan(row.margin) and row.sigma > 0 for row in rows)


def test_no_round_no_row(state: SearchState) -> None:
    assert ledger([], state.evaluations, SPACE, 1) == []
    assert read_parquet(ledger_table([])).num_rows == 0


def test_theta_after_the_last_round_says_nothing(state: SearchState, rows: list[LedgerRow]) -> None:
    """Searches of thousands of evaluations and no round end with such a record: it must cost nothing."""
    nothing_EK = np.full(SPACE.shape, np.nan)
    last = RoundRecord(3, state.theta_EK, nothing_EK, state.momentum_EK, state.live_EK, state.pruned_at_EK)
    many = tuple(replace(state.evaluations[0], round=3, epoch=100 + i) for i in range(5000))
    found = ledger((*state.history, last), state.evaluations + many, SPACE, 1)
    assert ledger_table(found[:9]) == ledger_table(rows)
    assert [(row.round, row.edge, row.pruned) for row in found[9:]] == [(3, edge, None) for edge in EDGES]
    assert all(math.isnan(x) for row in found[9:] for x in (row.sigma, row.margin, row.p_best_pruned))


def test_an_edge_inactive_in_some_is_estimated_from_the_others() -> None:
    space = SPACES["conditional"]
    state = searched(Pruning(epochs_per_round=3), space)
    rows = ledger(state.history, state.evaluations, space, 1)
    assert [row.edge for row in rows[:2]] == ["depth", "layer"]
    assert len(rows) == 2 * state.round
    for row in rows:
        assert math.isnan(row.p_best_pruned) or 0 <= row.p_best_pruned <= 1


def test_the_file_has_one_column_per_field(rows: list[LedgerRow]) -> None:
    table = read_parquet(ledger_table(rows))
    assert table.schema.equals(LEDGER)
    assert table.num_rows == len(rows)
    assert table["pruned"].to_pylist() == [row.pruned for row in rows]
    np.testing.assert_array_equal(table["margin"].to_numpy(), [row.margin for row in rows])
