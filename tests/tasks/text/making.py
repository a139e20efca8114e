"""Small text data sets of every kind, written as files."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

Table = Mapping[str, Sequence[Any]]
GOOD, BAD = ("fine", "lovely", "great", "funny", "warm"), ("dull", "awful", "boring", "flat", "cold")
FILLER = ("the", "film", "is", "a", "very", "story", "with", "plot", "and", "actors")


def reviews(n: int, seed: int = 0) -> dict[str, list[Any]]:
    """Sentences of 3 to 20 words, with one word that tells the label."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(2, size=n).tolist()
    texts = []
    for label in labels:
        words = rng.choice(FILLER, size=int(rng.integers(2, 20))).tolist()
        words.insert(int(rng.integers(len(words))), str(rng.choice((BAD, GOOD)[label])))
        texts.append(" ".join(words))
    return {"sentence": texts, "label": labels}


def pairs(n: int, seed: int = 0) -> dict[str, list[Any]]:
    """Pairs of sentences, alike or not."""
    one, other = reviews(n, seed), reviews(n, seed + 1)
    labels = np.random.default_rng(seed).integers(2, size=n).tolist()
    second = [a if label else b for a, b, label in zip(one["sentence"], other["sentence"], labels, strict=True)]
    return {"sentence1": one["sentence"], "sentence2": second, "label": labels}


def write(path: Path, table: Table, classes: Sequence[str] | None = None) -> Path:
    """Write a table as Parquet, TSV or CSV, by the end of the name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        found = pa.table({name: list(values) for name, values in table.items()})
        if classes is not None:
            features = {"label": {"names": list(classes), "_type": "ClassLabel"}}
            found = found.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
        pq.write_table(found, path)
        return path
    rows = zip(*table.values(), strict=True)
    if path.suffix == ".tsv":
        lines = ["\t".join(map(str, row)) for row in rows]
        head = [] if all(name.isdecimal() for name in table) else ["\t".join(table)]
        path.write_text("\n".join([*head, *lines]) + "\n", encoding="utf-8")
        return path
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(table)
        writer.writerows(rows)
    return path
