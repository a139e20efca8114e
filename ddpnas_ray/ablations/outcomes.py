"""What the searches of an ablation found, what it comes to over seeds, and how it reads."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from ddpnas_ray.ablations.sweeps import Planned, Sweep, Value, Variant
from ddpnas_ray.runs.files import plain
from ddpnas_ray.storage.parquet import parquet_bytes

ANSWER, RANDOM, TAU = "the answer", "expected of random search", "Kendall's tau"  # how rows of a score sheet begin


@dataclass(frozen=True, slots=True)
class Outcome:
    """One finished search, as a line of ``trials.jsonl``.

    Args:
        label: Of its variant.
        value: Of its variant.
        seed: Its seed.
        evaluations: How many it took.
        seconds: How long it took.
        fingerprint: Of its result.
        genotype: Its answer.
        score_sheet: ``what``, ``split`` and ``value`` of every number (``job.score_sheet``).
        tau_by_epoch: Kendall's tau after every epoch, where there was a probe; None where not defined.
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
        """From the content of ``result.json``."""
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
        """That of its ``Planned``."""
        return (self.label, self.value, self.seed)

    def line(self) -> bytes:
        """As ``trials.jsonl`` holds it."""
        return json.dumps(dataclasses.asdict(self)).encode()

    @classmethod
    def from_line(cls, line: bytes) -> Outcome | None:
        """None where it is no whole line: a kill may have cut the last one short."""
        try:
            values = json.loads(line)
            sheet, taus = tuple(values.pop("score_sheet")), tuple(values.pop("tau_by_epoch"))
            return cls(score_sheet=sheet, tau_by_epoch=taus, **values)
        except (ValueError, TypeError, KeyError, AttributeError):
            return None

    def scores(self) -> dict[str, float | None]:
        """See ``answer_scores``."""
        return answer_scores({"score_sheet": self.score_sheet})

    def random_search(self) -> tuple[str, float] | None:
        """What random search with as many evaluations finds on average, exactly; None without a table."""
        rows = [row for row in self.score_sheet if row["what"].startswith(RANDOM) and row["value"] is not None]
        return (f"{rows[0]['split']}: {rows[0]['what']}", rows[0]["value"]) if rows else None


def answer_scores(result: Mapping[str, Any]) -> dict[str, float | None]:
    """What the answer is worth, each number named by its split; what decides last.

    Args:
        result: The content of ``result.json``.
    """
    rows = [row for row in result["score_sheet"] if row["what"].startswith((ANSWER, TAU))]
    rows.sort(key=lambda row: (row["split"] == "test") - 2 * row["what"].startswith(TAU))
    return {f"{row['split']}: {row['what']}": row["value"] for row in rows}


@dataclass(frozen=True, slots=True)
class Spread:
    """Numbers over seeds.

    Args:
        n: How many.
        mean: Their mean.
        deviation: Their standard deviation (n - 1); NaN of one.
    """

    n: int
    mean: float
    deviation: float

    @classmethod
    def of(cls, values: Iterable[float | None]) -> Spread:
        """Of those that are known."""
        known = np.array([value for value in values if value is not None], dtype=np.float64)
        if not len(known):
            return cls(0, math.nan, math.nan)
        return cls(len(known), float(known.mean()), float(known.std(ddof=1)) if len(known) > 1 else math.nan)

    @property
    def error(self) -> float:
        """Standard error of the mean."""
        return self.deviation / math.sqrt(self.n) if self.n else math.nan

    def text(self, scale: float = 1.0, digits: int = 2) -> str:
        """``94.05 +- 0.31``."""
        if not self.n:
            return "not defined"
        deviation = "" if math.isnan(self.deviation) else f" ± {scale * self.deviation:.{digits}f}"
        return f"{scale * self.mean:.{digits}f}{deviation}"


