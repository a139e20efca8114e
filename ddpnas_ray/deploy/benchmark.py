"""Time the forms of a model folder on this machine's CPU, each in a process of its own.

Axes: N examples.
"""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ddpnas_ray.core.errors import DataError
from ddpnas_ray.deploy.interface import Interface
from ddpnas_ray.deploy.questions import Arrays, Questions
from ddpnas_ray.deploy.registry import EXTRA, Form
from ddpnas_ray.deploy.verify import isolated

MOST_EXAMPLES = 256  # kept in memory, and taken in turn
RANDOM_EXAMPLES = 16
SECONDS = 1.0  # of timings, for each batch size
LIMIT_S = 600


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """Speed of one form.

    Args:
        form: Its name.
        file: Its principal file.
        file_bytes: Size of its files.
        load_s: Seconds to load it, imports of packages aside.
        median_ns: Median latency of one example.
        p90_ns: The latency that nine of ten calls stay below.
        timings: Calls with one example.
        batch: Examples per batch.
        examples_per_s: Throughput at that batch size, by the median of its calls.
    """

    form: str
    file: str
    file_bytes: int
    load_s: float
    median_ns: int
    p90_ns: int
    timings: int
    batch: int
    examples_per_s: float


@dataclass(frozen=True, slots=True)
class Untimed:
    """A form that cannot be timed here.

    Args:
        form: Its name.
        reason: One line.
        missing: Whether a package is missing; otherwise it failed.
    """

    form: str
    reason: str
    missing: bool


def benchmark_examples(preprocessing: Interface, questions: Questions | None) -> Arrays:
    """Return prepared examples to time a network on, a few batches at most; random ones if none are given.

    Raises:
        DataError: One cannot be read.
    """
    if questions is None:
        return preprocessing.random(RANDOM_EXAMPLES)
    inputs, unreadable = questions.read(0, max(RANDOM_EXAMPLES, min(MOST_EXAMPLES, 4 * preprocessing.batch)))
    if unread := [*unreadable.values(), *questions.unread]:
        raise DataError(unread[0].reason)
    assert inputs is not None
    return inputs


def time_form(
    form: Form, folder: Path, inputs: Arrays, *, batch: int, threads: int, seconds: float = SECONDS
) -> Speed | Untimed:
    """Load a form in a fresh process and time it there.

    Args:
        form: The form.
        folder: Its model folder.
        inputs: Prepared examples, taken in turn.
        batch: Batch size of the throughput.
        threads: CPU threads.
        seconds: Limit of the timings of each of the two batch sizes.
    """
    if missing := form.missing(loading_only=True):
        return Untimed(form.name, f"it needs {' and '.join(missing)}: {EXTRA}", missing=True)
    job = {
        "path": [str(Path(p).resolve()) for p in sys.path if p],
        "name": form.load.__name__,
        "source": textwrap.dedent(inspect.getsource(form.load)),
        "folder": str(folder.resolve()),
        "threads": threads,
        "batch": batch,
        "seconds": seconds,
    }
    found = _in_fresh_process(job, inputs)
    if error := found.get("error"):
        return Untimed(form.name, error, missing=False)
    median_s, p90_s = np.percentile(found["single_s"], [50, 90])
    return Speed(
        form=form.name,
        file=form.files[0],
        file_bytes=form.file_bytes(folder),
        load_s=found["load_s"],
        median_ns=round(1e9 * median_s),
        p90_ns=round(1e9 * p90_s),
        timings=len(found["single_s"]),
        batch=batch,
        examples_per_s=batch / float(np.median(found["batch_s"])),
    )


def _in_fresh_process(job: Mapping[str, Any], inputs: Arrays) -> dict[str, Any]:
    """Run ``timed.py``; what it found, or its error."""
    with tempfile.TemporaryDirectory(prefix="ddpnas-benchmark-") as cwd:
        np.savez(Path(cwd) / "inputs.npz", *inputs)
        try:
            done = subprocess.run(
                [sys.executable, "-I", "-B", str(Path(__file__).with_name("timed.py").resolve())],
                input=json.dumps(job),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
                encoding="utf-8",
                cwd=cwd,
                env={**isolated(cwd), "OMP_NUM_THREADS": str(job["threads"])},
                timeout=LIMIT_S,
            )
        except subprocess.TimeoutExpired:
            return {"error": f"it did not end within {LIMIT_S} s; try a smaller --batch"}
        if not (found := Path(cwd) / "found.json").is_file():
            last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
            return {"error": f"its process died: {last}; try a smaller --batch"}
        content: dict[str, Any] = json.loads(found.read_text(encoding="utf-8"))
        return content
