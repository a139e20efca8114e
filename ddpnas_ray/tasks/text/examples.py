"""Encoded texts, and batches of them: texts of similar length together, padded to the longest of the batch.

Axes: N examples, B examples of a batch, T tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ddpnas_ray.core.sampling import rng_for
from ddpnas_ray.core.space import FloatArray, IntArray
from ddpnas_ray.data.batches import epoch_order

BUCKET_KEY = 0x4255434B
POOL = 32  # batches among which examples are sorted by length


@dataclass(frozen=True, slots=True, eq=False)
class Examples:
    """N encoded examples. Arrays of tokens are one example after the other; Ray shares them without a copy.

    Args:
        ids: Token ids, int32.
        types: Token types, uint8: 0, and 1 for the second text of a pair.
        ends_N: End of each example in ``ids``, shape (N,).
        labels_N: Class numbers, or numbers to predict, float64, shape (N,).
        parts_N: Part of the data that each one belongs to, shape (N,).
    """

    ids: npt.NDArray[np.int32]
    types: npt.NDArray[np.uint8]
    ends_N: IntArray
    labels_N: FloatArray
    parts_N: IntArray

    def __len__(self) -> int:
        return len(self.ends_N)

    @property
    def lengths_N(self) -> IntArray:
        """Tokens of each example, shape (N,)."""
        return np.diff(self.ends_N, prepend=0)

    def picked(self, rows: IntArray) -> Examples:
        """Return some examples, in the order of their numbers."""
        at, lengths = self._places(rows)
        return Examples(self.ids[at], self.types[at], np.cumsum(lengths), self.labels_N[rows], self.parts_N[rows])

    @classmethod
    def joined(cls, several: Sequence[Examples]) -> Examples:
        """Return the examples of several, one after the other."""
        offsets = np.cumsum([0, *(len(one.ids) for one in several)])
        ends = [one.ends_N + offset for one, offset in zip(several, offsets, strict=False)]
        return cls(
            np.concatenate([one.ids for one in several]),
            np.concatenate([one.types for one in several]),
            np.concatenate(ends),
            np.concatenate([one.labels_N for one in several]),
            np.concatenate([one.parts_N for one in several]),
        )

    def padded(self, rows: IntArray, width: int, pad_id: int) -> dict[str, IntArray]:
        """Return inputs of a network: ``input_ids``, ``attention_mask`` and ``token_type_ids``, shape (B, width).

        Args:
            rows: The B examples, none longer than ``width``.
            width: T.
            pad_id: Id of the padding.
        """
        at, lengths = self._places(rows)
        mask_BT = np.arange(width) < lengths[:, None]
        ids_BT, types_BT = np.full(mask_BT.shape, pad_id, dtype=np.int64), np.zeros(mask_BT.shape, dtype=np.int64)
        ids_BT[mask_BT], types_BT[mask_BT] = self.ids[at], self.types[at]
        return {"input_ids": ids_BT, "attention_mask": mask_BT.astype(np.int64), "token_type_ids": types_BT}

    def _places(self, rows: IntArray) -> tuple[IntArray, IntArray]:
        """Return the places of the examples' tokens in ``ids``, and their numbers, shape (B,)."""
        starts = np.where(rows > 0, self.ends_N[rows - 1], 0)
        lengths = self.ends_N[rows] - starts
        before = np.cumsum(lengths) - lengths
        return np.repeat(starts - before, lengths) + np.arange(lengths.sum()), lengths


def bucketed_order(lengths_N: IntArray, batch_size: int, seed: int, epoch: int) -> list[IntArray]:
    """Permute the examples and cut them into batches of similar lengths, which come in random order.

    An incomplete last batch is dropped before the sorting, so no length is dropped more often than others.

    Args:
        lengths_N: Tokens of each example, shape (N,).
        batch_size: Examples per batch.
        seed: Keys the permutations.
        epoch: Keys the permutations.

    Returns:
        Index arrays of length ``batch_size``; one shorter one if there are fewer examples.

    Example:
        >>> sorted(sorted(rows.tolist()) for rows in bucketed_order(np.array([9, 1, 9, 1]), 2, seed=0, epoch=0))
        [[0, 2], [1, 3]]
    """
    batches = epoch_order(len(lengths_N), batch_size, seed, epoch)
    found: list[IntArray] = []
    for start in range(0, len(batches), POOL):
        pool = np.concatenate(batches[start : start + POOL])
        by_length = pool[np.argsort(lengths_N[pool], kind="stable")]
        found += np.split(by_length, len(batches[start : start + POOL]))
    return [found[i] for i in rng_for(seed, BUCKET_KEY, epoch).permutation(len(found))]
