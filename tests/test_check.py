"""Check before a search, and exact costs of a genotype."""

from __future__ import annotations

import json
import re
import tempfile
from pathlib import Path
from typing import Any

import pytest

from ddpnas_ray import check
from ddpnas_ray.data import cache
from ddpnas_ray.data.images import load_data
from ddpnas_ray.experiment.config import load
from ddpnas_ray.spaces.known import known_network
from tests.commands import LOCAL, contents, options, run
from tests.conftest import TINY
from tests.data.making import write_folder

CIFAR = "--channels 36 --cells 20 --image-size 32 --classes 10"
IMAGENET = "--channels 48 --cells 14 --image-size 224 --classes 1000"


@pytest.mark.parametrize(
    ("name", "target", "params", "macs"),
    [
        ("darts_v1", CIFAR, 3_169_414, 500_987_520),
        ("darts_v1", IMAGENET, 4_510_432, 505_864_704),
        ("darts_v2", CIFAR, 3_349_342, 528_359_040),
        ("darts_v2", f"{CIFAR} --stem auto", 3_349_342, 528_359_040),
        ("darts_v2", "", 3_349_342, 528_359_040),
        ("darts_v2", IMAGENET, 4_718_752, 529_911_552),
        ("darts_v2", f"{IMAGENET} --stem imagenet", 4_718_752, 529_911_552),
    ],
)
def test_published_cells_have_their_exact_costs_by_name_and_from_a_file(
    tmp_path: Path, name: str, target: str, params: int, macs: int
) -> None:
    (tmp_path / "g.json").write_text(json.dumps(known_network(name).genotype))
    by_name = run(check.main, "--network", name, *target.split())
    from_file = run(check.main, "--genotype", tmp_path / "g.json", *target.split())
    assert (by_name.code, by_name.err) == (from_file.code, from_file.err) == (0, "")
    assert by_name.out == from_file.out
    costs = json.loads(by_name.out)
    assert (costs["params"], costs["macs"]) == (params, macs)


LAST_FIXED = ["space.search_last=false", "space.last=mbconv_k7_e6"]
MOBILE = "--image-size 224 --classes 1000"


@pytest.mark.parametrize(
    ("name", "keys", "params", "macs"),
    [
        ("proxylessnas_gpu", [], 7_119_848, 465_260_160),
        ("proxylessnas_gpu", LAST_FIXED, 7_119_848, 465_260_160),
        ("proxylessnas_cpu", [], 4_361_648, 439_243_864),
        ("mobilenet_v2", [], 3_504_872, 300_774_272),
    ],
)
def test_published_stages_have_their_exact_costs_by_name_and_from_a_file(
    tmp_path: Path, name: str, keys: list[str], params: int, macs: int
) -> None:
    known = known_network(name)
    (tmp_path / "g.json").write_text(json.dumps(known.genotype))
    by_name = run(check.main, "--network", name, *options(*keys))
    space = options(f"space.widths={list(known.options['widths'])}", *keys)
    from_file = run(check.main, "--genotype", tmp_path / "g.json", *MOBILE.split(), *space)
    assert (by_name.code, by_name.err) == (from_file.code, from_file.err) == (0, "")
    assert by_name.out == from_file.out
    costs = json.loads(by_name.out)
    assert (costs["params"], costs["macs"]) == (params, macs)


def test_the_target_of_a_known_network_can_be_replaced_in_part() -> None:
    def params(*words: str) -> int:
        said = run(check.main, "--network", "mobilenet_v2", *words)
        return json.loads(said.out)["params"]  # type: ignore[no-any-return]

    assert params() - params("--classes", "10") == 990 * 1281
    assert params() - params("--input-channels", "1") == 2 * 9 * 32


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nasnet"], "GenotypeError: 'nasnet' is not a known network; allowed: darts_v1, darts_v2, mobilenet_v2, "),
        (["dart_v2"], "GenotypeError: 'dart_v2' is not a known network; did you mean darts_v2?"),
        (["mobilenet_v2", "--cells", "3"], "--cells does not apply to network mobilenet_v2 (space mobile); remove it"),
        (["darts_v2", *options("space.nodes=3")], "--network darts_v2: genotype: normal has 8 pairs, 3 nodes need 6"),
        (
            ["darts_v2", *options("space={name: mobile}")],
            "--set space={name: mobile}: space.name is 'mobile'; network darts_v2 needs space.name=cell",
        ),
        (["darts_v2", "--genotype", "g.json"], "argument --genotype: not allowed with argument --network"),
    ],
)
def test_what_does_not_fit_a_known_network(words: list[str], message: str) -> None:
    said = run(check.main, "--network", *words)
    assert (said.code, said.out) == (2, "")
    assert message in said.err


