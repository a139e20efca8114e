"""The pretrained BERT that a search begins with: its sizes, and its weights in the order of their importance."""

from __future__ import annotations

import json
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ddpnas_ray.core.errors import ConfigError, DataError
from ddpnas_ray.spaces.base import Losses
from ddpnas_ray.spaces.bert.costs import Encoder
from ddpnas_ray.storage.hub import offline_where_unreachable, refuse_absent

if TYPE_CHECKING:
    from torch import Tensor

    from ddpnas_ray.spaces.bert.network import BertNetwork

KEY = "space.model"
MAY_LACK = ("bert.pooler.", "classifier.")
SAVE = "save_pretrained(FOLDER) {!r}"
SIZES = {
    "hidden": "hidden_size",
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "ffn": "intermediate_size",
    "positions": "max_position_embeddings",
    "vocabulary": "vocab_size",
}
RATES = {"dropout": ("hidden_dropout_prob", 0.1), "attention_dropout": ("attention_probs_dropout_prob", 0.1)}
REST = {"norm_eps": ("layer_norm_eps", 1e-12), "std": ("initializer_range", 0.02)}


def found_at(model: str) -> str:
    """Return the absolute path of a model's folder, which holds in other processes too, or its name on the hub."""
    folder = Path(model).expanduser()
    return str(folder.absolute()) if folder.exists() else model


def encoder_config(model: str) -> dict[str, Any]:
    """Read the sizes of a pretrained BERT, as arguments of ``Encoder``.

    Args:
        model: Name on the Hugging Face hub, or folder.

    Raises:
        ConfigError: It is not a BERT encoder.
        DataError: It cannot be read.
    """
    refuse_absent(model, KEY)
    folder = Path(model).expanduser()
    config = _local_config(folder, model) if folder.exists() else _hub_config(model)
    if (kind := config.get("model_type")) != "bert":
        raise ConfigError(f"{KEY}={model} is a model of type {kind}; this space takes BERT encoders (model_type bert)")
    if config.get("is_decoder"):
        raise ConfigError(f"{KEY}={model} is a decoder; this space takes BERT encoders")
    if (kind := config.get("position_embedding_type", "absolute")) != "absolute":
        raise ConfigError(f"{KEY}={model} has positions of type {kind}; this space takes absolute ones")
    if (activation := config.get("hidden_act", "gelu")) not in ("gelu", "relu"):
        raise ConfigError(f"{KEY}={model} has the activation {activation}; this space takes gelu and relu")
    if config.get("type_vocab_size", 2) != 2:
        raise ConfigError(f"{KEY}={model} has {config['type_vocab_size']} token types; this space takes 2")
    found: dict[str, Any] = {"activation": activation}
    for name, key in SIZES.items():
        if not isinstance(config.get(key), int) or config[key] < 1:
            raise DataError(f"{KEY}={model}: config.json has {key} {config.get(key)!r}; it is damaged")
        found[name] = config[key]
    return found | {name: config.get(key, default) for name, (key, default) in {**RATES, **REST}.items()}


@dataclass(frozen=True, slots=True)
class Start:
    """Sets the first weights of a supernet to those of a pretrained model (``SpaceSpec.initialise``).

    Args:
        model: Name on the Hugging Face hub, or folder.
        encoder: The encoders.
        importance: Training examples by which heads and feed-forward units are ordered; 0: none.
    """

    model: str
    encoder: Encoder
    importance: int

    def __call__(self, supernet: BertNetwork, losses: Losses) -> None:
        """Load, order, and copy what the supernet holds; a pooler or output layer that the model lacks stays new.

        Raises:
            DataError: The weights cannot be read, or are not those of the model's configuration.
        """
        import torch

        from ddpnas_ray.spaces.bert.importance import order_by_importance
        from ddpnas_ray.spaces.bert.network import BertNetwork

        full = self.encoder.full
        vocabulary = supernet.get_parameter("bert.embeddings.word_embeddings.weight").shape[0]
        network = BertNetwork(full, full.largest, vocabulary, supernet.classifier.out_features)
        for name, parameter in supernet.named_parameters():
            if name.startswith(MAY_LACK):
                network.get_parameter(name).data.copy_(parameter.data)
        load_weights(self.model, network)
        if self.importance:
            order_by_importance(network, losses, self.importance)
        with torch.no_grad():
            for name, parameter in supernet.named_parameters():
                whole = network.get_parameter(name)
                parameter.copy_(whole[tuple(slice(0, size) for size in parameter.shape)])


