"""The Python API: search, generate, retrain and report from a script or notebook. Imports neither torch nor ray.

``import ddpnas_ray as nas`` offers it. Errors are those of the commands, subclasses of ``DdpnasError``. Work runs on
the Ray cluster that this process is connected to (in a Ray job or task, or after ``ray.init``), and the connection
stays open; otherwise each call connects to ``address`` or starts a cluster, for its duration.
"""

from __future__ import annotations

import time
from pathlib import Path

from ddpnas_ray.api.arguments import Config, Overrides, config_of, display_of, place_of, seconds_of, texts_of
from ddpnas_ray.api.network import Network, TrainedRun
from ddpnas_ray.api.run import Run
from ddpnas_ray.core.errors import RunDirError
from ddpnas_ray.costs.convnet import height_and_width
from ddpnas_ray.launch import search as launch
from ddpnas_ray.retraining.choice import of_known
from ddpnas_ray.runs.directory import existing_run
from ddpnas_ray.spaces import known
from ddpnas_ray.spaces.base import SpaceSpec
from ddpnas_ray.spaces.known import known_networks
from ddpnas_ray.spaces.target import Inputs, Target

__all__ = ["Network", "Run", "TrainedRun", "known_network", "known_networks", "load", "search"]


def search(
    config: Config | None = None,
    *,
    out: str | Path | None = None,
    overrides: Overrides = (),
    resume: bool = False,
    address: str | None = None,
    time_limit: float | str | None = None,
    progress: bool = True,
) -> Run:
    """Search for an architecture, or resume a search.

    Args:
        config: YAML file, name of a packaged one such as ``"cifar10_cell"``, or its content as nested dictionaries;
            None is the digits quick start, or with ``resume`` the run's own.
        out: Run directory, a local path or a URI; None is a new ``runs/<space>-<data>-s<seed>``.
        overrides: ``{"pruning.gamma": 0.8}``, or ``["pruning.gamma=0.8"]`` as for ``--set``.
        resume: Resume the run in ``out`` from its latest checkpoint; of a finished run, only return it.
        address: Ray cluster, as ``--address``; not needed where Ray is initialised already.
        time_limit: Stop between two epochs within this many seconds, or a text such as ``"30m"``; the run is then not
            finished, and can be resumed.
        progress: Whether to show the progress.

    Returns:
        The run.

    Raises:
        DdpnasError: Bad input, with nothing started, or what ended the search; finished epochs are saved.

    Example:
        >>> import ddpnas_ray as nas
        >>> run = nas.search("cifar10_cell", overrides={"data.path": "cifar10"}, out="runs/cifar")  # doctest: +SKIP
        >>> run.generate("macs=300M").retrain()  # doctest: +SKIP
    """
    until_s = None if time_limit is None else time.time() + seconds_of(time_limit)
    texts, resumed = texts_of(overrides), None
    if resume:
        if out is None:
            raise RunDirError("resume=True needs the run directory; give it with out")
        place, given = place_of(out), None if config is None else config_of(config, texts)
        resumed, settings = launch.resumed_config(place, given, texts)
    else:
        settings = config_of(config, texts)
        place = launch.folder_of(settings, None if out is None else place_of(out))
    display = display_of(launch.title_of(settings), progress)
    launch.search(settings, place, display, resumed=resumed, address=address, until_s=until_s)
    return Run(place)


def load(run: str | Path) -> Run:
    """Open the run directory of a search, also of one that has not finished.

    Args:
        run: Local path or URI.

    Raises:
        RunDirError: There is no run.

    Example:
        >>> load("/nowhere")
        Traceback (most recent call last):
        ddpnas_ray.core.errors.RunDirError: /nowhere: is not a run directory (no config.yaml in it); ...
    """
    existing_run(place_of(run))
    return Run(place_of(run))


def known_network(name: str) -> Network:
    """Return a published network as published: its architecture, image size and classes.

    Args:
        name: One of ``known_networks()``.

    Raises:
        GenotypeError: There is none of that name.

    Example:
        >>> network = known_network("darts_v2")
        >>> network.genotype["normal"][0], network.costs["params"]
        (['sep_conv_3x3', 0], 3349342)
    """
    found = known.known_network(name)

    def target(spec: SpaceSpec) -> Target:
        config = found.target
        size, classes = config.image_size or 32, config.classes or 10
        return Target.resolve(config, Inputs(shape=(3, *height_and_width(size)), outputs=classes), spec.target)

    return Network(of_known(found, target))
