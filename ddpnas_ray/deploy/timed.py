"""Time an exported form in a fresh process: started by ``benchmark`` as a script, never imported by others.

Standard library and the form's own ``load`` function only. A JSON object comes in: its source, the folder to read and
what to time; ``found.json`` in the working directory goes out.
"""

from __future__ import annotations

import ast
import json
import sys
import time
from collections.abc import Callable
from typing import Any

WARM_UP_CALLS = 3  # enough to choose kernels and settle buffers, as in devices/timing.py
WARM_UP_S = 0.1  # thread pools start, clocks rise
FEWEST_TIMINGS = 3
MOST_TIMINGS = 1000


def main() -> None:
    """Import what the form needs, load it, then time single examples and batches."""
    job = json.loads(sys.stdin.read())
    sys.path[:] = job["path"]
    try:
        found = timed(job)
    except Exception as error:
        found = {"error": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}
    with open("found.json", "w", encoding="utf-8") as file:
        json.dump(found, file)


def timed(job: dict[str, Any]) -> dict[str, Any]:
    """Return seconds to load the form, and of every call, by batch size."""
    import numpy as np

    source = "from __future__ import annotations\n" + job["source"]
    imports = [node for node in ast.walk(ast.parse(job["source"])) if isinstance(node, ast.Import | ast.ImportFrom)]
    exec(compile(ast.Module(body=list(imports), type_ignores=[]), "imports", "exec"), {})
    limit_threads(job["threads"])
    namespace: dict[str, Any] = {}
    exec(compile(source, "form", "exec"), namespace)
    began = time.perf_counter()
    logits = namespace[job["name"]](job["folder"])
    load_s = time.perf_counter() - began
    with np.load("inputs.npz") as arrays:
        inputs = [arrays[name] for name in arrays.files]
    single = [[array[i : i + 1] for array in inputs] for i in range(len(inputs[0]))]
    batch = [np.resize(array, (job["batch"], *array.shape[1:])) for array in inputs]
    return {
        "load_s": load_s,
        "single_s": calls(logits, single, job["seconds"]),
        "batch_s": calls(logits, [batch], job["seconds"]),
    }


def limit_threads(threads: int) -> None:
    """Set the number of threads of PyTorch and ONNX Runtime, if they are imported."""
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(threads)
    runtime: Any = sys.modules.get("onnxruntime")
    if runtime:
        options = runtime.SessionOptions()
        options.intra_op_num_threads = threads
        session = runtime.InferenceSession
        runtime.InferenceSession = lambda *given, **named: session(*given, **{"sess_options": options, **named})


def calls(logits: Callable[[Any], Any], inputs: list[Any], seconds: float) -> list[float]:
    """Time calls on the inputs in turn, after a warm-up, until ``seconds`` have passed."""
    number, began = 0, time.perf_counter()
    while number < WARM_UP_CALLS or time.perf_counter() - began < WARM_UP_S:
        logits(*inputs[number % len(inputs)])
        number += 1
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < FEWEST_TIMINGS or (len(times) < MOST_TIMINGS and time.perf_counter() < end):
        start = time.perf_counter()
        logits(*inputs[len(times) % len(inputs)])
        times.append(time.perf_counter() - start)
    return times


if __name__ == "__main__":
    main()
