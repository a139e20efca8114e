"""Outcomes of an ablation's searches: read, summarised over seeds, and formatted."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from ddpnas_ray.ablations.variants import Planned, Study, Value, Variant
from ddpnas_ray.storage.parquet import parquet_bytes

# Prefixes of the rows of a score sheet; the second one of a pair is that of older versions.
RESULT, RANDOM = ("result architecture", "the answer"), ("random search", "expected of random search")
TAU = "Kendall's tau"


@dataclass(frozen=True, slots=True)
class Outcome:
    """One finished search, as a line of ``trials.jsonl``.

    Args:
        label: Label of its variant.
        value: Value of its variant.
        seed: Its seed.
        evaluations: Number of evaluations.
        seconds: Wall time.
        fingerprint: Fingerprint of its result.
        genotype: Its result architecture.
        score_sheet: ``what``, ``split`` and ``value`` of every number (``Evaluator.score_sheet``).
        tau_by_epoch: Kendall's tau after every epoch, with a probe; None where undefined.
    """

    label: str
    value: Value
    seed: int
    evaluations: int
    seconds: float
    fingerprint: str
    genotype: dict[str, Any]
    score_sheet: tuple[dict[str, Any], ...]
    tau_by_epoch: tuple[float | None, ...] = ()

    @classmethod
    def of(cls, planned: Planned, result: Mapping[str, Any]) -> Outcome:
        """Create an outcome from the content of ``result.json``."""
        return cls(
            label=planned.variant.label,
            value=planned.variant.value,
            seed=planned.seed,
            evaluations=result["architecture_epochs"],
            seconds=result["seconds"],
            fingerprint=result["fingerprint"],
            genotype=result["genotype"],
            score_sheet=tuple(result["score_sheet"]),
            tau_by_epoch=tuple(tau if math.isfinite(tau) else None for tau in result.get("tau_by_epoch", ())),
        )

    @property
    def key(self) -> tuple[str, Value, int]:
        """Key of its ``Planned``."""
        return (self.label, self.value, self.seed)

    def line(self) -> bytes:
        """Format a line of ``trials.jsonl``."""
        return json.dumps(dataclasses.asdict(self)).encode()

    @classmethod
    def from_line(cls, line: bytes) -> Outcome | None:
        """Parse a line of ``trials.jsonl``; None if incomplete, as a kill may truncate the last one."""
        try:
            values = json.loads(line)
            sheet, taus = tuple(values.pop("score_sheet")), tuple(values.pop("tau_by_epoch"))
            return cls(score_sheet=sheet, tau_by_epoch=taus, **values)
        except (ValueError, TypeError, KeyError, AttributeError):
            return None

    def scores(self) -> dict[str, float | None]:
        """See ``result_scores``."""
        return result_scores({"score_sheet": self.score_sheet})

    def random_search(self) -> tuple[str, float] | None:
        """Return the exact expected score of random search with equal evaluations; None without a table."""
        rows = [row for row in self.score_sheet if row["what"].startswith(RANDOM) and row["value"] is not None]
        return (f"{rows[0]['split']}: {rows[0]['what']}", rows[0]["value"]) if rows else None


def result_scores(result: Mapping[str, Any]) -> dict[str, float | None]:
    """Return the scores of the result architecture by name with split, the final score last.

    Args:
        result: The content of ``result.json``.
    """
    rows = [row for row in result["score_sheet"] if row["what"].startswith((*RESULT, TAU))]
    rows.sort(key=lambda row: (row["split"] == "test") - 2 * row["what"].startswith(TAU))
    return {f"{row['split']}: {row['what'].replace(RESULT[1], RESULT[0])}": row["value"] for row in rows}


@dataclass(frozen=True, slots=True)
class Spread:
    """Statistics over seeds.

    Args:
        n: Number of values.
        mean: Their mean.
        deviation: Their standard deviation (n - 1); NaN for a single value.
    """

    n: int
    mean: float
    deviation: float

    @classmethod
    def of(cls, values: Iterable[float | None]) -> Spread:
        """Compute the statistics of the known values."""
        known = np.array([value for value in values if value is not None], dtype=np.float64)
        if not len(known):
            return cls(0, math.nan, math.nan)
        return cls(len(known), float(known.mean()), float(known.std(ddof=1)) if len(known) > 1 else math.nan)

    @property
    def error(self) -> float:
        """Standard error of the mean."""
        return self.deviation / math.sqrt(self.n) if self.n else math.nan

    def text(self, scale: float = 1.0, digits: int = 2) -> str:
        """Format as ``94.05 ± 0.31``."""
        if not self.n:
            return "not defined"
        deviation = "" if math.isnan(self.deviation) else f" ± {scale * self.deviation:.{digits}f}"
        return f"{scale * self.mean:.{digits}f}{deviation}"


@dataclass(frozen=True, slots=True)
class Row:
    """A variant summarised over its seeds.

    Args:
        variant: The setting.
        seeds: Number of seeds.
        evaluations: Mean over seeds.
        seconds: Mean over seeds.
        scores: Statistics by name with split.
        random_search: See ``Outcome.random_search``.
        outcomes: One per seed.
    """

    variant: Variant
    seeds: int
    evaluations: float
    seconds: float
    scores: dict[str, Spread]
    random_search: tuple[str, float] | None
    outcomes: tuple[Outcome, ...]

    @property
    def quality(self) -> Spread:
        """The final score: of the test split if a table has it, else of val."""
        return self.scores[self.measure]

    @property
    def measure(self) -> str:
        """Name of the final score."""
        return list(self.scores)[-1]

    def values(self) -> list[float]:
        """Return the known final scores of all seeds."""
        values = [outcome.scores()[self.measure] for outcome in self.outcomes]
        return [value for value in values if value is not None]

    def json(self) -> dict[str, Any]:
        """Return the row of ``ablation.json``."""
        return {
            "label": self.variant.label,
            "value": self.variant.value,
            "seeds": self.seeds,
            "evaluations": self.evaluations,
            "seconds": round(self.seconds, 3),
            "scores": {name: dataclasses.asdict(spread) for name, spread in self.scores.items()},
            **({} if self.random_search is None else {self.random_search[0]: self.random_search[1]}),
        }


def summarise(study: Study, outcomes: Sequence[Outcome]) -> list[Row]:
    """Return one row per variant with outcomes, in order."""
    rows = []
    for variant in study.variants:
        own = tuple(o for o in outcomes if (o.label, o.value) == (variant.label, variant.value))
        if not own:
            continue
        names = list(own[0].scores())
        rows.append(
            Row(
                variant,
                len(own),
                float(np.mean([outcome.evaluations for outcome in own])),
                float(np.mean([outcome.seconds for outcome in own])),
                {name: Spread.of(outcome.scores()[name] for outcome in own) for name in names},
                own[0].random_search(),
                own,
            )
        )
    return rows


def differences(rows: Sequence[Row]) -> list[tuple[str, Spread]]:
    """Return the final score of each variant minus the first, seed by seed."""
    first = {outcome.seed: outcome.scores()[rows[0].measure] for outcome in rows[0].outcomes}
    found = []
    for row in rows[1:]:
        pairs = [(outcome.scores()[row.measure], first[outcome.seed]) for outcome in row.outcomes]
        spread = Spread.of(a - b for a, b in pairs if a is not None and b is not None)
        found.append((f"{row.variant.label} less {rows[0].variant.label}", spread))
    return found


def trials_table(outcomes: Sequence[Outcome]) -> bytes:
    """Write ``trials.parquet``: one row per search."""
    rows = [
        {
            "label": outcome.label,
            "value": outcome.value,
            "seed": outcome.seed,
            "evaluations": outcome.evaluations,
            **outcome.scores(),
            "seconds": outcome.seconds,
            "fingerprint": outcome.fingerprint,
            "genotype": json.dumps(outcome.genotype),
            **({"tau_by_epoch": list(outcome.tau_by_epoch)} if outcome.tau_by_epoch else {}),
        }
        for outcome in outcomes
    ]
    return parquet_bytes(pa.Table.from_pylist(rows))


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]], *, left: int = 1) -> str:
    """Format an aligned Markdown table.

    Args:
        header: Names of the columns.
        rows: Cells.
        left: Number of left-aligned columns; the others are numbers.

    Example:
        >>> print(markdown(["T", "test"], [["1", "94.0"], ["10", "9.0"]]))
        | T  | test |
        | :- | ---: |
        | 1  | 94.0 |
        | 10 |  9.0 |
    """
    widths = [max(2, *(len(cells[i]) for cells in [header, *rows])) for i in range(len(header))]

    def line(cells: Sequence[str]) -> str:
        padded = [
            cell.ljust(width) if i < left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ]
        return f"| {' | '.join(padded)} |"

    rule = [":" + "-" * (width - 1) if i < left else "-" * (width - 1) + ":" for i, width in enumerate(widths)]
    return "\n".join([line(header), line(rule), *map(line, rows)])


def measure_label(row: Row) -> str:
    """Return the axis label of the final score."""
    split, _, what = row.measure.partition(": ")
    what, _, column = what.partition(", ")
    return f"{split} accuracy of the {what}" + (f"\n{column}" if column else "")


def sweep_table(rows: Sequence[Row], *, value_column: str | None = None, paired: bool = False) -> str:
    """Format mean and standard deviation of every variant as Markdown.

    Args:
        rows: The variants.
        value_column: Name of the column of their values, if any.
        paired: Whether to compare each variant with the first one, seed by seed.
    """
    names = {name: (1.0, 3) if TAU in name else (100.0, 2) for row in rows for name in row.scores}  # scale and digits
    tabular = any(row.random_search for row in rows)
    header = [
        "variant",
        *([value_column] if value_column else []),
        "seeds",
        "evaluations",
        *(name if TAU in name else f"{name} [%]" for name in names),
    ]
    header += ["random search [%]"] * tabular + ["seconds each"]
    cells = []
    for row in rows:
        value = [str(row.variant.value)] if value_column else []
        scores = [row.scores[name].text(*unit) if name in row.scores else "" for name, unit in names.items()]
        random = [f"{100 * row.random_search[1]:.2f}" if row.random_search else ""] * tabular
        counts = [str(row.seeds), f"{row.evaluations:g}"]
        cells.append([row.variant.label, *value, *counts, *scores, *random, f"{row.seconds:.3g}"])
    notes = ["± is the standard deviation over seeds."] if rows[0].seeds > 1 else []
    if tabular and rows[0].random_search is not None:
        split, _, name = rows[0].random_search[0].partition(": ")
        final = name.rpartition(", ")[2]
        notes.append(f"random search: exact expected score with equal evaluations ({split}, {final}).")
    if paired:
        for pair, spread in differences(rows):
            error = "" if math.isnan(spread.error) else f" ± {100 * spread.error:.2f} (standard error)"
            notes.append(f"{pair}, seed by seed: {100 * spread.mean:+.2f}{error} points of {rows[0].measure}.")
    return "\n\n".join([markdown(header, cells), *notes]) + "\n"
