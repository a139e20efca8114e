"""Texts to token ids: the tokenizer of a pretrained model, or a WordPiece trained on the task's own texts."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ddpnas_ray.core.errors import ConfigError, DataError
from ddpnas_ray.core.space import IntArray
from ddpnas_ray.storage.hub import offline_where_unreachable, refuse_absent
from ddpnas_ray.tasks.text.wordpiece import SPECIAL, train

AT_ONCE = 10_000  # texts; the library's own results take twenty times the memory of ours


@dataclass(frozen=True, slots=True, eq=False)
class Tokenizer:
    """A tokenizer with all that it needs; picklable, and Ray shares its array without a copy.

    Args:
        state: JSON of the tokenizers library, in UTF-8: ``tokenizer.json`` of a Hugging Face folder.
        vocabulary: Number of token ids.
        pad_id: Id of the padding.
        positions: Longest sequence that the pretrained model takes; None: trained here, without a limit.
    """

    state: npt.NDArray[np.uint8]
    vocabulary: int
    pad_id: int
    positions: int | None

    def encode(
        self, columns: Sequence[Sequence[str]], max_length: int
    ) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.uint8], IntArray]:
        """Encode N texts, or N pairs of texts.

        Args:
            columns: One or two columns of texts.
            max_length: Longer ones lose their end; of pairs, token by token that of the longer text.

        Returns:
            Token ids and token types, one example after the other, and the end of each example, shape (N,).
        """
        backend = self.backend()
        backend.no_padding()
        backend.enable_truncation(max_length, strategy="longest_first")
        ids: list[npt.NDArray[np.int32]] = [np.empty(0, dtype=np.int32)]
        types: list[npt.NDArray[np.uint8]] = [np.empty(0, dtype=np.uint8)]
        lengths: list[int] = []
        for start in range(0, len(columns[0]), AT_ONCE):
            texts = [column[start : start + AT_ONCE] for column in columns]
            found = backend.encode_batch(list(texts[0] if len(texts) == 1 else zip(*texts, strict=True)))
            lengths += [len(one.ids) for one in found]
            ids.append(np.array([i for one in found for i in one.ids], dtype=np.int32))
            types.append(np.array([t for one in found for t in one.type_ids], dtype=np.uint8))
        return np.concatenate(ids), np.concatenate(types), np.cumsum(lengths, dtype=np.int64)

    def backend(self) -> Any:
        """Return it as a ``tokenizers.Tokenizer``."""
        import tokenizers

        return tokenizers.Tokenizer.from_str(self.state.tobytes().decode())

    def to_json(self, max_length: int) -> str:
        """Return its state with what ``encode`` does: cut at ``max_length``, and pad to the longest of a batch."""
        backend = self.backend()
        backend.enable_truncation(max_length, strategy="longest_first")
        backend.enable_padding(pad_id=self.pad_id, pad_token=backend.id_to_token(self.pad_id))
        text: str = backend.to_str()
        return text

    @classmethod
    def trained(cls, texts: Iterable[str], vocabulary: int) -> Tokenizer:
        """Train an uncased WordPiece on texts; equal texts in any order give the same one.

        Args:
            texts: The texts.
            vocabulary: Most token ids.
        """
        import tokenizers
        from tokenizers import decoders, models, normalizers, pre_tokenizers, processors

        normalizer, words = normalizers.BertNormalizer(lowercase=True), pre_tokenizers.BertPreTokenizer()
        counts: Counter[str] = Counter()
        for text, times in Counter(texts).items():
            for word, _ in words.pre_tokenize_str(normalizer.normalize_str(text)):
                counts[word] += times
        ids = {piece: i for i, piece in enumerate(train(counts, vocabulary))}
        found = tokenizers.Tokenizer(models.WordPiece(ids, unk_token="[UNK]"))
        found.normalizer, found.pre_tokenizer, found.decoder = normalizer, words, decoders.WordPiece()
        found.post_processor = processors.BertProcessing(("[SEP]", ids["[SEP]"]), ("[CLS]", ids["[CLS]"]))
        found.add_special_tokens(list(SPECIAL))
        return cls(_bytes(found), len(ids), ids["[PAD]"], None)

    @classmethod
    def pretrained(cls, name: str, key: str) -> Tokenizer:
        """Load the tokenizer of a pretrained model; imports transformers.

        Args:
            name: Name on the Hugging Face hub, or a local folder.
            key: The configuration key that holds it, for messages.

        Raises:
            ConfigError: It has no padding, or is not of the tokenizers library.
            DataError: It does not exist, is damaged, or the hub cannot be reached.
        """
        refuse_absent(name, key)
        try:
            from transformers import AutoTokenizer
        except ImportError as error:
            raise DataError(f"{key}={name} needs the package transformers ({error}): pip install it") from None
        local = Path(name).expanduser()
        try:
            if local.exists():
                found = AutoTokenizer.from_pretrained(str(local))
            else:
                with offline_where_unreachable(name, key, f"save_pretrained(FOLDER) the tokenizer of {name!r}"):
                    found = AutoTokenizer.from_pretrained(name)
        except DataError:
            raise
        except Exception as error:  # OSError, ValueError, KeyError, ... by how it is damaged
            why = str(error).strip().partition("\n")[0] or type(error).__name__
            raise DataError(f"{key}={name}: cannot be loaded as a tokenizer ({why})") from None
        if not found.is_fast:
            raise ConfigError(f"{key}={name}: a {type(found).__name__}; only those with a tokenizer.json can be used")
        if found.pad_token_id is None:
            raise ConfigError(
                f"{key}={name}: it has no padding token, as those of decoder-only models; name the model of an encoder"
            )
        limits = [found.model_max_length, *_positions(local)]
        return cls(_bytes(found.backend_tokenizer), len(found), found.pad_token_id, min(limits))


def _positions(folder: Path) -> list[int]:
    """Return the number of positions of the model in a folder, if it says so."""
    try:
        positions = json.loads((folder / "config.json").read_text(encoding="utf-8"))["max_position_embeddings"]
    except (OSError, ValueError, KeyError, TypeError):
        return []  # a tokenizer without its model
    return [positions] if isinstance(positions, int) else []


def _bytes(backend: Any) -> npt.NDArray[np.uint8]:
    return np.frombuffer(backend.to_str().encode(), dtype=np.uint8)
