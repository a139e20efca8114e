"""Names on the Hugging Face hub, or local folders: what is absent, and a hub that cannot be reached."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ddpnas_ray.core.errors import DataError
from ddpnas_ray.storage.network import why_unreachable


def refuse_absent(path: str, key: str) -> None:
    """Refuse a path that does not exist and cannot be a name on the hub.

    Raises:
        DataError: It is one.
    """
    local = Path(path).expanduser()
    if not local.exists() and (local.is_absolute() or path.startswith((".", "~")) or path.count("/") > 1):
        raise DataError(f"{path}: no such folder; set {key}")


@contextmanager
def offline_where_unreachable(name: str, key: str, remedy: str) -> Iterator[None]:
    """Use only the local cache if the hub is unreachable: the library would retry for half a minute first.

    Args:
        name: Name on the hub.
        key: The configuration key that holds it, for messages.
        remedy: How to save a copy elsewhere, for messages.

    Raises:
        DataError: The hub is unreachable and the block fails.
    """
    import datasets.config
    import huggingface_hub.constants

    reason = why_unreachable(huggingface_hub.constants.ENDPOINT)
    if reason is None:
        yield
        return
    modules: tuple[Any, ...] = (datasets.config, huggingface_hub.constants)
    before = [module.HF_HUB_OFFLINE for module in modules]
    try:
        for module in modules:
            module.HF_HUB_OFFLINE = True
        yield
    except Exception:  # ConnectionError, OfflineModeIsEnabled, DatasetNotFoundError, ...
        raise DataError(
            f"{name}: not a local folder, not in the local cache, and {huggingface_hub.constants.ENDPOINT} cannot be "
            f"reached ({reason}); {remedy} on a machine with network access, then set {key} to a copy of that folder"
        ) from None
    finally:
        for module, value in zip(modules, before, strict=True):
            module.HF_HUB_OFFLINE = value
