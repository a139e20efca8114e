"""Export a retrained network; shared by command, Python API and `search --then`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ddpnas_ray.core.errors import ConfigError, ModelError, RunDirError, did_you_mean
from ddpnas_ray.experiment.config import SearchConfig, check, set_key, to_dict
from ddpnas_ray.retraining.choice import Chosen
from ddpnas_ray.retraining.files import read_retrained, read_trained, saved_config
from ddpnas_ray.retraining.prepare import RETRAINED, retrained_folders
from ddpnas_ray.retraining.retraining import prepare_task
from ddpnas_ray.runs.directory import existing_run, refuse_other_data
from ddpnas_ray.storage.folder import Folder
from ddpnas_ray.tasks.base import Deploys, Task
from ddpnas_ray.tasks.recipe import RetrainingConfig

if TYPE_CHECKING:
    from ddpnas_ray.deploy.folder import Written
    from ddpnas_ray.deploy.trained import TrainedNetwork


def find_retrained(run: str, label: str | None = None) -> Folder:
    """Find a finished retraining: the folder itself, or one of a run.

    Args:
        run: Folder of a retraining, or run directory.
        label: Label of the network; None: the only one.

    Raises:
        RunDirError: There is none of that label, or several.
    """
    folder = existing_run(run)
    if folder.has("network.json"):
        own = read_retrained(folder)["label"]
        if label not in (None, own):
            raise RunDirError(f"{run}: the retraining of {own}, not of {label}; omit --network, or give the run")
        return folder
    found = {f.path.rpartition("/")[2]: f for f in retrained_folders(folder)}
    if not found:
        unfinished = (folder / RETRAINED).names()
        how = f"; unfinished: {', '.join(unfinished)} (--resume continues)" if unfinished else ""
        raise RunDirError(f"{run}: no network was retrained yet{how}; first: python -m ddpnas_ray.retrain {run}")
    if label is None and len(found) > 1:
        raise RunDirError(f"{run}: several networks were retrained; give --network, one of {', '.join(sorted(found))}")
    label = label or next(iter(found))
    if label not in found:
        raise RunDirError(f"{run}: no retrained network {label}{did_you_mean(label, found)}")
    return found[label]


def model_folder_of(retrained: Folder) -> str:
    """Return the default model folder of a retraining: ``RUN/model``, or ``RUN/model-<label>`` if the run has several.

    If the network is in ``RUN/model`` already, it stays there when others are retrained.

    Raises:
        RunDirError: The run is not on a local disk.
    """
    if not retrained.is_local:
        raise RunDirError(f"{retrained.uri}: models are written to local disks; give a local --out")
    path = Path(_path(retrained.uri))
    if path.parent.name != RETRAINED:
        return str(path / "model")
    run = path.parent.parent
    several = len(retrained_folders(Folder.open(str(run)))) > 1
    if several and _weights_in(run / "model") != read_retrained(retrained)["fingerprint"]:
        return str(run / f"model-{path.name}")
    return str(run / "model")


def load_trained(retrained: Folder, overrides: Sequence[str] = ()) -> tuple[TrainedNetwork, Task]:
    """Load a retrained network for export, with the data of its search.

    Args:
        retrained: Folder of a finished retraining.
        overrides: ``data.path=...``, for a run from another machine.

    Raises:
        ConfigError: Its task has no export, or another key is overridden.
        DataError: The data cannot be found.
    """
    from ddpnas_ray.deploy.interface import interface_of
    from ddpnas_ray.deploy.trained import TrainedNetwork

    chosen, tensors, result = read_trained(retrained)
    values = to_dict(saved_config(retrained))
    for override in overrides:
        if not override.startswith(("data.path=", "data.val_path=", "data.test_path=")):
            raise ConfigError(f"--set {override}: only data.path, data.val_path and data.test_path may change")
        set_key(values, override)
    config = check(values, retrained.uri, overrides)
    task, _ = prepare_task(config)
    where = f"{retrained.uri}: task {config.task.name}"
    deploys = check_deploys(task, where, "its weights are in seed-<n>/weights.safetensors")
    refuse_other_data(retrained, task.digest)
    spec = chosen.spec
    network = TrainedNetwork(
        spec=spec,
        alpha_E=spec.encode(dict(chosen.genotype)),
        target=chosen.target,
        tensors=tensors,
        preprocessing=interface_of(deploys.preprocessing(), f"task {config.task.name}"),
        facts=_facts(result, config),
    )
    return network, task


def export(
    retrained: Folder, out: str | None = None, *, forms: Sequence[str] | None = None, overrides: Sequence[str] = ()
) -> Written:
    """Write a retrained network in every form, each compared with it in a process without this package.

    Args:
        retrained: Folder of a finished retraining.
        out: Model folder, local; None: see ``model_folder_of``.
        forms: Names of forms; None: all possible ones.
        overrides: See ``load_trained``.

    Raises:
        ModelError: The folder holds other files.
        ExportError: A form does not compute what the network does.
    """
    from ddpnas_ray.deploy.folder import check_replaceable, write_model

    out = _path(out) if out else model_folder_of(retrained)
    check_replaceable(out)
    network, task = load_trained(retrained, overrides)
    assert isinstance(task, Deploys)  # see ``load_trained``
    return write_model(network, out, examples=task.prepared(network.preprocessing.compared), forms=forms)


def is_exported(retrained: Folder, out: str) -> bool:
    """Return whether a model folder holds the network of a retraining, as it was written, in every form possible here.

    Raises:
        ModelError: It does not, and cannot be replaced.
    """
    from ddpnas_ray.deploy.folder import changed, check_replaceable, read_model
    from ddpnas_ray.deploy.registry import find_form, writable

    if _weights_in(Path(out)) == read_retrained(retrained)["fingerprint"]:
        model = read_model(out, verify=False)
        possible = map(find_form, writable(Chosen.read(retrained).spec)[0])
        if not changed(model) and {form.name for form in possible if not form.optional} <= set(model.forms):
            return True
    check_replaceable(out)
    return False


def check_deploys(task: object, where: str, hint: str) -> Deploys:
    """Return a task whose networks can be exported.

    Args:
        task: Any task.
        where: Its name, for the message.
        hint: What to do otherwise.

    Raises:
        ConfigError: It does not say how examples are prepared.
    """
    if not isinstance(task, Deploys):
        raise ConfigError(
            f"{where} cannot be exported: it lacks preprocessing and prepared (ddpnas_ray.tasks.base.Deploys); {hint}"
        )
    return task


def _weights_in(folder: Path) -> str:
    """Return the fingerprint of the weights in a model folder; empty if it is none."""
    from ddpnas_ray.deploy.folder import read_model

    try:
        return read_model(folder, verify=False).weights
    except ModelError:
        return ""


def _path(place: str) -> str:
    """Return a local path as given, also of a ``file://`` URI."""
    return Folder.open(place).path if place.startswith("file://") else place


def _facts(result: Mapping[str, Any], config: SearchConfig) -> dict[str, Any]:
    """Return what the model card tells."""
    recipe, default = config.retraining, RetrainingConfig()
    names = RetrainingConfig.__dataclass_fields__
    shown = ("epochs", "batch_size", "optimizer", "lr", "schedule", "weight_decay", "train_on", "init")
    used = [n for n in names if n in shown or getattr(recipe, n) != getattr(default, n)]
    label = result["label"]
    exported = next(row for row in result["trainings"] if row["seed"] == result["seed"])
    return {
        "name": f"{config.searched_on}-{result['space']['name']}-{label}",
        "space": result["space"]["name"],
        "costs": result["costs"],
        "scores": [
            {key: score[key] for key in ("split", "metric", "weights", "seeds", "std")}
            | {"value": exported[score["split"]], "mean": score["value"]}
            for score in result["scores"]
        ],
        "search": result["search"],
        "data": config.searched_on,
        "recipe": {name: getattr(recipe, name) for name in used if name != "budgets"},
        "fingerprint": result["fingerprint"],
    }
