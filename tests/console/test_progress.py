"""Progress without a terminal: plain lines, and none for quick work."""

from __future__ import annotations

import io
import sys

import pytest

from ddpnas_ray.console.progress import counting


def counted(every_s: float) -> list[str]:
    lines = io.StringIO()
    with counting("things", 4, lines, done=2, every_s=every_s) as advance:
        advance(1)
        advance(1)
    return lines.getvalue().splitlines()


def test_long_work_is_counted_in_plain_lines_until_its_end() -> None:
    (line,) = counted(every_s=0.0)
    assert line == "3/4 things, 0s left"


def test_without_a_display_no_bar_is_drawn_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    drawn = {}
    for live in (None, False):
        monkeypatch.setattr("sys.stderr", Terminal())
        with counting("things", 2, io.StringIO(), live=live) as advance:
            advance(1)
        drawn[live] = sys.stderr.getvalue()  # type: ignore[attr-defined]
    assert "things" in drawn[None] and drawn[False] == ""


def test_quick_work_prints_nothing() -> None:
    assert counted(every_s=10.0) == []
