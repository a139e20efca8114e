"""Where commands write, and what they say of it."""

from __future__ import annotations

import argparse
import shlex
from typing import Any

from ddpnas_ray.core.errors import RunDirError
from ddpnas_ray.experiment.config import SearchConfig
from ddpnas_ray.runs.checkpoint import newest_epoch
from ddpnas_ray.runs.directory import free_name, parsed, refuse_existing
from ddpnas_ray.runs.log import read_log
from ddpnas_ray.storage.folder import Folder


def new_out(option: str | None, default: str) -> str:
    """``--out``, or a free name below ``runs/``; refused if something is there."""
    out = option or free_name(f"runs/{default}")
    refuse_existing(Folder.open(out))
    return out


def default_name(config: SearchConfig) -> str:
    """Space and data, such as ``cell-digits``."""
    return f"{config.space.name}-{config.searched_on}"


def resumed_out(args: argparse.Namespace, what: str, file: str) -> str:
    """``--out`` of a command that resumes with its saved configuration, and so takes no ``--config``."""
    if args.out is None:
        raise RunDirError(f"--resume: which {what}? give its directory with --out")
    if args.config:
        raise RunDirError(f"--config: --resume reads the {what}'s own {file}; leave --config out")
    return str(args.out)


def resume_command(out: str, command: str = "search") -> str:
    """The command line that resumes."""
    return f"python -m ddpnas_ray.{command} --out {shlex.quote(out)} --resume"


def saved_text(folder: Folder) -> str:
    """How many epochs of a run are saved, in words."""
    saved = newest_epoch(folder / "checkpoints")
    planned = next((event["epochs"] for event in reversed(events(folder)) if event["event"] == "epoch"), None)
    return f"{saved} of {planned} epochs are saved" if saved and planned else "no epoch is saved"


def events(folder: Folder) -> list[dict[str, Any]]:
    """The events of ``log.jsonl``."""
    return parsed(folder, "log.jsonl", read_log) if folder.has("log.jsonl") else []
