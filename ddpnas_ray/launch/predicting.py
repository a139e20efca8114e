"""Find the model of a run and time it beside the search's latency estimate; shared by command and Python API."""

from __future__ import annotations

import glob
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ddpnas_ray.core.errors import ConfigError, DataError, GenotypeError, ModelError
from ddpnas_ray.core.generation.budgets import is_time
from ddpnas_ray.deploy.benchmark import SECONDS, Speed, Untimed, benchmark_examples, time_form
from ddpnas_ray.deploy.folder import MANIFEST, UNFINISHED, reading
from ddpnas_ray.deploy.interface import Interface
from ddpnas_ray.deploy.loaded import find_forms, preprocessing_of
from ddpnas_ray.devices.config import TimingOptions
from ddpnas_ray.devices.table import LatencyTable, read_table
from ddpnas_ray.retraining.prepare import RETRAINED
from ddpnas_ray.spaces.base import find_space
from ddpnas_ray.spaces.target import Target

CONFIG = "config.yaml"  # makes a folder a run, or a retraining


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Benchmark:
    """Speeds of a model's forms.

    Args:
        folder: Model folder.
        speeds: Of the forms that ran.
        untimed: Those that did not, with the reason.
        estimate: The search's latency; None: there is none.
        batch: Batch size of the throughput.
        threads: CPU threads.
        random: Whether the examples were random.
        kind: The word for the examples, such as images.
        shape: Shape of an example, such as (C, H, W).
    """

    folder: Path
    speeds: tuple[Speed, ...]
    untimed: tuple[Untimed, ...]
    estimate: Estimate | None
    batch: int
    threads: int
    random: bool
    kind: str
    shape: str


def find_model(given: str) -> Path:
    """Find a model: a model folder, a file of one, or the model folder of a run or retraining.

    Args:
        given: Local path.

    Raises:
        ModelError: There is none, a run has several, or it cannot be read.
    """
    if "://" in given:
        raise ModelError(f"{given}: models are read from local disks; copy the model folder, and give its path")
    path = Path(os.path.expanduser(given))  # unlike Path.expanduser it leaves users that do not exist
    with reading(path):
        return _model_of(path, given)


def _model_of(path: Path, given: str) -> Path:
    if not (path / CONFIG).is_file() or (path / MANIFEST).is_file():
        return path
    run, names = path, ["model", "model-*"]
    if path.absolute().parent.name == RETRAINED:  # of a run, whose model may be that of another retraining
        run, names = path.absolute().parent.parent, ["model", f"model-{glob.escape(path.absolute().name)}"]
    genotype = _json(path / "network.json").get("genotype")
    found = [
        folder
        for folder in sorted(folder for name in names for folder in run.glob(name))
        if (folder / MANIFEST).is_file() and not UNFINISHED.search(folder.name)
        if genotype is None or genotype == _genotype(folder)
    ]
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
    genotype, run = _json(folder / "genotype.json"), folder.absolute().parent
    if not genotype:  # a file of a model alone
        return None
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


def _table_estimate(table: LatencyTable, path: str, folder: Path, preprocessing: Interface) -> Estimate:
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
        if asdict(Target(**table.target)) not in targets:
            table.require_target(targets[0])
    else:  # a model folder alone
        try:
            preprocessing.check_target(Target(**table.target))
        except ConfigError as error:
            why = str(error).partition(";")[0]  # the rest is about a search
            raise DataError(f"{path}: it is for {Target(**table.target)}, not for the model: {why}") from None
    timing = TimingOptions(**table.timing)
    about = f"{table.device}, {timing.device}, {timing.threads} thread(s), batch {timing.batch}, {timing.dtype}"
    return Estimate(latency_ns=table.cost(spec.space)(alpha_E), source=path, about=about)


def benchmark(
    model: str,
    examples: Sequence[str] = (),
    *,
    form: str | None = None,
    table: str | None = None,
    batch: int | None = None,
    threads: int | None = None,
    verify: bool = True,
    task: str | None = None,
    seconds: float = SECONDS,
    on_done: Callable[[int], None] = lambda forms: None,
) -> Benchmark:
    """Time the forms of a model on this machine, beside the search's estimate of its latency.

    Args:
        model: Model folder, a file of one, or a run.
        examples: Files of examples; none: random ones.
        form: Form to time; None: all that are there.
        table: Latency table to estimate by; None: see ``generated_estimate``.
        batch: Batch size of the throughput; None: that of the kind of examples.
        threads: CPU threads; None: those of the table, else one.
        verify: False accepts files that were edited since they were written.
        task: Task of the text files; see ``Interface.questions``.
        seconds: Limit of the timings of each batch size of each form.
        on_done: Called after each form, with 1.

    Raises:
        ModelError: There is no such model or form.
        ResourceError: No form can run with the installed packages.
        DataError: An example cannot be read, or the table is for another network.
    """
    folder, forms = find_forms(find_model(model), form, verify=verify)
    usable = [form for form in forms if not form.missing(loading_only=True)] or forms
    usable[0].require(loading_only=True)
    preprocessing = preprocessing_of(folder, usable[0])
    questions = preprocessing.questions(examples, task=task) if examples else None
    inputs = benchmark_examples(preprocessing, questions)
    batch = batch or preprocessing.batch
    if table is None:
        estimate = generated_estimate(folder)
    else:
        read = read_table(table)
        estimate = _table_estimate(read, table, folder, preprocessing)
        threads = threads or TimingOptions(**read.timing).threads
    threads = threads or 1
    speeds, untimed = [], []
    for chosen in forms:
        found = time_form(chosen, folder, inputs, batch=batch, threads=threads, seconds=seconds)
        if isinstance(found, Speed):
            speeds.append(found)
        else:
            untimed.append(found)
        on_done(1)
    return Benchmark(
        folder=folder,
        speeds=tuple(speeds),
        untimed=tuple(untimed),
        estimate=estimate,
        batch=batch,
        threads=threads,
        random=questions is None,
        kind=f"{preprocessing.one}s",
        shape=preprocessing.shape_text(inputs),
    )


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
