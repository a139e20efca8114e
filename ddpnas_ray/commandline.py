"""What the commands have in common: one-line errors, exit codes, and options that mean the same everywhere."""

from __future__ import annotations

import argparse
import logging
import re
import socket
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from ddpnas_ray.core.errors import BadInput, DdpnasError, ResourceError

OK, FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors take one line."""

    def __init__(self, **options: Any) -> None:
        super().__init__(formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False, **options)

    def error(self, message: str) -> NoReturn:
        self.exit(BAD_INPUT, f"{self.prog}: {message}; see --help\n")


def guarded(command: Callable[[Sequence[str] | None], int]) -> Callable[..., int]:
    """Turn a command's errors into one line on stderr and an exit code: 2 bad input, 1 failure, 130 Ctrl-C."""

    def main(argv: Sequence[str] | None = None) -> int:
        warnings = logging.StreamHandler()
        logging.getLogger().addHandler(warnings)
        try:
            return command(argv)
        except DdpnasError as error:
            kind = "" if isinstance(error, BadInput) else "failed: "
            print(f"{type(error).__name__}: {kind}{' '.join(str(error).split())}", file=sys.stderr)
            return error.exit_code
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            return INTERRUPTED
        except BrokenPipeError:  # somebody's `| head` has seen enough
            sys.stderr.close()
            return FAILED
        finally:
            logging.getLogger().removeHandler(warnings)

    main.__doc__ = command.__doc__
    return main


def add_config_options(parser: argparse.ArgumentParser) -> None:
    """``--config`` and ``--set``."""
    parser.add_argument(
        "--config",
        metavar="FILE",
        help="YAML file, its URI, or the name of one that comes with the package, such as cifar10_cell (another name "
        "lists them); default: the digits quick start",
    )
    add_set_option(parser, "override one key, as often as wanted: --set pruning.gamma=0.8")


def add_set_option(parser: argparse._ActionsContainer, meaning: str) -> None:
    """``--set``, as often as wanted, into ``overrides``."""
    parser.add_argument("--set", dest="overrides", metavar="KEY=VALUE", action="append", default=[], help=meaning)


def seconds(text: str) -> float:
    """``90``, ``45s``, ``30m``, ``1.5h`` -> seconds.

    Example:
        >>> seconds("1.5h")
        5400.0
    """
    match = re.fullmatch(r"([0-9]*\.?[0-9]+)\s*([smh]?)", text.strip())
    if not match or float(match[1]) <= 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no duration; examples: 90s, 30m, 1.5h")
    return float(match[1]) * {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}[match[2]]


def positive(text: str) -> int:
    """A whole number from 1 on."""
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 1 on")
    return int(text)


def refuse_client(address: str) -> None:
    """Ray's client port is for looking: a search would write its directory on another machine than the user's."""
    if address.startswith("ray://"):
        raise ResourceError(
            f"{address}: searches run inside their cluster; submit them: ray job submit --address http://HEAD:8265 -- "
            "python -m ddpnas_ray.search --address auto --out DIR (clusters/README.md)"
        )


def refuse_dead_address(address: str) -> None:
    """Ray itself would try for many minutes; what is no HOST:PORT it judges at once."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not port.isdigit():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ResourceError(
            f"{address}: no Ray cluster answers there ({reason}); give --address what `ray start` printed, or auto on "
            "one of its machines; leave --address and RAY_ADDRESS out to start one here"
        ) from error
