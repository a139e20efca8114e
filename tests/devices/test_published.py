"""Published tables: sums recomputed from the files by their own keys, and missing rows."""

from __future__ import annotations

import csv
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest

from ddpnas_ray.core.errors import DataError
from ddpnas_ray.devices.published import EXACT, read_published
from ddpnas_ray.spaces.mobile.costs import Backbone

PROXYLESS = Backbone(
    widths=(32, 16, 24, 40, 80, 96, 192, 320, 1280),
    depths=(4, 4, 4, 4, 4, 1),
    strides=(2, 2, 2, 1, 2, 1),
    stem_stride=2,
    first_kernel=3,
)
OFA = Backbone(
    widths=(24, 24, 32, 48, 96, 136, 192, 1152),
    depths=(4, 4, 4, 4, 4),
    strides=(2, 2, 2, 1, 2),
    stem_stride=2,
    first_kernel=3,
)
NAMES = ["mbconv_k3_e3", "mbconv_k3_e6", "mbconv_k5_e3", "mbconv_k5_e6", "mbconv_k7_e3", "mbconv_k7_e6", "zero"]
KERNELS_EXPANDS = [(3, 3), (3, 6), (5, 3), (5, 6), (7, 3), (7, 6)]
RNG = np.random.default_rng(0)


def nanoseconds(path: Path, resolution: str | None = None) -> dict[str, int]:
    """Latency by the file's own key, without the flags of Once-for-All's blocks."""
    with path.open(newline="") as file:
        return {
            row["key"].partition("-se:")[0]: int(Decimal(row["mean_ms"]) * 10**6)
            for row in csv.DictReader(file)
            if resolution is None or row["resolution"] == resolution
        }


