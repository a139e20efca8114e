"""Event log ``log.jsonl``: one event per line."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ddpnas_ray.core.errors import BadInput, DdpnasError
from ddpnas_ray.storage.folder import Folder, writing


def append_log(folder: Folder, event: str, **fields: Any) -> None:
    """Append one event to ``log.jsonl``."""
    line = json.dumps({"time": round(time.time(), 3), "event": event, **fields}) + "\n"
    if folder.is_local:
        with writing(folder.uri), open(Path(folder.path) / "log.jsonl", "a", encoding="utf-8") as file:
            file.write(line)
    else:  # object stores cannot append
        before = folder.read("log.jsonl") if folder.has("log.jsonl") else b""
        folder.write("log.jsonl", before + line.encode())


@contextmanager
def failure_logged(folder: Folder) -> Iterator[None]:
    """Log the error that ends a search as its last event; bad input is not logged, as it is found before any work."""
    try:
        yield
    except DdpnasError as error:
        if not isinstance(error, BadInput):
            append_log(folder, "failed", error=str(error))
        raise


def read_log(data: bytes) -> list[dict[str, Any]]:
    """Read the events of ``log.jsonl``; incomplete lines are skipped, as a kill may truncate the last one."""
    events = []
    for line in data.decode(errors="replace").splitlines():
        try:
            events.append(json.loads(line))
        except ValueError:
            continue
    return [event for event in events if isinstance(event, dict) and "event" in event and "time" in event]
