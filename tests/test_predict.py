"""The command: labels of images of every kind, accuracy, files, speeds, and one line for whatever is wrong."""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from ddpnas_ray.deploy import registry
from ddpnas_ray.deploy.loaded import load_model
from ddpnas_ray.deploy.predicting import probabilities
from ddpnas_ray.deploy.verify import logits_of
from ddpnas_ray.devices.table import Latency, LatencyRow, LatencyTable, edge_names
from ddpnas_ray.predict import main
from ddpnas_ray.training.epoch import fixed_threads
from tests.commands import Said, contents, run
from tests.deploy.making import AWKWARD, one, written

EVERY_MODE = ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Threads that wait for each other take minutes on a busy machine."""
    with fixed_threads(1):
        yield


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


def images(root: Path, names: list[str], size: tuple[int, int] = (8, 8), mode: str = "RGB") -> Path:
    rng = np.random.default_rng(0)
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 256, (*reversed(size), 3), dtype=np.uint8)
        Image.fromarray(pixels).convert(mode).save(root / name)
    return root


# --- labels ---


def test_labels_are_those_of_the_network_on_images_prepared_as_in_training(tmp_path: Path) -> None:
    root = images(tmp_path / "photos", [f"{i}.png" for i in range(5)], size=(20, 12))
    network = one()
    prepared = np.stack([network.preprocessing.prepare(Image.open(root / f"{i}.png")) for i in range(5)])
    expected_NO = probabilities(logits_of(network.module(), prepared))
    for batch in ("1", "3", "64"):
        found = lines_of(written(), root, "--top", "10", "--batch", batch)
        assert [line["path"] for line in found] == [str(root / f"{i}.png") for i in range(5)]
        for line, expected_O in zip(found, expected_NO, strict=True):
            values = {top["label"]: top["probability"] for top in line["top"]}
            np.testing.assert_allclose([values[name] for name in AWKWARD], expected_O, atol=1e-6)
            assert line["label"] == AWKWARD[int(expected_O.argmax())] == line["top"][0]["label"]
            assert line["probability"] == max(values.values())


def test_the_table_has_a_line_per_image_with_runners_up(tmp_path: Path) -> None:
    root = images(tmp_path, ["a[red].png", "b\n.png", "c:car:.png"])
    said = predict(written(), root)
    assert (said.code, said.err) == (0, "")
    head, *rows = said.out.splitlines()
    assert head.split() == ["image", "label", "probability", "runners-up"]
    assert len(rows) == 3, "names with line breaks stay on one line"
    assert "a[red].png" in rows[0] and "b\\n.png" in rows[1] and "c:car:.png" in rows[2]
    assert predict(written(), root / "a[red].png", "--top", "1").out.splitlines()[0].split()[-1] == "probability"


def test_files_folders_and_patterns_name_images_once_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    images(tmp_path / "p", ["b.png", "a/z.jpg", "a/y.PNG", ".hidden.png", "[1].png"])
    (tmp_path / "p/notes.txt").write_text("not an image")
    shutil.copy(tmp_path / "p/b.png", tmp_path / "p/b.dat")

    def paths(*given: str) -> list[str]:
        return [line["path"] for line in lines_of(written(), *given)]

    assert paths("p") == ["p/[1].png", "p/a/y.PNG", "p/a/z.jpg", "p/b.png"]
    assert paths("p/b.png", "p//a", "./p/b.png", "p") == ["p/b.png", "p/a/y.PNG", "p/a/z.jpg", "p/[1].png"]
    assert paths("p/b.png", "p/a", "p/b.png") == ["p/b.png", "p/a/y.PNG", "p/a/z.jpg"]
    assert paths("p/*/?.jpg", "p/[1].png", "p/b.dat") == ["p/a/z.jpg", "p/[1].png", "p/b.dat"]
    assert paths("p/**/*.png") == ["p/[1].png", "p/b.png"]
    assert lines_of("--json", written(), "--top", "1", "p/a", "--batch", "2")[0]["path"] == "p/a/y.PNG"


@pytest.mark.parametrize("mode", EVERY_MODE)
def test_images_of_any_size_and_mode_are_prepared_as_in_training(mode: str, tmp_path: Path) -> None:
    suffix = ".tif" if mode in ("CMYK", "YCbCr") else ".png"
    root = images(tmp_path, [f"x{suffix}"], size=(31, 17), mode=mode)
    (line,) = lines_of(written(), root, "--top", "10")
    network = one()
    with Image.open(root / f"x{suffix}") as image:
        logits_NO = logits_of(network.module(), network.preprocessing.prepare(image)[None])
    assert line["probability"] == pytest.approx(float(probabilities(logits_NO).max()), abs=1e-6)


def test_unreadable_images_take_a_line_each_and_the_others_are_predicted(tmp_path: Path) -> None:
    root = images(tmp_path, ["a.png", "c.png"])
    (root / "b.png").write_bytes((root / "a.png").read_bytes()[:60])
    Image.fromarray(np.full((8, 8), 40000, dtype=np.uint16)).save(root / "deep.png")
    (root / "empty.jpg").write_bytes(b"")
    said = predict(written(), root)
    assert said.code == 1 and len(said.out.splitlines()) == 3
    damaged, deep, empty, count = said.err.splitlines()
    assert damaged.startswith(f"{root}/b.png: damaged image (")
    assert deep == f"{root}/deep.png: image mode 'I;16' has more than 8 bits per channel; convert it to 8 bits"
    assert empty == f"{root}/empty.jpg: not an image that Pillow can read (0 bytes)"
    assert count == "3 of 5 images cannot be read; the others were predicted"
    found = lines_of(written(), root, code=1)
    assert [sorted(line)[0] for line in found] == ["label", "error", "label", "error", "error"]


def test_folders_named_as_classes_give_accuracy_and_mistakes(tmp_path: Path) -> None:
    root = images(tmp_path / "all", [f"{i}.png" for i in range(12)])
    labels = {Path(line["path"]).name: line["label"] for line in lines_of(written(), root)}
    named = [name for name, label in labels.items() if label.isprintable() and label and "'''" not in label]
    assert len(named) > 3
    for name in named:
        target = tmp_path / "test" / labels[name] / "deeper" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(root / name, target)
    said = predict(written(), tmp_path / "test", "--labelled")
    assert said.out.splitlines()[-1] == f"accuracy 1.0000 ({len(named)} of {len(named)} images)"
    wrong = "it's" if labels[named[0]] != "it's" else "back\\slash"
    moved = tmp_path / "test" / wrong / "moved.png"
    moved.parent.mkdir(exist_ok=True)
    shutil.copy(root / named[0], moved)
    said = predict(written(), tmp_path / "test", "--labelled")
    assert f"accuracy {len(named) / (len(named) + 1):.4f}" in said.out
    assert said.out.splitlines()[-1].rstrip().endswith(f"{labels[named[0]]} (1)")
    (line,) = lines_of(written(), moved, "--labelled")
    assert line["expected"] == wrong
    assert 'lies in no folder named as a class of the model ("it\'s"' in refused(written(), root, "--labelled")


def test_every_way_to_name_an_image_gives_it_the_same_class(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    images(tmp_path, ["p/test/it's/2020/a.png"])
    for given in ("p", "p/test", "p/test/it's", "p/*/*/*/*.png", "p/test/it's/2020/a.png"):
        assert [line["expected"] for line in lines_of(written(), given, "--labelled")] == ["it's"]
    images(tmp_path, ["q/test/it's/back\\slash/a.png"])
    for given in ("q", "q/*/*/*/*.png", "q/test/it's/back\\slash/a.png"):
        line = refused(written(), given, "--labelled")
        assert "a.png lies in folders of several classes ('back" in line and line.endswith("the class folders are in")


def test_predictions_are_written_as_a_table_with_all_probabilities(tmp_path: Path) -> None:
    root = images(tmp_path / "photos", ["it's/a.png", "it's/b.png"])
    (root / "bad.png").write_text("")
    out = tmp_path / "predictions.parquet"
    said = predict(written(), root / "it's", "--labelled", "--out", out)
    assert said.code == 0 and said.out.splitlines()[-1] == f"predictions of 2 images: {out}"
    table = pq.read_table(out)
    assert table.column_names == ["path", "label", "probability", "probabilities", "expected"]
    about = json.loads(table.schema.metadata[b"ddpnas_predictions"])
    assert (tuple(about["classes"]), about["form"]) == (AWKWARD, "torch")
    for row in table.to_pylist():
        assert row["label"] == AWKWARD[int(np.argmax(row["probabilities"]))]
        assert sum(row["probabilities"]) == pytest.approx(1, abs=1e-5)
        assert (row["probability"], row["expected"]) == (max(row["probabilities"]), "it's")
    assert predict(written(), root, "--out", out).code == 1, "replaced, although one image is damaged"
    assert pq.read_table(out).column_names == ["path", "label", "probability", "probabilities"]


# --- models ---


def test_a_run_means_its_model(tmp_path: Path) -> None:
    photo = images(tmp_path, ["a.png"]) / "a.png"
    own = tmp_path / "run"
    own.mkdir()
    (own / "config.yaml").write_text("")
    line = refused(own, photo)
    assert line == f"ModelError: {own}: it has no exported model yet; first: python -m ddpnas_ray.export {own}"
    shutil.copytree(written(), own / "model-macs=1M")
    shutil.copytree(written(), own / "model-x-writing-123")
    assert lines_of(own, photo) == lines_of(written(), photo) == lines_of(written() / "network.py", photo)
    shutil.copytree(written(), own / "model")
    assert f"it has several models; give one of {own}/model, {own}/model-macs=1M" in refused(own, photo)


def test_a_retraining_means_its_own_model_in_the_run(tmp_path: Path) -> None:
    photo = images(tmp_path, ["a.png"]) / "a.png"
    for label, genotype in (("result", one().genotype), ("macs=1M", {})):
        folder = tmp_path / "run/retrained" / label
        folder.mkdir(parents=True)
        (folder / "config.yaml").write_text("")
        (folder / "network.json").write_text(json.dumps({"genotype": genotype}))
    shutil.copytree(written(), tmp_path / "run/model")
    assert lines_of(tmp_path / "run/retrained/result", photo) == lines_of(written(), photo)
    assert "it has no exported model yet" in refused(tmp_path / "run/retrained/macs=1M", photo)


def test_an_edited_model_is_refused_unless_forced(tmp_path: Path) -> None:
    photo = images(tmp_path, ["a.png"]) / "a.png"
    edited = tmp_path / "model"
    shutil.copytree(written(), edited)
    (edited / "network.py").write_text((edited / "network.py").read_text() + "\n# mine\n")
    line = refused(edited, photo)
    assert line.endswith("network.py was edited since it was written; export the network again, or use --force")
    assert lines_of(edited, photo, "--force") == lines_of(written(), photo)
    (edited / "network.py").write_text("no python")
    assert "form torch cannot be loaded (SyntaxError" in refused(edited, photo, "--force")


def test_a_missing_package_is_one_line_with_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photo = images(tmp_path, ["a.png"]) / "a.png"
    (tmp_path / "model.onnx").write_bytes(b"")
    real = importlib.util.find_spec
    monkeypatch.setattr(
        registry.importlib.util, "find_spec", lambda name: None if name == "onnxruntime" else real(name)
    )  # type: ignore[attr-defined]
    wanted = "ResourceError: form onnx needs onnxruntime: pip install 'ddpnas-ray[deploy]'"
    assert refused(tmp_path / "model.onnx", photo) == wanted
    assert refused(tmp_path / "model.onnx", "--benchmark") == wanted


# --- bad input ---


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (("MODEL",), "ddpnas predict: give EXAMPLES: files, folders or patterns; see --help"),
        (("nowhere", "a.png"), "ModelError: nowhere: does not exist; give a model folder, or its model.onnx"),
        (("empty", "a.png"), "ModelError: empty: not a model folder: it has no MANIFEST.json; export"),
        (("a.png", "a.png"), "ModelError: a.png: not a file of a model folder; allowed: config.json, model.on"),
        (("x" * 300, "a.png"), "x: cannot be read: File name too long; correct the path"),
        (("~nobody-of-that-name", "a.png"), "ModelError: ~nobody-of-that-name: does not exist"),
        (("MODEL", "a.png", "--out", f"{'x' * 300}/a.parquet"), "x/a.parquet: cannot be written: File name too long"),
        (("s3://bucket/run", "a.png"), "ModelError: s3://bucket/run: models are read from local disks"),
        (("MODEL", "none.png"), "DataError: none.png: no such file or folder, and no pattern that matches one"),
        (("MODEL", "*.jpg"), "DataError: *.jpg: no such file or folder, and no pattern that matches one"),
        (("MODEL", "empty"), "DataError: empty: no images in this folder; add some (.bmp, .gif,"),
        (("MODEL", "bad.png"), "DataError: bad.png: not an image that Pillow can read (3 bytes)"),
        (("MODEL", "a.png", "--form", "onnx"), "it has no form onnx; allowed: pt2, torch"),
        (
            ("MODEL", "a.png", "--form", "tourch"),
            "'tourch' is not a built-in form or module:function; did you mean tor",
        ),
        (("MODEL", "a.png", "--out", "x.csv"), "ConfigError: --out x.csv: predictions are written as Parquet"),
        (("MODEL", "a.png", "--out", "no/x.parquet"), "RunDirError: no/x.parquet: cannot be written: "),
        (("MODEL", "a.png", "--out", "/proc/x.parquet"), "RunDirError: /proc: cannot be written: "),
        (("MODEL", "a.png", "--out", "folder.parquet"), "RunDirError: folder.parquet: is a folder; choose another"),
        (("MODEL", "a.png", "--threads", "1"), "ddpnas predict: --threads needs --benchmark; see --help"),
        (("MODEL", "a.png", "--latency", "x"), "ddpnas predict: --latency needs --benchmark; see --help"),
        (("MODEL", "--benchmark", "--labelled"), "ddpnas predict: --labelled is not for --benchmark"),
        (("MODEL", "--benchmark", "bad.png"), "DataError: bad.png: not an image that Pillow can read (3 bytes)"),
        (("MODEL", "--benchmark", "--latency", "no.parquet"), "DataError: no.parquet: no such file; `ddpnas latency"),
        (("MODEL", "a.png", "--batch", "0"), "'0' is not an integer of at least 1"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, tuple) else "",
)
def test_bad_input_takes_one_line_and_writes_nothing(
    words: tuple[str, ...], wanted: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(images(tmp_path, ["a.png"]))
    (tmp_path / "bad.png").write_text("bad")
    (tmp_path / "empty").mkdir()
    (tmp_path / "folder.parquet").mkdir()
    before = contents(tmp_path)
    assert wanted in refused(*(str(written()) if word == "MODEL" else word for word in words))
    assert contents(tmp_path) == before


def test_the_only_image_that_cannot_be_read_has_its_json_too(tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_text("bad")
    said = predict(written(), tmp_path / "bad.png", "--json")
    reason = f"{tmp_path}/bad.png: not an image that Pillow can read (3 bytes)"
    assert (said.code, said.err) == (2, f"DataError: {reason}\n")
    assert json.loads(said.out) == {"path": f"{tmp_path}/bad.png", "error": reason}


def test_where_no_image_can_be_read_nothing_is_written(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_text("bad")
    said = predict(written(), tmp_path, "--out", tmp_path / "x.parquet")
    assert (said.code, said.out) == (2, "")
    assert said.err.splitlines()[-1] == "DataError: none of the 2 images can be read"
    assert not (tmp_path / "x.parquet").exists()


# --- speed ---


def latency_table(**changes: Any) -> LatencyTable:
    """A table in which the stem takes 1 ms and every operation 1 us."""
    network, took = one(), Latency(1000, 900, 1100, 20)
    space = network.spec.space
    rows = [LatencyRow(None, None, "stem", 1, Latency(10**6, 10**6, 10**6, 20))]
    rows += [
        LatencyRow(edge.name, op.name, op.name, 1, took)
        for edge in space.edges
        for op in edge.candidates
        if op.generable
    ]
    values: dict[str, Any] = {
        "rows": tuple(rows),
        "device": "ddpnas-device=pc",
        "machine": {},
        "timing": {"threads": 1, "batch": 1, "dtype": "fp32", "device": "cpu"},
        "space": {"name": "cell", "nodes": 2},
        "edges": edge_names(space),
        "target": asdict(network.target),
        "reference_alpha": tuple(network.alpha_E.tolist()),
        "reference": took,
        "date": "2026-01-01",
    }
    return LatencyTable(**values | changes)


def with_genotype(folder: Path) -> Path:
    """A copy of the model folder with the genotype of a network that a search could find: 8 operations."""
    shutil.copytree(written(), folder)
    pairs = [["sep_conv_3x3", 0], ["skip_connect", 1], ["max_pool_3x3", 0], ["sep_conv_3x3", 2]]
    genotype = {"normal": pairs, "normal_concat": [2, 3], "reduce": pairs, "reduce_concat": [2, 3]}
    (folder / "genotype.json").write_text(json.dumps(genotype))
    return folder


@pytest.mark.slow
def test_forms_are_timed_beside_the_estimate_of_a_table(tmp_path: Path) -> None:
    model = with_genotype(tmp_path / "model")
    latency_table().save(str(tmp_path / "pc.parquet"))
    words = ("--benchmark", "--form", "torch", "--latency", tmp_path / "pc.parquet", "--force", "--json")
    said = predict(model, *words)
    assert said.code == 0, said.err
    found = json.loads(said.out)
    (speed,) = found["forms"]
    assert (speed["form"], speed["file"], found["threads"], found["images"]) == ("torch", "network.py", 1, "random")
    assert 0 < speed["median_ns"] <= speed["p90_ns"] and speed["images_per_s"] > 0 and speed["timings"] >= 3
    sizes = sum((written() / name).stat().st_size for name in ("network.py", "model.safetensors"))
    assert speed["file_bytes"] == sizes
    assert found["estimate"] == {
        "latency_ns": 1_008_000,
        "source": str(tmp_path / "pc.parquet"),
        "about": "ddpnas-device=pc, cpu, 1 thread(s), batch 1, fp32",
    }


def test_tables_of_other_networks_are_refused(tmp_path: Path) -> None:
    words = (with_genotype(tmp_path / "model"), "--force", "--benchmark", "--latency")
    latency_table(target=asdict(one().target) | {"image_size": 32}).save(str(tmp_path / "large.parquet"))
    line = refused(*words, tmp_path / "large.parquet")
    assert "large.parquet: it is for 3 cells, 4 channels, 32 px, 10 classes, cifar stem" in line
    latency_table(space={"name": "mobile"}).save(str(tmp_path / "mobile.parquet"))
    line = refused(*words, tmp_path / "mobile.parquet")
    assert "mobile.parquet: a table of space 'mobile', but the model is not (" in line


def test_the_estimate_of_a_run_is_that_of_the_same_network_and_target(tmp_path: Path) -> None:
    from ddpnas_ray.launch.predicting import generated_estimate

    shutil.copytree(written(), tmp_path / "model")
    genotype, target = one().genotype, asdict(one().target)
    for path, content in {
        "retrained/result/network.json": {"genotype": genotype, "target": target},
        "generated/a/genotype.json": {"genotype": {}, "target": target, "costs": {"latency": 1}},
        "generated/b/genotype.json": {"genotype": genotype, "target": {}, "costs": {"latency": 2}},
        "generated/c/genotype.json": {"genotype": genotype, "target": target, "costs": {"macs": 3}},
    }.items():
        (tmp_path / path).parent.mkdir(parents=True)
        (tmp_path / path).write_text(json.dumps(content))
    assert generated_estimate(tmp_path / "model") is None
    assert generated_estimate(tmp_path) is None, "a file of a model alone, without its genotype"
    best = {"genotype": {}, "target": target, "costs": {"latency": 4}}
    second = {"genotype": genotype, "costs": {"latency": 5}}
    (tmp_path / "generated/c/genotype.json").write_text(json.dumps(best | {"candidates": [best, second]}))
    found = generated_estimate(tmp_path / "model")
    assert found is not None and found.latency_ns == 5 and found.source.endswith("generated/c/genotype.json")


@pytest.mark.slow
def test_every_form_is_timed_in_one_table(tmp_path: Path) -> None:
    from ddpnas_ray.deploy.folder import write_model
    from tests.deploy.making import noise

    write_model(one(), tmp_path / "model", examples=noise(one()))
    photos = images(tmp_path / "photos", ["a.png", "b.png"])
    said = predict(tmp_path / "model", "--benchmark", photos, "--batch", "4")
    assert said.code == 0, said.err
    head, *rows, last = said.out.splitlines()
    assert "images/s, batch 4" in head
    assert [row.split()[0] for row in rows] == ["torch", "pt2", "onnx", "huggingface"]
    assert "1 thread(s); given images of shape (3, 8, 8)" in last
    labels = {
        form: [line["label"] for line in lines_of(tmp_path / "model", photos, "--form", form)]
        for form in ("torch", "pt2", "onnx")
    }
    assert labels["torch"] == labels["pt2"] == labels["onnx"]
    assert load_model(tmp_path / "model", "onnx").form == "onnx"


@pytest.mark.slow
def test_a_form_that_cannot_be_timed_is_one_line_and_the_others_are(tmp_path: Path) -> None:
    shutil.copytree(written(), tmp_path / "model")
    (tmp_path / "model/model.pt2").write_bytes(b"damaged")
    said = predict(tmp_path / "model", "--benchmark", "--force")
    assert said.code == 1 and "torch" in said.out
    assert said.err.splitlines()[-1].startswith("form pt2 cannot be timed: ")
