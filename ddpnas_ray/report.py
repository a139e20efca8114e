"""Look at a run: ``python -m ddpnas_ray.report``."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence

from ddpnas_ray import rundir
from ddpnas_ray.commandline import FAILED, OK, Parser, guarded
from ddpnas_ray.reporting.summary import summary

DESCRIPTION = """\
Print what a finished search found: genotype, exact costs of the target network, scores with their split.

examples:
  python -m ddpnas_ray.report runs/cell-digits-s0
  python -m ddpnas_ray.report runs/cell-digits-s0 --verify-fingerprint     are the files what the search wrote?
"""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = Parser(prog="ddpnas report", description=DESCRIPTION)
    p.add_argument("run", metavar="RUN", help="run directory, local or a URI")
    p.add_argument(
        "--verify-fingerprint",
        action="store_true",
        help="recompute the fingerprint from theta, evaluations and weights; exit code 1 where it differs",
    )
    p.add_argument("--json", action="store_true", help="print result.json as it is")
    return p


@guarded
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    args = parser().parse_args(argv)
    folder = rundir.existing(args.run)
    if args.verify_fingerprint:
        found = rundir.verify_fingerprint(folder)
        if found.agrees:
            print(f"{found.recomputed} agrees with the files of {args.run}")
            return OK
        print(f"{args.run}: result.json says {found.recorded}, the files give {found.recomputed}", file=sys.stderr)
        return FAILED
    result = rundir.read_result(folder)
    print(json.dumps(result) if args.json else summary(result, args.run))
    return OK


if __name__ == "__main__":
    sys.exit(main())
