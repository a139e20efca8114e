"""Small retrainings for tests: trained in this process in a second, or stopped."""

from __future__ import annotations

import json
from pathlib import Path

from ddpnas_ray.core.requests import EvalResult
from ddpnas_ray.experiment.config import dump, load
from ddpnas_ray.experiment.experiment import Experiment
from ddpnas_ray.experiment.run import run_experiment
from ddpnas_ray.retraining.files import first_files
from ddpnas_ray.retraining.prepare import Wish, make
from ddpnas_ray.retraining.progress import RetrainingProgress
from ddpnas_ray.retraining.run import retrain_here
from ddpnas_ray.runs.directory import create_run
from tests.conftest import TINY
from tests.experiment.test_loop import FakeExecutor

KEYS = (
    "data.train_limit=32",
    "data.val_limit=32",
    "target.cells=3",
    "target.channels=4",
    "execution.backend=local",
    "retraining.train_on=train",
    "retraining.epochs=2",
    "retraining.batch_size=32",
)


def retrained(out: Path, *keys: str, run: Path | None = None) -> Path:
    """Train the result of a run, or a known network, with tiny images and few epochs."""
    wish = Wish(network=None if run else "darts_v2", run=None if run is None else str(run), overrides=[*KEYS, *keys])
    retraining = make(wish)
    folder = create_run(str(out), first_files(retraining))
    progress = RetrainingProgress(retraining.chosen.label, retraining.seeds, retraining.config.retraining.epochs)
    retrain_here(retraining, folder, progress, "cpu")
    return out


def searched(out: Path) -> Path:
    """Write the run directory of a search with equal scores."""
    experiment = Experiment.prepare(load(None, [*TINY, "data.train_limit=32", "data.val_limit=32"]))
    folder = create_run(str(out), experiment.first_files(dump(experiment.config)))
    executor = FakeExecutor(lambda request: EvalResult(0.1 + 0.01 * sum(request.alpha_E) % 0.5, 1.0, seconds=1.0))
    assert run_experiment(experiment, folder, executor, experiment.progress()) is not None
    return out


def stopped(out: Path, epochs: int) -> Path:
    """Make a finished retraining look as if killed after the given epochs of its first seed."""
    (out / "result.json").unlink()
    lines = (out / "log.jsonl").read_text().splitlines()
    kept = [line for line in lines if json.loads(line)["event"] in ("start", "epoch")][: 1 + epochs]
    (out / "log.jsonl").write_text("".join(f"{line}\n" for line in kept))
    for seed in out.glob("seed-*"):
        for path in (seed / "checkpoints").iterdir():
            if seed.name != "seed-0" or int(path.name.removeprefix("ckpt-")) > epochs:
                (path / "DONE").unlink()
    return out
