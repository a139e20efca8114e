"""Outcomes of trials: lines of a log, and means of what is known."""

from __future__ import annotations

from ddpnas_ray.ablations.outcomes import Outcome, Spread


def test_what_is_no_line_of_a_trial_is_skipped() -> None:
    for line in (b"", b"{", b"null", b"[]", b"{}", b'{"label": "a"}'):
        assert Outcome.from_line(line) is None


def test_a_spread_of_what_is_known() -> None:
    assert Spread.of([0.5, None, 0.7]).text(100.0) == "60.00 ± 14.14"
    assert Spread.of([None]).text() == "not defined"
    assert Spread.of([0.5]).text() == "0.50"
