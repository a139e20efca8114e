"""Decode images for the cache by Ray tasks; Ray is imported only where it runs already."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ddpnas_ray.data.paths import Paths

PROBE_S = 30.0


def usable() -> bool:
    """Return whether this process is a driver, connected to Ray inside the cluster.

    A worker decodes by threads: tasks could wait for the CPUs that it and its neighbours hold.
    """
    if "ray" not in sys.modules:
        return False
    import ray

    if not ray.is_initialized() or ray.util.client.ray.is_connected():
        return False
    return bool(ray.get_runtime_context().worker.mode == ray.SCRIPT_MODE)


def decoded(
    decode: Callable[..., Any], arguments: Sequence[Callable[[], tuple[Any, ...]]], sources: Sequence[Any]
) -> Iterator[tuple[int, Any]]:
    """Decode chunks of images, one CPU each, on this machine and on all others if every one of them has the files.

    Args:
        decode: Decodes a chunk.
        arguments: Its arguments for each chunk, made when they are needed.
        sources: All images.

    Yields:
        Number of a chunk and what was decoded, as they finish; None if its process or node was lost.
    """
    import ray
    from ray.exceptions import RayError, RayTaskError
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = ray.get_runtime_context().get_node_id()
    anywhere = not isinstance(sources, Paths) or _everywhere(sources)
    task = ray.remote(decode).options(
        num_cpus=1,
        name="decode images",
        scheduling_strategy="SPREAD" if anywhere else NodeAffinitySchedulingStrategy(here, soft=False),
    )
    nodes = [node for node in ray.nodes() if node["Alive"] and (anywhere or node["NodeID"] == here)]
    ahead = 2 + int(sum(node["Resources"].get("CPU", 0) for node in nodes))
    running: dict[Any, int] = {}
    todo = iter(range(len(arguments)))
    while True:
        while len(running) < ahead and (i := next(todo, None)) is not None:
            running[task.remote(*arguments[i]())] = i
        if not running:
            return
        (ref,), _ = ray.wait(list(running), num_returns=1)
        i = running.pop(ref)
        try:
            result = ray.get(ref)
        except RayTaskError:
            raise  # of the code, not of a machine
        except RayError:
            result = None
        yield i, result


def _everywhere(paths: Paths) -> bool:
    """Return whether all nodes see the first and the last file at their paths."""
    import ray
    from ray.exceptions import GetTimeoutError, RayError
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    nodes = [node["NodeID"] for node in ray.nodes() if node["Alive"]]
    if len(nodes) == 1:
        return True
    ends = [os.path.abspath(path) for path in (paths[0], paths[-1])]
    see = ray.remote(_exist).options(num_cpus=0, max_retries=0)
    asked = [see.options(scheduling_strategy=NodeAffinitySchedulingStrategy(n, soft=False)).remote(ends) for n in nodes]
    try:
        return all(ray.get(asked, timeout=PROBE_S))
    except (GetTimeoutError, RayError):
        return False


def _exist(paths: Sequence[str]) -> bool:
    return all(os.path.exists(path) for path in paths)
