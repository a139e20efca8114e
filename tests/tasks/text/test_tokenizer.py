"""Tokenizers: trained on the task's texts, or of a pretrained model; cut texts, and pairs."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from transformers import BertTokenizer, PreTrainedTokenizerFast

from ddpnas_ray.core.errors import ConfigError, DataError
from ddpnas_ray.tasks.text.tokenizer import Tokenizer

TEXTS = ["The cat sat.", "A cat, a dog!", "Das Café ist schön", "the dog sat on the cat", "漢字 も", "a [SEP] b [MASK]"]
AWKWARD = [*TEXTS, "", " ", "\u200b", "x" * 500, "never seen ☃", "a\tb\nc", "🙂" * 3]


@pytest.fixture
def tokenizer() -> Tokenizer:
    return Tokenizer.trained(TEXTS * 3, 100)


@pytest.fixture
def folder(tokenizer: Tokenizer, tmp_path: Path) -> Path:
    """A pretrained model's folder."""
    theirs(tokenizer).save_pretrained(tmp_path / "bert")
    (tmp_path / "bert" / "config.json").write_text(json.dumps({"max_position_embeddings": 64, "model_type": "bert"}))
    return tmp_path / "bert"


def theirs(tokenizer: Tokenizer) -> BertTokenizer:
    return BertTokenizer(vocab=tokenizer.backend().get_vocab())


def split(found: tuple[np.ndarray, np.ndarray, np.ndarray]) -> tuple[list[list[int]], list[list[int]]]:
    ids, types, ends = found
    return tuple([part.tolist() for part in np.split(array, ends[:-1])] for array in (ids, types))  # type: ignore[return-value]


@pytest.mark.parametrize("max_length", [8, 128])
def test_a_trained_one_encodes_as_bert_does(tokenizer: Tokenizer, max_length: int) -> None:
    for columns in ([AWKWARD], [AWKWARD, AWKWARD[::-1]]):
        wanted = theirs(tokenizer)(*columns, truncation=True, max_length=max_length)
        assert split(tokenizer.encode(columns, max_length)) == (wanted["input_ids"], wanted["token_type_ids"])


def test_it_is_the_same_for_the_same_texts_in_any_order_and_after_pickling(tokenizer: Tokenizer) -> None:
    for other in (Tokenizer.trained(TEXTS[::-1] * 3, 100), pickle.loads(pickle.dumps(tokenizer))):
        assert np.array_equal(other.state, tokenizer.state)
    assert not np.array_equal(Tokenizer.trained(TEXTS[:-1], 100).state, tokenizer.state)
    assert (tokenizer.pad_id, tokenizer.positions) == (0, None)
    assert tokenizer.vocabulary == tokenizer.backend().get_vocab_size() <= 100


def test_one_of_a_model_s_folder_encodes_as_transformers_does(tokenizer: Tokenizer, folder: Path) -> None:
    loaded = Tokenizer.pretrained(str(folder), "task.tokenizer")
    wanted = BertTokenizer.from_pretrained(folder)([*AWKWARD], truncation=True, max_length=16)
    assert split(loaded.encode([AWKWARD], 16))[0] == wanted["input_ids"]
    assert (loaded.vocabulary, loaded.pad_id, loaded.positions) == (tokenizer.vocabulary, 0, 64)
    assert split(tokenizer.encode([AWKWARD], 16)) == split(loaded.encode([AWKWARD], 16))


def test_no_texts_are_no_tokens(tokenizer: Tokenizer) -> None:
    ids, types, ends = tokenizer.encode([[]], 16)
    assert len(ids) == len(types) == len(ends) == 0


def test_what_cannot_be_used_is_refused_in_one_line(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"^/nowhere/bert: no such folder; set task\.tokenizer$"):
        Tokenizer.pretrained("/nowhere/bert", "task.tokenizer")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"^task\.tokenizer=.*empty: cannot be loaded as a tokenizer") as raised:
        Tokenizer.pretrained(str(tmp_path / "empty"), "task.tokenizer")
    assert "\n" not in str(raised.value)
    backend = Tokenizer.trained(TEXTS, 100).backend()
    PreTrainedTokenizerFast(tokenizer_object=backend).save_pretrained(tmp_path / "decoder")
    with pytest.raises(ConfigError, match="no padding token, as those of decoder-only models"):
        Tokenizer.pretrained(str(tmp_path / "decoder"), "task.tokenizer")
