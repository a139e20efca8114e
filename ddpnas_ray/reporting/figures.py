"""One style for all pictures: no window, no state between them, and equal numbers give equal files."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

STYLE: Any = {
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "svg.hashsalt": "ddpnas",
}


def heading(what: str, *facts: str) -> str:
    """A title: what is drawn, and below it of what, the longest last."""
    return "\n".join([what, *textwrap.wrap(", ".join(facts), 72, max_lines=3, placeholder=" ...")])


@contextmanager
def drawing(width: float, height: float) -> Iterator[Any]:
    """A figure of so many inches; save it within the block."""
    import matplotlib

    with matplotlib.rc_context(STYLE):
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasAgg(figure)
        yield figure


def saved(figure: Any, name: str) -> dict[str, bytes]:
    """``name.png`` and ``name.svg``, without time and version."""
    files = {}
    for kind, metadata in (("png", {"Software": None}), ("svg", {"Date": None})):
        data = io.BytesIO()
        figure.savefig(data, format=kind, dpi=150, metadata=metadata)
        files[f"{name}.{kind}"] = data.getvalue()
    return files
