"""``log.jsonl``: one event a line, as they happen."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ddpnas_ray.core.errors import BadInput, DdpnasError
from ddpnas_ray.storage.folder import Folder, writing


def append_log(folder: Folder, event: str, **facts: Any) -> None:
    """Add one line to ``log.jsonl``."""
    line = json.dumps({"time": round(time.time(), 3), "event": event, **facts}) + "\n"
    if folder.is_local:
        with writing(folder.uri), open(Path(folder.path) / "log.jsonl", "a", encoding="utf-8") as file:
            file.write(line)
    else:  # object stores cannot append
        before = folder.read("log.jsonl") if folder.has("log.jsonl") else b""
        folder.write("log.jsonl", before + line.encode())


@contextmanager
def failure_logged(folder: Folder) -> Iterator[None]:
    """What ends a search is the last event of its ``log.jsonl``; bad input ends it before anything is written."""
    try:
        yield
    except DdpnasError as error:
        if not isinstance(error, BadInput):
            append_log(folder, "failed", error=str(error))
        raise


def read_log(data: bytes) -> list[dict[str, Any]]:
    """The events of ``log.jsonl``: the lines that are whole; a kill may have cut the last one."""
    events = []
    for line in data.decode(errors="replace").splitlines():
        try:
            events.append(json.loads(line))
        except ValueError:
            continue
    return [event for event in events if isinstance(event, dict) and "event" in event and "time" in event]
