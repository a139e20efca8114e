from __future__ import annotations

import hashlib
import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ddpnas_ray.core.errors import ConfigError, DataError
from ddpnas_ray.data import cifar10
from ddpnas_ray.data.config import DataConfig
from ddpnas_ray.data.images import load_data, load_test

from .making import pixels, same, write_parquet


def config(path: Path, **keys: Any) -> DataConfig:
    return DataConfig(name="cifar10", path=str(path), **keys)


def write_batches(root: Path, monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    """Write torchvision's files, 8 training and 2 test images per class; returns the training pixels."""
    from torchvision.datasets import CIFAR10

    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)

    def write(name: str, content: dict[str, Any]) -> str:
        data = pickle.dumps(content)
        (folder / name).write_bytes(data)
        return hashlib.md5(data, usedforsecurity=False).hexdigest()

    images = rng.integers(0, 256, (5, 16, 3072), dtype=np.uint8)
    labels = np.arange(80).reshape(5, 16) % 10
    train = [
        [name, write(name, {"data": images[i], "labels": labels[i].tolist()})]
        for i, name in enumerate(f"data_batch_{n}" for n in range(1, 6))
    ]
    test = {"data": rng.integers(0, 256, (20, 3072), dtype=np.uint8), "labels": [*range(10)] * 2}
    monkeypatch.setattr(CIFAR10, "train_list", train)
    monkeypatch.setattr(CIFAR10, "test_list", [["test_batch", write("test_batch", test)]])
    names = write("batches.meta", {"label_names": list(cifar10.CLASSES)})
    monkeypatch.setattr(CIFAR10, "meta", {"filename": "batches.meta", "key": "label_names", "md5": names})
    return images.reshape(80, 3, 32, 32)


@pytest.mark.parametrize("inside", [False, True])
def test_torchvision_files_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inside: bool) -> None:
    expected = write_batches(tmp_path, monkeypatch)
    path = tmp_path / "cifar-10-batches-py" if inside else tmp_path
    data = load_data(config(path), seed=0)
    assert data.classes == cifar10.CLASSES
    assert np.bincount(data.train.labels_N).tolist() == [4] * 10
    seen = np.concatenate([pixels(data.train), pixels(data.val)])
    assert {one.tobytes() for one in seen} == {one.tobytes() for one in expected}
    assert load_test(config(path)).labels_N.tolist() == [*range(10)] * 2


def test_damaged_torchvision_files_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_batches(tmp_path, monkeypatch)
    (tmp_path / "cifar-10-batches-py" / "data_batch_3").write_bytes(b"")
    with pytest.raises(DataError, match=r"cifar-10-batches-py: incomplete or damaged .*delete it, or put"):
        load_data(config(tmp_path), seed=0)


def test_a_failed_download_says_how_to_get_the_data_by_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision.datasets import CIFAR10

    monkeypatch.setattr(CIFAR10, "url", "http://127.0.0.1:9/cifar-10-python.tar.gz")
    with pytest.raises(DataError, match=r"CIFAR-10 not found, and http.*refused.*set data.path to it") as raised:
        load_data(config(tmp_path / "new"), seed=0)
    assert "\n" not in str(raised.value)
    monkeypatch.setattr(cifar10, "why_unreachable", lambda url: None)  # reachable, but the download fails
    with pytest.raises(DataError, match=r"CIFAR-10 not found.*refused.*set data.path to it"):
        load_data(config(tmp_path / "new"), seed=0)


def test_without_a_path_the_cache_is_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_batches(tmp_path, monkeypatch)
    monkeypatch.setattr(cifar10, "DEFAULT_PATH", str(tmp_path))
    assert len(load_data(DataConfig(name="cifar10"), seed=0).train) == 40


def test_without_torchvision_the_error_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchvision.datasets", None)
    with pytest.raises(DataError, match=r"needs torchvision .*pip install torchvision"):
        load_data(config(tmp_path), seed=0)


def test_parquet_without_class_names_gets_those_of_cifar10(tmp_path: Path) -> None:
    write_parquet(tmp_path / "train.parquet", [*range(10)] * 2)
    assert load_data(config(tmp_path), seed=0).classes == cifar10.CLASSES


def test_parquet_of_other_classes_is_not_cifar10(tmp_path: Path) -> None:
    write_parquet(tmp_path / "train.parquet", [0, 1] * 2, names=["a", "b"])
    with pytest.raises(DataError, match=r"2 classes, not CIFAR-10's 10; set data.name=parquet"):
        load_data(config(tmp_path), seed=0)


def test_cifar10_takes_no_other_paths(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"data.val_path is for .* only, not for cifar10"):
        load_data(config(tmp_path, val_path=str(tmp_path)), seed=0)


def test_the_real_images_in_small(test_data: Path) -> None:
    small = test_data / "cifar10-small"
    data = load_data(config(small), seed=0)
    assert (data.channels, data.image_size, data.classes) == (3, 32, cifar10.CLASSES)
    assert np.bincount(data.train.labels_N).tolist() == np.bincount(data.val.labels_N).tolist() == [100] * 10
    assert (data.augment.crop, data.augment.flip, data.augment.cutout) == (4, True, 0)
    assert np.bincount(load_test(config(small)).labels_N).tolist() == [100] * 10
    streamed = load_data(config(small), seed=0, decoded_limit_bytes=0)
    assert same(data, streamed)
    own = load_data(DataConfig(name="parquet", path=str(small / "train-00000-of-00001.parquet")), seed=0)
    assert own.digest == data.digest


def test_the_real_images_complete(test_data: Path) -> None:
    data = load_data(config(test_data / "cifar10", train_limit=4000, val_limit=2000), seed=0)
    assert np.bincount(data.train.labels_N).tolist() == [400] * 10
    assert np.bincount(data.val.labels_N).tolist() == [200] * 10
    both = np.concatenate([pixels(data.train), pixels(data.val)]) / 255
    np.testing.assert_allclose(both.mean(axis=(0, 2, 3)), (0.4913, 0.4821, 0.4465), atol=0.01)
    np.testing.assert_allclose(both.std(axis=(0, 2, 3)), (0.2452, 0.2428, 0.2606), atol=0.01)
