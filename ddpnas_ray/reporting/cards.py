"""HTML cards of runs and networks for notebooks: small, self-contained, styled within themselves, all escaped."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from ddpnas_ray.core.generation.budgets import quantity
from ddpnas_ray.core.space import SearchSpace
from ddpnas_ray.reporting import networks
from ddpnas_ray.reporting.analysis import colours, score_rows
from ddpnas_ray.reporting.confidence import how_sure, inherited_text
from ddpnas_ray.reporting.layers import draw_layers
from ddpnas_ray.reporting.retrained import score_text
from ddpnas_ray.reporting.svg import tag
from ddpnas_ray.spaces.target import target_text

# Text follows the notebook's colour, and boxes are outlines, so that cards are readable on light and dark pages.
_HUES = ("#3d86e0", "#d4631f", "#1a9a6c", "#c04fa3", "#a08216", "#8068d8", "#d6455a", "#1f93a8", "#77828d", "#a06a42")
STYLE = Markup(
    ".ddpnas {overflow-x: auto} .ddpnas table {margin: .5em 0} .ddpnas svg {display: block}"
    " .ddpnas svg text {font-size: 12px; fill: currentColor} .ddpnas svg path {fill: none; stroke: #8a929b}"
    " .ddpnas svg marker path {fill: #8a929b} .ddpnas svg rect {fill: none; stroke: #8a929b; stroke-width: 1.6}"
    " .ddpnas .out {stroke-dasharray: 4 3} "
) + Markup(" ").join(Markup(f".ddpnas svg rect.op{i} {{stroke: {hue}}}") for i, hue in enumerate(_HUES))
_ARROW = tag(
    "svg",
    tag(
        "defs",
        tag(
            "marker",
            tag("path", d="M0 0L8 4L0 8z"),
            id="arrow",
            viewBox="0 0 8 8",
            refX="7",
            refY="4",
            markerWidth="7",
            markerHeight="7",
            orient="auto",
        ),
    ),
    width="0",
    height="0",
    style="position:absolute",
)


def run_card(result: Mapping[str, Any], name: str, space: SearchSpace, retrained: Sequence[Mapping[str, Any]]) -> str:
    """Show a finished search: network, costs, scores with their split, confidence, and retrained networks.

    Args:
        result: ``result.json`` of the search.
        name: Its run directory.
        space: Its space.
        retrained: ``result.json`` of its finished retrainings.
    """
    title = f"{result['space']}, strategy {result['strategy']}, seed {result['seed']}: {name}"
    rows = [(row["what"], row["split"], _number(row["value"])) for row in score_rows(result)]
    trained = [tag("li", f"{row['label']}: {score_text(score)}") for row in retrained for score in row["scores"]]
    notes = [" ".join(line.strip() for line in lines) for lines in (inherited_text(result), how_sure(result)) if lines]
    return _card(
        title,
        _genotype(result["genotype"], space),
        _costs(result["costs"], result["target"]),
        _table("scores", ("score", "split", "value"), rows),
        *(tag("p", note) for note in notes),
        *([tag("p", "retrained"), tag("ul", *trained)] if trained else []),
    )


def network_card(
    label: str,
    genotype: Mapping[str, Any],
    costs: Mapping[str, int],
    target: Mapping[str, Any],
    space: SearchSpace,
    expectation: float | None,
) -> str:
    """Show a network: its figure and its costs.

    Args:
        label: Its name.
        genotype: The architecture.
        costs: Its exact costs.
        target: The deploy network.
        space: Its space.
        expectation: E[alpha] (Eq. 9); None: no search found it.
    """
    found = [] if expectation is None else [tag("p", f"E[alpha] {expectation:.6f} (Eq. 9)")]
    return _card(f"network {label}", _genotype(genotype, space), _costs(costs, target), *found)


def retrained_card(result: Mapping[str, Any], name: str, space: SearchSpace) -> str:
    """Show a retrained network: its figure, costs and scores.

    Args:
        result: ``result.json`` of the retraining.
        name: Its folder.
        space: Its space.
    """
    scores = [tag("li", score_text(score)) for score in result["scores"]]
    note = [tag("p", f"no test score: {result['test_note']}")] if result["test_note"] else []
    return _card(
        f"retrained network {result['label']}: {name}",
        _genotype(result["genotype"], space),
        _costs(result["costs"], result["target"]),
        tag("ul", *scores),
        *note,
    )


def _card(title: str, *parts: Markup) -> str:
    return str(tag("div", tag("style", STYLE), _ARROW, tag("p", tag("strong", title)), *parts, class_="ddpnas"))


def _genotype(genotype: Mapping[str, Any], space: SearchSpace) -> Markup:
    """Draw the cells or layers of a genotype, list its stages, or print it."""
    colour_of = colours(space)
    if cells := networks.cells(genotype):
        return tag("div", *(tag("div", tag("em", cell.title), networks.draw(cell, colour_of)) for cell in cells))
    if stages := networks.stages(genotype, (), ()):
        return tag("ol", *(tag("li", ", ".join(blocks)) for _, blocks in stages), start="0")
    if (layers := draw_layers(genotype)) is not None:
        return layers
    return tag("pre", "\n".join(f"{key}: {json.dumps(value)}" for key, value in genotype.items()))


def _costs(costs: Mapping[str, int], target: Mapping[str, Any]) -> Markup:
    caption = f"costs of the target network ({target_text(target)})"
    return _table(caption, ("cost", "value"), [(name, quantity(name, value)) for name, value in costs.items()])


def _table(caption: str, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> Markup:
    head = tag("tr", *(tag("th", text, scope="col") for text in heads))
    body = [tag("tr", *(tag("td", text) for text in row)) for row in rows]
    return tag("table", tag("caption", caption), tag("thead", head), tag("tbody", *body))


def _number(value: float | None) -> str:
    return "not defined" if value is None else f"{value:.4f}"
