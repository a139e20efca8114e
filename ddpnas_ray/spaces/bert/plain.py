"""Source of a BERT in plain PyTorch, with the parameter names of ``transformers.BertForSequenceClassification``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ddpnas_ray.core.space import IntArray
from ddpnas_ray.spaces.bert.costs import Encoder
from ddpnas_ray.spaces.plain import render
from ddpnas_ray.spaces.target import Target

TEMPLATE = Path(__file__).with_name("plain.py.j2")


def network_source(encoder: Encoder, alpha_E: IntArray, target: Target) -> str:
    """Write the network as Python source; its weights are those of the deploy network, in the same order.

    Layers are numbered from 0 without gaps.

    Args:
        encoder: The encoders.
        alpha_E: The architecture.
        target: Vocabulary and number of outputs.
    """
    sizes = encoder.sizes(alpha_E)
    layers = [(layer, heads, ffn) for layer, (heads, ffn) in sizes.items()]
    vocabulary = encoder.vocabulary or target.vocabulary
    return render(TEMPLATE, encoder=encoder, layers=layers, vocabulary=vocabulary, target=target)


def stock_config(encoder: Encoder, alpha_E: IntArray, target: Target) -> dict[str, Any] | None:
    """Return the configuration of a stock BERT that is the same network; None: its layers differ, or have fewer heads.

    A stock BERT's heads are together as wide as its hidden states.

    Args:
        encoder: The encoders.
        alpha_E: The architecture.
        target: Vocabulary.
    """
    sizes = set(encoder.sizes(alpha_E).values())
    if len(sizes) > 1:
        return None
    ((heads, ffn),) = sizes
    if heads != encoder.heads:
        return None
    return {
        "model_type": "bert",
        "architectures": ["BertForSequenceClassification"],
        "vocab_size": encoder.vocabulary or target.vocabulary,
        "hidden_size": encoder.hidden,
        "num_hidden_layers": len(encoder.sizes(alpha_E)),
        "num_attention_heads": heads,
        "intermediate_size": ffn,
        "max_position_embeddings": encoder.positions,
        "type_vocab_size": 2,
        "hidden_act": encoder.activation,
        "hidden_dropout_prob": encoder.dropout,
        "attention_probs_dropout_prob": encoder.attention_dropout,
        "layer_norm_eps": encoder.norm_eps,
        "initializer_range": encoder.std,
    }
