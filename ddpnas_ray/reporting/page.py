"""HTML report of a run: one self-contained page from the files of its directory.

Styles, script and charts are inline, and the page's content policy forbids loading anything else. Equal files give
equal pages.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from ddpnas_ray import __version__
from ddpnas_ray.core.generation.budgets import quantity
from ddpnas_ray.reporting import analysis, charts, networks
from ddpnas_ray.reporting.confidence import INHERITED, how_sure, inherited_text
from ddpnas_ray.reporting.explain import verdict
from ddpnas_ray.reporting.layers import draw_layers
from ddpnas_ray.reporting.retrained import retrained_rows
from ddpnas_ray.reporting.runfiles import RunFiles
from ddpnas_ray.spaces.target import target_text

LEDGER_ROWS = 3000
SCATTER_POINTS = 2000
EPOCH_ROWS = 1000  # rows of tables by epoch and by round


def run_page(run: RunFiles, *, links: bool = True) -> bytes:
    """Render the page of one run.

    Args:
        run: Its files.
        links: Whether the page is in the run directory, so that it can link to those of retrained networks.
    """
    colours, edges, epochs = analysis.colours(run.space), analysis.edges(run), analysis.epochs(run)
    groups = {op.name: op.group for edge in run.space.edges for op in edge.candidates}
    has_theta = analysis.moved(run)
    return render(
        "run.html.j2",
        {"theta": _theta_data(edges, len(run.history)) if has_theta else None},
        run=run,
        title=run.title,
        metadata=analysis.metadata(run),
        scores=analysis.score_rows(run.result),
        headline=next((row for row in run.result["score_sheet"] if row["what"] not in INHERITED), None),
        inherited=" ".join(line.strip() for line in inherited_text(run.result)),
        sure=[line.strip() for line in how_sure(run.result)],
        stability=(run.result.get("confidence") or {}).get("resampling"),
        target=target_text(run.result["target"]),
        within=run.result.get("budgets", ()),
        cells=[(cell, networks.draw(cell, colours)) for cell in networks.cells(run.result["genotype"])],
        stages=networks.stages(run.result["genotype"], *networks.widths(run.config.get("space"))),
        layers=draw_layers(run.result["genotype"]),
        left_out=networks.LEFT_OUT,
        colours=colours,
        moved=has_theta,
        rounds=len(run.history),
        operations=[
            {"name": name, "colour": colour, "dashed": groups[name] == "non_parameter"}
            for name, colour in colours.items()
        ],
        edges=_drawn(edges) if has_theta else [],
        stories=analysis.stories(run) if has_theta else [],
        explain=lambda edge: shlex.join(["python", "-m", "ddpnas_ray.report", run.uri, "--explain", edge]),
        thinned=has_theta and len(run.history) + 1 > charts.SHOWN_POINTS,
        ledger=run.ledger[-LEDGER_ROWS:],
        ledger_left_out=max(0, len(run.ledger) - LEDGER_ROWS),
        mistakes=analysis.mistakes(run),
        progress=_progress(run, epochs),
        scattered=len(run.evaluations) <= SCATTER_POINTS,
        epochs=epochs,
        fairness=analysis.fairness(run),
        generated=analysis.generated(run),
        probe=analysis.probe(run),
        retrained=retrained_rows(run.retrained, links=links),
        work=analysis.work(run),
        environment=analysis.environment(run.environment),
        commands=analysis.commands(run),
    )


def render(template: str, data: Mapping[str, Any], **values: Any) -> bytes:
    """Render a template.

    Args:
        template: File in ``templates/``.
        data: Data of the page's script, plain JSON.
        values: Variables of the template. Strings are escaped, markup is not.
    """
    loader = PackageLoader("ddpnas_ray.reporting")
    page = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    page.globals["EPOCH_ROWS"] = EPOCH_ROWS
    page.filters |= {
        "fixed": _fixed,
        "share": lambda x: f"{100 * x:.0f} %",
        "duration": analysis.seconds_text,
        "quantity": lambda value, cost: quantity(cost, value),
        "json": json.dumps,
        "first_up": lambda text: text[:1].upper() + text[1:],
        "scores": _score_list,
        "verdict": verdict,
    }
    style, script = (loader.get_source(page, name)[0] for name in ("style.css", "script.js"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    text = page.get_template(template).render(
        style=Markup(style),
        script=Markup(script),
        script_hash=f"sha256-{digest}",
        data=data,
        version=__version__,
        **values,
    )
    return text.encode()


def _theta_data(edges: Sequence[charts.EdgeTheta], rounds: int) -> dict[str, Any]:
    """Return the data of the page's tooltips."""
    shown = charts.shown_rounds(rounds + 1)
    return {
        "rounds": shown,
        "edges": [
            {
                "name": edge.name,
                "operations": edge.operations,
                "colours": edge.colours,
                "pruned": edge.pruned,
                "theta": [[round(float(v), 6) for v in edge.theta_RK[shown, k]] for k in range(len(edge.operations))],
            }
            for edge in edges
        ],
    }


def _drawn(edges: Sequence[charts.EdgeTheta]) -> list[dict[str, Any]]:
    """Draw each edge's charts: theta, and its distance from the mean; each small and large."""
    spans = {False: charts.theta_span(edges), True: charts.distance_span(edges)}
    found = []
    for e, edge in enumerate(edges):
        small, large = (
            [charts.theta_chart(edge, span, e, large=large, distance=distance) for distance, span in spans.items()]
            for large in (False, True)
        )
        chosen = "left out" if edge.chosen is None else edge.operations[edge.chosen]
        found.append({"name": edge.name, "chosen": chosen, "small": small, "large": large} | {"edge": edge})
    return found


def _progress(run: RunFiles, rows: Sequence[Mapping[str, Any]]) -> Markup:
    """Draw the scores by epoch."""
    best, so_far = -math.inf, []
    for row in rows:
        best = max(best, row["best"]) if math.isfinite(row["best"]) else best
        so_far.append((float(row["epoch"]), best))
    splits = " and ".join(sorted({row.split for row in run.evaluations}))
    lines = [charts.Line("best so far", so_far)]
    if len(run.evaluations) > len(rows):  # else one architecture per epoch: the mean is the score
        lines.append(charts.Line("mean of the epoch", [(float(row["epoch"]), row["mean"]) for row in rows]))
    points = [
        (row.epoch + 1.0, row.score, f"epoch {row.epoch + 1}, architecture {row.architecture}: {row.score:.4f}")
        for row in run.evaluations
    ]
    return charts.lines_chart(
        f"scores of the {splits} split by epoch; the table by epoch has the numbers",
        lines,
        x_label="epoch",
        y_label=f"score ({splits} split)",
        scatter=points if len(points) <= SCATTER_POINTS else (),
    )


def _score_list(scores: Sequence[float]) -> str:
    shown = " ".join(f"{score:.3f}" for score in scores[:8]) or "none"
    return shown if len(scores) <= 8 else f"{shown} and {len(scores) - 8} more"


def _fixed(value: float | None, digits: int = 4) -> str:
    """Format a number with the given decimals; None is "not defined" and NaN "unknown"."""
    return "not defined" if value is None else "unknown" if math.isnan(value) else f"{value:.{digits}f}"
