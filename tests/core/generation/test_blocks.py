"""Choices of a block. Axes: E edges, K candidates, B edges of a block, C choices."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ddpnas_ray.core.errors import TooLargeError
from ddpnas_ray.core.generation import blocks as choices
from ddpnas_ray.core.generation.blocks import block_choices, left_out
from ddpnas_ray.core.space import Edge, Op, SearchSpace

NONE = Op("none", "non_parameter", generable=False)
SEEDS = st.integers(0, 2**32 - 1)


def block_of(edges: int, ops: int, inputs: int | None) -> SearchSpace:
    """One block; each edge has that many selectable operations, with ``none`` in between where it may be left out."""
    names = tuple(Op(f"o{k}", "parameter") for k in range(ops))
    candidates = names if inputs is None else (*names[:1], NONE, *names[1:])
    return SearchSpace(
        "block", tuple(Edge(f"e{e}", candidates) for e in range(edges)), (tuple(range(edges)),), inputs=inputs
    )


@pytest.mark.parametrize(("edges", "ops", "count"), [(2, 2, 4), (3, 2, 12), (4, 2, 24), (5, 2, 40), (5, 7, 490)])
def test_a_node_has_two_of_its_inputs_and_any_operation_on_them(edges: int, ops: int, count: int) -> None:
    space = block_of(edges, ops, inputs=2)
    alphas_CB = block_choices(space, space.generable_EK, space.blocks[0])
    assert count == math.comb(edges, 2) * ops**2
    assert alphas_CB.shape == (count, edges)
    assert ((alphas_CB != 1).sum(axis=1) == 2).all()  # 1 is none


@given(seed=SEEDS, edges=st.integers(1, 4), ops=st.integers(1, 4), inputs=st.one_of(st.none(), st.integers(1, 3)))
def test_choices_are_all_different_in_lexicographic_order_and_of_what_may_be_chosen(
    seed: int, edges: int, ops: int, inputs: int | None
) -> None:
    inputs = None if inputs is None else min(inputs, edges)
    space = block_of(edges, ops, inputs)
    choosable_EK = space.generable_EK & (np.random.default_rng(seed).random(space.shape) < 0.8)
    alphas_CB = block_choices(space, choosable_EK, space.blocks[0])
    rows = [tuple(int(op) for op in alpha_B) for alpha_B in alphas_CB]
    assert rows == sorted(set(rows))
    for row in rows:
        used = [e for e, op in enumerate(row) if space.op(e, op).generable]
        assert len(used) == (edges if inputs is None else inputs)
        assert all(choosable_EK[e, row[e]] for e in used)
    counts = choosable_EK.sum(axis=1).tolist()
    products = np.poly1d([1])  # the coefficient of x^n counts the choices that use n edges
    for count in counts:
        products *= np.poly1d([count, 1])
    coefficients = products.coeffs[::-1].tolist() + [0] * edges
    assert len(rows) == (math.prod(counts) if inputs is None else coefficients[inputs])


def test_a_blocks_choices_are_in_the_order_of_its_edges() -> None:
    space = SearchSpace("two", block_of(2, 2, None).edges, ((1, 0),))
    choosable_EK = np.array([[True, True], [False, True]])
    assert block_choices(space, choosable_EK, (1, 0)).tolist() == [[1, 0], [1, 1]]


def test_a_block_with_too_few_edges_to_choose_from_has_no_choices() -> None:
    space = block_of(3, 2, inputs=2)
    choosable_EK = space.generable_EK & np.array([[True], [False], [False]])
    assert block_choices(space, choosable_EK, (0, 1, 2)).shape == (0, 3)


def test_too_many_choices_are_refused_before_they_are_made(monkeypatch: pytest.MonkeyPatch) -> None:
    space = block_of(3, 2, inputs=2)
    monkeypatch.setattr(choices, "MAX_CHOICES", 12)
    assert len(block_choices(space, space.generable_EK, (0, 1, 2))) == 12
    monkeypatch.setattr(choices, "MAX_CHOICES", 11)
    with pytest.raises(TooLargeError, match=r"^a block of space 'block' has 12 choices; at most 11 are tried$"):
        block_choices(space, space.generable_EK, (0, 1, 2))
    wide = block_of(40, 7, inputs=None)
    with pytest.raises(TooLargeError, match="choices"):
        block_choices(wide, wide.generable_EK, tuple(range(40)))


def test_the_candidate_that_leaves_an_edge_out_is_the_one_that_is_not_selectable() -> None:
    assert left_out(block_of(2, 3, inputs=1), 0) == 1
    assert left_out(block_of(2, 3, inputs=None), 0) == -1
