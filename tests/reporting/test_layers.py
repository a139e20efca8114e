"""Figures of networks of layers."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

from ddpnas_ray.reporting.layers import draw_layers

GENOTYPE = {"layers": [0, 2, 5], "heads": [4, 12, 1], "ffn": [512, 3072, 768]}


def test_every_head_is_a_square_and_every_width_a_bar_to_scale() -> None:
    drawn = ElementTree.fromstring(str(draw_layers(GENOTYPE)))
    rects = drawn.findall(".//rect")
    assert sum("op0" in rect.attrib["class"] for rect in rects) == 4 + 12 + 1
    bars = [float(rect.attrib["width"]) for rect in rects if "op1" in rect.attrib["class"]]
    assert [round(3072 * bar / max(bars)) for bar in bars] == [512, 3072, 768]
    assert sum("out" in rect.attrib["class"].split() for rect in rects) == 3  # layers 1, 3 and 4


def test_screen_readers_get_the_sizes() -> None:
    assert re.search(r'aria-label="layer 0: 4 heads, feed-forward 512; layer 2: 12 heads', str(draw_layers(GENOTYPE)))


@pytest.mark.parametrize(
    "genotype", [{"arch_str": "x"}, {"stages": [["zero"]]}, {}, {"layers": [], "heads": [], "ffn": []}]
)
def test_other_genotypes_have_no_such_figure(genotype: dict[str, object]) -> None:
    assert draw_layers(genotype) is None
