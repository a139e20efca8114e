"""Options shared by the commands, and the types of their values."""

from __future__ import annotations

import argparse
import re

from ddpnas_ray.costs.convnet import Size
from ddpnas_ray.spaces.target import size_of


def add_config_options(parser: argparse.ArgumentParser, default: str = "the digits quick start") -> None:
    """Add ``--config`` and ``--set``; ``default`` is the configuration without them."""
    parser.add_argument(
        "--config",
        metavar="FILE",
        help=f"YAML file, local or a URI, or the name of a packaged one such as cifar10_cell (an unknown name lists "
        f"them); default: {default}",
    )
    add_set_option(parser, "override one key, such as pruning.gamma=0.8; repeat for more; `search --keys` lists them")


def add_set_option(parser: argparse._ActionsContainer, meaning: str) -> None:
    """Add ``--set``, repeatable, stored as ``overrides``."""
    parser.add_argument("--set", dest="overrides", metavar="KEY=VALUE", action="append", default=[], help=meaning)


def add_address_option(
    parser: argparse._ActionsContainer, default: str = "RAY_ADDRESS, else start one on this machine"
) -> None:
    """Add ``--address``, the cluster to use."""
    text = f"running Ray cluster, or auto for the one on this machine; default: {default}"
    parser.add_argument("--address", metavar="HOST:PORT", help=text)


def seconds(text: str) -> float:
    """Parse a duration: ``90``, ``45s``, ``30m``, ``1.5h``.

    Example:
        >>> seconds("1.5h")
        5400.0
    """
    match = re.fullmatch(r"([0-9]*\.?[0-9]+)\s*([smh]?)", text.strip())
    if not match or float(match[1]) <= 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a duration; examples: 90s, 30m, 1.5h")
    return float(match[1]) * {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}[match[2]]


def positive(text: str) -> int:
    """Parse an integer of at least 1."""
    return _whole(text, 1)


def image_size(text: str) -> Size:
    """Parse the side of square images, or height and width such as ``1024x2048``."""
    if "x" not in text:
        return _whole(text, 1)
    try:
        return size_of(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def at_least_two(text: str) -> int:
    """Parse an integer of at least 2."""
    return _whole(text, 2)


def count(text: str) -> int:
    """Parse an integer of at least 0."""
    return _whole(text, 0)


def _whole(text: str, least: int) -> int:
    if not text.isdecimal() or int(text) < least:
        raise argparse.ArgumentTypeError(f"{text!r} is not an integer of at least {least}")
    return int(text)
