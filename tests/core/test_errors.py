"""Errors survive pickling between processes and carry a hint."""

from __future__ import annotations

import pickle
from collections.abc import Iterator

import pytest

from ddpnas_ray.core import errors
from ddpnas_ray.core.errors import BadInput, DdpnasError, did_you_mean


def kinds(root: type[DdpnasError]) -> Iterator[type[DdpnasError]]:
    """A class and everything derived from it, here or in any module that was imported."""
    yield root
    for child in root.__subclasses__():
        yield from kinds(child)


KINDS = sorted(set(kinds(DdpnasError)), key=lambda kind: kind.__name__)


@pytest.mark.parametrize("kind", KINDS)
def test_every_error_survives_pickling(kind: type[DdpnasError]) -> None:
    text = "runs/a: 100% of 'x' is bad\n  Raise --budget, or search again: é, {brace}."
    arrived = pickle.loads(pickle.dumps(kind(text)))
    assert type(arrived) is kind
    assert str(arrived) == text
    assert arrived.args == (text,)
    assert arrived.exit_code == kind.exit_code


@pytest.mark.parametrize("kind", KINDS)
def test_bad_input_exits_with_2_and_every_other_failure_with_1(kind: type[DdpnasError]) -> None:
    assert kind.exit_code == (2 if issubclass(kind, BadInput) else 1)


@pytest.mark.parametrize("name", ["ConfigError", "DataError", "RunDirError", "ResourceError", "GenotypeError"])
def test_what_the_user_can_fix_before_anything_starts_is_bad_input(name: str) -> None:
    assert issubclass(getattr(errors, name), BadInput)


@pytest.mark.parametrize("name", ["DivergedError", "WorkerLostError"])
def test_what_goes_wrong_later_is_a_failure_and_not_bad_input(name: str) -> None:
    kind = getattr(errors, name)
    assert issubclass(kind, DdpnasError)
    assert not issubclass(kind, BadInput)


def test_a_similar_name_is_suggested() -> None:
    allowed = ["epochs_per_round", "gamma", "keep_per_group"]
    assert did_you_mean("epoch_per_round", allowed) == "; did you mean epochs_per_round?"


def test_without_a_similar_name_everything_allowed_is_listed_in_order() -> None:
    assert did_you_mean("zzz", ["lr", "gamma"]) == "; allowed: gamma, lr"


def test_names_may_come_from_any_iterable() -> None:
    assert did_you_mean("gama", (name for name in ("lr", "gamma"))) == "; did you mean gamma?"
