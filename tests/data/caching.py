"""Data sets with a cache, opened here and in other processes."""

from __future__ import annotations

import hashlib
import os
import pickle
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ddpnas_ray.data.cached import OPENED
from ddpnas_ray.data.config import DataConfig
from tests.conftest import ROOT

COUNTS = {"cat": 6, "dog": 10}
LOAD = """
import hashlib, logging, pickle, sys
import numpy as np
logging.getLogger().addHandler(logging.StreamHandler())
from ddpnas_ray.core.errors import BadInput
from ddpnas_ray.data.config import DataConfig
from ddpnas_ray.data.images import load_data

def show(images):
    print(hashlib.sha256(images.gather(np.arange(len(images)))).hexdigest(), flush=True)

given = pickle.loads(bytes.fromhex(sys.argv[1]))
BEFORE
try:
    show(load_data(given, 0).train.images if isinstance(given, DataConfig) else given)
except BadInput as error:
    sys.exit(f"{type(error).__name__}: {error}")
"""


def config(tmp_path: Path, **keys: Any) -> DataConfig:
    """Return the configuration of a folder of photos with a cache beside it."""
    given = {"name": "folder", "path": str(tmp_path / "photos"), "cache": str(tmp_path / "cache"), "image_size": 16}
    return DataConfig(**given | {"channels": 3} | keys)


def without(cache: DataConfig) -> DataConfig:
    """Return the same without a cache."""
    return replace(cache, cache=None)


def as_another_process() -> None:
    """Forget which files this process has open."""
    OPENED.clear()


def entries(tmp_path: Path) -> list[Path]:
    """Return the folders of the cache, one per list of images."""
    return sorted((tmp_path / "cache").iterdir())


def decoded(text: str) -> int:
    """Number of images that were decoded, by the lines that say so."""
    return sum(int(count.replace(",", "")) for count in re.findall(r"^decoding ([\d,]+) ", text, re.MULTILINE))


def process(given: object, before: str = "") -> subprocess.Popen[str]:
    """Start a process that opens a data set or unpickles images, and prints a digest of their pixels."""
    words = [sys.executable, "-c", LOAD.replace("BEFORE", before), pickle.dumps(given).hex()]
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.Popen(words, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def digest(images: Any) -> str:
    """Return what ``process`` prints of these images."""
    return hashlib.sha256(images.gather(np.arange(len(images)))).hexdigest()
