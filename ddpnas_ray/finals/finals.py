"""Finals: train a search's candidates for real, by successive halving, and take the best by validation.

A network's epoch is a pure function of its checkpoint, and the loop below of the scores, so finals that were killed
anywhere and started again end as if they never were, bit for bit on one kind of device.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

from ddpnas_ray.core.errors import DivergedError
from ddpnas_ray.core.halving import Rung, halve, rungs
from ddpnas_ray.execution.mixed_devices import refuse_mixed
from ddpnas_ray.retraining.choice import Chosen
from ddpnas_ray.retraining.files import restore_checkpoint, save_checkpoint
from ddpnas_ray.retraining.retraining import Retraining
from ddpnas_ray.retraining.run import gpu_faults
from ddpnas_ray.runs.files import SCHEMA_VERSION, json_file
from ddpnas_ray.runs.log import append_log
from ddpnas_ray.storage.folder import Folder
from ddpnas_ray.tasks.recipe import FinalsConfig

if TYPE_CHECKING:
    from ddpnas_ray.training.snapshot import Snapshot

Row = Mapping[str, Any]
Advance: TypeAlias = Callable[[Sequence[int], int, "Checkpoints"], dict[int, str]]
"""Trains networks (their numbers) up to an epoch, and keeps every epoch; returns why some diverged."""
OnRung: TypeAlias = Callable[[int, "dict[int, float | None]", Sequence[int]], None]


@dataclass(frozen=True)
class Finals:
    """The networks and their training; picklable, for Ray tasks.

    Args:
        config: Section ``finals``.
        networks: The networks, best first; all are of one space and target.
        trainings: One per network, equal but for the network and its initial weights.
    """

    config: FinalsConfig
    networks: tuple[Chosen, ...]
    trainings: tuple[Retraining, ...]

    @property
    def seed(self) -> int:
        """Seed of every training."""
        return self.trainings[0].config.seed

    @property
    def steps(self) -> tuple[Rung, ...]:
        """The rungs; fewer networks than configured if the search has no more."""
        config = self.config
        return rungs(len(self.networks), config.epochs, config.first_epochs, config.eta)

    def train(
        self, i: int, snapshot: Snapshot | None, until: int, device: str, save: Callable[[Snapshot], None]
    ) -> Snapshot:
        """Train network ``i`` from a snapshot up to an epoch, saving every epoch.

        Raises:
            DivergedError: Its loss is not finite.
        """
        from ddpnas_ray.training.fit import fit

        training = self.trainings[i]
        return fit(
            training.network(self.seed),
            training.task,
            training.config.retraining,
            0,
            1,
            lambda: snapshot,
            save,
            seed=self.seed,
            device=device,
            teacher=None if training.teacher is None else training.teacher.module().to(device),
            until=until,
        )


class Checkpoints:
    """Checkpoints of all networks, with their histories.

    Args:
        folder: The finals' folder.
        finals: What is trained.
        on_epoch: Called after every epoch that is saved.
    """

    def __init__(self, folder: Folder, finals: Finals, on_epoch: Callable[[], None]) -> None:
        self._folder, self._finals, self._on_epoch = folder, finals, on_epoch
        found = [self.restore(i) for i in range(len(finals.networks))]
        self.histories = [() if snapshot is None else snapshot.history for snapshot in found]

    def restore(self, i: int) -> Snapshot | None:
        """Return the latest valid snapshot of a network."""
        from ddpnas_ray.training.snapshot import Snapshot

        found = restore_checkpoint(self._own(i), self._finals.seed)
        return None if found is None else Snapshot(*found)

    def save(self, i: int, snapshot: Snapshot) -> None:
        """Seal a snapshot.

        Raises:
            ResourceError: It comes from another kind of device, and ``execution.mixed_devices`` is ``refuse``.
        """
        if self._finals.trainings[0].config.execution.mixed_devices == "refuse":
            refuse_mixed(row["device"] for history in [*self.histories, snapshot.history] for row in history)
        save_checkpoint(self._own(i), self._finals.seed, snapshot.epoch, snapshot.tensors, snapshot.history)
        self.histories[i] = snapshot.history
        row = snapshot.history[-1]
        append_log(self._folder, "epoch", network=self._finals.networks[i].label, epoch=row["epoch"], val=row["val"])
        self._on_epoch()

    def _own(self, i: int) -> Folder:
        return self._folder / self._finals.networks[i].label


def advance_here(finals: Finals, device: str) -> Advance:
    """Return what trains in this process, one network after the other."""

    def advance(alive: Sequence[int], until: int, checkpoints: Checkpoints) -> dict[int, str]:
        diverged = {}
        for i in alive:
            if len(checkpoints.histories[i]) >= until:
                continue
            try:
                with gpu_faults(lost=True, then="repeat the command"):
                    finals.train(i, checkpoints.restore(i), until, device, partial(checkpoints.save, i))
            except DivergedError as error:
                diverged[i] = str(error)
        return diverged

    return advance


def run_finals(
    finals: Finals,
    folder: Folder,
    advance: Advance,
    *,
    on_epoch: Callable[[], None] = lambda: None,
    on_rung: OnRung = lambda epochs, scores, left: None,
) -> dict[str, Any]:
    """Train rung by rung from the latest checkpoints.

    Args:
        finals: What to train.
        folder: Its folder, which exists and is locked.
        advance: Trains the networks of a rung.
        on_epoch: Called after every epoch of a network.
        on_rung: See ``halve``.

    Returns:
        The content of ``result.json``.

    Raises:
        DivergedError: All networks of a rung diverged.
    """
    append_log(folder, "start", networks=[chosen.label for chosen in finals.networks])
    checkpoints, diverged = Checkpoints(folder, finals, on_epoch), dict[int, str]()

    def score(alive: Sequence[int], epochs: int) -> list[float | None]:
        diverged.update(advance(alive, epochs, checkpoints))
        return [None if i in diverged else checkpoints.histories[i][epochs - 1]["val"] for i in alive]

    try:
        ended = halve(finals.steps, score, on_rung)
    except DivergedError as error:
        raise DivergedError(
            f"{folder.uri}: {error}; move that folder away, and start again with a lower retraining.lr"
        ) from error
    histories = {i: checkpoints.histories[i][: ended[i]] for i in ended}
    rows = [row for history in histories.values() for row in history]
    training = finals.trainings[0]
    curves = {i: [(row["epoch"], row["val"]) for row in history] for i, history in histories.items()}
    networks = standings(finals.networks, ended, curves)
    for row in networks:
        row["loss"] = [each["loss"] for each in histories[row.pop("number")]]
    return {
        **result_content(finals.steps, networks, len(rows)),
        "metric": training.task.metric.name,
        "train_examples": training.task.train_examples,
        "diverged": {finals.networks[i].label: reason for i, reason in diverged.items()},
        "seconds": round(sum(row["train_s"] + row["score_s"] for row in rows), 3),
        "devices": sorted({row["device"] for row in rows}),
    }


def standings(
    networks: Sequence[Chosen], ended: Mapping[int, int], curves: Mapping[int, Sequence[tuple[int, float]]]
) -> list[dict[str, Any]]:
    """Return a row per network, the winner first, then by the epoch reached and the score there; of networks that
    reached the same, those that diverged after it come last.

    Args:
        networks: The networks.
        ended: See ``halve``.
        curves: Number -> epoch and validation score, by epoch; empty if it diverged at once.
    """
    winner = list(ended)[-1]
    last = {i: curve[-1] if curve else (0, -1.0) for i, curve in curves.items()}
    return [
        {
            "number": i,
            "label": networks[i].label,
            "genotype": dict(networks[i].genotype),
            "alpha": [int(k) for k in networks[i].spec.encode(dict(networks[i].genotype))],
            "costs": dict(networks[i].costs),
            "expectation": networks[i].search.get("expectation"),
            "search_score": (networks[i].search.get("score") or {}).get("value"),
            "epochs": [epoch for epoch, _ in curves[i]],
            "val": [value for _, value in curves[i]],
        }
        for i in sorted(ended, key=lambda i: (i != winner, -last[i][0], last[i][0] < ended[i], -last[i][1]))
    ]


def result_content(steps: Sequence[Rung], networks: Sequence[Row], training_epochs: int) -> dict[str, Any]:
    """Return what ``result.json`` of trained and of tabular finals share."""
    decided = "".join(f"{row['alpha']} {[float(v).hex() for v in row['val']]}\n" for row in networks)
    return {
        "schema_version": SCHEMA_VERSION,
        "winner": networks[0]["label"],
        "split": "val",
        "rungs": [dataclasses.asdict(step) for step in steps],
        "training_epochs": training_epochs,
        "networks": list(networks),
        "fingerprint": hashlib.sha256(decided.encode()).hexdigest(),
    }


def first_files(
    networks: Sequence[Chosen], config_yaml: str, teacher: Mapping[str, str | None] | None
) -> dict[str, bytes]:
    """Return the initial files; ``config.yaml`` last, as it makes the folder one to go on with."""
    content = {
        "schema_version": SCHEMA_VERSION,
        "networks": [chosen.json() for chosen in networks],
        "teacher": teacher,
    }
    return {"networks.json": json_file(content), "config.yaml": config_yaml.encode()}
