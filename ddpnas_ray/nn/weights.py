"""Supernet weights: one flat buffer, slices of it for single architectures, and the merge of trained slices.

The driver owns the flat float32 master. An architecture's slice has two parts, each flat as well: the *shared* pieces,
which every architecture of the epoch uses, and its *own*. Pieces start at multiples of 64 bytes, so that vectorised
arithmetic takes the same path wherever the slice lies: part of what makes results bit-equal in every process (on one
kind of device).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd

Float32Array = npt.NDArray[np.float32]
ALIGN = 16  # float32 elements: 64 bytes


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a supernet parameter that one architecture uses.

    Args:
        name: Parameter name in the supernet and in the stand-alone network.
        shape: Shape of the part.
        slices: Index of the part; None is all of it.
        frozen: It gets no gradient, so weight decay leaves it alone too.
    """

    name: str
    shape: tuple[int, ...]
    slices: tuple[slice, ...] | None = None
    frozen: bool = False

    @property
    def size(self) -> int:
        """Number of elements."""
        return prod(self.shape)


@dataclass(frozen=True, slots=True)
class Layout:
    """Where pieces lie in a flat buffer.

    Args:
        pieces: The pieces, in order.
        offsets: First element of each, a multiple of ``ALIGN``.
        size: Elements of the buffer, padding included.
    """

    pieces: tuple[Piece, ...]
    offsets: tuple[int, ...]
    size: int

    @classmethod
    def of(cls, pieces: Iterable[Piece]) -> Layout:
        """Lay pieces out one after the other."""
        pieces, offsets, end = tuple(pieces), [], 0
        for piece in pieces:
            offsets.append(end)
            end += -(-piece.size // ALIGN) * ALIGN
        return cls(pieces, tuple(offsets), end)

    def views(self, flat: Float32Array) -> list[Float32Array]:
        """Return the pieces as views of the buffer, in their shapes."""
        return [
            flat[offset : offset + piece.size].reshape(piece.shape)
            for piece, offset in zip(self.pieces, self.offsets, strict=True)
        ]


class Weights:
    """The master: every supernet weight in one flat array.

    Args:
        tensors: Name -> array, in the supernet's order.
    """

    def __init__(self, tensors: Mapping[str, npt.NDArray[np.float32]]) -> None:
        self.layout = Layout.of(Piece(name, tensor.shape) for name, tensor in tensors.items())
        self.flat = np.zeros(self.layout.size, dtype=np.float32)
        self.tensors = dict(zip(tensors, self.layout.views(self.flat), strict=True))
        for name, tensor in tensors.items():
            self.tensors[name][...] = tensor

    def cut(self, layout: Layout) -> Float32Array:
        """Copy pieces out into a flat buffer of their own."""
        flat = np.zeros(layout.size, dtype=np.float32)
        for piece, view in zip(layout.pieces, layout.views(flat), strict=True):
            view[...] = self._part(piece)
        return flat

    def merge(self, learned: Sequence[tuple[Layout, Float32Array]]) -> None:
        """Merge the trained slices of an epoch's architectures, in place.

        Every element becomes W plus the mean change over the architectures that trained it, that is the mean of their
        final values. Elements that one architecture trained are copied exactly; elements that none trained stay
        bit-identical. Sums run in the given order, in float64.

        Args:
            learned: A slice's layout and its new values, one per architecture, in architecture order.
        """
        by_name: dict[str, list[tuple[Piece, Float32Array]]] = {}
        for layout, flat in learned:
            for piece, view in zip(layout.pieces, layout.views(flat), strict=True):
                by_name.setdefault(piece.name, []).append((piece, view))
        for name, parts in by_name.items():
            if len(parts) == 1:
                self._part(parts[0][0])[...] = parts[0][1]
                continue
            tensor = self.tensors[name]
            total, count = np.zeros(tensor.shape), np.zeros(tensor.shape, dtype=np.int32)
            for piece, values in parts:
                index = ... if piece.slices is None else piece.slices
                total[index] += values
                count[index] += 1
            trained = count > 0
            tensor[trained] = (total[trained] / count[trained]).astype(np.float32)

    def _part(self, piece: Piece) -> Float32Array:
        tensor = self.tensors[piece.name]
        return tensor if piece.slices is None else tensor[piece.slices]


def split_shared(paths: Sequence[Sequence[Piece]]) -> tuple[Layout, list[Layout]]:
    """Split an epoch's paths into the pieces that all of them use and those of each alone.

    Args:
        paths: The pieces of every architecture.

    Returns:
        The shared layout, and one layout per architecture for the rest. A single path shares nothing.
    """
    if len(paths) < 2:
        return Layout.of(()), [Layout.of(path) for path in paths]
    keys = [{_key(piece) for piece in path} for path in paths]
    shared = set.intersection(*keys)
    own = [Layout.of(piece for piece in path if _key(piece) not in shared) for path in paths]
    return Layout.of(piece for piece in paths[0] if _key(piece) in shared), own


def joined(shared: Layout, own: Layout) -> Layout:
    """Return the layout of an architecture's whole slice: shared pieces, then its own."""
    return Layout(
        shared.pieces + own.pieces, shared.offsets + tuple(shared.size + o for o in own.offsets), shared.size + own.size
    )


def bind(network: nn.Module, layout: Layout, flat: torch.Tensor) -> nn.Parameter:
    """Make a network's parameters views of a flat buffer, gradients included.

    One tensor then holds all of them: the optimiser steps it, clipping takes its norm, and after training it is the
    slice to send back.

    Args:
        network: A stand-alone network; its parameters may be on the meta device.
        layout: Where each parameter lies.
        flat: The buffer, float32, on the device to train on; changed by training.

    Returns:
        The buffer as a parameter whose ``grad`` collects all gradients.
    """
    whole = nn.Parameter(flat)
    whole.grad = torch.zeros_like(flat)
    for piece, offset in zip(layout.pieces, layout.offsets, strict=True):
        module_name, _, name = piece.name.rpartition(".")
        part = nn.Parameter(flat[offset : offset + piece.size].view(piece.shape))
        part.grad = whole.grad[offset : offset + piece.size].view(piece.shape)
        network.get_submodule(module_name).register_parameter(name, part)
    return whole


class Shadow:
    """A bfloat16 copy of bound weights with which convolutions and linear layers compute under autocast.

    It is cast as one tensor, once a step; autocast would cast the weights one by one, in every pass, to the same bits.

    Args:
        network: A network that is bound to ``whole``; gets the copy's views as weights.
        layout: Where each parameter lies.
        whole: The flat weights, see ``bind``.
    """

    def __init__(self, network: nn.Module, layout: Layout, whole: nn.Parameter) -> None:
        self._whole = whole
        self._flat = torch.zeros_like(whole, dtype=torch.bfloat16, requires_grad=False)
        self._grad = torch.zeros_like(self._flat)
        for piece, offset in zip(layout.pieces, layout.offsets, strict=True):
            module_name, _, name = piece.name.rpartition(".")
            module, at = network.get_submodule(module_name), slice(offset, offset + piece.size)
            if name == "weight" and isinstance(module, _ConvNd | nn.Linear):
                part = nn.Parameter(self._flat[at].view(piece.shape))
                part.grad = self._grad[at].view(piece.shape)
                module.register_parameter(name, part)
        self.cast()

    def cast(self) -> None:
        """Copy the weights."""
        self._flat.copy_(self._whole.detach())

    def collect(self) -> None:
        """Add the gradients of a backward pass to those of the weights."""
        self._whole.grad.add_(self._grad)  # type: ignore[union-attr]
        self._grad.zero_()


def _key(piece: Piece) -> tuple[str, tuple[tuple[int | None, int | None, int | None], ...] | None]:
    slices = piece.slices
    return piece.name, None if slices is None else tuple((s.start, s.stop, s.step) for s in slices)
