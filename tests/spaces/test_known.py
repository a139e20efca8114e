"""Known networks: each file is a network of its space; counts are in ``test_check.py`` and the spaces' tests."""

from __future__ import annotations

import pytest

from ddpnas_ray.core.errors import GenotypeError
from ddpnas_ray.spaces.base import find_space
from ddpnas_ray.spaces.known import known_network, known_networks
from ddpnas_ray.spaces.target import Inputs, Target


@pytest.mark.parametrize("name", known_networks())
def test_a_known_network_has_a_source_and_a_deploy_network(name: str) -> None:
    known = known_network(name)
    assert known.name == name
    assert known.source
    spec = find_space(known.space)(**known.options)
    target = Target.resolve(known.target, Inputs(shape=(3, 1, 1), outputs=1), spec.target)
    assert target.image_size > 1
    assert spec.costs["params"](target)(spec.encode(known.genotype)) > 1_000_000


def test_an_unknown_name_is_refused_with_the_nearest_one() -> None:
    with pytest.raises(GenotypeError, match="'darts' is not a known network; did you mean darts_v"):
        known_network("darts")
