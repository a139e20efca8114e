"""Dropped paths of NAS-Bench-201's cells; ``test_space.py`` tests the rest."""

from __future__ import annotations

import torch

from ddpnas_ray.spaces.nasbench201.network import Cell


def test_every_operation_but_an_identity_can_be_dropped() -> None:
    x = torch.randn(3, 4, 8, 8)
    for name, left in {"nor_conv_3x3": False, "avg_pool_3x3": False, "skip_connect": True}.items():
        cell = Cell(4, [(name,)] * 6, affine=True)
        out = cell(x, [name] * 6, 1.0)
        assert out.any() == left
        assert torch.equal(out, cell(x, [name] * 6)) == left
