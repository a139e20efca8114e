"""docs/deploy.md, as it stands: its commands are typed and its blocks run, in a folder of their own."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch

from tests.conftest import ROOT
from tests.deploy.making import BLOCKED
from tests.test_docs import DOCS, blocks, typed

PAGE = DOCS / "deploy.md"
COMPILERS = ("executorch", "coremltools", "litert_torch")


def alone(code: str, folder: Path) -> str:
    """Run a block of the page in a folder, offline, where ddpnas_ray cannot be imported; returns its output."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    offline = {
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": str(folder / ".hf"),
        "CUDA_VISIBLE_DEVICES": "",
        "OMP_NUM_THREADS": "1",
    }
    run = subprocess.run(
        [sys.executable, "-B", "-c", BLOCKED + code],
        capture_output=True,
        text=True,
        cwd=folder,
        env=environment | offline,
    )
    assert run.returncode == 0, f"{code}\n{run.stderr}"
    return run.stdout


def loading() -> list[str]:
    """Return the blocks that run in the model folder, without those of compilers."""
    return [code for code in blocks(PAGE, "python")[1:] if not any(name in code for name in COMPILERS)]


def ours() -> list[str]:
    """Return the shell blocks with our commands."""
    return [code for code in blocks(PAGE, "sh") if "python -m ddpnas_ray" in code]


def test_every_block_of_the_page_is_run_by_some_test() -> None:
    install, upload = [code for code in blocks(PAGE, "sh") if code not in ours()]
    assert "pip install" in install and "hf upload" in upload
    compilers = [code for code in blocks(PAGE, "python") if any(name in code for name in COMPILERS)]
    assert len(ours()) == 4 and len(loading()) == 6 and len(compilers) == 3
    assert all(len(code.splitlines()) <= 9 for code in (*loading(), *compilers))


@pytest.mark.slow
@pytest.mark.timeout(1800)  # four minutes on two quiet cores
def test_the_walk_through_ends_in_files_that_run_anywhere(tmp_path: Path) -> None:
    digits, photos, predicting, timing = ours()
    typed(tmp_path, digits)
    result = json.loads((tmp_path / "runs/digits/retrained/result/result.json").read_text())
    scores = {score["split"]: score["value"] for score in result["scores"]}
    assert scores["test"] >= 0.975

    alone(blocks(PAGE, "python")[0], tmp_path)
    typed(tmp_path, photos)

    said = typed(tmp_path, predicting)
    accuracy = re.search(r"accuracy (0\.\d+|1\.0+) \((\d+) of (\d+) images\)", said)
    assert (
        accuracy
        and float(accuracy[1]) > 0.9
        and int(accuracy[3]) == len(list((tmp_path / "photos/test").rglob("*.png")))
    )
    lines = [json.loads(line) for line in (tmp_path / "predictions.jsonl").read_text().splitlines()]
    table = pq.read_table(tmp_path / "predictions.parquet").to_pylist()
    assert {line["path"]: line["label"] for line in lines} == {row["path"]: row["label"] for row in table}

    said = typed(tmp_path, timing)
    assert [line.split()[0] for line in said.splitlines()[1:5]] == ["torch", "pt2", "onnx", "huggingface"]

    image = next((tmp_path / "photos/test/two").iterdir())
    for folder, codes in (("runs/digits/model", loading()), ("my-model", loading()[:2])):
        copy = tmp_path / "elsewhere" / Path(folder).name
        shutil.copytree(tmp_path / folder, copy)
        shutil.copy(image, copy / "image.png")
        said = typed(tmp_path, f"python -m ddpnas_ray.predict {folder} {image} --json")
        printed = [alone(code, copy).strip() for code in codes]
        assert set(printed[:5]) == {json.loads(said)["label"]}
        assert all(json.loads(text) == json.loads((copy / "genotype.json").read_text()) for text in printed[5:])
        program = torch.export.load(copy / "model.pt2")
        assert program.example_inputs is not None
        assert not any(example.any() for example in program.example_inputs[0]), "it holds no images"
        for code in blocks(PAGE, "python"):
            compiler = next((name for name in COMPILERS if name in code), None)
            if compiler is not None and importlib.util.find_spec(compiler) is not None:
                alone(code, copy)
    assert str(ROOT) not in (tmp_path / "my-model/README.md").read_text()
