"""The check before a search, and exact costs of a genotype."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest

from ddpnas_ray import check
from tests.commands import LOCAL, contents, run

S3, D3, SKIP, MAX, AVG = "sep_conv_3x3", "dil_conv_3x3", "skip_connect", "max_pool_3x3", "avg_pool_3x3"
DARTS_V1 = {
    "normal": [[S3, 1], [S3, 0], [SKIP, 0], [S3, 1], [SKIP, 0], [S3, 1], [S3, 0], [SKIP, 2]],
    "normal_concat": [2, 3, 4, 5],
    "reduce": [[MAX, 0], [MAX, 1], [SKIP, 2], [MAX, 0], [MAX, 0], [SKIP, 2], [SKIP, 2], [AVG, 0]],
    "reduce_concat": [2, 3, 4, 5],
}
DARTS_V2 = {
    "normal": [[S3, 0], [S3, 1], [S3, 0], [S3, 1], [S3, 1], [SKIP, 0], [SKIP, 0], [D3, 2]],
    "normal_concat": [2, 3, 4, 5],
    "reduce": [[MAX, 0], [MAX, 1], [SKIP, 2], [MAX, 1], [MAX, 0], [SKIP, 2], [SKIP, 2], [MAX, 1]],
    "reduce_concat": [2, 3, 4, 5],
}
CIFAR = "--channels 36 --cells 20 --image-size 32 --classes 10"
IMAGENET = "--channels 48 --cells 14 --image-size 224 --classes 1000"


@pytest.mark.parametrize(
    ("genotype", "target", "params", "macs"),
    [
        (DARTS_V1, CIFAR, 3_169_414, 500_987_520),
        (DARTS_V1, IMAGENET, 4_510_432, 505_864_704),
        (DARTS_V2, CIFAR, 3_349_342, 528_359_040),
        (DARTS_V2, f"{CIFAR} --stem auto", 3_349_342, 528_359_040),
        (DARTS_V2, "", 3_349_342, 528_359_040),
        (DARTS_V2, IMAGENET, 4_718_752, 529_911_552),
        (DARTS_V2, f"{IMAGENET} --stem imagenet", 4_718_752, 529_911_552),
    ],
)
def test_published_genotypes_have_their_exact_costs(
    tmp_path: Path, genotype: dict[str, Any], target: str, params: int, macs: int
) -> None:
    (tmp_path / "g.json").write_text(json.dumps(genotype))
    said = run(check.main, "--genotype", tmp_path / "g.json", *target.split())
    assert (said.code, said.err) == (0, "")
    costs = json.loads(said.out)
    assert (costs["params"], costs["macs"]) == (params, macs)


@pytest.fixture
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where whatever is left behind would be found: the working directory and the one for temporary files."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_it_tells_what_a_search_will_cost_and_leaves_nothing_behind(alone: Path) -> None:
    said = run(check.main, *LOCAL)
    assert (said.code, said.err) == (0, "")
    line = {text.split()[0]: text for text in said.out.splitlines()}
    assert "64 training and 64 validation images, 10 classes, 1x8x8" in line["data"]
    assert "cell: 10 edges, up to 8 candidates" in line["space"]
    assert "merged, saved, restored, decoded" in line["trained"]
    assert "a network  " in said.out
    assert "33 architecture-epochs in 6 epochs" in line["a"]
    assert all(f" on {workers}" in line["time"] for workers in (1, 2, 4, 8))
    assert all("iB" in line[name] for name in ("memory", "traffic", "disk"))
    assert contents(alone) == {}


def test_json_is_one_object(alone: Path) -> None:
    said = run(check.main, *LOCAL, "--json")
    assert (said.code, said.err, said.out.count("\n")) == (0, "", 1)
    estimate = json.loads(said.out)
    assert estimate["architectures"] == [8, 7, 6, 5, 4, 3]
    assert list(estimate["seconds"]) == ["1", "2", "4", "8"]
    times = list(estimate["seconds"].values())
    assert times == sorted(times, reverse=True)
    assert all(estimate[key] > 0 for key in ("architecture_s", "worker_bytes", "traffic_bytes", "disk_bytes"))
    assert contents(alone) == {}


@pytest.mark.slow  # half a minute: two batches of the quick start, all of its operations
def test_the_quick_start_is_checked_in_under_a_minute(alone: Path) -> None:
    import time

    start = time.monotonic()
    said = run(check.main)
    assert said.code == 0
    assert "99 architecture-epochs in 18 epochs" in said.out
    assert time.monotonic() - start < 60
