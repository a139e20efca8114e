"""Import and describe tables of benchmark accuracies: ``python -m ddpnas_ray.table``."""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from ddpnas_ray.console.command import OK, Parser, guarded
from ddpnas_ray.console.progress import counting
from ddpnas_ray.core.errors import DataError
from ddpnas_ray.spaces.base import SpaceSpec, find_space
from ddpnas_ray.spaces.nasbench201.space import make
from ddpnas_ray.storage.folder import place
from ddpnas_ray.storage.parquet import parquet_bytes
from ddpnas_ray.tabular.nats_bench import DATA, Imported, OfficialFolder
from ddpnas_ray.tabular.table import NAME, ScoreTable, epochs_of, split_of

DESCRIPTION = """\
Import and describe tables of accuracies, which tabular searches read instead of training (docs/tables.md).

examples:
  python -m ddpnas_ray.table import NATS-tss-v1_0-3ffb9-simple --out nasbench201.parquet
  python -m ddpnas_ray.table describe nasbench201.parquet
  python -m ddpnas_ray.search --config configs/nasbench201_table.yaml --set evaluation.table=nasbench201.parquet

`ddpnas table import --help` and `ddpnas table describe --help` show their options.
"""
IMPORT = """\
Read and check the official files of NATS-Bench's topology space (NAS-Bench-201), and write one Parquet file. FOLDER is
the unpacked NATS-tss-v1_0-3ffb9-simple.tar of https://github.com/D-X-Y/NATS-Bench. Needs `pip install nats_bench`.

The official files are pickles, and unpickling executes code: import only files from the official source. The
table contains no pickle.

examples:
  python -m ddpnas_ray.table import NATS-tss-v1_0-3ffb9-simple --out nasbench201.parquet
  python -m ddpnas_ray.table import NATS-tss-v1_0-3ffb9-simple --datasets cifar100 --out cifar100.parquet
"""
DESCRIBE = """\
Check and summarise a table: for each column, the best and the mean accuracy of all architectures, and the columns that
a search reads by default.

examples:
  python -m ddpnas_ray.table describe nasbench201.parquet
  python -m ddpnas_ray.table describe nasbench201.parquet --json
  python -m ddpnas_ray.table describe mine.parquet --space my_lab.tiny:make
"""


def parser() -> argparse.ArgumentParser:
    """Build the argument parser."""
    p = Parser(prog="ddpnas table", description=DESCRIPTION)
    commands = p.add_subparsers(dest="command", required=True, metavar="import|describe")
    command = commands.add_parser("import", help="convert NATS-Bench's official files to a table", description=IMPORT)
    command.add_argument("folder", metavar="FOLDER", help="the unpacked archive")
    command.add_argument("--out", metavar="FILE", required=True, help="Parquet file to write; must not exist")
    command.add_argument(
        "--datasets", metavar="NAME", nargs="+", choices=DATA, default=list(DATA), help=f"default: {' '.join(DATA)}"
    )
    command = commands.add_parser("describe", help="check and summarise a table", description=DESCRIBE)
    command.add_argument("file", metavar="FILE", help="a Parquet file")
    command.add_argument(
        "--space", metavar="NAME", default="nasbench201", help="the table's space, or module:function (nasbench201)"
    )
    command.add_argument("--json", action="store_true", help="print one JSON object; scores are fractions")
    return p


@guarded
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    args = parser().parse_args(argv)
    return _import(args) if args.command == "import" else _describe(args)


# --- import ---------------------------------------------------------------------------------------------------------


def _import(args: argparse.Namespace) -> int:
    folder, name = place(args.out)
    if folder.has(name):
        raise DataError(f"{args.out}: exists; choose another --out")
    official = OfficialFolder.open(args.folder, make())
    folder.make()
    with counting("architectures", len(official.files), sys.stderr) as advance:
        imported = official.read(args.datasets, lambda _: advance(1))
    metadata = {
        "unit": "percent",
        "source": Path(args.folder).resolve().name,
        "nats_bench": importlib.metadata.version("nats_bench"),
    }
    folder.write(name, parquet_bytes(imported.table.replace_schema_metadata(metadata)))
    print("\n".join(_summary(imported)))
    print(f"table {args.out}")
    return OK


