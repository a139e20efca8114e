"""A model folder is a folder of Hugging Face transformers: offline, from elsewhere, grey and coloured."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from ddpnas_ray.deploy.forms import huggingface as form
from ddpnas_ray.deploy.verify import logits_of
from tests.data.making import image
from tests.deploy.making import AWKWARD, elsewhere, tiny

pytest.importorskip("transformers", reason="transformers is not installed; pip install -e '.[deploy]' has it")

CLASSIFY = """
import json, pathlib, sys, warnings
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForImageClassification, pipeline
folder, here = sys.argv[1], pathlib.Path.cwd()
classify = pipeline("image-classification", model=folder, trust_remote_code=True)
answers = classify([str(here / "rgb.png"), str(here / "grey.png")], top_k=3)
model = AutoModelForImageClassification.from_pretrained(folder, trust_remote_code=True).eval()
processor = AutoImageProcessor.from_pretrained(folder, trust_remote_code=True)
batch = processor([Image.open(here / "rgb.png"), Image.open(here / "grey.png")], return_tensors="pt")
logits = model(**batch).logits
print(json.dumps({"answers": answers, "logits": logits.tolist(), "names": model.config.id2label}))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("colours", "classes"), [(3, AWKWARD), (1, ("no", "yes")), (3, ("thing",))], ids=["colour", "grey", "one class"]
)
def test_the_pipeline_classifies_from_another_folder(colours: int, classes: tuple[str, ...], tmp_path: Path) -> None:
    network, folder, here = tiny(colours=colours, classes=classes), tmp_path / "my.model v1-0", tmp_path / "elsewhere"
    folder.mkdir()
    here.mkdir()
    form.write(network, folder)
    pictures = [image(0, (19, 12)), image(1, (8, 8), "L")]
    for picture, name in zip(pictures, ("rgb.png", "grey.png"), strict=True):
        picture.save(here / name)
    found = json.loads(elsewhere(CLASSIFY, folder, here).splitlines()[-1])
    images = np.stack([network.preprocessing.prepare(picture) for picture in pictures])
    expected = logits_of(network.module(), images)
    np.testing.assert_allclose(found["logits"], expected, atol=1e-5)
    assert list(found["names"].values()) == list(classes)
    first = [answer[0]["label"] for answer in found["answers"]]
    assert first == [classes[k] for k in expected.argmax(axis=1)]
    softmax = np.exp(expected) / np.exp(expected).sum(axis=1, keepdims=True)
    scores = [answer[0]["score"] for answer in found["answers"]]
    if len(classes) > 1:  # transformers takes a single logit for a yes or no
        np.testing.assert_allclose(scores, softmax.max(axis=1), atol=1e-5)


def test_the_files_name_classes_and_code(tmp_path: Path) -> None:
    form.write(tiny(), tmp_path)
    config = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    assert list(config["id2label"].values()) == list(AWKWARD)
    assert config["auto_map"]["AutoModelForImageClassification"] == "network.FoundForImageClassification"
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(form.FILES)