def proxyless_keys(alpha: list[int]) -> list[str]:
    """The rows of a ProxylessNAS network, written out by hand."""
    keys = [
        "Conv-input:224x224x3-output:112x112x32",
        "expanded_conv-input:112x112x32-output:112x112x16-expand:1-kernel:3-stride:1-idskip:0",
        "Conv_1-input:7x7x320-output:7x7x1280",
        "Logits-input:7x7x1280-output:1000",
    ]
    stages = [(112, 16, 24, 2, 4), (56, 24, 40, 2, 4), (28, 40, 80, 2, 4)]
    stages += [(14, 80, 96, 1, 4), (14, 96, 192, 2, 4), (7, 192, 320, 1, 1)]
    choices = iter(alpha)
    for size, before, after, stride, depth in stages:
        for block in range(depth):
            k = next(choices)
            c, s, side = (before, stride, size) if block == 0 else (after, 1, size // stride)
            if k < 6:
                kernel, expand = KERNELS_EXPANDS[k]
                keys.append(
                    f"expanded_conv-input:{side}x{side}x{c}-output:{side // s}x{side // s}x{after}"
                    f"-expand:{expand}-kernel:{kernel}-stride:{s}-idskip:{int(block > 0)}"
                )
    return keys


def test_proxylessnas_latencies_are_the_sums_of_the_file(test_data: Path) -> None:
    path = test_data / "latency" / "proxylessnas_mobile.csv"
    ns = nanoseconds(path)
    table = read_published(str(path))
    assert table.note == EXACT
    cost = table.cost(PROXYLESS, image_size=224, classes=1000)
    assert cost.base == 4_083_756 + 3_882_135 + 3_088_623 + 309_642
    assert cost.entries_EK.shape == (21, 7)
    sizes = [len(names) for names in PROXYLESS.candidates()]
    for _ in range(20):
        alpha = [int(RNG.integers(n)) for n in sizes]
        assert cost(np.array(alpha)) == sum(ns[key] for key in proxyless_keys(alpha))


@pytest.mark.parametrize("resolution", [160, 176, 192, 208, 224])
def test_once_for_all_latencies_are_the_sums_of_the_file(test_data: Path, resolution: int) -> None:
    path = test_data / "latency" / "ofa_note10.csv"
    ns = nanoseconds(path, str(resolution))
    table = read_published(str(path))
    assert "squeeze-excitation" in table.note and "h-swish" in table.note
    cost = table.cost(OFA, image_size=resolution, classes=1000)

    sides = [resolution // 2]
    for _ in range(4):
        sides.append((sides[-1] + 1) // 2)
    half, last = sides[0], sides[-1]
    base = [
        f"Conv-input:{resolution}x{resolution}x3-output:{half}x{half}x24",
        f"expanded_conv-input:{half}x{half}x24-output:{half}x{half}x24-expand:24-kernel:3-stride:1-idskip:1",
        f"Conv_1-input:{last}x{last}x192-output:{last}x{last}x1152",
        f"AvgPool2D-input:{last}x{last}x1152-output:1x1x1152",
        "Conv_2-input:1x1x1152-output:1x1x1536",
        "Logits-input:1x1x1536-output:1000",
    ]
    assert cost.base == sum(ns[key] for key in base)

    level, before, e = 0, 24, 0
    for width, stride in zip((32, 48, 96, 136, 192), (2, 2, 2, 1, 2), strict=True):
        for block in range(4):
            side, s, c = (sides[level], stride, before) if block == 0 else (sides[level + stride - 1], 1, width)
            out = sides[level + stride - 1]
            for k, (kernel, expand) in enumerate(KERNELS_EXPANDS):
                key = f"expanded_conv-input:{side}x{side}x{c}-output:{out}x{out}x{width}-expand:{c * expand}"
                key += f"-kernel:{kernel}-stride:{s}-idskip:{int(block > 0)}"
                assert cost.entries_EK[e, k] == ns[key]
            assert cost.entries_EK[e, 6] == 0
            e += 1
        level, before = level + stride - 1, width
    assert e == len(cost.entries_EK) == 20


def test_fixed_blocks_belong_to_what_every_network_does(test_data: Path) -> None:
    table = read_published(str(test_data / "latency" / "proxylessnas_mobile.csv"))
    whole = table.cost(PROXYLESS, image_size=224, classes=1000)
    searched = {"widths": PROXYLESS.widths, "depths": PROXYLESS.depths, "strides": PROXYLESS.strides}
    fixed = Backbone(**searched, stem_stride=2, first_kernel=3, fixed_last="mbconv_k5_e3")
    cost = table.cost(fixed, image_size=224, classes=1000)
    assert cost.entries_EK.tolist() == whole.entries_EK[:20].tolist()
    assert cost.base == whole.base + whole.entries_EK[20, NAMES.index("mbconv_k5_e3")]


@pytest.mark.parametrize(
    ("widths", "image_size", "classes", "named"),
    [
        (PROXYLESS.widths, 192, 1000, "no row Conv 192x192x3 -> 96x96x32"),
        (PROXYLESS.widths, 224, 10, "no row Logits 7x7x1280 -> 10"),
        (
            (32, 16, 24, 40, 80, 104, 192, 320, 1280),
            224,
            1000,
            "no row expanded_conv 14x14x80 -> 14x14x104, expand 3, kernel 3, stride 1",
        ),
    ],
)
def test_a_missing_row_is_named(
    test_data: Path, widths: tuple[int, ...], image_size: int, classes: int, named: str
) -> None:
    path = test_data / "latency" / "proxylessnas_mobile.csv"
    backbone = Backbone(
        widths=widths, depths=PROXYLESS.depths, strides=PROXYLESS.strides, stem_stride=2, first_kernel=3
    )
    with pytest.raises(DataError) as error:
        read_published(str(path)).cost(backbone, image_size=image_size, classes=classes)
    assert str(error.value) == f"{path}: {named}"


def test_a_missing_resolution_is_named(test_data: Path) -> None:
    table = read_published(str(test_data / "latency" / "ofa_note10.csv"))
    with pytest.raises(DataError, match=r"no row Conv 32x32x3 -> 16x16x24 at resolution 32$"):
        table.cost(OFA, image_size=32, classes=1000)


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (None, "No such file"),
        (b"", "not a published latency table: op, input"),
        (b"op,input\nConv,8x8x3\n", "not a published latency table: output, expand, kernel, stride, mean_ms missing"),
        (b"\xff\xfe", "cannot be read"),
        (b"op,input,output,expand,kernel,stride,mean_ms\nConv,a,b,,,,fast\n", "line 2: mean_ms is 'fast'"),
        (b"op,input,output,expand,kernel,stride,mean_ms\nConv,a,b,,,,1\nConv,a\n", "line 3: mean_ms is None"),
        (b"op,input,output,expand,kernel,stride,mean_ms\nConv,a,b,,,,nan\n", "line 2: mean_ms is 'nan'"),
        (b"op,input,output,expand,kernel,stride,mean_ms\nConv,a,b,,,,inf\n", "line 2: mean_ms is 'inf'"),
    ],
)
def test_an_invalid_published_table_is_refused(tmp_path: Path, content: bytes | None, named: str) -> None:
    path = tmp_path / "t.csv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError) as error:
        read_published(str(path))
    assert str(error.value).startswith(f"{path}: ") and named in str(error.value)
    assert "\n" not in str(error.value)
