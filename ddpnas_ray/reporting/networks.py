"""Draw the networks of genotypes: cells as graphs (Fig. 5), chains of blocks as stages.

Genotypes are recognised by their keys, so user-defined spaces with the same keys are drawn too.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from markupsafe import Markup

from ddpnas_ray.reporting.svg import Frame, Point, figure, number, tag

LEFT_OUT = ("none", "zero")
_ARCH = re.compile(r"([^|~+]+)~(\d+)")


@dataclass(frozen=True, slots=True)
class Arc:
    """An operation from one node to another; None is the identity."""

    source: int
    node: int
    operation: str | None


@dataclass(frozen=True, slots=True)
class Cell:
    """A graph of nodes in topological order.

    Args:
        title: Its title.
        nodes: Names of its nodes.
        arcs: Its arcs, by index of the nodes.
    """

    title: str
    nodes: tuple[str, ...]
    arcs: tuple[Arc, ...]

    def text(self) -> str:
        """Describe the graph in words."""
        into: dict[int, list[str]] = {}
        for arc in self.arcs:
            what = "all of" if arc.operation is None else f"{arc.operation} of"
            into.setdefault(arc.node, []).append(f"{what} {self.nodes[arc.source]}")
        return "; ".join(f"{self.nodes[node]} is {' and '.join(parts)}" for node, parts in sorted(into.items()))


def cells(genotype: Mapping[str, Any]) -> list[Cell]:
    """Return the cells of a genotype in the form of DARTS or NAS-Bench-201; empty for other forms."""
    if isinstance(genotype.get("arch_str"), str):
        return [_benchmark_cell(genotype["arch_str"])]
    names = [name for name in genotype if f"{name}_concat" in genotype]
    return [_darts_cell(name, genotype[name], genotype[f"{name}_concat"]) for name in names]


def stages(genotype: Mapping[str, Any], channels: Sequence[int], strides: Sequence[int]) -> list[tuple[str, list[str]]]:
    """Return title and operations of each stage of a chain; empty for other forms.

    Args:
        genotype: ``{"stages": [[operation, ...], ...]}``.
        channels: Channels of each stage, if known.
        strides: Stride of each stage, if known.
    """
    found = []
    for number_, blocks in enumerate(genotype.get("stages", ())):
        title = [f"stage {number_}"]
        title += [f"{channels[number_]} channels"] if number_ < len(channels) else []
        title += [f"stride {strides[number_]}"] if number_ < len(strides) else []
        found.append((", ".join(title), list(map(str, blocks))))
    return found


def widths(space: Any) -> tuple[Sequence[int], Sequence[int]]:
    """Return channels and strides of a chain's stages in the section ``space`` of a configuration; empty if unknown."""
    given = space if isinstance(space, Mapping) else {}
    channels, strides = given.get("widths"), given.get("strides")
    if not isinstance(channels, list) or not isinstance(strides, list):
        return (), ()
    return channels[2 : 2 + len(strides)], strides


def operations(genotype: Mapping[str, Any]) -> list[str]:
    """Return the sorted names of a genotype's operations; empty for other forms."""
    of_cells = {arc.operation for cell in cells(genotype) for arc in cell.arcs if arc.operation is not None}
    return sorted(of_cells | {block for _, blocks in stages(genotype, (), ()) for block in blocks})


