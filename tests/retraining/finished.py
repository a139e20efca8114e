"""A tiny finished search and a network trained from it, once for all tests of a session."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from tempfile import mkdtemp

from ddpnas_ray.retrain import main as retrain
from ddpnas_ray.search import main as search
from tests.commands import LOCAL, options, run

RECIPE = options("retraining.epochs=2", "retraining.batch_size=32", "retraining.train_on=train", "retraining.threads=1")


@cache
def searched() -> Path:
    """A finished search of a second or two; do not write to it."""
    out = Path(mkdtemp(prefix="ddpnas-test-")) / "run"
    said = run(search, "--out", out, *LOCAL)
    assert said.code == 0, said.err
    return out


@cache
def trained() -> Path:
    """Its network, trained for two epochs; do not write to it."""
    out = searched().parent / "trained"
    said = run(retrain, searched(), "--out", out, *RECIPE)
    assert said.code == 0, said.err
    return out
