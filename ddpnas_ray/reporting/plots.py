"""Figure of generated networks: E[alpha] against a cost."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ddpnas_ray.reporting.figures import drawing, saved

Points = Sequence[tuple[float, float]]


def pareto(
    title: str, cost_label: str, front: Points, sampled: Points, networks: Sequence[tuple[float, float, str]]
) -> dict[str, bytes]:
    """Plot the exact Pareto front, random architectures for scale, and the generated networks.

    Args:
        title: Title of the figure.
        cost_label: Name of the cost, with its unit if any.
        front: (cost, E[alpha]) of the best networks, by cost.
        sampled: (cost, E[alpha]) of random architectures.
        networks: (cost, E[alpha], label) of the generated networks.

    Returns:
        ``pareto.png`` and ``pareto.svg``.
    """
    from matplotlib.ticker import EngFormatter

    with drawing(7.5, 4.8) as figure:
        axes = figure.add_subplot()
        if len(sampled):
            axes.scatter(*_columns(sampled), s=8, c="0.75", label="random architectures", linewidths=0, zorder=1)
        if len(front):
            axes.step(*_columns(front), where="post", c="tab:blue", lw=1.5, label="best possible (exact)", zorder=2)
        if len(networks):
            xs, ys = _columns([(x, y) for x, y, _ in networks])
            axes.scatter(xs, ys, s=36, c="tab:orange", edgecolors="k", linewidths=0.6, label="generated", zorder=3)
        if len(networks) <= 6:
            for x, y, label in networks:
                axes.annotate(label, (x, y), xytext=(4, -11), textcoords="offset points", fontsize=7)
        axes.set(title=title, xlabel=cost_label, ylabel="E[alpha] (Eq. 9)")
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        axes.grid(alpha=0.3)
        axes.legend(loc="lower right", frameon=False)
        return saved(figure, "pareto")


def _columns(points: Points) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    xs, ys = np.array(points, dtype=np.float64).T
    return xs, ys
