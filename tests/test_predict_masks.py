"""The command on networks that label pixels: label maps, overlays, shares, scores by masks, and one line for errors."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from ddpnas_ray.data.overlays import overlay, palette_png
from ddpnas_ray.predict import main
from ddpnas_ray.training.epoch import fixed_threads
from tests.commands import Said, contents, run
from tests.deploy import making
from tests.deploy.mask_making import CLASSES, PALETTE, labels_of, picture, small, small_folder

SIZES = {"a": (40, 20), "b": (32, 24), "c": (7, 61)}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Threads that wait for each other take minutes on a busy machine."""
    with fixed_threads(1):
        yield


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Three images of different sizes."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for i, (name, size) in enumerate(SIZES.items()):
        picture(i, size).save(folder / f"{name}.png")
    return folder


def predict(*words: str | Path) -> Said:
    return run(main, *words)


def lines_of(*words: str | Path, code: int = 0) -> list[dict[str, Any]]:
    said = predict(*words, "--json")
    assert said.code == code, said.err
    return [json.loads(line) for line in said.out.splitlines()]


def refused(*words: str | Path) -> str:
    said = predict(*words)
    assert (said.code, said.out) == (2, ""), said.err
    (line,) = said.err.splitlines()
    return line


def expected(photos: Path, name: str) -> np.ndarray:
    with Image.open(photos / f"{name}.png") as image:
        return labels_of(small(), image)


def write_masks(photos: Path, folder: Path) -> Path:
    """Masks that say what the network does, but for the first row, which is void."""
    folder.mkdir()
    for name in SIZES:
        labels = expected(photos, name).copy()
        labels[0] = 255
        Image.fromarray(labels).save(folder / f"{name}.png")
    return folder


