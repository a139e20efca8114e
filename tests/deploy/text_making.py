"""Small networks of texts with random weights, of one task or several."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import numpy as np
import torch

from ddpnas_ray.data.config import DataConfig
from ddpnas_ray.deploy.interface import interface_of
from ddpnas_ray.deploy.trained import TrainedNetwork
from ddpnas_ray.spaces.base import SpaceSpec
from ddpnas_ray.spaces.target import Target, TargetConfig
from ddpnas_ray.tasks.text.task import TextTask, make
from tests.deploy.making import FACTS
from tests.tasks.text import chain
from tests.tasks.text.making import pairs, reviews, write

FEW: dict[str, Any] = {"vocabulary": 200, "max_length": 24}


@cache
def files() -> Path:
    """Data of every kind; not to be changed."""
    root = Path(mkdtemp(prefix="ddpnas-test-"))
    write(root / "reviews.tsv", reviews(60))
    write(root / "pairs.csv", {**pairs(60), "label": ["same" if same else "other" for same in pairs(60)["label"]]})
    write(root / "scores.tsv", {**reviews(60), "label": np.linspace(0, 5, 60).round(2).tolist()})
    for name, table in (("cola", reviews), ("mrpc", pairs)):
        write(root / "glue" / name / "train.parquet", table(60))
        write(root / "glue" / name / "validation.parquet", table(30, 9))
    write(root / "glue" / "stsb" / "train.parquet", {**pairs(40), "label": np.linspace(0, 5, 40).tolist()})
    write(root / "glue" / "stsb" / "validation.parquet", {**pairs(20), "label": np.linspace(0, 5, 20).tolist()})
    return root


def task_of(kind: str) -> TextTask:
    """A task: reviews, pairs, scores, or several."""
    path, options = {
        "reviews": ("reviews.tsv", {"columns": ("sentence",)}),
        "pairs": ("pairs.csv", {"columns": ("sentence1", "sentence2")}),
        "scores": ("scores.tsv", {"columns": ("sentence",), "regression": True}),
        "several": ("glue", {"glue": ("cola", "mrpc", "stsb")}),
    }[kind]
    return make(DataConfig(path=str(files() / path)), 0, **FEW, **options)


def network_of(
    task: TextTask, alpha_E: tuple[int, ...] = (0, 1), seed: int = 0, spec: SpaceSpec | None = None
) -> TrainedNetwork:
    """A network with random weights; by default with both operations of the chain."""
    spec = spec or chain.make()
    target = Target.resolve(TargetConfig(), task.inputs, spec.target)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = spec.deploy(np.array(alpha_E), target)
        for parameter in network.parameters():
            torch.nn.init.normal_(parameter, std=0.5)
    return TrainedNetwork(
        spec=spec,
        alpha_E=np.array(alpha_E),
        target=target,
        tensors={name: tensor.numpy() for name, tensor in network.state_dict().items()},
        preprocessing=interface_of(task.preprocessing(), "task"),
        facts={**FACTS, "space": "text_chain"},
    )


@cache
def written(kind: str) -> Path:
    """Model folder with the forms that need no optional package; not to be changed."""
    from ddpnas_ray.deploy.folder import write_model

    task, path = task_of(kind), Path(mkdtemp(prefix="ddpnas-test-")) / "model"
    done = write_model(network_of(task), path, examples=task.prepared(30), forms=["torch", "pt2"])
    assert [(row.form, row.largest_difference) for row in done.rows] == [("torch", 0.0), ("pt2", 0.0)]
    return path
