"""Write a retrained network to files that need nothing of this package: ``python -m ddpnas_ray.export``."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence

from ddpnas_ray.console.command import OK, Parser, guarded
from ddpnas_ray.console.options import add_set_option
from ddpnas_ray.deploy.registry import find_form
from ddpnas_ray.launch.exporting import export, find_retrained, model_folder_of
from ddpnas_ray.reporting.exported import written_json, written_text

DESCRIPTION = """\
Write a retrained network to files that need nothing of this package: one folder with plain PyTorch (network.py), its
weights (safetensors), ONNX, torch.export (.pt2), and all that Hugging Face's from_pretrained and pipeline need, with a
model card. Class names and preprocessing travel in all of them; of texts, tokenizer.json. Each form is loaded in a
process that cannot import this package, and must compute what the network does on real examples; otherwise nothing is
written.

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
        "--forms",
        metavar="A,B",
        help="torch, huggingface, onnx, pt2, of texts onnx_int8; default: all that are possible",
    )
    add_set_option(p, "override data.path, for a run from another machine")
    p.add_argument("--json", action="store_true", help="print the comparison as one JSON object")
    p.epilog = "exit codes: 0 done; 1 a form differs or cannot be written; 2 bad input"
    return p


@guarded
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    args = parser().parse_args(argv)
    forms = None if args.forms is None else [name.strip() for name in args.forms.split(",")]
    for name in forms or []:
        find_form(name, "--forms")
    retrained = find_retrained(args.run, args.network)
    out = args.out or model_folder_of(retrained)
    lines = sys.stderr if args.json else sys.stdout
    print(f"{retrained.uri}: writing {out}; a fresh process compares each form ...", file=lines, flush=True)
    written = export(retrained, out, forms=forms, overrides=args.overrides)
    if args.json:
        print(json.dumps(written_json(written)))
    else:
        print(written_text(written))
    return OK


if __name__ == "__main__":
    sys.exit(main())
