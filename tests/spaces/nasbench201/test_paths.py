"""Paths of NAS-Bench-201's cell: networks that compute the same have the same features."""

from __future__ import annotations

from itertools import product

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ddpnas_ray.spaces.nasbench201.costs import EDGES, OPERATIONS
from ddpnas_ray.spaces.nasbench201.paths import PATHS, embed

alphas = st.lists(st.integers(0, len(OPERATIONS) - 1), min_size=6, max_size=6)


def sequences(alpha: list[int]) -> set[tuple[str, ...]]:
    """Sequences of operations from input to output, by walking the graph."""
    names = dict(zip(EDGES, (OPERATIONS[k] for k in alpha), strict=True))
    found, walks = set(), [(0, ())]
    while walks:
        node, applied = walks.pop()
        if node == 3:
            found.add(applied)
            continue
        for (source, target), name in names.items():
            if source == node and name != "none":
                walks.append((target, applied if name == "skip_connect" else (*applied, name)))
    return found


@given(alphas, alphas)
def test_the_squared_distance_is_two_for_every_sequence_that_one_lacks(a: list[int], b: list[int]) -> None:
    first, second = embed(np.array([a, b]))
    np.testing.assert_allclose(np.square(first - second).sum(), 2 * len(sequences(a) ^ sequences(b)), atol=1e-9)


def test_the_paths_of_the_cell() -> None:
    assert {tuple(EDGES[e] for e in path) for path in PATHS} == {
        ((0, 3),),
        ((0, 1), (1, 3)),
        ((0, 2), (2, 3)),
        ((0, 1), (1, 2), (2, 3)),
    }


def test_features_do_not_depend_on_the_other_networks() -> None:
    every_NE = np.array(list(product(range(len(OPERATIONS)), repeat=6)))[::97]
    together = embed(every_NE)
    np.testing.assert_array_equal(together, np.concatenate([embed(alpha_E[None]) for alpha_E in every_NE]))
