"""Data of searches anywhere in a cluster: read on the command's node, sent through the object store."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from ddpnas_ray.execution.ray_errors import fetched
from ddpnas_ray.experiment.config import SearchConfig
from ddpnas_ray.experiment.experiment import Experiment


class Loader:
    """Reads the data of one search at a time, so that many searches starting at once do not fill the node's memory."""

    def __init__(self, cwd: str) -> None:
        os.chdir(cwd)  # resolve relative paths as the command does

    def __repr__(self) -> str:
        return "ddpnas-data"

    def load(self, config: SearchConfig) -> Experiment:
        """See ``Experiment.prepare``."""
        return Experiment.prepare(config)


@dataclass(frozen=True)
class DataSource:
    """Data loader on the command's node, used by other nodes; it lives as long as the command."""

    loader: Any

    @classmethod
    def here(cls) -> DataSource:
        """Start a loader on this node."""
        node = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        options: dict[str, Any] = {"num_cpus": 0, "max_restarts": -1, "max_task_retries": 3}
        return cls(ray.remote(Loader).options(scheduling_strategy=node, **options).remote(os.getcwd()))

    def experiment(self, config: SearchConfig) -> Experiment:
        """Fetch a search with its images, which are views of the object store, freed with the experiment.

        Raises:
            BadInput: See ``Experiment.prepare``.
            WorkerLostError: The loading process kept dying.
        """
        lost = "the data could not be loaded on the command's node; check its memory (ray status)"
        experiment: Experiment = fetched(self.loader.load.remote(config), lost)
        return experiment
