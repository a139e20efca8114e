"""Record, warn about or refuse several kinds of device in one search (``execution.mixed_devices``)."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from ddpnas_ray.core.errors import ResourceError
from ddpnas_ray.core.state import Evaluation
from ddpnas_ray.runs.directory import parsed
from ddpnas_ray.runs.files import json_file
from ddpnas_ray.runs.log import append_log
from ddpnas_ray.storage.folder import Folder


def kinds(evaluations: Iterable[Evaluation]) -> dict[str, int]:
    """Count evaluations by kind of device, most first; empty for tabular runs, and for old runs that recorded none."""
    return dict(Counter(row.device for row in evaluations if row.device).most_common())


def mixed_text(found: Iterable[str]) -> str:
    """Describe several kinds of device in one sentence; empty if there is only one."""
    names = sorted(set(found))
    if len(names) < 2:
        return ""
    return (
        f"{len(names)} kinds of device evaluate architectures ({'; '.join(names)}): "
        "the result may differ from that of a search on one kind"
    )


def refuse_mixed(found: Iterable[str]) -> None:
    """Raise if evaluations would come from several kinds of device.

    Raises:
        ResourceError: There is more than one kind.
    """
    if len(names := sorted(set(found))) > 1:
        raise ResourceError(
            f"execution.mixed_devices is refuse, but there are {len(names)} kinds of device ({'; '.join(names)}); "
            "use machines of one kind, or set execution.mixed_devices=warn"
        )


class DeviceRecord:
    """Kinds of device of one search, across resumes: ``devices`` of ``environment.json``.

    Args:
        folder: The run directory; None: write nothing.
        policy: ``execution.mixed_devices``.
        evaluations: Evaluations before a resume.
    """

    def __init__(self, folder: Folder | None, policy: str, evaluations: Iterable[Evaluation]) -> None:
        self._folder, self._refuse = folder, policy == "refuse"
        self._known: dict[str, Mapping[str, Any]] = {kind: {} for kind in kinds(evaluations)}
        if folder is not None and folder.has("environment.json"):
            self._known |= parsed(folder, "environment.json", _recorded)

    def update(self, devices: Mapping[str, Mapping[str, Any]]) -> str:
        """Record new kinds.

        Args:
            devices: Details of the workers' devices by kind.

        Returns:
            The warning to show; empty if all are of one kind.

        Raises:
            ResourceError: There are several kinds, and ``execution.mixed_devices`` is ``refuse``.
        """
        if self._refuse:
            refuse_mixed([*self._known, *devices])
        new = devices.keys() - self._known.keys()
        self._known |= devices
        text = mixed_text(self._known)
        if new and self._folder is not None:
            content = parsed(self._folder, "environment.json", json.loads)
            self._folder.write("environment.json", json_file(content | {"devices": self._known}))
            if text:
                append_log(self._folder, "mixed_devices", kinds=list(self._known))
        return text


def _recorded(data: bytes) -> dict[str, Mapping[str, Any]]:
    return dict(json.loads(data).get("devices", {}))
