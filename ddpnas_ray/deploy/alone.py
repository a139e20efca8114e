"""Load exported files in a process without this package: started by ``verify`` as a script, never imported by others.

Standard library and the forms' own ``load`` functions only. Two lines of JSON come in: the functions' sources with the
packages to import meanwhile, then the folder to read. Logits, times and the job's pictures, prepared by ``network.py``,
go to files in the folder of the job.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
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

    folder, job = json.loads(line)["folder"], os.getcwd()
    images = np.load(os.path.join(job, "images.npy"))
    found: list[dict[str, Any]] = []
    for number, (name, source) in enumerate(start["loaders"]):
        began = time.perf_counter()
        try:
            namespace: dict[str, Any] = {}
            exec(compile("from __future__ import annotations\n" + source, f"form {number}", "exec"), namespace)
            logits = namespace[name](folder)
            load_s = time.perf_counter() - began
            parts = [np.asarray(logits(images[i : i + 256]), np.float32) for i in range(0, len(images), 256)]
            np.save(os.path.join(job, f"{number}.npy"), np.concatenate(parts))
            logits(images[:1])  # any batch size
            found.append({"load_s": load_s, "error": None})
        except Exception as error:
            found.append({"load_s": 0.0, "error": f"{type(error).__name__}: {' '.join(str(error).split())}"})
    with open(os.path.join(job, "found.json"), "w", encoding="utf-8") as file:
        json.dump(found, file)
    if os.path.exists(os.path.join(folder, "network.py")):
        np.save(os.path.join(job, "prepared.npy"), prepared(folder, job))


def prepared(folder: str, job: str) -> Any:
    """Prepare the pictures of the job by ``network.py``."""
    import numpy as np
    from PIL import Image

    path = os.path.join(folder, "network.py")
    module: dict[str, Any] = {"__name__": "network", "__file__": path}
    with open(path, encoding="utf-8") as file:
        exec(compile(file.read(), path, "exec"), module)
    pictures = sorted(name for name in os.listdir(job) if name.startswith("picture-"))
    return np.stack([module["preprocess"](Image.open(os.path.join(job, name))).numpy() for name in pictures])


if __name__ == "__main__":
    main()
