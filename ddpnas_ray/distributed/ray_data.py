"""The data of searches that run anywhere in a cluster: read where the command runs, sent through the object store."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from ddpnas_ray.experiment.config import SearchConfig
from ddpnas_ray.experiment.experiment import Experiment


class Loader:
    """Reads the data of one search at a time, so that many that begin at once do not fill the node's memory."""

    def __init__(self, cwd: str) -> None:
        os.chdir(cwd)  # relative paths mean what they mean for the command

    def __repr__(self) -> str:
        return "ddpnas-data"

    def load(self, config: SearchConfig) -> Experiment:
        """See ``Experiment.prepare``."""
        return Experiment.prepare(config)


@dataclass(frozen=True)
class DataSource:
    """The node of the command, to which other nodes turn for data; it lives as long as the command."""

    loader: Any

    @classmethod
    def here(cls) -> DataSource:
        """Make this node one."""
        node = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        options: dict[str, Any] = {"num_cpus": 0, "max_restarts": -1, "max_task_retries": 3}
        return cls(ray.remote(Loader).options(scheduling_strategy=node, **options).remote(os.getcwd()))

    def job(self, config: SearchConfig) -> Experiment:
        """A search with its images, which are views of the object store; they go when the job does.

        Raises:
            BadInput: See ``Experiment.prepare``.
            WorkerLostError: The loading process died again and again.
        """
        from ddpnas_ray.execution.ray_pool import fetched  # needs torch, which the loader does not

        lost = "the data could not be loaded on the command's node; look at its memory (ray status)"
        job: Experiment = fetched(self.loader.load.remote(config), lost)
        return job
