"""The documents are correct: links resolve, commands and keys exist, and the code of each page works."""

from __future__ import annotations

import argparse
import importlib
import inspect
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import nbformat
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from nbclient import NotebookClient
from PIL import Image
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from ddpnas_ray import cli, report
from ddpnas_ray.core.errors import BadInput
from ddpnas_ray.data.batches import normalise
from ddpnas_ray.data.config import DataConfig
from ddpnas_ray.data.images import load_data
from ddpnas_ray.experiment import config
from ddpnas_ray.spaces.base import SPACES, find_space
from ddpnas_ray.tasks.base import TASKS, find_task
from ddpnas_ray.testing import SpaceContract, StrategyContract, TaskContract
from ddpnas_ray.testing.strategy_contract import Make
from tests.commands import ENVIRONMENT, options, run
from tests.conftest import ROOT, TINY
from tests.score_tables import write_table

DOCS = ROOT / "docs"
PAGES = [*(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "clusters/README.md")), *sorted(DOCS.glob("*.md"))]
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]


@cache
def text(page: Path) -> str:
    return page.read_text(encoding="utf-8")


FENCED = re.compile(r"^ *```(\w*)\n(.*?)^ *```$", re.DOTALL | re.MULTILINE)
INDENTED = re.compile(r"^    .*$", re.MULTILINE)


def blocks(page: Path, language: str) -> list[str]:
    """Return the fenced blocks of a language."""
    return [block for name, block in FENCED.findall(text(page)) if name == language]


def prose(page: Path) -> str:
    """Return the page without its code blocks."""
    return INDENTED.sub("", FENCED.sub("", text(page)))