def _darts_cell(name: str, pairs: Sequence[Sequence[Any]], concat: Sequence[int]) -> Cell:
    """Build a cell from two pairs per node; inputs 0 and 1 are the outputs of the two preceding cells."""
    nodes = len(pairs) // 2
    names = ("c[k-2]", "c[k-1]", *(f"node {n}" for n in range(nodes)), "c[k]")
    arcs = [Arc(int(source), 2 + i // 2, str(operation)) for i, (operation, source) in enumerate(pairs)]
    title = {"normal": "Normal cell", "reduce": "Reduction cell"}.get(name, name)
    return Cell(title, names, (*arcs, *(Arc(int(node), 2 + nodes, None) for node in concat)))


def _benchmark_cell(text: str) -> Cell:
    written = text.split("+")
    last = len(written)
    names = ("input", *(f"node {n}" for n in range(1, last)), "output")
    arcs = [
        Arc(int(source), node, operation)
        for node, part in enumerate(written, start=1)
        for operation, source in _ARCH.findall(part)
    ]
    return Cell("Cell, the same in all three stages", names, tuple(arcs))


# --- drawing --------------------------------------------------------------------------------------------------------

BOX, NODE, BEND, GAP = 26.0, 30.0, 10.0, 10.0  # heights of the things in a column, and the gap between them
COLUMN_GAP = 26.0


@dataclass
class _Thing:
    """A node, an operation's box, or the bend of a long line."""

    kind: str  # node, box, bend
    text: str
    column: int
    width: float
    height: float
    y: float = 0.0


def draw(cell: Cell, colour_of: Mapping[str, int]) -> Markup:
    """Draw a cell from left to right: each operation is a box between two nodes.

    Args:
        cell: The graph.
        colour_of: Colour number of each operation.
    """
    things, lines = _things(cell)
    columns = [[t for t in things if t.column == c] for c in range(max(t.column for t in things) + 1)]
    near = _neighbours(things, lines)
    _order(columns, near)
    _settle(columns, near)
    widths = [max((t.width for t in column), default=0.0) for column in columns]
    lefts = [8 + sum(widths[:c]) + COLUMN_GAP * c for c in range(len(columns))]
    top = min(t.y - t.height / 2 for t in things) - 8
    height = max(t.y + t.height / 2 for t in things) - top + 8
    width = lefts[-1] + widths[-1] + 8
    frame = Frame(width=width, height=height, left=0, right=0, top=0, bottom=0, x=(0, 1), y=(0, 1))
    at = {id(t): (lefts[t.column] + widths[t.column] / 2, t.y - top) for t in things}
    parts = []
    for operation, chain in lines:
        faint = " out" if operation in LEFT_OUT else ""
        d = _curve([point for t in chain for point in _passing(t, at[id(t)], widths[t.column])][1:-1])
        parts.append(
            tag("path", class_=f"arc{faint}", d=d, marker_end="url(#arrow)" if chain[-1].kind == "node" else None)
        )
    for t in things:
        x, y = at[id(t)]
        shape = {"x": x - t.width / 2, "y": y - t.height / 2, "width": t.width, "height": t.height}
        if t.kind == "node":
            rect = tag("rect", class_="node", rx=t.height / 2, **shape)
        elif t.kind == "box":
            kind = "out" if t.text in LEFT_OUT else f"op{colour_of.get(t.text, 0)}"
            rect = tag("rect", class_=f"box {kind}", rx=4.0, **shape)
        else:
            continue
        parts.append(tag("g", rect, tag("text", t.text, x=x, y=y + 4, text_anchor="middle")))
    size = f"width:{number(width)}px;max-width:100%;min-width:{number(0.8 * width)}px"
    return figure(frame, f"{cell.title}: {cell.text()}", *parts, class_="cell", style=size)


def _things(cell: Cell) -> tuple[list[_Thing], list[tuple[str | None, list[_Thing]]]]:
    """Return the things to draw, and the lines, each through all things of its list."""
    column = [0] * len(cell.nodes)
    for arc in sorted(cell.arcs, key=lambda arc: arc.node):
        column[arc.node] = max(column[arc.node], column[arc.source] + 2)
    nodes = [_Thing("node", name, column[n], 16 + 7.4 * len(name), NODE) for n, name in enumerate(cell.nodes)]
    things, lines = list(nodes), list[tuple[str | None, list[_Thing]]]()

    def bends(first: int, last: int) -> list[_Thing]:
        made = [_Thing("bend", "", c, 0.0, BEND) for c in range(first, last)]
        things.extend(made)
        return made

    for arc in cell.arcs:
        source, node = nodes[arc.source], nodes[arc.node]
        if arc.operation is None:
            lines.append((None, [source, *bends(source.column + 1, node.column), node]))
            continue
        box = _Thing("box", arc.operation, node.column - 1, 18 + 7.2 * len(arc.operation), BOX)
        things.append(box)
        lines.append((arc.operation, [source, *bends(source.column + 1, box.column), box]))
        lines.append((arc.operation, [box, node]))
    return things, lines


Near = dict[int, list[_Thing]]


def _neighbours(things: Sequence[_Thing], lines: Sequence[tuple[str | None, list[_Thing]]]) -> Near:
    near: Near = {id(t): [] for t in things}
    for _, chain in lines:
        for a, b in pairwise(chain):
            near[id(a)].append(b)
            near[id(b)].append(a)
    return near


def _order(columns: list[list[_Thing]], near: Near) -> None:
    """Reduce crossings: sort each column by the mean position of its neighbours on the left, then on the right."""
    for turn in range(12):
        forward = turn % 2 == 0
        for column in columns if forward else reversed(columns):
            _stack(column)
            mean = {}
            for t in column:
                others = [o.y for o in near[id(t)] if (o.column < t.column) == forward]
                mean[id(t)] = sum(others) / len(others) if others else t.y
            column.sort(key=lambda t: mean[id(t)])
            _stack(column)


def _stack(column: Sequence[_Thing]) -> None:
    """Stack the things of a column, centred on zero."""
    y = -(sum(t.height for t in column) + GAP * (len(column) - 1)) / 2
    for t in column:
        t.y = y + t.height / 2
        y += t.height + GAP


def _settle(columns: Sequence[Sequence[_Thing]], near: Near) -> None:
    """Straighten lines: move each thing towards its neighbours, as far as its column allows."""
    for _ in range(30):
        for column in columns:
            wish = [sum(o.y for o in near[id(t)]) / max(1, len(near[id(t)])) for t in column]
            for i, t in enumerate(column):
                low = column[i - 1].y + (column[i - 1].height + t.height) / 2 + GAP if i else float("-inf")
                high = (
                    column[i + 1].y - (column[i + 1].height + t.height) / 2 - GAP
                    if i + 1 < len(column)
                    else float("inf")
                )
                t.y = min(max(wish[i], low), max(low, high))


def _passing(thing: _Thing, centre: Point, column_width: float) -> tuple[Point, Point]:
    """Return where a line enters and leaves a thing; a bend is as wide as its column."""
    half = (column_width if thing.kind == "bend" else thing.width) / 2
    return (centre[0] - half, centre[1]), (centre[0] + half, centre[1])


def _curve(points: Sequence[Point]) -> str:
    """Return a smooth path through all points, horizontal at each."""
    d = f"M{number(points[0][0])} {number(points[0][1])}"
    for (x0, y0), (x1, y1) in pairwise(points):
        middle = number((x0 + x1) / 2)
        d += f"C{middle} {number(y0)} {middle} {number(y1)} {number(x1)} {number(y1)}"
    return d
