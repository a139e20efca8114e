"""Drawings of networks; those of whole runs are read from pages in ``test_page.py``."""

from __future__ import annotations

import numpy as np
import pytest

from ddpnas_ray.reporting import networks
from tests.reporting.pages import Page


@pytest.mark.parametrize("nodes", range(1, 6))
def test_boxes_of_a_drawn_cell_do_not_overlap(nodes: int) -> None:
    rng = np.random.default_rng(nodes)
    pairs = [["sep_conv_3x3", int(s)] for n in range(nodes) for s in rng.choice(n + 2, 2, replace=False)]
    (cell,) = networks.cells({"normal": pairs, "normal_concat": list(range(2, 2 + nodes))})
    root = Page(str(networks.draw(cell, {})).encode()).root
    boxes = [[float(rect.attributes[k]) for k in ("x", "y", "width", "height")] for rect in root.all("rect")]
    assert len(boxes) == 3 * nodes + 3
    for i, (x, y, w, h) in enumerate(boxes):
        assert all(x + w <= a or a + c <= x or y + h <= b or b + d <= y for a, b, c, d in boxes[:i])
