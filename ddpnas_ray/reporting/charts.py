"""Charts of the HTML report. Axes: R rounds, K candidates of one edge."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from ddpnas_ray.core.space import FloatArray
from ddpnas_ray.reporting.svg import (
    Frame,
    Point,
    around,
    dot,
    figure,
    number,
    path,
    tag,
    ticks,
    whole_ticks,
)

SHOWN_POINTS = 80  # per line
SHOWN_BARS = 1500  # of the timeline, each with a tooltip


@dataclass(frozen=True, slots=True, kw_only=True)
class EdgeTheta:
    """Theta of an edge by round.

    Args:
        name: Name of the edge.
        operations: Names of its candidates.
        colours: Their colour numbers.
        dashed: Whether each is drawn dashed: the non-parameter group.
        theta_RK: Before the first round and after each, shape (R + 1, K).
        pruned: The round, from 1, that pruned each; None if it was not pruned.
        chosen: The candidate in the result architecture; None if that leaves the edge out.
    """

    name: str
    operations: tuple[str, ...]
    colours: tuple[int, ...]
    dashed: tuple[bool, ...]
    theta_RK: FloatArray
    pruned: tuple[int | None, ...]
    chosen: int | None

    @property
    def uniform(self) -> float:
        """Theta before the first round."""
        return 1.0 / len(self.operations)

    def distance_RK(self) -> FloatArray:
        """Return theta minus its mean over the operations live in the round; NaN after an operation's pruning."""
        last_K = np.array([len(self.theta_RK) if gone is None else gone for gone in self.pruned])
        shown_RK = np.arange(len(self.theta_RK))[:, None] <= last_K
        theta_RK = np.where(shown_RK, self.theta_RK, np.nan)
        distance_RK: FloatArray = theta_RK - np.nanmean(theta_RK, axis=1, keepdims=True)
        return distance_RK


def shown_rounds(count: int) -> list[int]:
    """Return the drawn indices of R + 1 points: all, or evenly spaced ones including the first and the last."""
    return [int(i) for i in np.unique(np.linspace(0, count - 1, min(count, SHOWN_POINTS)).round())]


def theta_span(edges: Sequence[EdgeTheta]) -> Point:
    """Return the range of theta minus its start, shared by all edges."""
    low = min(float((edge.theta_RK - edge.uniform).min()) for edge in edges)
    high = max(float((edge.theta_RK - edge.uniform).max()) for edge in edges)
    return around(min(low, -1e-6), max(high, 1e-6), 0.08)


def distance_span(edges: Sequence[EdgeTheta]) -> Point:
    """Return the range of ``distance_RK``, shared by all edges."""
    most = max(float(np.nanmax(np.abs(edge.distance_RK()))) for edge in edges)
    return around(-max(most, 1e-9), max(most, 1e-9), 0.08)


def theta_chart(edge: EdgeTheta, span: Point, index: int, *, large: bool, distance: bool = False) -> Markup:
    """Draw an edge's theta (Fig. 4): solid for the parameter group, else dashed; faint after the cross of a pruning.

    Args:
        edge: The edge.
        span: From ``theta_span`` or ``distance_span``.
        index: Index of the edge, for the page's script.
        large: Whether to label lines and axes; False for a small multiple.
        distance: Whether to draw ``distance_RK``, which decides the pruning, instead of theta.
    """
    rounds = len(edge.theta_RK) - 1
    size = (
        {"width": 760.0, "height": 380.0, "left": 76.0, "right": 170.0, "top": 30.0, "bottom": 46.0}
        if large
        else {"width": 220.0, "height": 140.0, "left": 50.0, "right": 8.0, "top": 8.0, "bottom": 22.0}
    )
    middle = 0.0 if distance else edge.uniform
    y = (middle + span[0], middle + span[1])
    values_RK = edge.distance_RK() if distance else edge.theta_RK
    frame = Frame(x=(0, max(1, rounds)), y=y, **size)
    what = "theta minus the mean of the live operations" if distance else "theta"
    axes = frame.axes(
        whole_ticks(0, rounds, 9 if large else 4),
        ticks(*y, 6 if large else 3),
        x_label="rounds finished" if large else "",
        y_label=what if large else "",
    )
    lines = [_theta_line(edge, values_RK, frame, k) for k in _front_last(edge)]
    label = f"{what} of edge {edge.name} by round"
    if large:
        lines.append(_end_labels(edge, values_RK, frame))
        label += "; the tables below have all values"
    cursor = tag("line", class_="cursor", x1=0, x2=0, y1=frame.top, y2=frame.height - frame.bottom)
    return figure(
        frame,
        label,
        axes,
        *lines,
        cursor,
        class_=f"theta {'distance' if distance else 'plain'}{' large' * large}",
        data_edge=index,
        data_left=frame.left,
        data_right=frame.width - frame.right,
    )


