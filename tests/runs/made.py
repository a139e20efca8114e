"""A small space with made records of its search."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from ddpnas_ray.core.space import Edge, Op, SearchSpace
from ddpnas_ray.core.state import Evaluation, RoundRecord

CONV, SKIP, NONE = Op("conv", "parameter"), Op("skip", "non_parameter"), Op("none", "non_parameter", generable=False)
SPACE = SearchSpace("small", (Edge("a", (CONV, SKIP, NONE)), Edge("b", (SKIP, CONV))), ((1,), (0,)))
EXISTS_EK = SPACE.exists_EK
FILES = {"space.json": b"{}", "config.yaml": b"seed: 0\n"}


def evaluation(number: int = 0, **changes: Any) -> Evaluation:
    """Return the evaluation of this number: two in an epoch, four in a round."""
    found = Evaluation(
        round=number // 4,
        epoch=number // 2,
        architecture=number % 2,
        alpha_E=(number % 3, number % 2),
        split="val",
        score=0.1 + number / 100,
        loss=2.5 - number / 10,
        trained=True,
        ok=True,
        seconds=0.25,
        worker="local",
        node="",
    )
    return replace(found, **changes)


def record(number: int) -> RoundRecord:
    """Return the record of a round, at random."""
    rng = np.random.default_rng(number)
    live_EK = EXISTS_EK & (rng.random(SPACE.shape) < 0.7)
    return RoundRecord(
        round=number,
        theta_EK=np.where(EXISTS_EK, rng.random(SPACE.shape), 0.0),
        utility_EK=np.where(live_EK, rng.random(SPACE.shape), np.nan),
        momentum_EK=np.where(EXISTS_EK, rng.random(SPACE.shape), 0.0),
        live_EK=live_EK,
        pruned_at_EK=np.where(live_EK, -1, number),
    )
