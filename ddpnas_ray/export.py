"""Write a retrained network to files that need nothing of this package: ``python -m ddpnas_ray.export``."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, TextIO

from ddpnas_ray.console.command import OK, Parser, guarded
from ddpnas_ray.console.options import add_set_option
from ddpnas_ray.launch.exporting import export, find_retrained, model_folder_of

if TYPE_CHECKING:
    from ddpnas_ray.deploy.folder import Written

DESCRIPTION = """\
Write a retrained network to files that need nothing of this package: one folder with plain PyTorch (network.py), its
weights (safetensors), ONNX, torch.export (.pt2), and all that Hugging Face's from_pretrained and pipeline need, with a
model card. Class names and normalisation travel in all of them. Each form is loaded in a process that cannot import
this package, and must compute what the network does on real images; otherwise nothing is written.

examples:
  python -m ddpnas_ray.export RUN                         RUN/model/
  python -m ddpnas_ray.export RUN --network macs=400M     of several retrained networks, this one
  python -m ddpnas_ray.export RUN --forms onnx,pt2 --out my-model
  python -m ddpnas_ray.export runs/darts                  the folder of a retraining without a search

Run `python -m ddpnas_ray.retrain RUN` first. docs/deploy.md loads every form in five lines.
"""


def parser() -> argparse.ArgumentParser:
    """Build the argument parser."""
    p = Parser(prog="ddpnas export", description=DESCRIPTION)
    p.add_argument("run", metavar="RUN", help="run directory with a retrained network, or the folder of a retraining")
    p.add_argument("--network", metavar="LABEL", help="retrained network; default: the only one")
    p.add_argument("--out", metavar="DIR", help="model folder, local; default: RUN/model, of several RUN/model-LABEL")
    p.add_argument(
        "--forms", metavar="A,B", help="torch, huggingface, onnx, pt2; default: all that are possible"
    )
    add_set_option(p, "override data.path, for a run from another machine")
    p.add_argument("--json", action="store_true", help="print the comparison as one JSON object")
    p.epilog = "exit codes: 0 done; 1 a form differs or cannot be written; 2 bad input"
    return p


@guarded
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    args = parser().parse_args(argv)
    retrained = find_retrained(args.run, args.network)
    out = args.out or model_folder_of(retrained)
    lines = sys.stderr if args.json else sys.stdout
    print(f"{retrained.uri}: writing {out}; a fresh process compares each form ...", file=lines, flush=True)
    forms = None if args.forms is None else [name.strip() for name in args.forms.split(",")]
    written = export(retrained, out, forms=forms, overrides=args.overrides)
    if args.json:
        rows = [asdict(row) | {"write_s": round(written.seconds[row.form], 3)} for row in written.rows]
        print(json.dumps({"folder": str(written.folder), "forms": rows, "notes": list(written.notes)}))
    else:
        print_written(written, sys.stdout)
    return OK


def print_written(written: Written, out: TextIO) -> None:
    """Print one row per form: file, size, seconds, and its comparison with the network."""
    from rich.console import Console
    from rich.table import Table

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
            f"{row.labels_agree}/{row.images}",
        )
    Console(file=out, markup=False, highlight=False, width=None if out.isatty() else 200).print(table)
    for note in written.notes:
        print(note, file=out)
    print(f"model {written.folder}", file=out)


if __name__ == "__main__":
    sys.exit(main())