def inline(page: Path) -> list[str]:
    """Return the inline code."""
    return [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", prose(page))]


def files(page: Path) -> dict[str, str]:
    """Return the files of a page: the block after a line that names the file and ends in a colon."""
    named = r"`([\w-]+\.(?:py|yaml))`[^`\n]*:\n\n```(?:python|yaml)\n(.*?)```"
    return dict(re.findall(named, text(page), re.DOTALL))


# --- links ---


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", text(page), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_relative_links_resolve(page: Path) -> None:
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`]+`", "", prose(page))):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []


def test_every_document_is_in_the_index() -> None:
    linked = set(re.findall(r"\]\(([\w-]+\.md)\)", text(DOCS / "README.md")))
    assert linked == {page.name for page in DOCS.glob("*.md")} - {"README.md"}


# --- commands and keys ---


def commands(page: Path) -> Iterator[tuple[str, list[str]]]:
    """Return (module, words) of each call of our commands, in blocks and inline."""
    code = "\n".join(block for _, block in FENCED.findall(text(page))).replace("\\\n", " ")
    for line in [*code.splitlines(), *INDENTED.findall(FENCED.sub("", text(page))), *inline(page)]:
        for module, rest in re.findall(r"python -m (ddpnas_ray\.[a-z_]+)(.*)", line):
            if rest.count("'") % 2:  # the whole call stands in quotes
                rest = rest.rpartition("'")[0]
            yield module, list(until_the_end(rest))


def until_the_end(rest: str) -> Iterator[str]:
    words = shlex.shlex(rest, posix=True, punctuation_chars=";&|")
    words.whitespace_split = True
    for word in words:
        if set(word) <= set(";&|"):
            return
        yield word


def parser_of(module: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = importlib.import_module(module).parser()
    return parser


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_every_command_of_ours_is_one_that_its_parser_takes(page: Path) -> None:
    for module, words in commands(page):
        parser = parser_of(module)
        if not words:
            continue
        try:
            parser.parse_args(words)
        except SystemExit as end:
            assert not end.code, f"python -m {module} {shlex.join(words)}"


def test_every_command_is_shown_somewhere() -> None:
    shown = {module for page in PAGES for module, words in commands(page) if words}
    assert {f"ddpnas_ray.{name}" for name in cli.COMMANDS} <= shown


@cache
def known_keys() -> frozenset[str]:
    """Return all configuration keys, sections, and options of the built-in spaces and of the how-to pages."""
    keys = {key for key, _, _ in config.describe()}
    built_in = [inspect.signature(find_space(name)).parameters for name in SPACES.names()]
    options = {f"space.{option}" for parameters in built_in for option in parameters}
    tasks = [list(inspect.signature(find_task(name)).parameters)[2:] for name in TASKS.names()]
    options |= {f"task.{option}" for parameters in tasks for option in parameters}
    own = {f"space.{option}" for option in inspect.signature(mixer.make).parameters}
    own |= {f"task.{option}" for option in list(inspect.signature(reading.make).parameters)[2:]} | {"task.metric"}
    own |= {f"climbing.{option}" for option in inspect.signature(climbing.ClimbingConfig).parameters}
    keys |= own
    return frozenset({*keys, *(key.partition(".")[0] for key in keys), *options})


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_every_configuration_key_exists(page: Path) -> None:
    given = {word.partition("=")[0] for _, words in commands(page) for word in words_of_set(words)}
    sections = "|".join(sorted({key.partition(".")[0] for key in known_keys() if "." in key}))
    for code in inline(page):
        given |= set(re.findall(r"--set ([\w.]+)=", code))
        if found := re.fullmatch(rf"((?:{sections})\.\w+)(?:[=:].*)?", code):
            given.add(found[1])
    given -= {"section.key", "space.json", "task.py", *files(page)}  # a placeholder, and files
    assert sorted(given - known_keys()) == []


def words_of_set(words: list[str]) -> list[str]:
    return [value for option, value in pairwise(words) if option == "--set"]


# --- docs/own-data.md ---

OWN_DATA = DOCS / "own-data.md"


def photos(folder: Path, modes: dict[str, str]) -> None:
    """Write small images; ``{"cat": "RRL"}`` is two colour images and a grey one of the class."""
    for name, letters in modes.items():
        (folder / name).mkdir(parents=True)
        for i, letter in enumerate(letters):
            Image.new("RGB" if letter == "R" else "L", (8, 8)).save(folder / name / f"{i + 1:03}.png")


@pytest.mark.parametrize(
    ("modes", "keys"),
    [
        ({}, {}),
        ({"cat": "RRR"}, {}),
        ({"cat": "R" * 120}, {"path": "photos/cat"}),
        ({"val/cat": "R", "test/cat": "R"}, {}),
        ({"train/cat": "RRR", "train/dog": "RRL", "val/cat": "R"}, {}),
        ({"cat": "RRR", "dog": "R"}, {}),
        ({"cat": "RRR", "dog": "RRR", "ship": "RRR"}, {"train_limit": 2}),
        ({"cat": "RRR", "dog": "RRR"}, {"label_column": "x"}),
    ],
    ids=["absent", "one class", "no classes", "no train", "mixed", "one image", "limit", "key"],
)
def test_errors_say_what_the_page_about_data_says(
    modes: dict[str, str], keys: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    photos(tmp_path / "photos", modes)
    with pytest.raises(BadInput) as error:
        load_data(DataConfig(**{"name": "folder", "path": "photos"} | keys), seed=0)
    assert f"| `{error.value}` |" in text(OWN_DATA)


def test_the_table_of_the_page_about_data_is_read_as_a_data_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    photos(tmp_path / "photos", {"cat": "RRRR", "dog": "RRRR"})
    writing = blocks(OWN_DATA, "python")[0]
    exec(writing, {})
    data = load_data(DataConfig(name="parquet", path="photos.parquet"), seed=0)
    assert (data.classes, len(data.train), len(data.val)) == (("cat", "dog"), 4, 4)


@pytest.mark.slow
def test_the_reader_of_the_page_about_data_is_found_and_searched_on(tmp_path: Path) -> None:
    (tmp_path / "arrays.py").write_text(files(OWN_DATA)["arrays.py"])
    (searching,) = [block for block in blocks(OWN_DATA, "sh") if "arrays:read" in block]
    tiny = searching.rstrip() + " " + shlex.join(options(*TINY))
    with pytest.raises(AssertionError, match=r"DataError: digits\.npz: no such file; set data.path"):
        typed(tmp_path, tiny)

    digits = load_digits()
    images = np.rint(digits.images * 15.9375).astype(np.uint8)
    np.savez(tmp_path / "digits.npz", train_images=images, train_labels=digits.target)
    said = typed(tmp_path, tiny)
    assert "33 architecture-epochs" in said
    assert (tmp_path / "runs/arrays/result.json").is_file()


# --- docs/own-space.md ---

OWN_SPACE = DOCS / "own-space.md"


def module_of_page(page: Path, name: str) -> ModuleType:
    """Import a file of a page, so that its functions can be pickled by name."""
    module = ModuleType(name)
    sys.modules[name] = module
    exec(compile(files(page)[f"{name}.py"], f"{page.name}: {name}.py", "exec"), module.__dict__)
    return module


mixer = module_of_page(OWN_SPACE, "mixer")


class TestTheSpaceOfThePage(SpaceContract):
    make = staticmethod(mixer.make)

    def macs(self, network: nn.Module, x: torch.Tensor) -> int:
        with FlopCounterMode(display=False) as counter:
            network(x)
        return counter.get_total_flops() // 2


def typed(folder: Path, commands: str) -> str:
    """Return the shell's output of the commands of a page."""
    preamble = f'set -euo pipefail\npython() {{ "{sys.executable}" "$@"; }}\n'
    done = subprocess.run(
        ["bash", "-c", preamble + commands],
        cwd=folder,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, f"{commands}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.mark.slow
def test_the_page_about_an_own_space_does_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = files(OWN_SPACE)
    assert set(written) == {"mixer.py", "test_mixer.py", "mixer.yaml"}
    for name, content in written.items():
        (tmp_path / name).write_text(content, encoding="utf-8")
    tests, searching, generating = blocks(OWN_SPACE, "sh")

    passed = re.search(r"(\d+) passed", typed(tmp_path, tests))
    assert passed and f"{passed[1]} tests, " in text(OWN_SPACE)

    said = typed(tmp_path, searching)
    for line in ("space      mixer: 6 edges, up to 5 candidates", "36 architecture-epochs in 3 rounds"):
        assert line in said
    result = json.loads((tmp_path / "runs/mixer/result.json").read_text())
    assert list(result["genotype"]) == [f"block{e}" for e in range(6)]
    assert result["score_sheet"][0]["value"] > 0.3, "it learns: ten classes, a tenth by chance"
    assert run(report.main, tmp_path / "runs/mixer", "--verify-fingerprint").code == 0

    said = typed(tmp_path, generating)
    assert "edge block0: 3 rounds" in said and "runs/mixer/report.html" in said
    found = json.loads((tmp_path / "runs/mixer/generated/macs=100k/genotype.json").read_text())
    assert found["costs"]["macs"] <= 100_000

    monkeypatch.chdir(tmp_path)
    page: dict[str, object] = {}
    exec(blocks(OWN_SPACE, "python")[-1], page)
    network, finished = page["network"], page["run"]
    data = load_data(finished.config.data, finished.config.seed)
    images = torch.from_numpy(normalise(data.val.images.gather(range(len(data.val))), data.mean, data.std))
    hits = network.eval()(images).argmax(dim=1).numpy() == data.val.labels_N
    assert found["score"]["value"] == pytest.approx(np.mean(hits)), "as --verify scored it"


# --- docs/own-task.md ---

OWN_TASK = DOCS / "own-task.md"
reading = module_of_page(OWN_TASK, "reading")


class TestTheTaskOfThePage(TaskContract):
    make = staticmethod(lambda: reading.make(DataConfig(), 0))


@pytest.mark.slow
def test_the_page_about_an_own_task_does_what_it_says(tmp_path: Path) -> None:
    written = files(OWN_TASK)
    assert set(written) == {"reading.py", "test_reading.py", "reading.yaml"}
    for name, content in written.items():
        (tmp_path / name).write_text(content, encoding="utf-8")
    tests, searching = blocks(OWN_TASK, "sh")
    assert "20 passed" in typed(tmp_path, tests), "twenty laws, as the page says"
    said = typed(tmp_path, searching)
    assert "66 architecture-epochs in 6 rounds" in said
    assert "near chance" not in said
    result = json.loads((tmp_path / "runs/reading/result.json").read_text())
    assert result["scores"]["last_epoch_mean"] > 0.3, "R2: it learns"
    assert run(report.main, tmp_path / "runs/reading", "--verify-fingerprint").code == 0
    retrained = json.loads((tmp_path / "runs/reading/retrained/result/result.json").read_text())
    (score,) = retrained["scores"]
    assert (score["split"], score["metric"]) == ("test", "R2") and score["value"] > 0.3


# --- all user-defined parts together ---

SIZES = '''
"""How large is the number's class? Regression of a class's rank, on whatever data set there is."""

from dataclasses import dataclass, replace

from torch.nn.functional import mse_loss

from ddpnas_ray.data.images import load_data
from ddpnas_ray.spaces.target import Inputs
from ddpnas_ray.tasks.base import Metric
from ddpnas_ray.tasks.classification.task import ClassificationTask


def closeness(outputs):
    errors = [(out[:, 0].sigmoid() - ranks / 9).abs().mean() for out, ranks in outputs]
    return 1.0 - float(sum(errors)) / len(errors)


@dataclass(frozen=True)
class Sizes(ClassificationTask):
    @property
    def inputs(self):
        return Inputs(shape=super().inputs.shape, outputs=1)

    def loss(self, outputs, batch):
        return mse_loss(outputs[:, 0].sigmoid(), batch.targets / 9)

    def chance(self):
        return None


def make(data, seed, *, name: str = "closeness"):
    return Sizes(load_data(data, seed), Metric(name, closeness))
'''
OWN = {
    "task.name": "sizes:make",
    "data.name": "arrays:read",
    "data.path": "digits.npz",
    "space.name": "mixer:make",
    "strategy": "climbing:make",
    "evaluation.budget": 6,
    "evaluation.batch": 2,
    "climbing.start": 2,
}


@pytest.mark.parametrize("backend", ["local", pytest.param("ray", marks=[pytest.mark.ray, pytest.mark.slow])])
def test_an_own_task_space_strategy_and_reader_search_together(tmp_path: Path, backend: str) -> None:
    for page, name in ((OWN_DATA, "arrays"), (OWN_SPACE, "mixer"), (OWN_STRATEGY, "climbing")):
        (tmp_path / f"{name}.py").write_text(files(page)[f"{name}.py"])
    (tmp_path / "sizes.py").write_text(SIZES)
    digits = load_digits()
    images = np.rint(digits.images * 15.9375).astype(np.uint8)
    np.savez(tmp_path / "digits.npz", train_images=images, train_labels=digits.target)
    words = ["search", *options(*(f"{key}={value}" for key, value in OWN.items())), "--out", "run"]
    limits = options("data.train_limit=64", "data.val_limit=64", f"execution.backend={backend}", "execution.workers=2")
    typed(tmp_path, shlex.join(["python", "-m", f"ddpnas_ray.{words[0]}", *words[1:], *limits]))
    result = json.loads((tmp_path / "run/result.json").read_text())
    assert (result["space"], result["strategy"]) == ("mixer", "climbing:make")
    assert result["architecture_epochs"] == 6
    assert 0.5 < result["scores"]["best"] <= 1
    assert run(report.main, tmp_path / "run", "--verify-fingerprint").code == 0


# --- docs/own-strategy.md ---

OWN_STRATEGY = DOCS / "own-strategy.md"
climbing = module_of_page(OWN_STRATEGY, "climbing")


class TestTheStrategyOfThePage(StrategyContract):
    @pytest.fixture
    def make(self) -> Make:
        strategy: Make = lambda evaluations: climbing.Climbing(evaluations=evaluations, batch=4, lr=0.025, start=5)  # noqa: E731
        return strategy


@pytest.mark.slow
def test_the_page_about_an_own_strategy_does_what_it_says(tmp_path: Path) -> None:
    written = files(OWN_STRATEGY)
    assert set(written) == {"climbing.py", "climbing.yaml", "test_climbing.py"}
    assert len(written["climbing.py"].splitlines()) < 60
    for name, content in written.items():
        (tmp_path / name).write_text(content, encoding="utf-8")
    write_table(tmp_path / "nasbench201.parquet")
    comparing, tests = blocks(OWN_STRATEGY, "sh")
    assert "--seeds 200" in comparing

    said = typed(tmp_path, comparing.replace("--seeds 200", "--seeds 4"))
    assert "100 evaluations in 100 epochs" in said
    result = json.loads((tmp_path / "runs/climbing/result.json").read_text())
    assert (result["strategy"], result["architecture_epochs"]) == ("climbing:make", 100)
    saved = yaml.safe_load((tmp_path / "runs/climbing/config.yaml").read_text())
    assert saved["climbing"] == {"start": 20}
    rows = pq.read_table(tmp_path / "runs/compared/trials.parquet").to_pylist()
    assert {(row["label"], row["value"]) for row in rows} == {
        (name, budget) for name in ("random", "climbing:make") for budget in (50, 100)
    }
    assert "passed" in typed(tmp_path, tests)


# --- docs/python-api.ipynb ---

NOTEBOOK = DOCS / "python-api.ipynb"


def test_the_notebook_is_stored_without_outputs_and_its_links_resolve() -> None:
    cells = nbformat.read(NOTEBOOK, as_version=4).cells
    assert [cell for cell in cells if cell.get("outputs") or cell.get("execution_count")] == []
    words = "".join(cell.source for cell in cells if cell.cell_type == "markdown")
    linked = re.findall(r"\]\(([^)]+)\)", words)
    assert linked and [link for link in linked if not (DOCS / link).is_file()] == []
    assert f"]({NOTEBOOK.name})" in text(DOCS / "README.md")


@pytest.mark.slow
def test_the_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    NotebookClient(notebook, timeout=240, resources={"metadata": {"path": tmp_path}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    assert [output for output in outputs if output.get("name") == "stderr"] == []
    cards = [output["data"]["text/html"] for output in outputs if "text/html" in output.get("data", {})]
    assert len(cards) == 3
    assert "test accuracy" in cards[-1], "the retrained network"
    assert (tmp_path / "runs" / "notebook" / "report.html").is_file()