@dataclass(frozen=True, slots=True)
class Row:
    """A variant over its seeds.

    Args:
        variant: The setting.
        seeds: How many.
        evaluations: Mean over seeds.
        seconds: Mean over seeds.
        scores: By name, each with its split.
        random_search: See ``Outcome.random_search``.
        outcomes: The seeds.
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
        """The score that decides: of the test split where a table knows it, else of val."""
        return self.scores[self.measure]

    @property
    def measure(self) -> str:
        """Its name."""
        return list(self.scores)[-1]

    def values(self) -> list[float]:
        """The deciding score of every seed, known ones only."""
        values = [outcome.scores()[self.measure] for outcome in self.outcomes]
        return [value for value in values if value is not None]

    def json(self) -> dict[str, Any]:
        """As ``ablation.json`` holds it."""
        return {
            "label": self.variant.label,
            "value": self.variant.value,
            "seeds": self.seeds,
            "evaluations": self.evaluations,
            "seconds": round(self.seconds, 3),
            "scores": {name: spread_json(spread) for name, spread in self.scores.items()},
            **({} if self.random_search is None else {self.random_search[0]: self.random_search[1]}),
        }


def spread_json(spread: Spread) -> dict[str, Any]:
    """NaN is null."""
    found: dict[str, Any] = plain(dataclasses.asdict(spread))
    return found


def summarise(sweep: Sweep, outcomes: Sequence[Outcome]) -> list[Row]:
    """A row a variant that has any, in order."""
    rows = []
    for variant in sweep.variants:
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
    """Every variant less the first, seed by seed, in the score that decides."""
    first = {outcome.seed: outcome.scores()[rows[0].measure] for outcome in rows[0].outcomes}
    found = []
    for row in rows[1:]:
        pairs = [(outcome.scores()[row.measure], first[outcome.seed]) for outcome in row.outcomes]
        spread = Spread.of(a - b for a, b in pairs if a is not None and b is not None)
        found.append((f"{row.variant.label} less {rows[0].variant.label}", spread))
    return found


def trials_table(outcomes: Sequence[Outcome]) -> bytes:
    """``trials.parquet``: a row a search."""
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
    """A table that reads as text and as Markdown.

    Args:
        header: Names of the columns.
        rows: Cells.
        left: How many columns are aligned left; the others are numbers.

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
    """The score that decides, for an axis."""
    split, _, what = row.measure.partition(": ")
    what, _, column = what.partition(", ")
    return f"{split} accuracy of {what}" + (f"\n{column}" if column else "")


def sweep_table(rows: Sequence[Row], *, value_column: str | None = None, paired: bool = False) -> str:
    """Mean and standard deviation of every variant, for people.

    Args:
        rows: The variants.
        value_column: Name of the column with their values; None: there is none.
        paired: Whether to compare each with the first one, seed by seed.
    """
    names = list(dict.fromkeys(name for row in rows for name in row.scores))
    by_table = any(row.random_search for row in rows)
    header = ["variant", *([value_column] if value_column else []), "seeds", "evaluations", *map(_column, names)]
    header += ["random search [%]"] * by_table + ["seconds each"]
    cells = []
    for row in rows:
        value = [str(row.variant.value)] if value_column else []
        scores = [row.scores[name].text(*_unit(name)) if name in row.scores else "" for name in names]
        random = [f"{100 * row.random_search[1]:.2f}" if row.random_search else ""] * by_table
        facts = [str(row.seeds), f"{row.evaluations:g}"]
        cells.append([row.variant.label, *value, *facts, *scores, *random, f"{row.seconds:.3g}"])
    notes = ["± is the standard deviation over seeds."] if rows[0].seeds > 1 else []
    if by_table and rows[0].random_search is not None:
        split, _, name = rows[0].random_search[0].partition(": ")
        final = name.rpartition(", ")[2]
        notes.append(f"random search: what it finds on average with as many evaluations, exactly ({split}, {final}).")
    if paired:
        for pair, spread in differences(rows):
            error = "" if math.isnan(spread.error) else f" ± {100 * spread.error:.2f} (standard error)"
            notes.append(f"{pair}, seed by seed: {100 * spread.mean:+.2f}{error} points of {rows[0].measure}.")
    return "\n\n".join([markdown(header, cells), *notes]) + "\n"


def _column(name: str) -> str:
    return name if TAU in name else f"{name} [%]"


def _unit(name: str) -> tuple[float, int]:
    return (1.0, 3) if TAU in name else (100.0, 2)