def _summary(imported: Imported) -> list[str]:
    """Summarise the import in a few lines."""
    lines = [f"{imported.table.num_rows:,} architectures"]
    for (data, epochs), counts in imported.trainings.items():
        of = ", ".join(f"{counts[n]:,} with {n} training{'s' if n > 1 else ''}" for n in sorted(counts))
        lines.append(f"{data}, {epochs} epochs: {of}")
    params, flops = imported.anomalies["params"], imported.anomalies["flops"]
    lines.append(
        f"recorded params differ from the architecture's in {params:,} of them (column params_anomaly), flops in "
        f"{flops:,}"
    )
    return lines


# --- describe -------------------------------------------------------------------------------------------------------


def _describe(args: argparse.Namespace) -> int:
    found = description(args.file, find_space(args.space)())
    print(json.dumps(found) if args.json else "\n".join(report(found)))
    return OK


def description(path: str, spec: SpaceSpec) -> dict[str, Any]:
    """Describe a table as plain JSON; scores are fractions.

    Raises:
        DataError: The file is not a table of this space.
    """
    table = ScoreTable.read(path, spec.space, spec.encode)
    metadata = pq.read_schema(path).metadata or {}
    matches = map(NAME.fullmatch, table.scores)
    return {
        "file": path,
        "sha256": table.digest,
        "space": spec.space.name,
        "architectures": len(table.row_of),
        **{key: metadata[key.encode()].decode() if key.encode() in metadata else None for key in ("unit", "source")},
        "columns": [_column(match, table, spec) for match in matches if match and not match["seed"]],
        "default": {"evaluation.score": _default(table, "val"), "evaluation.final": _default(table, "test")},
    }


def _column(match: re.Match[str], table: ScoreTable, spec: SpaceSpec) -> dict[str, Any]:
    """Describe one column: a mean over trainings."""
    name = match.string
    scores_N = table.scores[name]
    known_N = scores_N[np.isfinite(scores_N)]
    best = int(np.nanargmax(scores_N)) if known_N.size else None
    return {
        "name": name,
        "data": match["data"],
        "split": split_of(name),
        "epochs": epochs_of(name),
        "architectures": int(known_N.size),
        "trainings": {
            training.rpartition("_seed")[2]: int(np.isfinite(table.scores[training]).sum())
            for training in table.trainings(name)
        },
        "best": None if best is None else float(scores_N[best]),
        "best_genotype": None if best is None else spec.decode(np.array(list(table.row_of)[best])),
        "mean": float(known_N.mean()) if known_N.size else None,
    }


def _default(table: ScoreTable, split: str) -> str | None:
    """Return the column that a search reads by default; None if its configuration must name one."""
    try:
        return table.column(None, split, "")
    except DataError:
        return None


def report(found: Mapping[str, Any]) -> list[str]:
    """Format a description as lines of text."""
    source = f", from {found['source']}" if found["source"] else ""
    unit = found["unit"] or "not stated; a column that exceeds 1 is read as percentages"
    lines = [
        f"table   {found['file']}{source}",
        f"SHA-256 {found['sha256']}",
        f"rows    {found['architectures']:,}, all architectures of space {found['space']}",
        f"unit    {unit}",
        "",
    ]
    rows = [("column", "split", "epochs", "best %", "mean %", "trainings")]
    for column in found["columns"]:
        best, mean = (f"{100 * column[key]:.2f}" if column[key] is not None else "-" for key in ("best", "mean"))
        trainings = ", ".join(
            seed if count == found["architectures"] else f"{seed} ({count:,} rows)"
            for seed, count in column["trainings"].items()
        )
        lacking = found["architectures"] - column["architectures"]
        note = f"; {lacking:,} rows without a score" if lacking else ""
        rows.append(
            (column["name"], column["split"], str(column["epochs"]), best, mean, (trainings or "mean only") + note)
        )
    widths = [max(map(len, cells)) for cells in zip(*rows, strict=True)]
    for row in rows:
        name, split, *figures, trainings = (
            cell.rjust(width) if 2 <= i <= 4 else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        lines.append("  ".join([name, split, *figures, trainings]).rstrip())
    for key, name in found["default"].items():
        lines.append(f"{key} {f'is {name} by default' if name else 'must be named'}")
    return lines


if __name__ == "__main__":
    sys.exit(main())
