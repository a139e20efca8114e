"""Output directories of commands, and messages about them."""

from __future__ import annotations

import argparse
import shlex
from typing import Any

from ddpnas_ray.core.errors import RunDirError
from ddpnas_ray.experiment.config import SearchConfig
from ddpnas_ray.runs.directory import free_name, parsed, refuse_existing
from ddpnas_ray.runs.log import read_log
from ddpnas_ray.runs.sealed import newest_epoch
from ddpnas_ray.storage.folder import Folder


def new_out(option: str | None, default: str) -> str:
    """Return ``--out``, or a free name below ``runs/``; raises if it exists and is not empty."""
    out = option or free_name(f"runs/{default}")
    refuse_existing(Folder.open(out))
    return out


def default_name(config: SearchConfig) -> str:
    """Return space and data, such as ``cell-digits``."""
    return f"{config.space.name}-{config.searched_on}"


def resumed_out(args: argparse.Namespace, what: str, file: str) -> str:
    """Return ``--out`` for a resume, which reads the saved configuration and so refuses ``--config``."""
    if args.out is None:
        raise RunDirError(f"--resume needs the {what} directory; give it with --out")
    if args.config:
        raise RunDirError(f"--config: --resume reads the {what}'s own {file}; remove --config")
    return str(args.out)


def resume_command(out: str, command: str = "search") -> str:
    """Return the command line that resumes."""
    return f"python -m ddpnas_ray.{command} --out {shlex.quote(out)} --resume"


def saved_text(folder: Folder) -> str:
    """Describe how many epochs of a run are saved."""
    saved = newest_epoch(folder / "checkpoints")
    planned = next((event["epochs"] for event in reversed(events(folder)) if event["event"] == "epoch"), None)
    return f"{saved} of {planned} epochs are saved" if saved and planned else "no epoch is saved"


def events(folder: Folder) -> list[dict[str, Any]]:
    """Read the events of ``log.jsonl``; empty if there is no log."""
    return parsed(folder, "log.jsonl", read_log) if folder.has("log.jsonl") else []
