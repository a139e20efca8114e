"""Train a network found by a search, for use: ``python -m ddpnas_ray.retrain``."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Sequence

from ddpnas_ray.console.command import INTERRUPTED, OK, Parser, guarded, say
from ddpnas_ray.console.options import add_address_option, add_config_options
from ddpnas_ray.console.progress import Display
from ddpnas_ray.launch.retraining import folder_of, retrain
from ddpnas_ray.reporting.retrained import retrained_summary
from ddpnas_ray.retraining.prepare import Wish
from ddpnas_ray.storage.folder import Folder

DESCRIPTION = """\
Train a network for use: the result of a search, its best network within a budget, or any other architecture. The
recipe is section `retraining` of the configuration (`search --keys` lists it). Killed at any point, it continues with
--resume from the last epoch and ends with the weights of an undisturbed training, bit for bit on one kind of device.
The test images are read once, at the end, if there are any.

examples:
  python -m ddpnas_ray.retrain RUN                                       the search's result
  python -m ddpnas_ray.retrain RUN --budget macs=400M                    the best network within a budget
  python -m ddpnas_ray.retrain RUN --set retraining.epochs=600 --set retraining.seeds=3
  python -m ddpnas_ray.retrain RUN --genotype mine.json                  another architecture of the same space
  python -m ddpnas_ray.retrain RUN --network darts_v2                    a published one, on the run's data
  python -m ddpnas_ray.retrain RUN --config imagenet_cells --set data.path=DIR     on other data, with their recipe
  python -m ddpnas_ray.retrain --config cifar10_cell --network darts_v2 --out runs/darts     without a search
  python -m ddpnas_ray.retrain RUN --resume                              after a kill, on this or another machine

It runs on Ray Train, on the workers of `retraining.workers` (default: one per GPU, else one); --backend local needs no
Ray. `python -m ddpnas_ray.export` then writes files that need nothing of this package.
"""


def parser() -> argparse.ArgumentParser:
    """Build the argument parser."""
    p = Parser(prog="ddpnas retrain", description=DESCRIPTION)
    p.add_argument("run", metavar="RUN", nargs="?", help="run directory of a finished search, local or a URI")
    which = p.add_mutually_exclusive_group()
    which.add_argument("--budget", metavar="BUDGET", help="best network within it, as in `generate --budget`")
    which.add_argument("--genotype", metavar="FILE", help="JSON file with a genotype, or a genotype.json of `generate`")
    which.add_argument("--network", metavar="NAME", help="published network, such as darts_v2 (`check --network`)")
    add_config_options(p, default="that of RUN, or of the training to resume; else the digits quick start")
    p.add_argument("--out", metavar="DIR", help="folder of the training; default: RUN/retrained/<network>")
    p.add_argument("--resume", action="store_true", help="continue from the latest checkpoint")
    p.add_argument("--backend", choices=("ray", "local"), help="default: execution.backend")
    add_address_option(p)
    p.add_argument("--json", action="store_true", help="print the result as one JSON object; progress goes to stderr")
    p.epilog = "exit codes: 0 done; 1 failure; 2 bad input; 130 Ctrl-C (finished epochs are saved)"
    return p


@guarded
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    p = parser()
    args = p.parse_args(argv)
    if args.run is None and args.budget:
        p.error("--budget needs RUN: a budget chooses from a search")
    if args.run is None and not (args.genotype or args.network or (args.resume and args.out)):
        p.error("give RUN, --genotype FILE or --network NAME")
    overrides = [*args.overrides, *([f"execution.backend={args.backend}"] if args.backend else [])]
    wish = Wish(
        run=args.run,
        config=args.config,
        overrides=overrides,
        budget=args.budget,
        genotype=args.genotype,
        network=args.network,
    )
    out = folder_of(wish, args.out, resume=args.resume)
    display = Display(f"ddpnas retrain: {out}", sys.stderr if args.json else sys.stdout)
    try:
        result = retrain(wish, out, display, resume=args.resume, address=args.address)
    except KeyboardInterrupt:
        words = list(argv if argv is not None else sys.argv[1:])
        words += [*([] if args.out else ["--out", out]), *([] if args.resume else ["--resume"])]
        resume = f"finished epochs are saved. Resume with: python -m ddpnas_ray.retrain {shlex.join(words)}"
        say(f"interrupted; {resume if Folder.open(out).has('config.yaml') else 'nothing was started'}")
        return INTERRUPTED
    print(json.dumps(result) if args.json else retrained_summary(result, out))
    return OK


if __name__ == "__main__":
    sys.exit(main())
