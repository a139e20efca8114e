"""Imports point down one list, never up, and in no circle; the algorithm needs neither torch nor ray, and configuring
neither; no file is too long to read at once, and each has its tests where one looks for them."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "ddpnas_ray"
COMMANDS = {
    "cli",
    "search",
    "attach",
    "generate",
    "retrain",
    "export",
    "predict",
    "sweep",
    "latency",
    "table",
    "check",
    "report",
    "ablate",
}
LAYERS: list[set[str]] = [  # from the top; a module imports from its own layer and from those below
    {"testing"},
    COMMANDS,
    {"api"},
    {"launch"},
    {"distributed"},
    {"ablations"},
    {"reporting"},
    {"console"},
    {"deploy"},
    {"finals"},
    {"retraining"},
    {"experiment"},
    {"tabular", "devices"},
    {"execution"},
    {"training"},
    {"strategies"},
    {"tasks"},
    {"metrics"},
    {"data"},
    {"spaces"},
    {"nn"},
    {"costs"},
    {"runs"},
    {"storage"},
    {"core"},
    {""},  # ddpnas_ray/__init__.py
]
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
FILES = sorted(PACKAGE.rglob("*.py"))
FACADE = PACKAGE / "__init__.py"  # names the Python API for type checkers only; tests/test_api.py shows that
# Neither torch nor ray comes along with these, but for their networks and timing.
HEAVY = ("network.py", "importance.py", "timing.py", "ray_connect.py", "augment.py", "resident.py")
LIGHT = (
    "",
    "api",
    "core",
    "console",
    "experiment",
    "tabular",
    "devices",
    "deploy",
    "reporting",
    "retraining",
    "finals",
    "launch",
    "retrain",
    "export",
    "predict",
    "runs",
    "storage",
    "search",
    "attach",
    "latency",
    "table",
    "ablate",
    "sweep",
    "costs",
    "data",
    "tasks",
    "metrics",
    "spaces",
)

MOST_LINES = 450
# Modules that have no tests/<path>/test_<module>.py: the file below tests/ that tests them, and why there.
TESTED_BY_COMMAND = "runs the command whose only part it is"
ELSEWHERE = {
    "ablations.correlation": ("test_ablate.py", TESTED_BY_COMMAND),
    "ablations.folder": ("test_ablate.py", "files and resumes"),
    "ablations.gamma": ("test_ablate.py", TESTED_BY_COMMAND),
    "ablations.grid": ("test_sweep.py", TESTED_BY_COMMAND),
    "ablations.grid_report": ("test_sweep.py", TESTED_BY_COMMAND),
    "ablations.interval": ("test_ablate.py", TESTED_BY_COMMAND),
    "ablations.noprune": ("test_ablate.py", TESTED_BY_COMMAND),
    "ablations.report": ("test_ablate.py", "what every ablation prints and keeps"),
    "ablations.strategies": ("test_ablate.py", TESTED_BY_COMMAND),
    "ablations.theta": ("test_ablate.py", TESTED_BY_COMMAND),
    "ablations.topology": ("test_ablate.py", TESTED_BY_COMMAND),
    "ablations.variants": ("test_ablate.py", "words of the command that stand for searches"),
    "api.arguments": ("test_api.py", "what a caller may give"),
    "api.network": ("test_api.py", "what a caller sees"),
    "api.run": ("test_api.py", "what a caller sees"),
    "console.command": ("test_bad_input.py", "every command shares it"),
    "console.out": ("test_search.py", "--out and --resume of every command"),
    "console.predictions": ("test_predict_masks.py", "what the command shows and writes"),
    "console.ray_connect": ("test_attach.py", "needs a cluster with authentication"),
    "core.generation.enumeration": ("core/generation/test_solve.py", "the methods are compared with each other"),
    "core.generation.problem": ("core/generation/test_solve.py", "what the methods solve"),
    "core.requests": ("strategies/test_rounds.py", "values that strategies and executors exchange"),
    "core.state": ("core/test_update.py", "values that every rule of the core changes"),
    "data.raw": ("data/test_registry.py", "what a reader returns"),
    "data.scan": ("data/test_folder.py", "how folders are read"),
    "data.tables": ("data/test_parquet.py", "what Parquet and Hugging Face share"),
    "data.values": ("data/test_registry.py", "what a reader returns"),
    "deploy.alone": ("deploy/test_verify.py", "a script that verify starts"),
    "deploy.benchmark": ("test_predict.py", TESTED_BY_COMMAND),
    "deploy.image_files": ("test_predict.py", "which files, and their labels"),
    "deploy.interface": ("deploy/kinds/test_texts.py", "a protocol, by the kinds of examples"),
    "deploy.kinds.images": ("deploy/test_trained.py", "the preprocessing of a trained network"),
    "deploy.mask_card": ("deploy/kinds/test_masks.py", "the card of a network"),
    "deploy.predicting": ("test_predict.py", TESTED_BY_COMMAND),
    "deploy.questions": ("deploy/test_text_files.py", "a protocol, by what passes it"),
    "deploy.text_card": ("deploy/kinds/test_texts.py", "the card, and lines of it that run"),
    "deploy.timed": ("test_predict.py", "a script that benchmark starts"),
    "devices.config": ("distributed/test_ray_timing.py", "labels are found in a cluster"),
    "distributed.ray_attach": ("test_attach.py", TESTED_BY_COMMAND),
    "distributed.ray_data": ("distributed/test_ray_trials.py", "what trials read their data through"),
    "distributed.ray_scoring": ("test_generate.py", "--verify"),
    "execution.base": ("execution/test_local.py", "the protocol, by its contract"),
    "execution.ray_errors": ("execution/test_ray_pool.py", "errors of real workers"),
    "experiment.evaluators": ("test_search.py", "score sheets and warnings are read from runs"),
    "experiment.experiment": ("test_search.py", "a configuration becomes a search"),
    "experiment.finished": ("test_generate.py", "a run is read to generate from it"),
    "experiment.groups": ("experiment/test_config.py", "checked as part of whole configurations"),
    "experiment.progress": ("test_search.py", "what a search shows"),
    "experiment.result": ("test_search.py", "result.json is read from runs"),
    "experiment.run": ("test_search.py", "the whole of a search"),
    "experiment.sections": ("experiment/test_config.py", "checked as part of whole configurations"),
    "experiment.yaml_text": ("experiment/test_config.py", "read as part of whole configurations"),
    "finals.candidates": ("test_finals.py", TESTED_BY_COMMAND),
    "finals.files": ("test_finals.py", "what the command writes"),
    "finals.finals": ("test_finals.py", TESTED_BY_COMMAND),
    "finals.table": ("test_finals.py", TESTED_BY_COMMAND),
    "launch.counting": ("test_check.py", TESTED_BY_COMMAND),
    "launch.finals": ("test_finals.py", TESTED_BY_COMMAND),
    "launch.dry_run": ("test_check.py", TESTED_BY_COMMAND),
    "launch.following": ("test_attach.py", TESTED_BY_COMMAND),
    "launch.predicting": ("test_predict.py", TESTED_BY_COMMAND),
    "reporting.ablation_plots": ("test_ablate.py", "figures are compared as files"),
    "reporting.analysis": ("reporting/test_page.py", "its numbers are read from the page"),
    "reporting.cards": ("test_api.py", "what a notebook shows of runs and networks"),
    "reporting.charts": ("reporting/test_page.py", "its charts are read from the page"),
    "reporting.compare": ("reporting/test_page.py", "the other page"),
    "reporting.confidence": ("reporting/test_page.py", "its sentences are read from the page"),
    "reporting.explain": ("reporting/test_page.py", "--explain and the page tell one story"),
    "reporting.figures": ("test_ablate.py", "figures are compared as files"),
    "reporting.finals": ("test_finals.py", "what the command prints and draws"),
    "reporting.plots": ("test_generate.py", "the figure of generated networks"),
    "reporting.retrained_compare": ("reporting/test_retrained_page.py", "the other page"),
    "reporting.retrained_files": ("reporting/test_retrained.py", "retrainings are read to be reported"),
    "reporting.runfiles": ("reporting/test_page.py", "broken runs have a page or a reason"),
    "reporting.summary": ("test_report.py", TESTED_BY_COMMAND),
    "reporting.svg": ("reporting/test_page.py", "its elements are read from the page"),
    "runs.environment": ("test_search.py", "environment.json is read from runs"),
    "runs.files": ("runs/test_directory.py", "files and back"),
    "launch.exporting": ("test_export.py", TESTED_BY_COMMAND),
    "launch.retraining": ("test_retrain.py", TESTED_BY_COMMAND),
    "reporting.exported": ("test_export.py", "what the command prints"),
    "retraining.choice": ("retraining/test_prepare.py", "which architecture"),
    "retraining.files": ("test_retrain.py", "what the command writes"),
    "retraining.retraining": ("retraining/test_prepare.py", "what is assembled"),
    "retraining.run": ("test_retrain.py", "from checkpoints to the result"),
    "tasks.recipe": ("training/test_fit.py", "values that a training takes"),
    "training.batches": ("training/test_trainer.py", "batches of every training"),
    "training.snapshot": ("training/test_fit.py", "what a resume carries"),
    "runs.log": ("runs/test_directory.py", "its lines are added"),
    "spaces.base": ("spaces/test_own_space.py", "what a space of one's own is made of"),
    "spaces.bert.costs": ("spaces/bert/test_space.py", "a space is tested as a whole"),
    "spaces.bert.plain": ("spaces/bert/test_network.py", "its source computes what the network does"),
    "spaces.cell.plain": ("deploy/forms/test_torch.py", "sources of all spaces are run"),
    "spaces.mobile.plain": ("deploy/forms/test_torch.py", "sources of all spaces are run"),
    "spaces.nasbench201.plain": ("deploy/forms/test_torch.py", "sources of all spaces are run"),
    "spaces.plain": ("deploy/forms/test_torch.py", "sources of all spaces are run"),
    "storage.hub": ("data/test_huggingface.py", "what may be a name on the hub"),
    "storage.parquet": ("runs/test_directory.py", "files and back"),
    "strategies.base": ("strategies/test_rounds.py", "what strategies share"),
    "tabular.benchmark": ("tabular/test_table.py", "the table with two of its columns"),
    "tabular.executor": ("tabular/test_table.py", "looking up"),
    "tabular.nats_bench": ("test_table.py", TESTED_BY_COMMAND),
    "tasks.base": ("tasks/test_registry.py", "how tasks are found"),
    "tasks.segmentation.pairs": ("tasks/segmentation/test_reading.py", "what is read"),
    "testing.counting": ("spaces/cell/test_space.py", "a contract is tested by what passes it"),
    "testing.executor_contract": ("execution/test_local.py", "a contract is tested by what passes it"),
    "testing.head_contract": ("spaces/cell/test_heads.py", "a contract is tested by what passes it"),
    "testing.retraining_contract": ("spaces/cell/test_network.py", "a contract is tested by what passes it"),
    "testing.space_contract": ("spaces/cell/test_space.py", "a contract is tested by what passes it"),
    "testing.states": ("runs/test_checkpoint.py", "a contract is tested by what passes it"),
    "testing.strategy_contract": ("strategies/test_pruning.py", "a contract is tested by what passes it"),
    "testing.task_contract": ("tasks/classification/test_task.py", "a contract is tested by what passes it"),
    "training.config": ("training/test_trainer.py", "values that a trainer takes"),
}


def module_of(path: Path) -> str:
    """Dotted name below the package: ``core.space``; ``core`` of ``core/__init__.py``; ``""`` of the package itself."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path): path for path in FILES}


