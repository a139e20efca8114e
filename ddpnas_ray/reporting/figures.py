"""Common style of all figures: no window, no shared state, and equal numbers give equal files."""

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


def heading(title: str, *details: str) -> str:
    """Return a title with wrapped details below."""
    return "\n".join([title, *textwrap.wrap(", ".join(details), 72, max_lines=3, placeholder=" ...")])


@contextmanager
def drawing(width: float, height: float) -> Iterator[Any]:
    """Create a figure of the given size in inches; save it within the block."""
    import matplotlib

    with matplotlib.rc_context(STYLE):
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasAgg(figure)
        yield figure


def saved(figure: Any, name: str) -> dict[str, bytes]:
    """Save ``name.png`` and ``name.svg``, without timestamp and version."""
    files = {}
    for kind, metadata in (("png", {"Software": None}), ("svg", {"Date": None})):
        data = io.BytesIO()
        figure.savefig(data, format=kind, dpi=150, metadata=metadata)
        files[f"{name}.{kind}"] = data.getvalue()
    return files
