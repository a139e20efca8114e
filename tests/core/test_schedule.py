"""Planned cost of a search. Axes: E edges, K candidates."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ddpnas_ray.core.schedule import architectures_by_round, complexity, planned_architecture_epochs, planned_epochs
from ddpnas_ray.core.space import SearchSpace
from ddpnas_ray.testing import counted_space

LAW = settings(derandomize=True, deadline=None, max_examples=100)
edge_kinds = st.tuples(st.integers(0, 5), st.integers(0, 4), st.integers(0, 2)).filter(
    lambda kind: kind[0] + kind[1] > 0
)
space_of = partial(counted_space, "counted")

CELL = space_of(*[(4, 3, 1)] * 28)
MOBILE = space_of(*[(6, 1, 0)] * 15, *[(6, 0, 0)] * 6)
NASBENCH201 = space_of(*[(2, 3, 0)] * 6)
BERT = space_of((4, 0, 0), *[(4, 0, 0), (3, 0, 0)] * 12)


@pytest.mark.parametrize(
    ("space", "keep", "by_round"),
    [
        (CELL, 1, [8, 7, 6, 5, 4, 3]),
        (MOBILE, 1, [7, 6, 5, 4, 3]),
        (NASBENCH201, 1, [5, 4, 3]),
        (BERT, 2, [4, 3]),
    ],
    ids=["cell", "mobile", "nasbench201", "bert"],
)
def test_rounds_of_the_papers_spaces(space: SearchSpace, keep: int, by_round: Sequence[int]) -> None:
    assert architectures_by_round(space, keep) == by_round


# Cell: 3 * (8+7+6+5+4+3) = 3 * 33; mobile: 3 * (7+6+5+4+3) = 3 * 25; NAS-Bench-201: 3 * (5+4+3) = 3 * 12;
# BERT: 3 * (4+3) = 3 * 7.
@pytest.mark.parametrize(
    ("space", "keep", "epochs", "architecture_epochs"),
    [(CELL, 1, 18, 99), (MOBILE, 1, 15, 75), (NASBENCH201, 1, 9, 36), (BERT, 2, 6, 21)],
    ids=["cell", "mobile", "nasbench201", "bert"],
)
def test_planned_counts_of_the_papers_spaces(
    space: SearchSpace, keep: int, epochs: int, architecture_epochs: int
) -> None:
    assert planned_epochs(space, keep, epochs_per_round=3) == epochs
    assert planned_architecture_epochs(space, keep, epochs_per_round=3) == architecture_epochs


def test_an_edge_that_is_done_keeps_its_ops_while_wider_ones_shrink() -> None:
    # Five operations of one group, two kept, would shrink 5, 4, 3 alone; the edge of 2 + 2 operations keeps all four.
    assert architectures_by_round(space_of((5, 0, 0), (2, 2, 0)), keep_per_group=2) == [5, 4, 4]


def test_a_space_with_nothing_to_prune_needs_no_epoch() -> None:
    space = space_of((1, 1, 0), (1, 0, 0))
    assert architectures_by_round(space, keep_per_group=1) == []
    assert planned_epochs(space, keep_per_group=1, epochs_per_round=3) == 0
    assert planned_architecture_epochs(space, keep_per_group=1, epochs_per_round=3) == 0


@LAW
@given(
    kinds=st.lists(edge_kinds, min_size=1, max_size=6),
    keep=st.integers(1, 3),
    epochs_per_round=st.integers(1, 4),
)
def test_planned_counts_follow_from_the_group_sizes(
    kinds: list[tuple[int, int, int]], keep: int, epochs_per_round: int
) -> None:
    totals = [sum(kind) for kind in kinds]
    kept = [min(parameter, keep) + min(other, keep) for parameter, other, _ in kinds]
    rounds = max(n - k for n, k in zip(totals, kept, strict=True))
    by_round = [max(max(n - done, k) for n, k in zip(totals, kept, strict=True)) for done in range(rounds)]
    space = space_of(*kinds)
    assert architectures_by_round(space, keep) == by_round
    assert planned_epochs(space, keep, epochs_per_round) == rounds * epochs_per_round
    assert planned_architecture_epochs(space, keep, epochs_per_round) == sum(by_round) * epochs_per_round


def test_counting_does_not_change_the_space() -> None:
    space = space_of((4, 3, 1))
    assert architectures_by_round(space, 1) == architectures_by_round(space, 1)
    assert space.exists_EK.all()


def test_equation_19_read_literally() -> None:
    # 3 * (2+3+4+5+6+7+8) = 3 * 35 = 105.
    assert complexity(operations=8, epochs_per_round=3) == 105


@LAW
@given(operations=st.integers(1, 50), epochs_per_round=st.integers(1, 9))
def test_equation_19_is_the_sum_it_stands_for(operations: int, epochs_per_round: int) -> None:
    assert complexity(operations, epochs_per_round) == sum(epochs_per_round * k for k in range(2, operations + 1))
