"""Look at a run: ``python -m ddpnas_ray.report``."""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import sys
from collections.abc import Sequence
from typing import Any

from ddpnas_ray import rundir
from ddpnas_ray.commandline import FAILED, OK, Parser, guarded
from ddpnas_ray.config import check, parse
from ddpnas_ray.reporting.explain import edge_story, story_text
from ddpnas_ray.reporting.summary import summary
from ddpnas_ray.spaces.base import find_space
from ddpnas_ray.storage import Folder

DESCRIPTION = """\
Print what a finished search found: genotype, exact costs of the target network, scores with their split.

examples:
  python -m ddpnas_ray.report runs/cell-digits-s0
  python -m ddpnas_ray.report runs/cell-digits-s0 --verify-fingerprint     are the files what the search wrote?
  python -m ddpnas_ray.report runs/cell-digits-s0 --explain normal.3       why did its operations go, round by round?
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
    p.add_argument(
        "--explain",
        metavar="EDGE",
        help="an edge's rounds: scores, utility (Eq. 3), momentum (Eq. 4), theta (Eq. 5), what was pruned, by what "
        "margin and with what risk (Theorem 2); unknown where a round has one epoch",
    )
    p.add_argument("--json", action="store_true", help="print result.json as it is, or the story of --explain as JSON")
    return p


@guarded
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    args = parser().parse_args(argv)
    folder = rundir.existing(args.run)
    if args.explain is not None:
        return _explain(folder, args)
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


def _explain(folder: Folder, args: argparse.Namespace) -> int:
    config = rundir.parsed(folder, "config.yaml", lambda data: check(parse(data.decode(), args.run), args.run))
    space = find_space(config.space.name)(**config.space.options).space
    history = rundir.parsed(folder, "theta.parquet", lambda data: rundir.read_history(data, space))
    evaluations = rundir.parsed(folder, "evaluations.parquet", rundir.read_evaluations)
    stories = edge_story(args.explain, history, evaluations, space, config.pruning.keep_per_group)
    if args.json:
        print(json.dumps([_plain(dataclasses.asdict(story)) for story in stories]))
    else:
        print(story_text(args.explain, stories))
    return OK


def _plain(value: Any) -> Any:
    """NaN is null in JSON."""
    if isinstance(value, dict):
        return {key: _plain(v) for key, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    return None if isinstance(value, float) and math.isnan(value) else value


if __name__ == "__main__":
    sys.exit(main())
