"""Successive halving: its rungs, and which network wins."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ddpnas_ray.core.errors import DivergedError
from ddpnas_ray.core.halving import Rung, halve, kept, planned_epochs, rungs

STEPS = st.fixed_dictionaries(
    {"networks": st.integers(2, 40), "epochs": st.integers(1, 300), "first_epochs": st.integers(1, 50)}
    | {"eta": st.integers(2, 5)}
)


@given(config=STEPS)
def test_rungs_grow_to_the_whole_recipe_and_two_networks_reach_it(config: dict[str, int]) -> None:
    steps = rungs(**config)
    assert steps[0].networks == config["networks"] and steps[-1].epochs == config["epochs"]
    for before, after in pairwise(steps):
        assert before.epochs < after.epochs <= before.epochs * config["eta"]
        assert 2 <= after.networks <= before.networks
        assert after.networks <= max(2, -(-before.networks // config["eta"]))
    assert planned_epochs(steps) <= config["networks"] * config["epochs"]


@given(config=STEPS, data=st.data())
def test_the_winner_has_the_best_score_of_the_last_rung_and_each_network_is_trained_as_planned(
    config: dict[str, int], data: st.DataObject
) -> None:
    steps, trained = rungs(**config), dict[int, int]()
    seen: list[dict[int, float | None]] = []

    def score(alive: Sequence[int], epochs: int) -> list[float]:
        assert len(alive) == next(step.networks for step in steps if step.epochs == epochs)
        trained.update(dict.fromkeys(alive, epochs))
        return [data.draw(st.sampled_from([0.1, 0.5, 0.9])) for _ in alive]

    ended = halve(steps, score, lambda epochs, scores, left: seen.append(scores))
    assert ended == trained
    assert sum(ended.values()) == planned_epochs(steps)
    last, winner = seen[-1], list(ended)[-1]
    assert last[winner] == max(value for value in last.values() if value is not None)
    assert winner == min(i for i, value in last.items() if value == last[winner]), "of equals the more probable one"


@given(scores=st.lists(st.one_of(st.none(), st.floats(-1, 1)), max_size=12), count=st.integers(1, 12))
def test_none_is_never_kept_and_no_worse_one_is(scores: list[float | None], count: int) -> None:
    indices = kept(scores, count)
    known = [i for i, score in enumerate(scores) if score is not None]
    assert indices == sorted(indices) and len(indices) == min(count, len(known))
    left_out = [scores[i] for i in known if i not in indices]
    assert all(scores[i] >= worse for i in indices for worse in left_out)  # type: ignore[operator]


def test_a_network_that_diverges_loses_and_if_all_do_there_is_no_winner() -> None:
    steps = (Rung(3, 1), Rung(2, 2))
    assert list(halve(steps, lambda alive, epochs: [None if i == 0 else 0.5 for i in alive]))[-1] == 1
    only_one = halve(steps, lambda alive, epochs: [0.5 if i == 2 else None for i in alive])
    assert list(only_one)[-1] == 2
    with pytest.raises(DivergedError, match="all 3 networks of a rung diverged"):
        halve(steps, lambda alive, epochs: [None] * len(alive))
