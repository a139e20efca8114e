"""A WordPiece vocabulary is a pure function of the words' counts."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ddpnas_ray.tasks.text.wordpiece import SPECIAL, train

words = st.dictionaries(st.text("abcé漢", min_size=1, max_size=8), st.integers(1, 50), max_size=30)


def merged_slowly(counts: dict[str, int], size: int) -> list[str]:
    """The same by counting all pairs anew after every merge."""
    found = list(train(counts, 0))
    characters: Counter[str] = Counter()
    split = {word: [("##" if i else "") + character for i, character in enumerate(word)] for word in counts}
    for word, pieces in split.items():
        for piece in pieces:
            characters[piece] += counts[word]
    found += sorted(characters, key=lambda piece: (-characters[piece], piece))[: max(0, size - len(SPECIAL)) // 2]
    split = {word: pieces for word, pieces in split.items() if set(pieces) <= set(found)}
    while len(found) < size:
        pairs: Counter[tuple[str, str]] = Counter()
        for word, pieces in split.items():
            for pair in zip(pieces, pieces[1:], strict=False):  # noqa: RUF007
                pairs[pair] += counts[word]
        best = min(pairs, key=lambda pair: (-pairs[pair], pair), default=None)
        if best is None or pairs[best] < 2:
            break
        piece = best[0] + best[1].removeprefix("##")
        found += [piece] * (piece not in found)
        for pieces in split.values():
            i = 0
            while i + 1 < len(pieces):
                if (pieces[i], pieces[i + 1]) == best:
                    pieces[i : i + 2] = [piece]
                i += 1
    return found


@given(counts=words, size=st.integers(0, 60))
def test_it_merges_the_most_frequent_pair_again_and_again(counts: dict[str, int], size: int) -> None:
    assert train(counts, size) == merged_slowly(counts, size)


@given(counts=words, size=st.integers(5, 60))
def test_the_order_of_the_words_does_not_matter_and_no_piece_comes_twice(counts: dict[str, int], size: int) -> None:
    found = train(counts, size)
    assert found == train(dict(reversed(counts.items())), size)
    assert tuple(found[:5]) == SPECIAL and len(set(found)) == len(found) <= size


@pytest.mark.parametrize("word", ["a" * 99, "ab" * 50, "a" * 101])
def test_repeated_and_very_long_words_end(word: str) -> None:
    found = train({word: 5}, 100)
    assert (word in found) == (len(word) <= 100)
