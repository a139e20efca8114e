"""Figures of ablations. Scores are fractions, drawn in percent; standard deviations are over seeds.

Each takes a ``title``, and most a ``measure``: label of the score, with its split. All return ``plot.png`` and
``plot.svg``.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from ddpnas_ray.core.space import FloatArray
from ddpnas_ray.reporting.figures import drawing, saved

COLOURS = (
    *("tab:blue", "tab:orange", "tab:green", "tab:red", "tab:purple"),
    *("tab:brown", "tab:pink", "tab:olive", "tab:cyan", "0.4"),
)
MARKERS = "osD^vPX<>*"
DECADES = 30.0  # ratio of largest to smallest value from which an axis is logarithmic


@dataclass(frozen=True, slots=True)
class Point:
    """A setting with its score.

    Args:
        x: The setting.
        mean: Mean over seeds.
        spread: Half the length of the error bar; NaN for a single seed.
    """

    x: float
    mean: float
    spread: float


@dataclass(frozen=True, slots=True)
class Panel:
    """Quality against one key of a configuration.

    Args:
        key: The key.
        values: Its values.
        texts: Its values as text.
        lines: Name -> for each value, the scores of all finished searches.
        random: For each value, the score of random search at the same cost, if known.
    """

    key: str
    values: Sequence[Any]
    texts: Sequence[str]
    lines: Mapping[str, Sequence[Sequence[float]]]
    random: Sequence[float] = ()

    @property
    def is_number(self) -> bool:
        """Whether all values are numbers, so that the axis is numeric."""
        return all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in self.values)


def gridded(title: str, measure: str, panels: Sequence[Panel], note: str | None = None) -> dict[str, bytes]:
    """Plot quality against the keys of a grid: one dot per search, and mean and standard deviation of each value.

    Args:
        panels: Panels, at most three per row.
        note: Legend title: the meaning of dots and bars, unless the names of the lines say it.
    """
    columns = 2 if len(panels) == 4 else min(3, len(panels))
    lines = -(-len(panels) // columns)
    with drawing(7.2 if columns == 1 else 3.9 * columns, 4.6 if lines == 1 else 3.4 * lines + 0.8) as figure:
        grid = figure.subplots(lines, columns, sharey=True, squeeze=False)
        for axes in grid.flat[len(panels) :]:
            axes.remove()
        for axes, panel in zip(grid.flat, panels, strict=False):
            _panel(axes, panel)
        figure.supylabel(f"{measure} [%]" if lines > 1 else textwrap.fill(f"{measure} [%]", 36), fontsize=10)
        handles, names = grid.flat[0].get_legend_handles_labels()
        figure.legend(
            reversed(handles) if panels[0].random else handles,
            reversed(names) if panels[0].random else names,
            title=note,
            loc="outside lower center",
            ncols=1 if sum(map(len, names)) > 80 else min(6, len(names)),
            frameon=False,
            fontsize=9,
            title_fontsize=9,
        )
        figure.suptitle(title, fontsize=11)
        return saved(figure, "plot")


def _panel(axes: Any, panel: Panel) -> None:
    places = np.array(panel.values if panel.is_number else range(len(panel.values)), dtype=np.float64)
    if panel.is_number and places.min() > 0 and places.max() > DECADES * places.min():
        axes.set_xscale("log")
        places = np.log10(places)
    step = float(np.diff(np.sort(places)).min()) if len(places) > 1 else 1.0

    def at(moved: Any) -> Any:
        return 10.0**moved if axes.get_xscale() == "log" else moved

    for i, (name, scores) in enumerate(panel.lines.items()):
        colour, shift = COLOURS[i % len(COLOURS)], step * 0.07 * (i - (len(panel.lines) - 1) / 2)  # side by side
        values = [100 * np.array(some, dtype=np.float64) for some in scores]
        known = [j for j, some in enumerate(values) if len(some)]
        means = [values[j].mean() for j in known]
        spreads = [values[j].std(ddof=1) if len(values[j]) > 1 else 0.0 for j in known]
        for j in known:
            xs = np.full(len(values[j]), at(places[j] + shift - 0.03 * step))  # beside their bar
            axes.scatter(xs, values[j], s=14, color=colour, alpha=0.4, linewidths=0, zorder=1)
        style = {
            "marker": MARKERS[i % len(MARKERS)],
            "ms": 5,
            "capsize": 3,
            "lw": 1.4,
            "ls": "-" if panel.is_number else "",
        }
        axes.errorbar([at(places[j] + shift) for j in known], means, yerr=spreads, c=colour, label=name, **style)
    if len(panel.random):
        order = np.argsort(places)
        random = 100 * np.array(panel.random)[order]
        marker = "_" if len(order) == 1 else ""
        axes.plot(at(places[order]), random, c="k", ls=":", marker=marker, ms=14, label=_RANDOM, zorder=1)
    if len(places) <= 12:
        axes.set_xticks(at(places), panel.texts, minor=False)
        axes.minorticks_off()
        if not panel.is_number:
            axes.margins(x=0.2)
            axes.tick_params(axis="x", rotation=20 if sum(map(len, panel.texts)) > 28 else 0)
    axes.set_xlabel(panel.key)
    axes.grid(alpha=0.3)


def swept(
    title: str,
    x_label: str,
    measure: str,
    points: Sequence[Point],
    *,
    evaluations: Sequence[float] = (),
    random: Sequence[float] = (),
    chosen: tuple[float, float] | None = None,
    chosen_label: str = "",
) -> dict[str, bytes]:
    """Plot quality, and optionally evaluations, against a varied number (Fig. 6).

    Args:
        x_label: Label of the varied number.
        points: Mean and standard deviation.
        evaluations: Evaluations of each point.
        random: Score of random search with the same evaluations.
        chosen: The paper's choice, from and to.
        chosen_label: Its label.
    """
    xs = [point.x for point in points]
    with drawing(7.0, 5.6 if evaluations else 4.6) as figure:
        ratios = [2.4, 1.0] if evaluations else [1.0]
        rows = figure.subplots(len(ratios), 1, sharex=True, squeeze=False, height_ratios=ratios)[:, 0]
        for axes in rows:
            if chosen is not None:
                one = chosen[0] == chosen[1]
                line = {"c": "0.55", "ls": "--", "lw": 1.0}
                label = chosen_label if axes is rows[0] else None
                if one:
                    axes.axvline(chosen[0], label=label, **line)
                else:
                    axes.axvspan(*chosen, color="0.92", lw=0, label=label)
        _bars(rows[0], points, "tab:blue", "o", "mean ± standard deviation over seeds")
        if random:
            rows[0].plot(xs, [100 * y for y in random], c="tab:orange", ls=":", marker="x", label=_RANDOM)
        rows[0].set(title=title, ylabel=f"{measure} [%]")
        rows[0].margins(y=0.14)  # room for the legend
        rows[0].legend(frameon=False, loc="best", fontsize=9)
        if evaluations:
            rows[1].plot(xs, evaluations, c="tab:blue", marker="o")
            rows[1].set(ylabel="evaluations", ylim=(0, 1.12 * max(evaluations)))
        rows[-1].set_xlabel(x_label)
        if all(float(x).is_integer() for x in xs) and len(xs) <= 20:
            rows[-1].set_xticks(xs)
        for axes in rows:
            axes.grid(alpha=0.3)
        return saved(figure, "plot")


def compared(title: str, measure: str, groups: Sequence[tuple[str, Sequence[float]]], note: str) -> dict[str, bytes]:
    """Plot every seed of each variant, with mean and standard deviation.

    Args:
        groups: Name and scores.
        note: Text below the figure.
    """
    rng = np.random.default_rng(0)  # jitter for overlapping points
    with drawing(7.0, 1.4 + 1.0 * len(groups)) as figure:
        axes = figure.add_subplot()
        for i, (_, scores) in enumerate(groups):
            if not len(scores):
                continue
            values, y = 100 * np.array(scores, dtype=np.float64), len(groups) - 1 - i
            size, alpha = (8, 0.35) if len(values) > 50 else (18, 0.6)
            jitter = rng.uniform(-0.26, 0.1, len(values))
            axes.scatter(values, y + jitter, s=size, alpha=alpha, c=COLOURS[i], linewidths=0)
            std = values.std(ddof=1) if len(values) > 1 else 0.0
            axes.errorbar(values.mean(), y + 0.26, xerr=std, c="k", marker="D", ms=5, capsize=4, lw=1.4)
        axes.set_yticks(range(len(groups)), [name for name, _ in reversed(groups)])
        axes.set(title=title, xlabel=f"{measure} [%]\n{note}", ylim=(-0.5, len(groups) - 0.4))
        axes.grid(alpha=0.3, axis="x")
        return saved(figure, "plot")


def by_budget(
    title: str, measure: str, lines: Mapping[str, Sequence[Point]], random: Sequence[tuple[float, float]]
) -> dict[str, bytes]:
    """Plot the quality of strategies against their evaluations; bars are standard errors of the mean.

    Args:
        lines: Strategy -> points.
        random: (evaluations, exact expected score) of random search.
    """
    budgets = sorted({point.x for points in lines.values() for point in points})
    step = min([b - a for a, b in pairwise(budgets)], default=1.0)
    with drawing(8.2, 5.0) as figure:
        axes = figure.add_subplot()
        if random:
            xs, ys = zip(*random, strict=True)
            label = "random search (exact)"
            axes.plot(xs, [100 * y for y in ys], c="k", ls=":", marker="_", ms=14, label=label, zorder=1)
        for i, (name, points) in enumerate(lines.items()):
            shift = step * 0.035 * (i - (len(lines) - 1) / 2)  # bars side by side
            moved = [Point(point.x + shift, point.mean, point.spread) for point in points]
            _bars(axes, moved, COLOURS[i % len(COLOURS)], MARKERS[i % len(MARKERS)], name)
        axes.set(title=title, xlabel="evaluations", ylabel=f"{measure} [%]\nmean ± standard error over seeds")
        axes.set_xticks(budgets, [f"{budget:g}" for budget in budgets])
        axes.grid(alpha=0.3)
        figure.legend(*axes.get_legend_handles_labels(), loc="outside right center", frameon=False, fontsize=9)
        return saved(figure, "plot")


def taus(
    title: str, lines: Mapping[str, Sequence[Point]], *, paper: float, epochs_per_round: int, networks: int
) -> dict[str, bytes]:
    """Plot Kendall's tau by epoch (Fig. 7).

    Args:
        lines: ``training.merge`` -> one point per epoch, mean and standard deviation.
        paper: The paper's value.
        epochs_per_round: T.
        networks: Number of ranked networks.
    """
    with drawing(7.5, 4.8) as figure:
        axes = figure.add_subplot()
        axes.axhline(paper, c="0.4", ls="--", lw=1.2, label=f"the paper: {paper:g}")
        last = 0.0
        for i, (name, points) in enumerate(lines.items()):
            xs, means = [p.x for p in points], np.array([p.mean for p in points])
            spreads = np.nan_to_num(np.array([p.spread for p in points]))
            axes.fill_between(xs, means - spreads, means + spreads, color=COLOURS[i], alpha=0.18, lw=0)
            axes.plot(xs, means, c=COLOURS[i], marker=MARKERS[i], ms=5, label=f"merge: {name}")
            last = max([last, *xs])
        for end in range(epochs_per_round, int(last), epochs_per_round):
            axes.axvline(end + 0.5, c="0.85", lw=1.0, zorder=0)
        label = f"Kendall's tau of {networks} networks:\ninherited scores (val) with the table (test)"
        axes.set(title=title, xlabel="epochs trained (grey lines: prunings)", ylabel=label)
        axes.grid(alpha=0.3, axis="y")
        axes.set_ylim(top=max(axes.get_ylim()[1], paper + 0.15))  # room for the legend
        axes.legend(frameon=False, loc="upper right", ncols=3, fontsize=9)
        axes.xaxis.get_major_locator().set_params(integer=True)
        return saved(figure, "plot")


def histogram(
    title: str, measure: str, scores: FloatArray, fits: Sequence[tuple[str, float, float]], note: str
) -> dict[str, bytes]:
    """Plot a histogram of scores of networks that share an operation, with fitted normal densities (Fig. 3).

    Args:
        scores: Fractions.
        fits: Name, centre and standard deviation of each.
        note: Results of the tests.
    """
    values = 100 * scores
    with drawing(7.0, 4.6) as figure:
        axes = figure.add_subplot()
        bins = int(np.clip(len(np.histogram_bin_edges(values, "fd")) - 1, 8, 60))
        axes.hist(values, bins=bins, density=True, color="tab:blue", alpha=0.45, label=f"{len(values)} networks")
        top = axes.get_ylim()[1]
        for i, (name, centre, std) in enumerate(fits):
            if std > 0:
                low, high = min(scores.min(), centre - 3 * std), max(scores.max(), centre + 3 * std)
                xs = np.linspace(max(0.0, low), min(1.0, high), 800)
                density = np.exp(-0.5 * ((xs - centre) / std) ** 2) / (100 * std * math.sqrt(2 * math.pi))
                top = max(top, density.max())
                label = f"normal by {name}: {100 * centre:.2f}, {100 * std:.2f}"
                axes.plot(100 * xs, density, c=COLOURS[i + 1], ls="-:"[i], lw=2, label=label)
        axes.set(title=title, xlabel=f"{measure} [%]\n{note}", ylabel="density [1 / %]")
        axes.grid(alpha=0.3)
        axes.set_ylim(top=1.25 * top)  # room for the legend
        axes.legend(frameon=False, loc="upper left", fontsize=9)
        return saved(figure, "plot")


def theta_by_round(
    title: str, edges: Sequence[str], operations: Sequence[Sequence[str]], theta_LEK: FloatArray, pruned_at_EK: Any
) -> dict[str, bytes]:
    """Plot theta of every operation by round, one panel per edge (Fig. 4).

    Args:
        edges: Names of the edges.
        operations: Candidates of each edge.
        theta_LEK: After 0, 1, ... rounds, shape (L + 1, E, K).
        pruned_at_EK: The round, from 0, that pruned the operation; -1 if it was not pruned.
    """
    names = list(dict.fromkeys(name for row in operations for name in row))
    colour = {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(names)}
    columns = min(len(edges), 3 if len(edges) <= 9 else 4 if len(edges) <= 16 else 7)
    lines = -(-len(edges) // columns)
    rounds = np.arange(len(theta_LEK))
    width = max(6.0, 1.75 * columns + 1.5)
    with drawing(width, 1.55 * lines + 1.7) as figure:
        grid = figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False)
        for e, name in enumerate(edges):
            axes = grid.flat[e]
            for k, operation in enumerate(operations[e]):
                end = pruned_at_EK[e, k] + 1 if pruned_at_EK[e, k] >= 0 else len(rounds) - 1
                values, c = theta_LEK[:, e, k], colour[operation]
                axes.plot(rounds[: end + 1], values[: end + 1], c=c, lw=1.6)
                if pruned_at_EK[e, k] >= 0:
                    axes.plot(rounds[end:], values[end:], c=c, lw=0.8, ls=":")
                    axes.plot(end, values[end], c=c, marker="x", ms=5, mew=1.4)
            axes.set_title(name, fontsize=9, pad=3)
            axes.grid(alpha=0.25)
            axes.tick_params(labelsize=8, labelbottom=e + columns >= len(edges))
            if e + columns >= len(edges):
                axes.set_xlabel("rounds", fontsize=9)
        for axes in grid.flat[len(edges) :]:
            axes.remove()
        axes = grid.flat[0]
        axes.xaxis.get_major_locator().set_params(integer=True, nbins=5)
        handles = [axes.plot([], [], c=colour[name], lw=1.6, label=name)[0] for name in names]
        handles += axes.plot([], [], c="0.4", marker="x", ls=":", lw=0.8, label="pruned; theta continues")
        figure.legend(
            handles=handles,
            loc="outside lower center",
            ncols=min(int(width / 1.9), len(handles)),
            frameon=False,
            fontsize=9,
        )
        figure.supylabel("theta", fontsize=10)
        figure.suptitle(title, fontsize=11)
        return saved(figure, "plot")


def heat_maps(
    title: str, rows: Sequence[str], columns: Sequence[str], panels: Sequence[tuple[str, FloatArray, str]], hint: str
) -> dict[str, bytes]:
    """Plot values by height and number of non-parameter operations (Table 4).

    Args:
        rows: Heights.
        columns: Numbers of non-parameter operations.
        panels: Title, values with NaN for infeasible shapes, and number format.
        hint: Meaning of empty fields.
    """
    from matplotlib.colors import Normalize

    width = 1.6 + 0.72 * len(columns)
    with drawing(width, 1.4 + len(panels) * (0.9 + 0.42 * len(rows))) as figure:
        grid = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
        for axes, (what, values, form) in zip(grid, panels, strict=True):
            known = values[np.isfinite(values)]
            limits = Normalize(known.min(), known.max()) if len(known) else Normalize(0, 1)
            image = axes.imshow(values, cmap="viridis", norm=limits, aspect="auto")
            for (i, j), value in np.ndenumerate(values):
                if np.isfinite(value):
                    dark = limits(value) < 0.6
                    axes.text(
                        j, i, format(value, form), ha="center", va="center", fontsize=8, color="w" if dark else "k"
                    )
                else:
                    axes.text(j, i, "-", ha="center", va="center", fontsize=8, color="0.5")
            axes.set_yticks(range(len(rows)), rows)
            axes.set_title(what, fontsize=10)
            axes.set_ylabel("height H")
            axes.tick_params(length=0)
            for side in axes.spines.values():
                side.set_visible(False)
            figure.colorbar(image, ax=axes, pad=0.01, aspect=12)
        grid[-1].set_xticks(range(len(columns)), columns)
        grid[-1].set_xlabel(f"non-parameter operations N ({hint})")
        figure.suptitle(title, fontsize=11)
        return saved(figure, "plot")


def _bars(axes: Any, points: Sequence[Point], colour: str, marker: str, label: str) -> None:
    xs, means = [point.x for point in points], [100 * point.mean for point in points]
    spreads = [0.0 if math.isnan(point.spread) else 100 * point.spread for point in points]
    axes.errorbar(xs, means, yerr=spreads, c=colour, marker=marker, ms=5, capsize=3, lw=1.4, label=label)


_RANDOM = "random search at equal evaluations (exact)"
