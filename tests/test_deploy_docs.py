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
@pytest.mark.timeout(900)
def test_the_walk_through_ends_in_files_that_run_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
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

    for folder, image in (("runs/digits/model", "photos/test/two/012.png"), ("my-model", "photos/test/one/011.png")):
        copy = tmp_path / "elsewhere" / Path(folder).name
        shutil.copytree(tmp_path / folder, copy)
        source = tmp_path / image if (tmp_path / image).is_file() else next((tmp_path / image).parent.iterdir())
        shutil.copy(source, copy / "image.png")
        *labels, genotype = [alone(code, copy).strip() for code in loading()]
        said = typed(tmp_path, f"python -m ddpnas_ray.predict {folder} {source} --json")
        assert set(labels) == {json.loads(said)["label"]}
        assert json.loads(genotype) == json.loads((copy / "genotype.json").read_text())
        program = torch.export.load(copy / "model.pt2")
        assert program.example_inputs is not None
        assert not any(example.any() for example in program.example_inputs[0]), "it holds no images"
        for code in blocks(PAGE, "python"):
            name = next((name for name in COMPILERS if name in code), None)
            if name is not None and importlib.util.find_spec(name) is not None:
                alone(code, copy)
    assert str(ROOT) not in (tmp_path / "my-model/README.md").read_text()
