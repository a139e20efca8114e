"""A small pretrained BERT in a folder, as ``save_pretrained`` writes it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import BertConfig, BertForSequenceClassification, BertModel

SIZES = {
    "vocab_size": 90,
    "hidden_size": 24,
    "num_hidden_layers": 4,
    "num_attention_heads": 6,
    "intermediate_size": 48,
    "max_position_embeddings": 40,
}


def stock(outputs: int = 3, seed: int = 0, **sizes: Any) -> BertForSequenceClassification:
    """Return a stock model with weights large enough to tell networks apart."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = BertForSequenceClassification(
            BertConfig(**SIZES | {"initializer_range": 0.2, "num_labels": outputs} | sizes)
        )
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.ndim == 1:  # biases and norms too
                    parameter += 0.1 * torch.randn_like(parameter)
    return model.eval()


def saved(folder: Path, *, bare: bool = False, **sizes: Any) -> str:
    """Save a stock model, or its encoder without pooler and output layer, and return the folder."""
    model: Any = stock(**sizes)
    if bare:
        encoder = BertModel(model.config, add_pooling_layer=False)
        encoder.load_state_dict(model.bert.state_dict(), strict=False)
        model = encoder
    model.save_pretrained(folder)
    return str(folder)
