from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Any

import pydantic
import pytest

from ddpnas_ray.data.config import DataConfig

CHECKED = pydantic.TypeAdapter(DataConfig)


def test_every_default_passes_its_own_constraints() -> None:
    assert CHECKED.validate_python({}) == DataConfig()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("name", 7), ("image_size", 0), ("channels", 2), ("val_fraction", 0.0), ("val_fraction", 1.0),
        ("train_limit", 0), ("val_limit", -1), ("mean", []), ("mean", [123.7]), ("std", [0.0]), ("std", [58.4]),
        ("crop", -1), ("cutout", -1),
    ],
)  # fmt: skip
def test_values_out_of_range_are_refused(key: str, value: Any) -> None:
    with pytest.raises(pydantic.ValidationError) as raised:
        CHECKED.validate_python({key: value})
    assert raised.value.errors()[0]["loc"][0] == key


def test_every_field_has_a_help_text() -> None:
    source = Path(sys.modules[DataConfig.__module__].__file__ or "").read_text(encoding="utf-8").splitlines()
    for field in dataclasses.fields(DataConfig):
        line = next(i for i, text in enumerate(source) if text.startswith(f"    {field.name}: "))
        assert source[line + 1].startswith('    """'), field.name


def test_importing_the_data_modules_brings_nothing_heavy_along() -> None:
    code = """
import sys
from ddpnas_ray.data import batches, cifar10, config, digits, folder, huggingface, images, parquet
print([name for name in ("torch", "ray", "torchvision", "datasets", "sklearn", "pyarrow") if name in sys.modules])
"""
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"