def layer_of(module: str) -> str:
    return module.partition(".")[0]


def imports(source: str, module: str, is_package: bool) -> Iterator[tuple[int, str]]:
    """Line and absolute dotted name of everything imported: at the top, in functions, and for type checkers alike."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                here = ["ddpnas_ray", *filter(None, module.split("."))]
                above = here[: len(here) - node.level + is_package]
                base = ".".join([*above, *filter(None, [node.module])])
            for alias in node.names:
                yield node.lineno, f"{base}.{alias.name}"


def imported_layers(path: Path) -> Iterator[tuple[int, str]]:
    """Line and layer of every import from the package itself."""
    if path == FACADE:
        return
    for line, name in imports(path.read_text(encoding="utf-8"), module_of(path), path.name == "__init__.py"):
        root, _, rest = name.partition(".")
        if root == "ddpnas_ray":
            layer = layer_of(rest)
            yield line, layer if (PACKAGE / layer).is_dir() or (PACKAGE / f"{layer}.py").is_file() else ""


def imported_files(path: Path) -> set[str]:
    """Modules of the package that a file imports, wherever in it the import stands."""
    found: set[str] = set()
    if path == FACADE:
        return found
    for _, name in imports(path.read_text(encoding="utf-8"), module_of(path), path.name == "__init__.py"):
        root, _, module = name.partition(".")
        while root == "ddpnas_ray" and module not in MODULES:  # a name in a module
            module = module.rpartition(".")[0]
        found |= {module} if root == "ddpnas_ray" else set()
    return found


def outside(path: Path) -> set[str]:
    """Top-level names of what is imported from elsewhere."""
    found = imports(path.read_text(encoding="utf-8"), module_of(path), path.name == "__init__.py")
    return {name.partition(".")[0] for _, name in found} - {"ddpnas_ray"}


def test_every_form_of_import_is_seen() -> None:
    source = """
