"""The BERT space: the contract of all spaces, and what it refuses."""

from __future__ import annotations

from functools import partial

from ddpnas_ray.spaces.bert.space import make
from ddpnas_ray.spaces.target import Inputs
from ddpnas_ray.testing.space_contract import SpaceContract

SMALL = partial(make, hidden=24, layers=4, heads=6, ffn=48, positions=20, dropout=0.2)


class TestBert(SpaceContract):
    make = staticmethod(SMALL)
    inputs = Inputs(shape=(12,), outputs=3, vocabulary=70)


class TestFrozenInAnotherOrder(SpaceContract):
    make = staticmethod(partial(SMALL, layer_order=(3, 0, 2, 1), depths=(1, 3)))
    inputs = Inputs(shape=(20,), outputs=1, vocabulary=70)
