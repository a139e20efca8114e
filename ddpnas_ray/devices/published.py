"""Read published latency tables as costs of the mobile space.

Two formats of https://github.com/han-cai/files, as CSV: ProxylessNAS's (mobile, 224 pixels) and Once-for-All's (Note
10, five resolutions). Some of Once-for-All's rows have squeeze-excitation and h-swish, so their latencies are *not
exactly those of our blocks*; ``PublishedTable.note`` gives their number.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation

import numpy as np

from ddpnas_ray.core.errors import DataError
from ddpnas_ray.core.space import CostTable
from ddpnas_ray.costs.convnet import Size, height_and_width, strided
from ddpnas_ray.spaces.mobile.costs import MBCONVS, ZERO, Backbone, Block
from ddpnas_ray.spaces.target import size_text

COLUMNS = ("op", "input", "output", "expand", "kernel", "stride", "mean_ms")
OFA_FEATURES = 1536  # Once-for-All has one more layer before its classifier
EXACT = "mean latencies of inverted residual blocks with ReLU6, as ours"
_Row = tuple[str, ...]  # resolution (empty if the table has only one), op, input, output, expand, kernel, stride


@dataclass(frozen=True)
class PublishedTable:
    """Published latencies by row.

    Args:
        path: The file.
        note: How the blocks differ from ours.
        by_resolution: Once-for-All's format: rows for several resolutions, expansions as numbers of channels.
        ns: Row -> nanoseconds.
    """

    path: str
    note: str
    by_resolution: bool
    ns: Mapping[_Row, int]

    def cost(self, backbone: Backbone, *, image_size: Size, classes: int) -> CostTable:
        """Return the latency of every choice in a network, in nanoseconds.

        Args:
            backbone: The network.
            image_size: Size in pixels.
            classes: Number of classes.

        Returns:
            The table; entries have shape (E, K), ``base`` is the part common to all networks.

        Raises:
            DataError: A row that the network needs is missing.
        """
        widths, sizes, candidates = backbone.widths, backbone.sizes(image_size), backbone.candidates()
        resolution, last = size_text(image_size) if self.by_resolution else "", sizes[-1]

        def row(op: str, before: str, after: str, *block: str) -> int:
            """Return the nanoseconds of one row."""
            key = (resolution, op, before, after, *(block or ("", "", "")))
            if key not in self.ns:
                named = ", ".join(f"{n} {v}" for n, v in zip(("expand", "kernel", "stride"), block, strict=False))
                where = f" at resolution {resolution}" if resolution else ""
                raise DataError(f"{self.path}: no row {op} {before} -> {after}{', ' + named if named else ''}{where}")
            return self.ns[key]

        def mbconv(block: Block, kernel: int, expand: int, size: Size) -> int:
            """Return the nanoseconds of an inverted residual block; ``size`` is that of its input."""
            side = strided(size, block.stride)
            hidden = block.in_channels * expand if self.by_resolution else expand
            before, after = _image(size, block.in_channels), _image(side, block.out_channels)
            return row("expanded_conv", before, after, str(hidden), str(kernel), str(block.stride))

        features = widths[-1]
        base = row("Conv", _image(image_size, 3), _image(sizes[0], widths[0]))
        base += mbconv(backbone.first, backbone.first_kernel, 1, sizes[0])
        base += row("Conv_1", _image(last, widths[-2]), _image(last, features))
        if self.by_resolution:
            base += row("AvgPool2D", _image(last, features), _image(1, features))
            base += row("Conv_2", _image(1, features), _image(1, OFA_FEATURES))
            base += row("Logits", _image(1, OFA_FEATURES), str(classes))
        else:
            base += row("Logits", _image(last, features), str(classes))

        entries_EK = np.zeros((backbone.searched, max(map(len, candidates))), dtype=np.int64)
        for e, (block, names, size) in enumerate(zip(backbone.blocks(), candidates, sizes, strict=False)):
            for k, name in enumerate(names):
                latency_ns = 0 if name == ZERO else mbconv(block, *MBCONVS[name], size)
                if e < backbone.searched:
                    entries_EK[e, k] = latency_ns
                else:
                    base += latency_ns
        return CostTable(base, entries_EK)


def read_published(path: str) -> PublishedTable:
    """Read either format, detected by its columns.

    Raises:
        DataError: The file cannot be read, lacks a column, or has a non-numeric latency.
    """
    try:
        with open(path, encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from error
    columns = set(rows[0]) if rows else set()
    if missing := [name for name in COLUMNS if name not in columns]:
        raise DataError(
            f"{path}: not a published latency table: {', '.join(missing)} missing; a CSV file with the columns "
            f"{', '.join(COLUMNS)} is needed"
        )
    key_columns = ("resolution", *COLUMNS[:-1])
    ns = {}
    for number, row in enumerate(rows, start=2):
        try:
            latency_ns = round(Decimal(row["mean_ms"] or "") * 1_000_000)
        except (InvalidOperation, ValueError, OverflowError):
            raise DataError(f"{path}: line {number}: mean_ms is {row['mean_ms']!r}; a number is needed") from None
        ns[tuple(row.get(name) or "" for name in key_columns)] = latency_ns
    swish, squeeze = ([row for row in rows if row.get(flag) == "1"] for flag in ("hs", "se"))
    note = EXACT
    if swish or squeeze:
        note = (
            f"not exactly our blocks: {len(squeeze)} of {len(rows)} rows have squeeze-excitation, "
            f"{len(swish)} h-swish in place of ReLU6"
        )
    return PublishedTable(path, note, "resolution" in columns, ns)


def _image(size: Size, channels: int) -> str:
    return "x".join(map(str, (*height_and_width(size), channels)))
