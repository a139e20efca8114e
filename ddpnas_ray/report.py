"""Report on finished runs: ``python -m ddpnas_ray.report``."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from ddpnas_ray.console.command import FAILED, OK, Parser, guarded
from ddpnas_ray.core.errors import RunDirError
from ddpnas_ray.reporting.explain import edge_story, story_text
from ddpnas_ray.reporting.retrained import retrained_list, retrained_summary
from ddpnas_ray.reporting.retrained_files import is_retraining, read_finished, read_retrainings, verify_weights
from ddpnas_ray.reporting.runfiles import keep_per_group, read_records, read_run, searched
from ddpnas_ray.reporting.summary import summary
from ddpnas_ray.runs.directory import existing_run, read_result
from ddpnas_ray.runs.files import without_nan
from ddpnas_ray.runs.fingerprint import verify_fingerprint
from ddpnas_ray.storage.folder import Folder

DESCRIPTION = """\
Print the result of a finished search or retraining: genotype, exact costs of the target network, and scores with their
split.

examples:
  python -m ddpnas_ray.report runs/cell-digits-s0
  python -m ddpnas_ray.report runs/cell-digits-s0 --verify-fingerprint     check that the files are unchanged
  python -m ddpnas_ray.report runs/cell-digits-s0 --explain normal.3       why an edge's operations were pruned
  python -m ddpnas_ray.report runs/cell-digits-s0 --html                   write the HTML report, RUN/report.html
  python -m ddpnas_ray.report runs/s0 runs/s1 runs/s2 --html seeds.html    compare several runs on one page
  python -m ddpnas_ray.report runs/cell-digits-s0/retrained/result --html  a retrained network, with its training curves
"""


def parser() -> argparse.ArgumentParser:
    """Build the argument parser."""
    p = Parser(prog="ddpnas report", description=DESCRIPTION)
    p.add_argument(
        "runs",
        metavar="RUN",
        nargs="+",
        help="run directory, or folder of a retraining; several need --html FILE",
    )
    g = p.add_mutually_exclusive_group()
    g.add_argument(
        "--verify-fingerprint",
        action="store_true",
        help="recompute the fingerprint from theta, evaluations and weights, or from a retrained network's weights; "
        "exit code 1 if it differs",
    )
    g.add_argument(
        "--explain",
        metavar="EDGE",
        help="show one edge round by round: scores, utility (Eq. 3), momentum (Eq. 4), theta (Eq. 5), the pruned "
        "operation, its margin and its risk (Theorem 2; unknown if a round has one epoch)",
    )
    g.add_argument(
        "--html",
        metavar="FILE",
        nargs="?",
        const="",
        help="write one self-contained page, default RUN/report.html; to compare several, give FILE",
    )
    p.add_argument("--json", action="store_true", help="print result.json, or the --explain output, as JSON")
    return p


@guarded
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    p = parser()
    args = p.parse_args(argv)
    if len(args.runs) > 1 and not args.html:
        p.error("several runs are compared on one page; name its file, such as --html compared.html")
    if args.html is not None:
        if args.json:
            p.error("--html and --json exclude each other; remove one")
        return _page(args.runs, args.html)
    run = args.runs[0]
    if args.explain is not None:
        return _explain(run, args)
    folder = existing_run(run)
    if is_retraining(folder):
        return _retraining(folder, args)
    if args.verify_fingerprint:
        found = verify_fingerprint(folder)
        if found.agrees:
            print(f"{found.recomputed} agrees with the files of {run}")
            return OK
        print(f"{run}: result.json says {found.recorded}, the files give {found.recomputed}", file=sys.stderr)
        return FAILED
    result = read_result(folder)
    if args.json:
        print(json.dumps(result))
    else:
        retrained, errors = read_retrainings(folder)
        print("\n".join([summary(result, run), *retrained_list(retrained)]))
        for error in errors:
            print(error, file=sys.stderr)
    return OK


def _retraining(folder: Folder, args: argparse.Namespace) -> int:
    """Print the result of a retraining, or verify its weights."""
    files = read_finished(folder)
    assert files.result is not None
    if args.verify_fingerprint:
        found = verify_weights(files)
        for seed, now in found.items():
            if now.agrees:
                print(f"{now.recomputed} agrees with the weights of seed {seed}")
                continue
            says = f"result.json says {now.recorded}, seed-{seed}/weights.safetensors gives {now.recomputed}"
            print(f"{folder.uri}: {says}", file=sys.stderr)
        return OK if all(now.agrees for now in found.values()) else FAILED
    print(json.dumps(files.result) if args.json else retrained_summary(files.result, folder.uri))
    return OK


def _explain(run: str, args: argparse.Namespace) -> int:
    if is_retraining(existing_run(run)):
        raise RunDirError(
            f"{run}: is a retrained network, and --explain {args.explain} shows an edge of a search; give the run "
            "directory of a search"
        )
    folder, config, space = searched(run)
    history, evaluations = read_records(folder, space)
    stories = edge_story(args.explain, history, evaluations, space, keep_per_group(config))
    if args.json:
        print(json.dumps([without_nan(dataclasses.asdict(story)) for story in stories]))
    else:
        print(story_text(args.explain, stories))
    return OK


def _page(runs: Sequence[str], file: str) -> int:
    """Write the HTML page of one run or retraining, or of several."""
    from ddpnas_ray.reporting.compare import compare_page
    from ddpnas_ray.reporting.page import run_page
    from ddpnas_ray.reporting.retrained_compare import compare_retrained
    from ddpnas_ray.reporting.retrained_page import retrained_page

    kinds = {is_retraining(existing_run(run)) for run in runs}
    if len(kinds) == 2:
        raise RunDirError(f"{', '.join(runs)}: a search and a retrained network cannot be compared; give one kind")
    if kinds == {True}:
        retrained = [read_finished(existing_run(run)) for run in runs]
        data = retrained_page(retrained[0]) if len(runs) == 1 else compare_retrained(retrained)
    else:
        files = [read_run(*searched(run)) for run in runs]
        data = run_page(files[0], links=not file) if len(runs) == 1 else compare_page(files)
    if file:
        head, slash, name = file.rpartition("/")
        folder = Folder.open(head + slash or ".")
    else:
        folder, name = Folder.open(runs[0]), "report.html"
    place = file or (folder / name).uri
    if not name or (folder.is_local and Path(folder.path, name).is_dir()):
        raise RunDirError(f"--html {place}: is a folder; give the page a name, such as {place.rstrip('/')}/report.html")
    folder.write(name, data, hint="give --html another FILE, or correct its permissions")
    print(f"{place}: {len(data) / 1000:,.0f} kB")
    return OK


if __name__ == "__main__":
    sys.exit(main())