def load_weights(model: str, network: BertNetwork) -> None:
    """Load the weights of a pretrained model; a pooler or output layer that it lacks is left as it is.

    Raises:
        DataError: They cannot be read, or have other shapes.
    """
    found = _weights(model, network.classifier.out_features)
    lacking = []
    for name, parameter in network.named_parameters():
        if name in found and found[name].shape == parameter.shape:
            parameter.data.copy_(found[name])
        elif name in found:
            raise DataError(
                f"{KEY}={model}: {name} has shape {list(found[name].shape)}, config.json says {list(parameter.shape)}; "
                "it is damaged"
            )
        elif not name.startswith(MAY_LACK):
            lacking.append(name)
    if lacking:
        raise DataError(f"{KEY}={model}: no weights {lacking[0]}; it is damaged")


def _weights(model: str, outputs: int) -> dict[str, Tensor]:
    """Return what a checkpoint has, by the names of ``transformers.BertForSequenceClassification``."""
    import torch

    transformers = _transformers(model)
    logging = transformers.utils.logging
    verbosity = logging.get_verbosity()
    bars = logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    reach = nullcontext() if Path(model).exists() else offline_where_unreachable(model, KEY, SAVE.format(model))
    try:
        with torch.random.fork_rng(devices=[]), reach:
            loaded, info = transformers.BertForSequenceClassification.from_pretrained(
                model,
                num_labels=outputs,
                ignore_mismatched_sizes=True,
                output_loading_info=True,
                dtype=torch.float32,
            )
    except DataError:
        raise
    except Exception as error:  # OSError, ValueError, SafetensorError, ... by how it is damaged
        why = str(error).strip().partition("\n")[0] or type(error).__name__
        raise DataError(f"{KEY}={model}: its weights cannot be loaded ({why})") from None
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
    other = {name: shape for name, shape, _ in info["mismatched_keys"] if not name.startswith("classifier.")}
    if other:
        name, shape = next(iter(other.items()))
        raise DataError(
            f"{KEY}={model}: {name} has shape {list(shape)}, which is not that of config.json; it is damaged"
        )
    absent = {*info["missing_keys"], *(name for name, *_ in info["mismatched_keys"])}
    return {name: tensor for name, tensor in loaded.state_dict().items() if name not in absent}


def _local_config(folder: Path, model: str) -> dict[str, Any]:
    try:
        found = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{KEY}={model}: no readable config.json in this folder ({error})") from None
    if not isinstance(found, dict):
        raise DataError(f"{KEY}={model}: config.json is not an object; it is damaged")
    return found


def _hub_config(model: str) -> dict[str, Any]:
    transformers = _transformers(model)
    try:
        with offline_where_unreachable(model, KEY, SAVE.format(model)):
            found: dict[str, Any] = transformers.AutoConfig.from_pretrained(model).to_dict()
    except DataError:
        raise
    except Exception as error:  # OSError, ValueError, ... by what is wrong with it
        why = str(error).strip().partition("\n")[0] or type(error).__name__
        raise DataError(f"{KEY}={model}: cannot be loaded ({why})") from None
    return found


def _transformers(model: str) -> Any:
    try:
        import transformers
    except ImportError as error:
        raise DataError(f"{KEY}={model} needs the package transformers ({error}): pip install it") from None
    return transformers
