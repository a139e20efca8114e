"""Let a task show a trained network, in a form that can be kept; what it gets wrong does not cost the network."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ddpnas_ray.tasks.base import PNG, Illustrates, Illustrations
from ddpnas_ray.training.batches import each

log = logging.getLogger(__name__)


def illustrated(
    network: nn.Module, task: Illustrates, outputs: Sequence[tuple[Tensor, Any]], device: str
) -> tuple[Illustrations | None, str]:
    """Return a task's illustrations of a network as plain values, or None and why there are none.

    Args:
        network: The trained network; moved to the CPU and back.
        task: The task, whose validation examples are shown.
        outputs: What its metric got of every batch of them.
        device: The network's device.
    """
    try:
        with torch.no_grad():
            here = [each(pair, Tensor.cpu) for pair in outputs]
            return plain(task.illustrate(network.eval().to("cpu"), here)), ""
    except Exception as error:  # of code that may be the user's; the training is worth more than its pictures
        log.warning("the trained network cannot be shown", exc_info=error)
        return None, f"{type(error).__name__}: {error}"
    finally:
        network.to(device)


def plain(found: Illustrations) -> Illustrations:
    """Return illustrations with plain strings, bytes and integers, checked.

    Raises:
        ValueError: A picture is not a PNG file, or the counts are not those of the classes.
    """
    pictures = {str(caption): bytes(data) for caption, data in found.pictures.items()}
    for caption, data in pictures.items():
        if not data.startswith(PNG):
            raise ValueError(f"picture {caption!r} is not a PNG file")
    if found.confusion is None:
        return Illustrations(pictures)
    classes = [str(name) for name in found.classes]
    confusion = [[int(count) for count in row] for row in found.confusion]
    lengths = {len(confusion), *map(len, confusion)}
    if lengths != {len(classes)} or min(map(min, confusion), default=0) < 0:
        raise ValueError(f"confusion has not a count for each pair of the {len(classes)} classes")
    return Illustrations(pictures, confusion, classes)
