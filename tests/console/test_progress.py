"""Progress without a terminal: plain lines, and none for quick work."""

from __future__ import annotations

import io

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


def test_quick_work_prints_nothing() -> None:
    assert counted(every_s=10.0) == []
