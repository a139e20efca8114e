"""Compare modules forward and backward."""

from __future__ import annotations

import torch
from torch import Tensor, nn

CLOSE = {"rtol": 1e-4, "atol": 1e-5}


def nhwc(*shape: int, seed: int = 0) -> Tensor:
    found = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return found.contiguous(memory_format=torch.channels_last)


def passed(module: nn.Module, x: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Return the output, and the gradients of input and parameters for a fixed gradient of the output."""
    x = x.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    module.zero_grad()
    out = module(x)
    out.backward(torch.linspace(-1.0, 1.0, out.numel()).view(out.shape))
    assert x.grad is not None
    return out.detach(), [x.grad, *(p.grad.clone() for p in module.parameters() if p.grad is not None)]


def assert_equal(reference: nn.Module, fast: nn.Module, x: Tensor) -> None:
    (out, gradients), (other, others) = passed(reference, x), passed(fast, x)
    torch.testing.assert_close(other, out, **CLOSE)
    assert len(gradients) == len(others)
    for wanted, found in zip(gradients, others, strict=True):
        scale = max(1.0, float(wanted.abs().max()))
        torch.testing.assert_close(found / scale, wanted / scale, **CLOSE)
