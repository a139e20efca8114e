"""The console script ``ddpnas``: the commands as sub-commands."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

from ddpnas_ray import __version__
from ddpnas_ray.console.command import BAD_INPUT, OK
from ddpnas_ray.core.errors import did_you_mean

COMMANDS = {
    "search": "search for an architecture",
    "attach": "follow the progress of a running search",
    "generate": "generate the best network for each budget from a finished search",
    "retrain": "train a network found by a search, for use",
    "export": "write a retrained network to files that need nothing of this package",
    "predict": "predict the classes of images with an exported network, or time it on this machine",
    "latency": "build and check a device's latency table",
    "table": "import and describe a table of benchmark accuracies, for tabular searches",
    "check": "dry-run the pipeline on two batches and estimate a search's cost; count params and macs of a genotype",
    "ablate": "reproduce the paper's ablations: tables and figures over values and seeds",
    "sweep": "search every combination of configuration values and seeds, on Ray Tune",
    "report": "print the result of a finished search, explain it, verify its files, or write an HTML page",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the named command and return its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("-h", "--help"):
        print("usage: ddpnas COMMAND [options]\n\ncommands:")
        for name, meaning in COMMANDS.items():
            print(f"  {name:<10} {meaning}")
        print("\n`ddpnas COMMAND --help` shows options and examples; `python -m ddpnas_ray.COMMAND` is equivalent.")
        return OK
    if words[0] == "--version":
        print(__version__)
        return OK
    if words[0] not in COMMANDS:
        print(f"ddpnas: {words[0]} is not a command{did_you_mean(words[0], COMMANDS)}", file=sys.stderr)
        return BAD_INPUT
    return int(importlib.import_module(f"ddpnas_ray.{words[0]}").main(words[1:]))


if __name__ == "__main__":
    sys.exit(main())