def test_images_may_be_rectangles() -> None:
    words = ["--network", "mobilenet_v2", "--classes", "10", "--image-size"]
    tall, wide, square = (json.loads(run(check.main, *words, size).out) for size in ("64x128", "128x64", "64"))
    assert tall == wide
    assert tall["params"] == square["params"]
    pooled = 1280 * 10
    assert tall["macs"] - pooled == 2 * (square["macs"] - pooled)


def test_options_of_the_mobile_space_may_come_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "g.json").write_text(json.dumps({"stages": [["mbconv_k3_e6", "zero"]]}))
    (tmp_path / "a.yaml").write_text(
        "space: {name: mobile, widths: [4, 4, 6, 8], depths: [2], strides: [1], stem_stride: 1}\n"
        "data: {name: cifar10}\ntarget: {image_size: 64}"
    )
    words = ["--genotype", tmp_path / "g.json", "--config", tmp_path / "a.yaml", *options("space.stem_stride=2")]
    said = run(check.main, *words, "--image-size", "8")
    assert (said.code, said.err) == (0, "")
    costs = json.loads(said.out)
    stem_and_first, block, last = 3 * 4 * 9 + 4 * 9 + 4 * 4, 4 * 24 + 24 * 9 + 24 * 6, 6 * 8
    assert costs["macs"] == 4 * 4 * (stem_and_first + block + last) + 8 * 10, "the sides are 4 after the stem"
    assert (costs["nonparametric"], costs["height"]) == (1, 1)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--cells", "14"], "ConfigError: --cells does not apply to a genotype with stages (space mobile)"),
        (["--channels", "4"], "ConfigError: --channels does not apply to a genotype with stages"),
        (["--stem", "auto"], "ConfigError: --stem does not apply to a genotype with stages"),
        (options("space.search_last=false"), "g.json: genotype: stages[5][0]: 'mbconv_k7_e6'; the blocks of the last"),
        (options("space.widht=[4]"), "space.widht is not an option of space 'mobile'; did you mean widths?"),
        (options("space.widths=[4]"), "ConfigError: space.widths has 1 numbers; 6 stages"),
        (options("space={name: cell}"), "space.name is 'cell'; a genotype with stages needs space.name=mobile"),
    ],
)
def test_what_does_not_fit_a_file_with_stages(tmp_path: Path, words: list[str], message: str) -> None:
    (tmp_path / "g.json").write_text(json.dumps(known_network("proxylessnas_gpu").genotype))
    said = run(check.main, "--genotype", tmp_path / "g.json", *words)
    assert (said.code, said.out) == (2, "")
    assert said.err.count("\n") == 1
    assert message in said.err


NASBENCH201 = {
    "arch_str": "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|skip_connect~0|nor_conv_3x3~1|nor_conv_1x1~2|"
}


@pytest.mark.parametrize(
    ("words", "params", "macs"),
    [
        ("", 1_073_466, 153_272_960),
        ("--cells 1 --channels 8 --image-size 8 --classes 2 --input-channels 1", 68_618, 574_016),
    ],
)
def test_a_file_with_an_architecture_string_is_counted_in_the_space_of_nasbench201(
    tmp_path: Path, words: str, params: int, macs: int
) -> None:
    (tmp_path / "g.json").write_text(json.dumps({"genotype": NASBENCH201}))
    said = run(check.main, "--genotype", tmp_path / "g.json", *words.split())
    assert (said.code, said.err) == (0, "")
    costs = json.loads(said.out)
    assert (costs["params"], costs["macs"], costs["nonparametric"], costs["height"]) == (params, macs, 1, 3)


