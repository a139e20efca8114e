"""Load exported files in a process without this package: started by ``verify`` as a script, never imported by others.

Standard library and the forms' own ``load`` functions only. Two lines of JSON come in: the functions' sources with the
packages to import meanwhile, then the folder to read and the source that prepares samples. Logits, times and the job's
samples, prepared by ``network.py``, go to files in the folder of the job.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from collections.abc import Iterator
from typing import Any


class Blocked:
    """Import hook that refuses this package."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        """Refuse the package and its modules; others are for the next hook."""
        if name.partition(".")[0] == "ddpnas_ray":
            raise ImportError("an exported file imports ddpnas_ray")


def main() -> None:
    """Import, wait for the folder, then load every form and compute logits."""
    start = json.loads(sys.stdin.readline())
    sys.path[:] = start["path"]
    sys.meta_path.insert(0, Blocked())
    for package in start["packages"]:  # while the files are being written
        importlib.import_module(package)
    line = sys.stdin.readline()
    if not line:  # they were not
        return
    import numpy as np

    asked, job = json.loads(line), os.getcwd()
    folder, batches = asked["folder"], list(batches_of(job))
    found: list[dict[str, Any]] = []
    for number, (name, source) in enumerate(start["loaders"]):
        began = time.perf_counter()
        try:
            namespace: dict[str, Any] = {}
            exec(compile("from __future__ import annotations\n" + source, f"form {number}", "exec"), namespace)
            logits = namespace[name](folder)
            load_s = time.perf_counter() - began
            parts = [rows_of(np.asarray(logits(*batch), np.float32)) for batch in batches]
            np.save(os.path.join(job, f"{number}.npy"), np.concatenate(parts))
            logits(*(array[:1] for array in batches[0]))  # any batch size
            found.append({"load_s": load_s, "error": None})
        except Exception as error:
            found.append({"load_s": 0.0, "error": f"{type(error).__name__}: {' '.join(str(error).split())}"})
    with open(os.path.join(job, "found.json"), "w", encoding="utf-8") as file:
        json.dump(found, file)
    path = os.path.join(folder, "network.py")
    if os.path.exists(path):
        module: dict[str, Any] = {"__name__": "network", "__file__": path}
        with open(path, encoding="utf-8") as file:
            exec(compile(file.read(), path, "exec"), module)
        name, source = asked["prepare"]
        prepare: dict[str, Any] = {}
        exec(compile("from __future__ import annotations\n" + source, "samples", "exec"), prepare)
        np.savez(os.path.join(job, "prepared.npz"), *prepare[name](module, job))


def rows_of(logits: Any) -> Any:
    """Return logits with a row per label: (N, O) as they are, (N, O, H, W) as (N H W, O)."""
    import numpy as np

    count, outputs = logits.shape[:2]
    return np.moveaxis(logits.reshape(count, outputs, -1), 1, 2).reshape(-1, outputs)


def batches_of(job: str) -> Iterator[list[Any]]:
    """Yield the inputs of every batch of the job."""
    import numpy as np

    for name in sorted(name for name in os.listdir(job) if name.startswith("batch-")):
        with np.load(os.path.join(job, name)) as arrays:
            yield [arrays[key] for key in arrays.files]


if __name__ == "__main__":
    main()