def _front_last(edge: EdgeTheta) -> list[int]:
    """Return the drawing order: pruned operations first, the chosen one last."""
    return sorted(range(len(edge.operations)), key=lambda k: (k == edge.chosen, edge.pruned[k] is None))


def _theta_line(edge: EdgeTheta, values_RK: FloatArray, frame: Frame, k: int) -> Markup:
    gone, shown = edge.pruned[k], shown_rounds(len(values_RK))
    kind = f"line op{edge.colours[k]}" + (" dashed" if edge.dashed[k] else "") + (" chosen" if k == edge.chosen else "")
    points = [(i, frame.at(i, float(values_RK[i, k]))) for i in shown if not math.isnan(values_RK[i, k])]
    if gone is None:
        return tag("g", tag("path", d=path([p for _, p in points])), class_=kind, data_op=edge.colours[k])
    at = frame.at(gone, float(values_RK[gone, k]))
    before = [p for i, p in points if i < gone] + [at]
    after = [at] + [p for i, p in points if i > gone]
    x, y = at
    cross = f"M{number(x - 3)} {number(y - 3)}l6 6m0 -6l-6 6"
    return tag(
        "g",
        tag("path", d=path(before)),
        *([tag("path", d=path(after), class_="after")] if len(after) > 1 else []),
        tag("path", d=cross, class_="cross"),
        class_=kind,
        data_op=edge.colours[k],
    )


