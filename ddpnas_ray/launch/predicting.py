"""Find the model of a run, and the search's latency estimate for it; shared by command and Python API."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ddpnas_ray.core.errors import DataError, GenotypeError, ModelError
from ddpnas_ray.core.generation.budgets import is_time
from ddpnas_ray.deploy.folder import MANIFEST
from ddpnas_ray.deploy.trained import Preprocessing
from ddpnas_ray.devices.config import TimingOptions
from ddpnas_ray.devices.table import LatencyTable, read_table
from ddpnas_ray.retraining.prepare import RETRAINED
from ddpnas_ray.spaces.base import find_space
from ddpnas_ray.spaces.target import Target

CONFIG = "config.yaml"  # makes a folder a run, or a retraining
UNFINISHED = re.compile(r"-(writing|replaced)-\d+$")  # model folders that are being put in place


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A network's latency as a search counts it.

    Args:
        latency_ns: Nanoseconds.
        source: File that it was read from.
        about: Where and how the parts were timed, as far as is known.
    """

    latency_ns: int
    source: str
    about: str


def find_model(given: str) -> Path:
    """Find a model: a model folder, a file of one, or the model folder of a run.

    Args:
        given: Local path.

    Raises:
        ModelError: There is none, or a run has several.
    """
    if "://" in given:
        raise ModelError(f"{given}: models are read from local disks; copy the model folder, and give its path")
    path = Path(given).expanduser()
    if not (path / CONFIG).is_file() or (path / MANIFEST).is_file():
        return path
    found = sorted(
        folder
        for folder in (path / "model", *path.glob("model-*"))
        if (folder / MANIFEST).is_file() and not UNFINISHED.search(folder.name)
    )
    if not found:
        raise ModelError(f"{given}: it has no exported model yet; first: python -m ddpnas_ray.export {given}")
    if len(found) > 1:
        raise ModelError(f"{given}: it has several models; give one of {', '.join(map(str, found))}")
    return found[0]


def generated_estimate(folder: Path) -> Estimate | None:
    """Read the latency that `generate --latency` counted for a run's model; None: it counted none.

    Args:
        folder: Model folder, ``RUN/model`` or the like.
    """
    genotype, run = _genotype(folder), folder.absolute().parent
    targets = list(_targets(run, genotype))
    for file in sorted(run.glob("generated/*/genotype.json")):
        content = _json(file)
        if content.get("target") not in targets:
            continue
        for network in (content, *content.get("candidates", ())):
            times = [value for name, value in network.get("costs", {}).items() if is_time(name)]
            if network.get("genotype") == genotype and times:
                return Estimate(latency_ns=int(times[0]), source=str(file), about="sum of its parts' latencies")
    return None


def table_estimate(table: LatencyTable, path: str, folder: Path, preprocessing: Preprocessing) -> Estimate:
    """Sum a latency table's entries for a model.

    Args:
        table: The table.
        path: Where it was read from.
        folder: Model folder.
        preprocessing: That of the model.

    Raises:
        DataError: The table is for another space or target.
    """
    options = {key: value for key, value in table.space.items() if key != "name"}
    spec, genotype = find_space(table.space["name"])(**options), _genotype(folder)
    try:
        alpha_E = spec.encode(genotype)
    except GenotypeError as error:
        raise DataError(f"{path}: a table of space {table.space['name']!r}, but the model is not ({error})") from None
    targets = list(_targets(folder.absolute().parent, genotype))
    if targets:
        if dict(table.target) not in targets:
            table.require_target(targets[0])
    else:  # a model folder alone
        data, target = preprocessing, Target(**table.target)
        if (data.image_size, len(data.classes), data.channels) != (
            target.image_size,
            target.classes,
            target.input_channels,
        ):
            raise DataError(
                f"{path}: it is for {target}, {target.input_channels} input channels; the model takes {data.channels} "
                f"channels of {data.image_size} px and has {len(data.classes)} classes"
            )
    timing = TimingOptions(**table.timing)
    about = f"{table.device}, {timing.device}, {timing.threads} thread(s), batch {timing.batch}, {timing.dtype}"
    return Estimate(latency_ns=table.cost(spec.space)(alpha_E), source=path, about=about)


def estimate(folder: Path, table: str | None, preprocessing: Preprocessing) -> tuple[Estimate | None, int | None]:
    """Return a model's latency estimate, and the number of threads it holds for if that is known.

    Args:
        folder: Model folder.
        table: Latency table; None: see ``generated_estimate``.
        preprocessing: That of the model.

    Raises:
        DataError: The table cannot be read, or is for another network.
    """
    if table is None:
        return generated_estimate(folder), None
    read = read_table(table)
    return table_estimate(read, table, folder, preprocessing), TimingOptions(**read.timing).threads


def _targets(run: Path, genotype: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the deploy networks that a run retrained with this genotype."""
    for file in (*sorted(run.glob(f"{RETRAINED}/*/network.json")), run / "network.json"):
        network = _json(file)
        if network.get("genotype") == genotype and isinstance(network.get("target"), dict):
            yield asdict(Target(**network["target"]))


def _genotype(folder: Path) -> dict[str, Any]:
    genotype = _json(folder / "genotype.json")
    if not genotype:
        raise ModelError(f"{folder}/genotype.json: missing or damaged; export the network again")
    return genotype


def _json(file: Path) -> dict[str, Any]:
    """Read a JSON object; empty if there is none."""
    try:
        content = json.loads(file.read_bytes())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
