"""Exact costs of a network that is given by its genotype or its name, for the command ``check``."""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path

from ddpnas_ray.core.errors import ConfigError, GenotypeError
from ddpnas_ray.core.space import IntArray
from ddpnas_ray.costs.convnet import height_and_width
from ddpnas_ray.experiment.config import load
from ddpnas_ray.experiment.sections import Origin
from ddpnas_ray.spaces.base import SpaceSpec, find_space
from ddpnas_ray.spaces.known import known_network
from ddpnas_ray.spaces.target import Inputs, Target, TargetConfig


def count_genotype(args: argparse.Namespace) -> dict[str, int]:
    """Count the exact params and macs of a genotype's deploy network.

    Raises:
        GenotypeError: The file cannot be read, or is not a genotype of the space that its keys name.
        ConfigError: The space does not have one of the options.
    """
    from ddpnas_ray.spaces.cell import space as cell
    from ddpnas_ray.spaces.nasbench201 import space as nasbench201

    try:
        genotype = json.loads(Path(args.genotype).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or f"is not valid JSON: {error}"
        raise GenotypeError(
            f"{args.genotype}: {reason}; give a JSON file with the keys normal and reduce, or the key stages or "
            "arch_str"
        ) from error
    if isinstance(genotype, dict) and isinstance(genotype.get("genotype"), dict):
        genotype = genotype["genotype"]  # a file that generate wrote
    keys = genotype if isinstance(genotype, dict) else {}
    try:
        if "stages" in keys:
            start = [] if args.config else ["space={name: mobile}"]
            spec = _space(args, "mobile", start, "a genotype with stages")
            alpha_E = spec.encode(genotype)
        elif "arch_str" in keys:
            spec = nasbench201.make()
            alpha_E = spec.encode(genotype)
        else:
            alpha_E = cell.encode(genotype)
            spec = cell.make(nodes=len(genotype["normal"]) // 2)
    except GenotypeError as error:
        raise GenotypeError(f"{args.genotype}: {error}") from error
    return _costs(args, spec, alpha_E, TargetConfig(image_size=32, classes=10))


def count_network(args: argparse.Namespace) -> dict[str, int]:
    """Count the exact params and macs of a known network; options replace parts of its target and of its space.

    Raises:
        GenotypeError: There is no such network, or it does not fit the space that ``--set`` makes.
        ConfigError: The space does not have one of the options.
    """
    known = known_network(args.network)
    start = [f"space={json.dumps({'name': known.space} | known.options)}"]
    spec = _space(args, known.space, start, f"network {known.name}")
    try:
        alpha_E = spec.encode(known.genotype)
    except GenotypeError as error:
        raise GenotypeError(f"--network {known.name}: {error}") from error
    return _costs(args, spec, alpha_E, known.target)


def _costs(args: argparse.Namespace, spec: SpaceSpec, alpha_E: IntArray, default: TargetConfig) -> dict[str, int]:
    given = {key: getattr(args, key) for key in ("cells", "channels", "image_size", "classes", "stem")}
    config = dataclasses.replace(default, **{key: value for key, value in given.items() if value is not None})
    assert config.image_size is not None and config.classes is not None
    inputs = Inputs(shape=(args.input_channels, *height_and_width(config.image_size)), outputs=config.classes)
    target = Target.resolve(config, inputs, spec.target)
    return {name: cost(target)(alpha_E) for name, cost in spec.costs.items()}


def _space(args: argparse.Namespace, name: str, start: list[str], subject: str) -> SpaceSpec:
    """Build a space from --config, the overrides to start with, and --set.

    Raises:
        ConfigError: It is another space, or does not have one of the options.
    """
    config = load(args.config, [*start, *args.overrides])
    if config.space.name != name:
        where = Origin(args.config or "--set", tuple(args.overrides)).of("space.name")
        raise ConfigError(f"{where}: space.name is {config.space.name!r}; {subject} needs space.name={name}")
    spec = find_space(name)(**config.space.options)
    applies = {"cells": spec.target.cells, "channels": spec.target.channels, "stem": spec.target.stem}
    for option in (option for option, known in applies.items() if not known):
        if getattr(args, option) is not None:
            raise ConfigError(f"--{option} does not apply to {subject} (space {name}); remove it")
    return spec
