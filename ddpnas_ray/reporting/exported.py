"""What an export wrote, as text and as JSON."""

from __future__ import annotations

import io
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from ddpnas_ray.deploy.folder import Written


def written_text(written: Written) -> str:
    """Format one row per form: file, size, seconds, and its comparison with the network."""
    table = Table(box=None, pad_edge=False)
    for name in ("form", "file", "size", "write", "load", "largest difference", "of logits up to", "same labels"):
        table.add_column(name, justify="left" if name in ("form", "file") else "right")
    for row in written.rows:
        table.add_row(
            row.form,
            row.file,
            f"{row.file_bytes / 1e6:.2f} MB",
            f"{written.seconds[row.form]:.1f} s",
            f"{row.load_s:.1f} s",
            f"{row.largest_difference:.1e}",
            f"{row.largest_logit:.1f}",
            f"{row.labels_agree}/{row.labels}",
        )
    out = io.StringIO()
    Console(file=out, markup=False, emoji=False, highlight=False, width=200).print(table)
    lines = [line.rstrip() for line in out.getvalue().splitlines()]
    return "\n".join([*lines, *written.notes, f"model {written.folder}"])


def written_json(written: Written) -> dict[str, Any]:
    """Return it as plain JSON."""
    rows = []
    for row in written.rows:
        values = asdict(row)
        count = {written.kind: values.pop("examples")}
        rows.append(values | count | {"write_s": round(written.seconds[row.form], 3)})
    return {"folder": str(written.folder), "forms": rows, "notes": list(written.notes)}