def _end_labels(edge: EdgeTheta, values_RK: FloatArray, frame: Frame) -> Markup:
    """Draw names at the ends of the lines, spread out, each with a leader line."""
    last_K = values_RK[-1]
    ends = sorted((frame.py(float(last_K[k])), k) for k in range(len(last_K)) if not math.isnan(last_K[k]))
    gap = min(16.0, (frame.height - 10) / len(ends))
    places: list[float] = []
    for y, _ in ends:
        places.append(max(y, places[-1] + gap) if places else y)
    overflow = max(0.0, places[-1] - (frame.height - 10))
    places = [place - overflow for place in places]
    for i in range(len(places) - 2, -1, -1):
        places[i] = min(places[i], places[i + 1] - gap)
    x, parts = frame.width - frame.right, []
    for (y, k), place in zip(ends, places, strict=True):
        text = edge.operations[k] + (" (chosen)" if k == edge.chosen else "")
        lead = tag("path", d=path([(x + 2, y), (x + 12, place)]), class_="lead")
        word = tag("text", text, x=x + 16, y=place + 4)
        kind = f"name op{edge.colours[k]}" + ("" if edge.pruned[k] is None else " gone")
        parts.append(tag("g", lead, word, class_=kind, data_op=edge.colours[k]))
    return Markup("").join(parts)


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a chart: its name, and its points (x, y), with NaN for missing values."""

    name: str
    points: Sequence[Point]


def lines_chart(
    label: str,
    lines: Sequence[Line],
    *,
    x_label: str,
    y_label: str,
    band: Point | None = None,
    band_text: str = "",
    scatter: Sequence[tuple[float, float, str]] = (),
    form: str = ".4f",
) -> Markup:
    """Draw lines in the colours 0, 1, ..., with a dot at each point unless there are too many.

    Args:
        label: Description of the chart.
        lines: The lines; without any point here or in ``scatter`` the chart is empty.
        x_label: Label of the x axis, which has integer ticks.
        y_label: Label of the y axis.
        band: Range of y to shade.
        band_text: Label of the band.
        scatter: (x, y, tooltip) of points without a line.
        form: Format of y in the tooltips of lines.
    """
    known = [(x, y) for line in lines for x, y in line.points if math.isfinite(y)]
    known += [(x, y) for x, y, _ in scatter if math.isfinite(y)]
    if not known:
        return Markup("")
    xs, ys = [x for x, _ in known], [y for _, y in known] + list(band or ())
    frame = Frame(height=300, left=64, right=16, x=around(min(xs), max(xs), 0.02), y=around(min(ys), max(ys)))
    parts = [
        frame.axes(
            whole_ticks(math.ceil(min(xs)), math.floor(max(xs)), 8),
            ticks(*frame.y, 6),
            x_label=x_label,
            y_label=y_label,
        )
    ]
    if band is not None:
        top, bottom = frame.py(band[1]), frame.py(band[0])
        width = frame.width - frame.left - frame.right
        parts.append(tag("rect", class_="band", x=frame.left, y=top, width=width, height=bottom - top))
        parts.append(tag("text", band_text, class_="name", x=frame.left + 6, y=top + 15))
    parts += [dot(*frame.at(x, y), text, "faint") for x, y, text in scatter if math.isfinite(y)]
    for i, line in enumerate(lines):
        points = [(x, y) for x, y in line.points if math.isfinite(y)]
        drawn = tag("path", d=path([frame.at(x, y) for x, y in points]))
        dots = [dot(*frame.at(x, y), f"{line.name}, {x_label} {x:g}: {y:{form}}") for x, y in points]
        if len(points) > SHOWN_POINTS:
            dots = []
        kind = f"line op{i % 10}" + (" dashed" if i >= 10 else "")
        parts.append(tag("g", drawn, *dots, class_=kind, data_op=i))
    return figure(frame, label, *parts, class_="lines")


def front_chart(
    label: str, points: Sequence[tuple[float, float, str]], front: Sequence[Point], *, x_label: str, y_label: str
) -> Markup:
    """Draw points, and a staircase through the Pareto front."""
    if not points:
        return Markup("")
    xs, ys = [x for x, _, _ in points], [y for _, y, _ in points]
    frame = Frame(height=320, left=102, right=24, x=around(min(xs), max(xs)), y=around(min(ys), max(ys), 0.08))
    steps: list[Point] = []
    for i, (x, y) in enumerate(front):
        steps += [frame.at(x, front[i - 1][1])] if i else []
        steps.append(frame.at(x, y))
    axes = frame.axes(ticks(*frame.x, 6), ticks(*frame.y, 6), x_label=x_label, y_label=y_label)
    dots = [dot(*frame.at(x, y), text) for x, y, text in points]
    drawn = tag("path", d=path(steps)) if steps else Markup("")
    return figure(frame, label, axes, tag("g", drawn, *dots, class_="line op0"), class_="lines")


@dataclass(frozen=True, slots=True)
class Bar:
    """One evaluation on the timeline.

    Args:
        row: Index of the worker.
        start_s: Seconds since the start of the search.
        seconds: Duration.
        kind: Class of the style sheet: ``even``, ``odd`` (rounds), ``failed``.
        text: Tooltip.
    """

    row: int
    start_s: float
    seconds: float
    kind: str
    text: str


def timeline(
    rows: Sequence[str], bars: Sequence[Bar], rounds_s: Mapping[str, float], resumes_s: Sequence[float]
) -> Markup:
    """Draw the timeline of the workers.

    Args:
        rows: Names of the workers.
        bars: Their evaluations.
        rounds_s: Start of each round.
        resumes_s: Time of each resume.
    """
    end = max(bar.start_s + bar.seconds for bar in bars)
    unit, name = (1.0, "s") if end < 180 else (60.0, "min") if end < 3 * 3600 else (3600.0, "h")
    height = 70 + 26.0 * len(rows)
    frame = Frame(width=960, height=height, left=150, right=12, top=24, x=(0, end / unit), y=(float(len(rows)), 0))
    bottom = frame.height - frame.bottom
    parts = [frame.axes(ticks(0, end / unit, 8), (), x_label=f"search time in {name}")]
    free = 0.0
    for title, start_s in rounds_s.items():
        at = frame.px(start_s / unit)
        parts.append(tag("line", class_="grid", x1=at, x2=at, y1=frame.top, y2=bottom))
        if at >= free:
            parts.append(tag("text", title, x=at + 3, y=frame.top - 8))
            free = at + 9.0 * len(title)
    for row, worker in enumerate(rows):
        parts.append(tag("text", worker, x=frame.left - 8, y=frame.top + 26 * row + 17, text_anchor="end"))
    if len(bars) <= SHOWN_BARS:
        for bar in bars:
            x, width = frame.px(bar.start_s / unit), bar.seconds / end * (frame.width - frame.left - frame.right)
            y, w = frame.top + 26 * bar.row + 3, max(width - 0.6, 0.6)
            parts.append(tag("rect", class_=f"bar {bar.kind}", x=x, y=y, width=w, height=20, rx=1.5, data_tip=bar.text))
    else:
        parts += [_merged(row, bars, frame, unit) for row in range(len(rows))]
    for start_s in resumes_s:
        at = frame.px(start_s / unit)
        parts.append(tag("line", class_="resume", x1=at, x2=at, y1=frame.top - 4, y2=bottom))
    label = f"timeline of {len(rows)} worker{'s' * (len(rows) > 1)}; the tables have sums by worker and by epoch"
    return figure(frame, label, *parts, class_="timeline")


def _merged(row: int, bars: Sequence[Bar], frame: Frame, unit: float) -> Markup:
    """Draw a row of very many bars as one path, merging bars that touch on the screen."""
    y, d, at, until = number(frame.top + 26 * row + 3), "", -1.0, -1.0
    for bar in sorted((bar for bar in bars if bar.row == row), key=lambda bar: bar.start_s):
        x0, x1 = frame.px(bar.start_s / unit), frame.px((bar.start_s + bar.seconds) / unit)
        if x0 - until > 0.5:
            d += f"M{number(at)} {y}H{number(until)}v20H{number(at)}z" if until >= 0 else ""
            at = x0
        until = max(until, x1)
    d += f"M{number(at)} {y}H{number(until)}v20H{number(at)}z" if until >= 0 else ""
    return tag("path", class_="bar even", d=d)
