"""Teachers to distil from: found, tried once, and recorded, so that a resume distils from the same network."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

from ddpnas_ray.core.errors import ConfigError, RunDirError, did_you_mean
from ddpnas_ray.experiment.changes import differing_keys
from ddpnas_ray.experiment.config import SearchConfig
from ddpnas_ray.retraining.choice import Chosen
from ddpnas_ray.retraining.files import fingerprint, read_retrained, read_trained, saved_config
from ddpnas_ray.retraining.retraining import Teacher, deploy_network
from ddpnas_ray.runs.directory import parsed
from ddpnas_ray.storage.folder import Folder

LARGEST = "largest"


def of_run(config: SearchConfig) -> bool:
    """Return whether the teacher is a retrained network of the run."""
    name = config.retraining.teacher
    return name is not None and ":" not in name


def find_teacher(config: SearchConfig, retrained: Sequence[Folder], digest: str) -> Teacher:
    """Find the teacher of a new training: a function, or a retrained network.

    Args:
        config: Names it.
        retrained: Folders of the run's finished retrainings.
        digest: SHA-256 of the data; ``largest`` is that of networks trained on the same.

    Raises:
        ConfigError: There is none of that name.
    """
    name = str(config.retraining.teacher)
    if not of_run(config):
        return Teacher(function=name)
    found = {_name(folder): folder for folder in retrained}
    if name == LARGEST and found:
        same = [folder for folder in found.values() if _on_same_data(folder, config, digest)]
        if not same:
            raise ConfigError(
                f"retraining.teacher is {LARGEST}: no retrained network of the run was trained on these data; name "
                f"one of {', '.join(found)}, or give module:function"
            )
        return _read(max(same, key=lambda folder: Chosen.read(folder).costs.get("params", 0)))
    if name not in found:
        hint = did_you_mean(name, found) if found else "; the run has no retrained network yet"
        raise ConfigError(f"retraining.teacher is {name}: no retrained network of the run has this name{hint}")
    return _read(found[name])


def recorded_teacher(saved: Folder, record: Mapping[str, Any] | None, retrained: Folder | None) -> Teacher:
    """Find the teacher that a training started with.

    Args:
        saved: Folder of the training.
        record: From ``Teacher.json``.
        retrained: Folder of the run's retrainings; None: the run is unknown.

    Raises:
        RunDirError: There is no record, or the teacher is gone or was trained anew.
    """
    again = "start a new training with another --out"
    if record is None:
        raise RunDirError(f"{saved.uri}: network.json does not say which network retraining.teacher was; {again}")
    if record["folder"] is None:
        return Teacher(function=record["name"])
    if retrained is None:
        raise RunDirError(f"{saved.uri}: its teacher {record['name']} is a retrained network of a run; give RUN")
    folder = retrained / record["folder"]
    if not folder.has("result.json") or read_retrained(folder)["fingerprint"] != record["fingerprint"]:
        raise RunDirError(f"{saved.uri}: its teacher {folder.uri} is gone or was trained anew; restore it, or {again}")
    return _read(folder)


def tried(teacher: Teacher, chosen: Chosen, *, hidden: bool = False) -> Teacher:
    """Run a teacher on a random batch, and return it with its fingerprint.

    Args:
        teacher: The teacher.
        chosen: The network to train.
        hidden: Whether hidden states are distilled too.

    Raises:
        ConfigError: It cannot be built or run, or its outputs or hidden states have another shape than the network's.
    """
    import torch

    from ddpnas_ray.training.hidden import Hidden

    with torch.random.fork_rng(devices=[]), torch.no_grad():
        inputs = chosen.target.inputs.random(2)
        network = deploy_network(chosen).eval()
        module, where = teacher.module(), f"retraining.teacher: {teacher.name}"
        states = Hidden(network, module) if hidden else None
        wanted = tuple(network(inputs).shape)
        try:
            found = tuple(module(inputs).shape)
        except Exception as error:  # of a network that may be the user's
            raise ConfigError(
                f"{where}: fails on inputs of {chosen.target.inputs}: {type(error).__name__}: {error}; give a "
                "network for these data"
            ) from error
    if found != wanted:
        raise ConfigError(
            f"{where}: its outputs have shape {found}, those of network {chosen.label} {wanted}; give a network for "
            "these data"
        )
    if states is not None:
        states.loss()
    if not teacher.function:
        return teacher
    state = {name: value for name, value in module.state_dict().items() if isinstance(value, torch.Tensor)}
    numbers = {  # NumPy has no bfloat16
        name: (value.double() if value.is_floating_point() else value).cpu().numpy() for name, value in state.items()
    }
    return dataclasses.replace(teacher, fingerprint=fingerprint(numbers))


def _read(folder: Folder) -> Teacher:
    chosen, tensors, result = read_trained(folder)
    return Teacher(chosen, tensors, folder=_name(folder), fingerprint=result["fingerprint"])


def _name(folder: Folder) -> str:
    return folder.path.rpartition("/")[2]


def _on_same_data(folder: Folder, config: SearchConfig, digest: str) -> bool:
    """Return whether a network was trained on the same data, in the same or another split."""
    if parsed(folder, "environment.json", lambda data: json.loads(data)["data_digest"]) == digest:
        return True
    return not [key for key in differing_keys(saved_config(folder), config) if key.startswith(("data.", "task."))]
