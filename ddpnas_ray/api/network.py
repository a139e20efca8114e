"""Networks of the Python API, and what training one gives."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ddpnas_ray.api.arguments import Config, Overrides, config_of, display_of, place_of, texts_of
from ddpnas_ray.core.errors import ConfigError
from ddpnas_ray.launch import retraining as launch
from ddpnas_ray.retraining.choice import Chosen
from ddpnas_ray.retraining.files import read_retrained, read_trained
from ddpnas_ray.retraining.prepare import Wish
from ddpnas_ray.retraining.retraining import deploy_network
from ddpnas_ray.spaces.target import Target
from ddpnas_ray.storage.folder import Folder

if TYPE_CHECKING:
    from torch import nn


@dataclasses.dataclass(frozen=True, repr=False)
class Network:
    """An architecture with the deploy network to train and use: of a search, or a published one.

    Args:
        chosen: The architecture, and where it comes from.
        run: Run directory of the search that found it; None: a published network, or one of a training.
    """

    chosen: Chosen
    run: str | None = None

    @property
    def label(self) -> str:
        """``result``, the budget it was generated for (further networks of a budget end in their rank), or its name."""
        return self.chosen.label

    @property
    def genotype(self) -> dict[str, Any]:
        """The architecture, plain JSON in the form of its space."""
        return dict(self.chosen.genotype)

    @property
    def costs(self) -> dict[str, int]:
        """Exact costs of the deploy network: ``params``, ``macs`` (multiply-adds per example), and its space's own."""
        return dict(self.chosen.costs)

    @property
    def target(self) -> Target:
        """The deploy network whose costs are counted: image size, classes, and cells and channels if it has them."""
        return self.chosen.target

    @property
    def expectation(self) -> float | None:
        """E[alpha] (Eq. 9) in the search that found it; None for a published network."""
        value = self.chosen.search.get("expectation")
        return None if value is None else float(value)

    def module(self) -> nn.Module:
        """Build the deploy network with fresh weights from torch's generator.

        Returns:
            An ``nn.Module`` for inputs of shape (N, channels, side, side); its outputs are logits, (N, classes).
        """
        return deploy_network(self.chosen)

    def retrain(
        self,
        *,
        config: Config | None = None,
        out: str | Path | None = None,
        resume: bool = False,
        overrides: Overrides = (),
        address: str | None = None,
        progress: bool = True,
    ) -> TrainedRun:
        """Train it for use, by the recipe in section ``retraining`` of a configuration.

        Args:
            config: As for ``search``; None is that of its search. Networks without a run need one, for data and
                recipe.
            out: Folder of the training, local or a URI; None is ``RUN/retrained/<label>``, or one below ``runs/``.
            resume: Continue from the latest checkpoint; of a finished training, only return it.
            overrides: Such as ``{"retraining.epochs": 20, "execution.backend": "local"}``.
            address: Ray cluster, as for ``search``.
            progress: Whether to show the progress.

        Raises:
            DdpnasError: Bad input, or what ended the training; finished epochs are saved.
        """
        if self.run is None and config is None and not resume:
            raise ConfigError(
                f"network {self.label} has no run: give the configuration with its data and recipe, such as "
                'config="cifar10_cell", or use run.retrain(network)'
            )
        return train(self, self.run, config, out, resume, overrides, address, progress)

    def __repr__(self) -> str:
        found = "" if self.expectation is None else f", E[alpha] {self.expectation:.4f}"
        return f"<Network {self.label}: {costs_text(self.chosen.costs)}{found}>"

    def _repr_html_(self) -> str:
        from ddpnas_ray.reporting.cards import network_card

        chosen, target = self.chosen, dataclasses.asdict(self.chosen.target)
        return network_card(chosen.label, chosen.genotype, chosen.costs, target, chosen.spec.space, self.expectation)


class TrainedRun:
    """A finished retraining: a network with trained weights, and its scores.

    Args:
        path: Its folder, a local path or a URI.
    """

    def __init__(self, path: str) -> None:
        self.path = path

    @cached_property
    def result(self) -> dict[str, Any]:
        """Content of ``result.json``: network, scores, trainings by seed, fingerprint of the weights, and more."""
        return read_retrained(Folder.open(self.path))

    @property
    def scores(self) -> list[dict[str, Any]]:
        """Its scores: ``split``, ``metric``, ``value`` (a fraction), ``std`` over ``seeds``, ``weights``."""
        return list(self.result["scores"])

    @property
    def network(self) -> Network:
        """Its architecture, without the weights."""
        return Network(Chosen.read(Folder.open(self.path)))

    def module(self) -> nn.Module:
        """Build the network with its trained weights, in evaluation mode, on the CPU.

        Raises:
            RunDirError: The weights are not those that the training wrote.
        """
        chosen, tensors, _ = read_trained(Folder.open(self.path))
        return deploy_network(chosen, tensors).eval()

    def export(self, out: str | Path | None = None, *, forms: Sequence[str] | None = None) -> Path:
        """Write it to files that need nothing of this package; every form is loaded back and compared.

        Args:
            out: Model folder, local; None: ``RUN/model``, or ``RUN/model-<label>`` if the run has several networks.
            forms: ``torch``, ``huggingface``, ``onnx``, ``pt2``, of texts ``onnx_int8``; None: all that are possible.

        Returns:
            The model folder.

        Raises:
            DdpnasError: The folder holds other files, a package is missing, or a form does not compute the same.
        """
        from ddpnas_ray.launch.exporting import export

        return export(Folder.open(self.path), None if out is None else str(out), forms=forms).folder

    def __repr__(self) -> str:
        from ddpnas_ray.reporting.retrained import score_text

        scores = "; ".join(map(score_text, self.scores)) or "no score"
        return f"<TrainedRun {self.path}: {self.result['label']}, {scores}>"

    def _repr_html_(self) -> str:
        from ddpnas_ray.reporting.cards import retrained_card

        return retrained_card(self.result, self.path, Chosen.read(Folder.open(self.path)).spec.space)


def train(
    network: Network,
    run: str | None,
    config: Config | None,
    out: str | Path | None,
    resume: bool,
    overrides: Overrides,
    address: str | None,
    progress: bool,
) -> TrainedRun:
    """Train a network; ``run`` is the run directory whose configuration is the default, and that keeps the training.

    Raises:
        DdpnasError: See ``Network.retrain``.
    """
    texts = texts_of(overrides)
    wish = Wish(
        run=run,
        config=None if config is None else config_of(config, texts),
        overrides=texts,
        chosen=network.chosen,
    )
    place = launch.folder_of(wish, None if out is None else place_of(out), resume=resume)
    launch.retrain(wish, place, display_of(f"ddpnas retrain: {place}", progress), resume=resume, address=address)
    return TrainedRun(place)


def costs_text(costs: Mapping[str, int]) -> str:
    """Return params and macs as text."""
    return ", ".join(f"{value:,} {name}" for name, value in costs.items() if name in ("params", "macs"))