@pytest.mark.parametrize(
    ("genotype", "words", "message"),
    [
        (NASBENCH201, ["--stem", "cifar"], "ConfigError: target.stem is cifar; networks of this space have one stem"),
        ({"arch_str": "|none~0|"}, [], "g.json: genotype: arch_str has 1 nodes; 3 are needed: |operation~0|+"),
    ],
)
def test_what_does_not_fit_a_file_with_an_architecture_string(
    tmp_path: Path, genotype: dict[str, Any], words: list[str], message: str
) -> None:
    (tmp_path / "g.json").write_text(json.dumps(genotype))
    said = run(check.main, "--genotype", tmp_path / "g.json", *words)
    assert (said.code, said.out) == (2, "")
    assert said.err.count("\n") == 1
    assert message in said.err


@pytest.fixture
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Isolate the working directory and the one for temporary files, to find leftovers."""
    import torch._dynamo  # noqa: F401  # torch makes itself a cache folder there, once a process

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_it_estimates_a_search_and_leaves_nothing_behind(alone: Path) -> None:
    said = run(check.main, *LOCAL)
    assert (said.code, said.err) == (0, "")
    line = {text.split()[0]: text for text in said.out.splitlines()}
    assert "digits: 64 training and 64 validation examples of 1x8x8, 10 outputs" in line["data"]
    assert "cell: 10 edges, up to 8 candidates" in line["space"]
    assert "merged, saved, restored, decoded" in line["trained"]
    assert " macs" in line["network"]
    assert "33 architecture-epochs in 6 epochs" in line["search"]
    assert all(f" on {workers}" in line["time"] for workers in (1, 2, 4, 8))
    assert all("iB" in line[name] for name in ("memory", "traffic", "disk"))
    assert [name for name in contents(alone) if not name.startswith("torchinductor_")] == []  # PyTorch's own cache


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


def folder_of_photos(root: Path) -> list[str]:
    write_folder(root / "photos", {"cat": 70, "dog": 70}, size=(60, 50), suffix=".jpg")
    return [*LOCAL, *options("data.name=folder", "data.path=photos", "data.image_size=16", "data.channels=3")]


def test_a_check_says_what_a_cache_takes_and_does_not_write_it(
    alone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = [*folder_of_photos(tmp_path), *options("data.cache=cache")]
    said = run(check.main, *words)
    assert (said.code, said.err) == (0, "")
    assert re.search(
        r"^cache      128 of 128 images \(98\.3 kB of 98\.3 kB, [\d.]+ GB free\) are decoded into .*cache when the "
        r"search starts, in \d+s at \d+ a second as by one process here$",
        said.out,
        re.MULTILINE,
    ), said.out
    assert "decoding " not in said.out
    assert not (tmp_path / "cache").exists()
    told = json.loads(run(check.main, *words, "--json").out)
    assert (told["cache"]["missing"], told["cache"]["image_bytes"], told["decoding_s"]) == (128, 768, 0.0)

    load_data(load(None, [*TINY, *words[1::2]]).data, seed=0)
    said = run(check.main, *words)
    assert re.search(r"^cache      all 128 images are in .*cache \(98\.3 kB\)$", said.out, re.MULTILINE), said.out


def test_a_check_of_images_that_are_decoded_at_every_access_suggests_a_cache(
    alone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(load_data, "__kwdefaults__", {"decoded_limit_bytes": 0})
    words = folder_of_photos(tmp_path)
    told = json.loads(run(check.main, *words, "--json").out)
    assert 0 < told["decoding_s"] < told["architecture_s"]
    assert told["cache"] is None
    said = run(check.main, *words)
    line = next(line for line in said.out.splitlines() if line.startswith("decoding   "))
    assert re.fullmatch(
        r"decoding   \d+ images a second here, \d+s of every architecture-epoch"
        r"(; data\.cache=FOLDER does it once \(98\.3 kB on disk\))?",
        line,
    ), line


def test_a_check_refuses_a_disk_that_is_too_small(alone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cache, "free_bytes", lambda folder: 1000)
    said = run(check.main, *folder_of_photos(tmp_path), *options("data.cache=cache"))
    assert (said.code, said.out, said.err.count("\n")) == (2, "", 1)
    assert "128 images of 768 bytes need 107 kB, the disk has 1 kB free" in said.err


@pytest.mark.slow  # half a minute: two batches of the quick start, all of its operations
def test_the_quick_start_is_checked(alone: Path) -> None:
    said = run(check.main)
    assert said.code == 0
    assert "99 architecture-epochs in 18 epochs" in said.out


GPU = {
    "device": "a GPU",
    "train_step_s": 0.02,
    "train_step_fixed_s": 0.01,
    "validation_batch_s": 0.01,
    "validation_batch_fixed_s": 0.0,
    "host_step_s": 0.0,
    "architecture_s": 0.1,
    "allreduce_bytes_per_s": 1e11,
    "allreduce_latency_s": 1e-5,
    "transfer_bytes_per_s": 1e9,
    "merge_s": 0.0,
    "checkpoint_s": 0.1,
    "start_s": 30.0,
}


def test_time_on_many_workers_is_in_a_table(alone: Path) -> None:
    said = run(check.main, *LOCAL, "--gpus", "1,3,1024")
    assert (said.code, said.err) == (0, "")
    lines = said.out.splitlines()
    head = next(i for i, line in enumerate(lines) if line.split()[:2] == ["workers", "time"])
    rows = [line.split() for line in lines[head + 1 : head + 4]]
    assert [(row[0], row[-1]) for row in rows] == [("1", "0"), ("3", "0"), ("1024", "1016")]
    assert rows[0][3] == "100.0%"
    assert "useful     at most 8 workers: an epoch has up to 8 architectures" in said.out
    assert "10 Gbit/s between machines" in said.out


def test_time_on_other_gpus_comes_from_a_file_without_training(alone: Path, tmp_path: Path) -> None:
    (tmp_path / "gpu.json").write_text(json.dumps(GPU))
    words = ["--gpus", "2,16,1000", "--group", "2", "--constants", tmp_path / "gpu.json"]
    said = run(check.main, *LOCAL, *words, "--json")
    assert (said.code, said.err) == (0, "")
    rows = json.loads(said.out)["gpus"]
    assert [(row["gpus"], row["group"], row["idle"]) for row in rows] == [(2, 2, 0), (16, 2, 0), (1000, 2, 984)]
    each_s = 2 * (0.01 + 0.01) + (2 + 1) * 0.005 + 0.1  # two steps, two batches and one for BatchNorm
    slowest, fastest = rows[0]["seconds"], rows[1]["seconds"]
    assert slowest - fastest == pytest.approx((33 - 6) * each_s, rel=1e-2), "33 architectures on one group, 6 epochs"
    assert fastest == pytest.approx(30 + 6 * (each_s + 0.1), rel=1e-2)
    text = run(check.main, *LOCAL, *words)
    assert "useful     at most 16 GPUs" in text.out
    assert "trained" not in text.out
    assert "architecture_s" not in json.loads(said.out)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--gpus", "1,x"], "argument --gpus: 'x' is not an integer of at least 1"),
        (["--gpus", "0"], "argument --gpus: '0' is not an integer of at least 1"),
        (["--gpus", ""], "argument --gpus: '' is not an integer of at least 1"),
        (["--gpus", "1,8", "--group", "4"], "--gpus 1 makes no --group of 4; lower --group, or give at least 4 GPUs"),
        (["--group", "4"], "--group needs --gpus, such as --gpus 1,8,64"),
        (["--constants", "gpu.json"], "--constants needs --gpus, such as --gpus 1,8,64"),
        (["--gpus", "1", "--network", "darts_v2"], "--gpus estimates a search; --genotype and --network"),
        (["--gpus", "1", "--constants", "none.json"], "ConfigError: none.json: No such file or directory; give a JSON"),
        (
            ["--gpus", "1", "--constants", "bad.json"],
            "ConfigError: bad.json: merge is not a key; did you mean merge_s?",
        ),
    ],
)
def test_bad_input_of_the_table_is_one_line(alone: Path, words: list[str], message: str) -> None:
    (alone / "bad.json").write_text(json.dumps(GPU | {"merge": 1}))
    said = run(check.main, *LOCAL, *words)
    assert (said.code, said.out, said.err.count("\n")) == (2, "", 1)
    assert message in said.err