def test_a_folder_gets_label_maps_overlays_and_a_table(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "labelled"
    said = predict(small_folder(), photos, "--out", out)
    assert (said.code, said.err) == (0, "")
    head, *rows, last = said.out.splitlines()
    assert head.split() == ["image", "pixels", "classes"] and last == f"predictions of 3 images: {out}"
    names = sorted(f"{name}{end}" for name in SIZES for end in (".png", ".overlay.png"))
    assert sorted(path.name for path in out.iterdir()) == sorted([*names, "predictions.parquet"])
    table = pq.read_table(out / "predictions.parquet")
    assert json.loads(table.schema.metadata[b"ddpnas_predictions"])["classes"] == list(CLASSES)
    for row, told, (name, (width, height)) in zip(table.to_pylist(), rows, SIZES.items(), strict=True):
        labels = expected(photos, name)
        with Image.open(out / f"{name}.png") as found:
            assert (found.mode, found.size) == ("P", (width, height))
            np.testing.assert_array_equal(np.asarray(found), labels)
            assert found.getpalette()[:9] == [part for colour in PALETTE for part in colour]  # type: ignore[index]
        with Image.open(out / f"{name}.overlay.png") as found, Image.open(photos / f"{name}.png") as photo:
            np.testing.assert_array_equal(np.asarray(found), overlay(np.asarray(photo), labels, PALETTE))
        shares = np.bincount(labels.ravel(), minlength=3) / labels.size
        assert row["shares"] == shares.tolist() and (row["height"], row["width"]) == (height, width)
        assert row["path"] == str(photos / f"{name}.png")
        assert (row["label_map"], row["overlay"]) == (str(out / f"{name}.png"), str(out / f"{name}.overlay.png"))
        assert f"{height} x {width}" in told and f"{CLASSES[shares.argmax()]} {100 * shares.max():.1f} %" in told


def test_batches_change_nothing_and_json_has_the_shares(photos: Path) -> None:
    first = lines_of(small_folder(), photos)
    assert [sorted(line) for line in first] == [["height", "path", "shares", "width"]] * 3
    for line, name in zip(first, SIZES, strict=True):
        labels = expected(photos, name)
        shares = {CLASSES[k]: n / labels.size for k, n in enumerate(np.bincount(labels.ravel(), minlength=3)) if n}
        assert {one["label"]: one["share"] for one in line["shares"]} == shares
        assert [one["share"] for one in line["shares"]] == sorted(shares.values(), reverse=True)
    for batch in ("1", "2"):
        assert lines_of(small_folder(), photos, "--batch", batch) == first
    assert lines_of(small_folder(), photos, "--form", "pt2") == first
    assert [len(line["shares"]) for line in lines_of(small_folder(), photos, "--top", "1")] == [1, 1, 1]


def test_a_parquet_file_alone_has_the_shares(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "shares.parquet"
    said = predict(small_folder(), photos, "--out", out)
    assert said.out == f"predictions of 3 images: {out}\n"
    assert pq.read_table(out).column_names == ["path", "height", "width", "shares"]


def test_masks_give_miou_and_pixel_accuracy(photos: Path, tmp_path: Path) -> None:
    masks = write_masks(photos, tmp_path / "masks")
    for name in SIZES:  # colours instead of numbers
        if name == "b":
            labels = expected(photos, name)
            Image.fromarray(np.array(PALETTE, np.uint8)[labels]).save(masks / "b.png")
    said = predict(small_folder(), photos, "--masks", masks)
    counted = sum(w * h for w, h in SIZES.values()) - SIZES["a"][0] - SIZES["c"][0]
    assert f"mIoU 1.0000, pixel accuracy 1.0000 (3 images, {counted:,} pixels)" in said.out
    assert said.out.splitlines()[0].split() == ["image", "pixels", "mIoU", "pixel", "accuracy", "classes"]

    wrong = expected(photos, "a").copy()
    wrong[:, :10] = (wrong[:, :10] + 1) % 3
    (masks / "a.png").write_bytes(palette_png(wrong, PALETTE))
    said = predict(small_folder(), photos / "a.png", "--masks", masks, "--json")
    (line,) = map(json.loads, said.out.splitlines())
    right = float((wrong == expected(photos, "a")).mean())
    assert line["pixel_accuracy"] == pytest.approx(right) == 0.75
    found = expected(photos, "a")
    both = [int(((wrong == k) & (found == k)).sum()) for k in range(3)]
    either = [int(((wrong == k) | (found == k)).sum()) for k in range(3)]
    ious = [b / e for b, e in zip(both, either, strict=True) if e]
    assert line["miou"] == pytest.approx(sum(ious) / len(ious))
    assert f"mIoU {line['miou']:.4f}, pixel accuracy 0.7500 (1 images, 800 pixels)" in said.err
    assert said.err.splitlines()[1].split() == ["class", "pixels", "IoU"]
    out = tmp_path / "x.parquet"
    assert predict(small_folder(), photos, "--masks", masks, "--out", out).code == 0
    assert pq.read_table(out)["pixel_accuracy"].to_pylist() == [pytest.approx(0.75), 1.0, 1.0]


def test_a_mask_without_a_pixel_that_counts_has_no_score(photos: Path, tmp_path: Path) -> None:
    masks = write_masks(photos, tmp_path / "masks")
    Image.fromarray(np.full((20, 40), 255, np.uint8)).save(masks / "a.png")
    (line,) = lines_of(small_folder(), photos / "a.png", "--masks", masks)
    assert (line["miou"], line["pixel_accuracy"]) == (None, None)


def test_images_are_turned_upright_first(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    picture(0, (40, 20)).save(tmp_path / "turned.jpg", exif=exif, quality=100)
    (line,) = lines_of(small_folder(), tmp_path / "turned.jpg", "--out", tmp_path / "out")
    assert (line["height"], line["width"]) == (40, 20)
    with Image.open(line["overlay"]) as found:
        assert found.size == (20, 40)


def test_unreadable_images_take_a_line_each_and_the_others_are_labelled(photos: Path, tmp_path: Path) -> None:
    (photos / "bad.png").write_text("bad")
    said = predict(small_folder(), photos, "--out", tmp_path / "out")
    assert said.code == 1
    first, count = said.err.splitlines()
    assert first == f"{photos}/bad.png: not an image that Pillow can read (3 bytes)"
    assert count == "1 of 4 images cannot be read; the others were predicted"
    assert len(list((tmp_path / "out").iterdir())) == 7
    said = predict(small_folder(), photos / "bad.png", "--out", tmp_path / "none")
    assert said.code == 2 and not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (("photos", "--out", "photos"), "RunDirError: photos: exists and is not empty; choose another --out, or"),
        (("photos", "--out", "file"), "RunDirError: file: exists and is not a folder; choose another --out"),
        (("photos", "--out", "file/x"), "RunDirError: file/x: cannot be written: "),
        (("photos", "--out", "/proc/x/y"), "RunDirError: /proc/x/y: cannot be written: "),
        (("photos", "--out", "s3://bucket/x"), "RunDirError: s3://bucket/x: label maps are written to local disks"),
        (("photos", "--out", "no/x.parquet"), "RunDirError: no/x.parquet: cannot be written: "),
        (
            ("photos", "more", "--out", "new"),
            "DataError: photos/a.png and more/a.jpg would both be written to new/a.png; rename one, or predict them",
        ),
        (
            ("photos", "overlaid", "--out", "new"),
            "DataError: photos/b.png and overlaid/b.overlay.png would both be written to new/b.overlay.png; rename",
        ),
        (("photos", "--labelled"), "ConfigError: --labelled: the model labels every pixel; give the folder of the ma"),
        (("photos", "--task", "x"), "ConfigError: --task x: the model has one task; leave out --task"),
        (("photos", "--masks", "nowhere"), "DataError: --masks nowhere: not a folder; give the folder of the masks"),
        (("photos", "--masks", "more"), "DataError: --masks more: no mask of photos/b.png; expected one file b.png"),
        (("photos", "--masks", "."), "DataError: --masks .: several masks ("),
        (
            ("photos/a.png", "--masks", "small"),
            "DataError: small/a.png: a mask of 19 x 40 pixels (height x width), but photos/a.png has 20 x 40",
        ),
        (
            ("photos/a.png", "--masks", "unknown"),
            "DataError: unknown/a.png: id 7 is not of a class of the model (0, 1, 2), and not one that does not count",
        ),
        (
            ("photos/a.png", "--masks", "coloured"),
            "DataError: coloured/a.png: colour #010203 is not one of the model's classes; write ids of classes",
        ),
        (
            ("photos/a.png", "--masks", "deep"),
            "DataError: deep/a.png: image mode 'I;16' has more than 8 bits per channel",
        ),
        (("--benchmark", "--masks", "more"), "ddpnas predict: --masks is not for --benchmark, which predicts nothing"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, tuple) else "",
)
def test_bad_input_takes_one_line_and_writes_nothing(
    words: tuple[str, ...], wanted: str, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("more", "overlaid", "small", "unknown", "coloured", "deep"):
        (tmp_path / name).mkdir()
    picture(0).save("more/a.jpg")
    picture(0).save("overlaid/b.overlay.png")
    Image.fromarray(np.zeros((19, 40), np.uint8)).save("small/a.png")
    Image.fromarray(np.full((20, 40), 7, np.uint8)).save("unknown/a.png")
    Image.new("RGB", (40, 20), (1, 2, 3)).save("coloured/a.png")
    Image.fromarray(np.zeros((20, 40), np.uint16)).save("deep/a.png")
    (tmp_path / "file").write_text("x")
    before = contents(tmp_path)
    assert refused(small_folder(), *words).startswith(wanted)
    assert contents(tmp_path) == before


def test_networks_with_one_label_per_image_take_no_masks(photos: Path) -> None:
    line = refused(making.written(), photos, "--masks", photos)
    assert line == f"ConfigError: --masks {photos}: the model's outputs are not those of every pixel; use --labelled"


def test_an_edited_folder_is_refused_unless_forced(photos: Path, tmp_path: Path) -> None:
    shutil.copytree(small_folder(), tmp_path / "model")
    (tmp_path / "model/network.py").write_text((tmp_path / "model/network.py").read_text() + "\n# mine\n")
    assert "network.py was edited since it was written" in refused(tmp_path / "model", photos)
    assert lines_of(tmp_path / "model", photos, "--force") == lines_of(small_folder(), photos)


@pytest.mark.slow
def test_forms_are_timed_on_images_of_the_size_of_evaluation(photos: Path) -> None:
    said = predict(small_folder(), "--benchmark", photos, "--form", "torch", "--json")
    assert said.code == 0, said.err
    found = json.loads(said.out)
    assert (found["images"], found["batch"]) == ("given", 64)
    assert found["forms"][0]["images_per_s"] > 0
    said = predict(small_folder(), "--benchmark", "--form", "pt2", "--batch", "2")
    assert "images/s, batch 2" in said.out and "random images of shape (3, 24, 32)" in said.out