import ddpnas_ray.core.space, numpy as np
from ddpnas_ray import __version__, runs
from ..storage import Folder
from . import trainer
def f():
    if TYPE_CHECKING:
        from ddpnas_ray.nn.weights import Piece
"""
    assert [name for _, name in imports(source, "execution.local", is_package=False)] == [
        "ddpnas_ray.core.space",
        "numpy",
        "ddpnas_ray.__version__",
        "ddpnas_ray.runs",
        "ddpnas_ray.storage.Folder",
        "ddpnas_ray.execution.trainer",
        "ddpnas_ray.nn.weights.Piece",
    ]
    assert [name for _, name in imports("from .b import c", "a", is_package=True)] == ["ddpnas_ray.a.b.c"]


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_imports_point_down(path: Path) -> None:
    module = module_of(path)
    assert layer_of(module) in LEVEL, f"{module} has no place in LAYERS"
    for line, layer in imported_layers(path):
        assert LEVEL[layer] >= LEVEL[layer_of(module)], (
            f"{path.name}:{line}: {module} imports {layer}, which is above it"
        )


def test_no_files_import_each_other_in_a_circle() -> None:
    graph = {module: imported_files(path) for module, path in MODULES.items()}
    assert {"core.space", "runs.files"} <= graph["experiment.finished"]
    TopologicalSorter(graph).prepare()  # CycleError names the files


def test_no_file_is_too_long_to_read_at_once() -> None:
    lines = {module: len(path.read_text(encoding="utf-8").splitlines()) for module, path in MODULES.items()}
    assert {module: count for module, count in lines.items() if count > MOST_LINES} == {}


def test_every_module_has_its_tests_where_one_looks_for_them_or_is_in_the_list() -> None:
    tests, missing = PACKAGE.parent / "tests", []
    for module, path in MODULES.items():
        mirror = tests / path.relative_to(PACKAGE).with_name(f"test_{path.name}")
        if path.name == "__init__.py":
            continue
        assert not (mirror.is_file() and module in ELSEWHERE), f"{module} has {mirror.name}: strike it off the list"
        missing += [] if mirror.is_file() or module in ELSEWHERE else [module]
    assert missing == [], "add a test file, or a line in ELSEWHERE that says which one tests it and why"
    assert ELSEWHERE.keys() <= MODULES.keys()
    assert [file for file, _ in ELSEWHERE.values() if not (tests / file).is_file()] == []


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_only_files_named_ray_import_ray(path: Path) -> None:
    assert "ray" not in outside(path) or path.name.startswith("ray_")


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_only_testing_imports_pytest(path: Path) -> None:
    assert not {"pytest", "hypothesis", "_pytest"} & outside(path) or layer_of(module_of(path)) == "testing"


@pytest.mark.parametrize("path", [path for path in FILES if layer_of(module_of(path)) == "core"], ids=module_of)
def test_the_algorithm_needs_numpy_and_scipy_only(path: Path) -> None:
    assert outside(path) - set(sys.stdlib_module_names) <= {"numpy", "scipy"}


@pytest.fixture(scope="module")
def came_along() -> dict[str, list[str]]:
    """For each light module, which of torch and ray its import brought into a fresh interpreter.

    One interpreter imports them one after the other and forgets the package in between, so that each is loaded anew.
    """
    modules = [
        f"ddpnas_ray.{module_of(path)}".rstrip(".")
        for path in FILES
        if layer_of(module_of(path)) in LIGHT and path.name not in HEAVY
    ]
    script = """
import importlib, json, sys
found = {}
for module in json.loads(sys.argv[1]):
    for name in [name for name in sys.modules if name.partition(".")[0] in ("ddpnas_ray", "torch", "ray")]:
        del sys.modules[name]
    importlib.import_module(module)
    found[module] = [name for name in ("torch", "ray") if name in sys.modules]
    if found[module]:
        break  # torch cannot be imported a second time
print(json.dumps(found))
"""
    run = subprocess.run(
        [sys.executable, "-c", script, json.dumps(modules)],
        capture_output=True,
        text=True,
        check=True,
        cwd=PACKAGE.parent,
    )
    return json.loads(run.stdout)  # type: ignore[no-any-return]


def test_core_data_spaces_and_configuration_load_without_torch_and_ray(came_along: dict[str, list[str]]) -> None:
    assert {module: names for module, names in came_along.items() if names} == {}
    for module in (
        "core.space",
        "experiment.config",
        "runs.files",
        "storage.folder",
        "search",
        "data.images",
        "spaces.cell.space",
    ):
        assert f"ddpnas_ray.{module}" in came_along
