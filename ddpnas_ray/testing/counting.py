"""Count a network's costs while it computes, to check cost tables."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from ddpnas_ray.training.batches import size


def _attention_flops(query: Any, key: Any, value: Any, *args: Any, out_shape: Any = None, **kwargs: Any) -> int:
    return int(sdpa_flop_count(query, key, value))


# The kernel of scaled_dot_product_attention on CPUs, which the counter does not know.
_ATTENTION = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention_flops}


def count_macs(network: nn.Module, x: Any) -> int:
    """Count multiply-adds of convolutions and matrix products for one example, without biases.

    Args:
        network: A network, in evaluation mode.
        x: A batch of one.

    Example:
        >>> count_macs(nn.Conv2d(3, 8, 3, padding=1), torch.zeros(1, 3, 4, 4))
        3456
    """
    assert size(x) == 1
    with torch.no_grad(), FlopCounterMode(display=False, custom_mapping=_ATTENTION) as mode:
        network(x)
    return mode.get_total_flops() // 2


class _Elementwise(TorchDispatchMode):
    """Counts what BatchNorm and ReLU write, below the level of modules."""

    counted = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        name = str(func)
        if "batch_norm" in name:
            self.counted += 2 * out[0].numel()
        elif "relu" in name or "hardtanh" in name:
            self.counted += out.numel()
        return out


def count_bn_relu(network: nn.Module, x: Tensor) -> int:
    """Count 2 per element that BatchNorm writes and 1 per element that ReLU or ReLU6 writes, for one example.

    Args:
        network: A network, in evaluation mode.
        x: A batch of one.
    """
    with torch.no_grad(), _Elementwise() as mode:
        network(x)
    return mode.counted
