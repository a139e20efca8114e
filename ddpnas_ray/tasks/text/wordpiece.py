"""Train a WordPiece vocabulary: a pure function of the words, where the tokenizers library gives another each time."""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from collections.abc import Mapping
from itertools import pairwise

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
LONGEST_WORD = 100  # characters; longer words are [UNK], as in BERT
INSIDE = "##"  # marks a piece that does not start a word


def train(counts: Mapping[str, int], size: int) -> list[str]:
    """Merge the most frequent pair of neighbouring pieces until the vocabulary is full, or no pair comes twice.

    Words are encoded with the result by the longest match from the left, as BERT's. Ties go to the pair that sorts
    first, so the order of the texts does not matter.

    Args:
        counts: How often each word occurs.
        size: Most pieces; single characters take at most half of them, the most frequent ones.

    Returns:
        The pieces, special tokens first; a piece's id is its index.

    Example:
        >>> train({"low": 3, "lower": 2}, 100)[len(SPECIAL):]
        ['##o', '##w', 'l', '##e', '##r', '##ow', 'low', '##er', 'lower']
    """
    characters: Counter[str] = Counter()
    for word, count in counts.items():
        for i, character in enumerate(word[:LONGEST_WORD]):
            characters[character if i == 0 else INSIDE + character] += count
    alphabet = sorted(characters, key=lambda piece: (-characters[piece], piece))[: max(0, size - len(SPECIAL)) // 2]
    known = set(alphabet)
    split = [[word[0], *(INSIDE + character for character in word[1:])] for word in sorted(counts)]
    words = [(pieces, counts[word]) for word, pieces in zip(sorted(counts), split, strict=True)]
    words = [(pieces, count) for pieces, count in words if len(pieces) <= LONGEST_WORD and known.issuperset(pieces)]

    pairs: Counter[tuple[str, str]] = Counter()
    having: dict[tuple[str, str], set[int]] = defaultdict(set)  # words that have, or had, a pair
    for i, (pieces, count) in enumerate(words):
        for pair in pairwise(pieces):
            pairs[pair] += count
            having[pair].add(i)
    heap = [(-count, pair) for pair, count in pairs.items()]
    heapq.heapify(heap)
    vocabulary = dict.fromkeys((*SPECIAL, *alphabet))
    while len(vocabulary) < size and heap:
        count, pair = heapq.heappop(heap)
        if pairs[pair] != -count:  # an outdated entry: the count of then
            continue
        if -count < 2:
            break
        piece = pair[0] + pair[1].removeprefix(INSIDE)
        vocabulary[piece] = None
        changes: Counter[tuple[str, str]] = Counter()
        for i in having.pop(pair):
            pieces, often = words[i]
            merged = _merged(pieces, pair, piece)
            for sign, form in ((-1, pieces), (1, merged)):
                for near in pairwise(form):
                    changes[near] += sign * often
            for near in pairwise(merged):
                having[near].add(i)
            words[i] = (merged, often)
        for near, change in changes.items():
            if change:
                pairs[near] += change
                heapq.heappush(heap, (-pairs[near], near))
    return list(vocabulary)


def _merged(pieces: list[str], pair: tuple[str, str], piece: str) -> list[str]:
    """Replace every occurrence of a pair, from the left."""
    found: list[str] = []
    i = 0
    while i < len(pieces):
        together = i + 1 < len(pieces) and (pieces[i], pieces[i + 1]) == pair
        found.append(piece if together else pieces[i])
        i += 1 + together
    return found
