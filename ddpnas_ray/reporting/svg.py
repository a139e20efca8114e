"""Inline SVG charts: escaped elements, axes and lines.

An inlined plotting library would add megabytes to a page; these charts take a few kilobytes each, follow its dark and
light colours, and print.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

Point = tuple[float, float]


def tag(name: str, *children: object, **attributes: object) -> Markup:
    """Create an element. Children and values are escaped unless they are markup; None attributes are omitted.

    Example:
        >>> tag("text", "a < b", class_="label", text_anchor="end", x=1.5)
        Markup('<text class="label" text-anchor="end" x="1.5">a &lt; b</text>')
    """
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(_plain(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    if not children:
        return Markup(f"<{name}{written}/>")
    return Markup(f"<{name}{written}>{''.join(map(escape, children))}</{name}>")


def number(value: float) -> str:
    """Format a coordinate with at most two decimals."""
    text = f"{value:.2f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def path(points: Sequence[Point]) -> str:
    """Return straight lines through points, as the attribute ``d``."""
    return "M" + "L".join(f"{number(x)} {number(y)}" for x, y in points) if points else ""


def ticks(low: float, high: float, count: int) -> list[float]:
    """Return at most ``count`` round numbers within a range.

    Example:
        >>> ticks(0.13, 0.19, 4)
        [0.14, 0.16, 0.18]
    """
    if not high > low:
        return [low]
    power = 10.0 ** math.floor(math.log10((high - low) / count))
    for step in (factor * power for factor in (1.0, 2.0, 5.0, 10.0, 20.0, 50.0)):
        first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
        if last - first < count:
            return [float(f"{i * step:.12g}") for i in range(first, last + 1)]
    raise AssertionError("unreachable: a step of fifty times the power fits")


def whole_ticks(low: int, high: int, count: int) -> list[float]:
    """Return at most ``count`` integers within a range."""
    return [t for t in ticks(low, high, count) if t == int(t)] or [float(low)]


def _tick_text(value: float) -> str:
    """Format the label of a tick."""
    if value == 0 or 1e-4 <= abs(value) < 1e5:
        return f"{value:.6g}"
    for factor, suffix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= factor:
            return f"{value / factor:.4g}{suffix}"
    return f"{value:.1e}"


def around(low: float, high: float, share: float = 0.06) -> Point:
    """Return a range with a margin on both sides."""
    margin = share * (high - low) or abs(low) * share or share
    return low - margin, high + margin


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """Plot area of a figure.

    Args:
        width: Width of the figure.
        height: Height of the figure.
        left: Left margin, for the labels of the y axis.
        right: Right margin.
        top: Top margin.
        bottom: Bottom margin, for the labels of the x axis.
        x: Range of the x axis.
        y: Range of the y axis.
    """

    width: float = 640.0
    height: float
    left: float
    right: float
    top: float = 28.0
    bottom: float = 46.0
    x: Point
    y: Point

    def px(self, x: float) -> float:
        """Return the horizontal position of a value."""
        low, high = self.x
        return self.left + (x - low) / ((high - low) or 1.0) * (self.width - self.left - self.right)

    def py(self, y: float) -> float:
        """Return the vertical position of a value."""
        low, high = self.y
        return self.height - self.bottom - (y - low) / ((high - low) or 1.0) * (self.height - self.top - self.bottom)

    def at(self, x: float, y: float) -> Point:
        """Return the position of a point."""
        return self.px(x), self.py(y)

    def axes(self, xs: Sequence[float], ys: Sequence[float], *, x_label: str = "", y_label: str = "") -> Markup:
        """Draw grid lines, tick labels and axis labels."""
        bottom, right = self.height - self.bottom, self.width - self.right
        parts = []
        for y in ys:
            at = self.py(y)
            parts.append(tag("line", class_="grid", x1=self.left, x2=right, y1=at, y2=at))
            parts.append(tag("text", _tick_text(y), x=self.left - 6, y=at + 4, text_anchor="end"))
        for x in xs:
            at = self.px(x)
            parts.append(tag("line", class_="tick", x1=at, x2=at, y1=bottom, y2=bottom + 4))
            parts.append(tag("text", _tick_text(x), x=at, y=bottom + 18, text_anchor="middle"))
        parts.append(tag("line", class_="axis", x1=self.left, x2=right, y1=bottom, y2=bottom))
        if x_label:
            middle = (self.left + right) / 2
            parts.append(tag("text", x_label, class_="name", x=middle, y=self.height - 4, text_anchor="middle"))
        if y_label:
            parts.append(tag("text", y_label, class_="name", x=4, y=self.top - 10))
        return Markup("").join(parts)


def figure(frame: Frame, label: str, *children: object, **attributes: object) -> Markup:
    """Create the element of a chart; ``label`` describes it to screen readers."""
    box = f"0 0 {number(frame.width)} {number(frame.height)}"
    return tag("svg", *children, viewBox=box, role="img", aria_label=label, **attributes)


def dot(x: float, y: float, text: str, class_: str = "") -> Markup:
    """Draw a point with a tooltip."""
    return tag("circle", class_=f"dot {class_}".strip(), cx=x, cy=y, r=3.5, data_tip=text)


def _plain(value: object) -> object:
    return number(value) if isinstance(value, float) else value
