"""The table command: import of a benchmark's official files, description of tables, and errors.

The imported folder is a fake, written with the official package's own classes: a space of five architectures with
synthetic accuracies and real costs.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ddpnas_ray import table
from ddpnas_ray.core.requests import EvalRequest
from ddpnas_ray.core.space import SearchSpace, each_edge_alone
from ddpnas_ray.spaces.nasbench201.space import from_string, make, to_string
from ddpnas_ray.spaces.target import Target
from ddpnas_ray.tabular.executor import TableExecutor
from ddpnas_ray.tabular.nats_bench import DATA, META, OfficialFolder
from ddpnas_ray.tabular.table import ScoreTable
from tests.commands import contents, run

nats_bench = pytest.importorskip("nats_bench", reason="nats_bench is not installed; pip install -e '.[test]' has it")

EDGES = [replace(edge, candidates=edge.candidates[: 5 if i == 0 else 1]) for i, edge in enumerate(make().space.edges)]
SPEC = replace(make(), space=SearchSpace("nasbench201", tuple(EDGES), each_edge_alone(EDGES)))
ALPHAS = [np.array([k, 0, 0, 0, 0, 0]) for k in (2, 0, 4, 1, 3)]  # in the benchmark's order, which is arbitrary
TEXTS = [to_string(alpha_E) for alpha_E in ALPHAS]
OFFICIAL = {  # data set -> the images it is evaluated on beside those it is trained on
    "cifar10-valid": ("x-valid", "ori-test"),
    "cifar10": ("ori-test",),
    "cifar100": ("ori-test", "x-valid", "x-test"),
    "ImageNet16-120": ("ori-test", "x-valid", "x-test"),
}
States = dict[str, dict[str, Any]]


def seeds_of(index: int, epochs: int) -> list[int]:
    """Return trainings as in the benchmark: one of 12 epochs, two or three of 200."""
    if epochs == 12:
        return [777]
    return [777, 888] if index == 1 else [777, 888, 999]


def accuracy(index: int, data: str, images: str, epochs: int, seed: int) -> float:
    """Percent; all of them differ."""
    return index + 10 * list(OFFICIAL).index(data) + 2 * len(images) + epochs / 20 + seed / 1000


def million_of(cost: str, index: int, data: str) -> float:
    """A cost as the benchmark records it."""
    source = DATA[data]
    target = Target(cells=5, channels=16, image_size=source.image_size, classes=source.classes)
    return SPEC.costs[cost](target)(ALPHAS[index]) / 1e6


def training(index: int, data: str, epochs: int, seed: int) -> Any:
    """Return one training, evaluated on all images in the last epoch only, as in the benchmark."""
    last = epochs - 1
    result = nats_bench.ResultsCount(
        data,
        None,
        dict.fromkeys(range(epochs), 1.0) | {last: accuracy(index, data, "train", epochs, seed)},
        dict.fromkeys(range(epochs), 0.5),
        million_of("params", index, data),
        million_of("flops", index, data),
        {"arch_str": TEXTS[index], "channel": 16, "num_cells": 5, "class_num": DATA[data].classes},
        str(seed),
        epochs,
        None,
    )
    result.reset_pseudo_train_times(7.0 + index)
    for images in OFFICIAL[data]:
        result.update_OLD_eval(images, {last: accuracy(index, data, images, epochs, seed)}, {last: 0.5})
        result.reset_pseudo_eval_times(images, 1.0)
    return result


def states_of(index: int) -> States:
    """Return the content of an architecture's file."""
    states = {}
    for epochs in (12, 200):
        results = nats_bench.ArchResults(index, TEXTS[index])
        for data in OFFICIAL:
            for seed in seeds_of(index, epochs):
                results.update(data, seed, training(index, data, epochs, seed))
        states[str(epochs)] = results.state_dict()
    return states


def write_meta(folder: Path, content: Any) -> None:
    nats_bench.pickle_save(content, folder / META, ext="")


def file_of(folder: Path, index: int) -> Path:
    return folder / f"{index:06d}.pickle.pbz2"


@pytest.fixture(autouse=True)
def five_architectures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace the benchmark's space by the fake one."""
    monkeypatch.setattr(table, "make", lambda: SPEC)


@pytest.fixture(scope="module")
def official(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fake of the official folder."""
    folder = tmp_path_factory.mktemp("official") / "NATS-tss-v1_0-3ffb9-simple"
    folder.mkdir()
    write_meta(folder, {"meta_archs": TEXTS, "total_archs": 5, "arch2infos": None, "evaluated_indexes": set()})
    for index in range(5):
        nats_bench.pickle_save(states_of(index), file_of(folder, index), ext="")
    return folder


@pytest.fixture
def copy(official: Path, tmp_path: Path) -> Path:
    """A folder that tests may damage; untouched files are shared."""
    folder = tmp_path / official.name
    folder.mkdir()
    for file in official.iterdir():
        (folder / file.name).symlink_to(file)
    return folder


def change(folder: Path, index: int, how: Callable[[States], object]) -> None:
    """Rewrite the file of one architecture."""
    states = states_of(index)
    how(states)
    file_of(folder, index).unlink()
    nats_bench.pickle_save(states, file_of(folder, index), ext="")


def read(path: Path) -> ScoreTable:
    return ScoreTable.read(str(path), SPEC.space, SPEC.encode)


# --- import ---


def test_every_accuracy_is_where_a_search_finds_it(official: Path, tmp_path: Path) -> None:
    path = tmp_path / "new" / "t.parquet"
    said = run(table.main, "import", official, "--out", path)
    assert said.code == 0, said.err
    scores = read(path)
    for index, alpha_E in enumerate(ALPHAS):
        for data, source in DATA.items():
            for split, images in source.splits.items():
                for epochs in (12, 200):
                    column = f"{source.name}_{split}_e{epochs}"
                    single = {s: accuracy(index, data, images, epochs, s) for s in seeds_of(index, epochs)}
                    assert scores.score(column, alpha_E) == pytest.approx(np.mean(list(single.values())) / 100)
                    for seed, percent in single.items():
                        assert scores.score(f"{column}_seed{seed}", alpha_E) == pytest.approx(percent / 100)
    assert np.isnan(scores.score("cifar10_test_e200_seed999", ALPHAS[1]))
    assert "cifar10_valid_e12" not in scores.scores, "its validation images are among those it is trained on"
    assert "cifar10_test_e12_seed888" not in scores.scores
    executor = TableExecutor(scores, "cifar10valid_valid_e200", training=888)
    [result] = executor.evaluate([EvalRequest(0, 0, 0, ALPHAS[1], 0.0)])
    assert result.score == pytest.approx(accuracy(1, "cifar10-valid", "x-valid", 200, 888) / 100)


def test_what_else_a_row_says(official: Path, tmp_path: Path) -> None:
    said = run(table.main, "import", official, "--out", tmp_path / "t.parquet")
    written = pq.read_table(tmp_path / "t.parquet")
    assert written.schema.metadata == {
        b"unit": b"percent",
        b"source": b"NATS-tss-v1_0-3ffb9-simple",
        b"nats_bench": b"1.8",
    }
    assert written["index"].to_pylist() == list(range(5))
    assert written["arch_str"].to_pylist() == TEXTS
    assert written["alpha"].to_pylist() == [alpha_E.tolist() for alpha_E in ALPHAS]
    assert written["n_seeds"].to_pylist() == [3, 2, 3, 3, 3]
    assert written["params_anomaly"].to_pylist() == 5 * [False]
    assert written["cifar10valid_train_seconds_e200"].to_pylist() == [200 * (7.0 + index) for index in range(5)]
    for data, source in DATA.items():
        for cost in ("params", "flops"):
            exact = [round(1e6 * million_of(cost, index, data)) for index in range(5)]
            assert written[f"{source.name}_{cost}"].to_pylist() == exact
    assert said.out.splitlines() == [
        "5 architectures",
        *(
            f"{data}, {line}"
            for data in DATA
            for line in ("12 epochs: 5 with 1 training", "200 epochs: 1 with 2 trainings, 4 with 3 trainings")
        ),
        "recorded params differ from the architecture's in 0 of them (column params_anomaly), flops in 0",
        f"table {tmp_path / 't.parquet'}",
    ]


def test_equal_files_give_equal_tables(official: Path, tmp_path: Path) -> None:
    for name in "ab":
        assert run(table.main, "import", official, "--datasets", "cifar10", "--out", tmp_path / name).code == 0
    assert read(tmp_path / "a").digest == read(tmp_path / "b").digest


def test_a_search_takes_columns_that_belong_together(official: Path, tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    for names, score, final in (
        ([], "cifar10valid_valid_e12", "cifar10_test_e200"),
        (["ImageNet16-120"], "imagenet16_valid_e12", "imagenet16_test_e200"),
        (["cifar100", "cifar10-valid"], "cifar10valid_valid_e12", "cifar10valid_test_e200"),
    ):
        words = ["--datasets", *names] if names else []
        assert run(table.main, "import", official, "--out", path, *words).code == 0
        assert (read(path).column(None, "val", ""), read(path).column(None, "test", "")) == (score, final)
        path.unlink()


def test_only_the_data_sets_asked_for_are_read(copy: Path, tmp_path: Path) -> None:
    change(copy, 3, lambda states: states["12"]["dataset_seed"].pop("cifar100"))
    said = run(table.main, "import", copy, "--datasets", "cifar10", "cifar10-valid", "--out", tmp_path / "t")
    assert said.code == 0, said.err
    assert {name.partition("_")[0] for name in read(tmp_path / "t").scores} == {"cifar10", "cifar10valid"}


def test_records_of_another_network_are_marked(copy: Path, tmp_path: Path) -> None:
    """A training of 200 epochs has the params of another cell, as in about 150 architectures of the benchmark."""

    def other_cell(states: States) -> None:
        states["200"]["all_results"]["cifar10", 999]["params"] += 0.1

    change(copy, 2, other_cell)
    said = run(table.main, "import", copy, "--out", tmp_path / "t")
    assert said.code == 0, said.err
    assert "params differ from the architecture's in 1 of them (column params_anomaly), flops in 0\n" in said.out
    written = pq.read_table(tmp_path / "t")
    assert written["params_anomaly"].to_pylist() == [False, False, True, False, False]
    assert written["cifar10_params"][2].as_py() == round(1e6 * million_of("params", 2, "cifar10"))


def test_records_that_the_benchmark_lacks_are_left_open(copy: Path, tmp_path: Path) -> None:
    def forget(states: States) -> None:
        for result in states["200"]["all_results"].values():
            result.update(params=None, flop=None, train_times=None)

    change(copy, 4, forget)
    said = run(table.main, "import", copy, "--out", tmp_path / "t")
    assert said.code == 0, said.err
    written = pq.read_table(tmp_path / "t")
    assert written["cifar10_train_seconds_e200"].null_count == 1
    assert written["params_anomaly"].to_pylist() == 5 * [False]


def test_costs_are_those_that_the_benchmark_has_of_its_first_architecture() -> None:
    """https://github.com/D-X-Y/NATS-Bench/issues/24 quotes them."""
    alpha_E = from_string(
        "|avg_pool_3x3~0|+|nor_conv_1x1~0|skip_connect~1|+|nor_conv_1x1~0|skip_connect~1|skip_connect~2|"
    )
    folder = OfficialFolder("", make(), (), (), ())
    flops = {name: folder._costs(DATA[name])["flops"](alpha_E) / 1e6 for name in DATA}
    assert flops == {"cifar10": 15.64737, "cifar10-valid": 15.64737, "cifar100": 15.65322, "ImageNet16-120": 3.91948}


# --- import: errors ---


@pytest.fixture
def refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Run a command in ``tmp_path`` that must fail with one line and leave every file unchanged."""
    monkeypatch.chdir(tmp_path)

    def command_refused(words: list[str | Path], *fragments: str) -> None:
        before = contents(tmp_path)
        said = run(table.main, *words)
        assert (said.code, said.out) == (2, ""), said.err
        errors = [line for line in said.err.splitlines() if not line.endswith(" left")]
        assert len(errors) == 1, said.err
        assert all(fragment in errors[0] for fragment in fragments), said.err
        assert contents(tmp_path) == before

    return command_refused


def test_without_the_official_package_it_says_what_to_install(
    refused: Callable[..., None], official: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "nats_bench", None)
    refused(
        ["import", official, "--out", "t"],
        "ResourceError: nats_bench, which reads the official files, is not installed",
        "pip install nats_bench",
    )


def test_a_table_that_exists_stays(refused: Callable[..., None], official: Path, tmp_path: Path) -> None:
    (tmp_path / "t").write_text("mine")
    refused(["import", official, "--out", "t"], "t: exists; choose another --out")


def test_a_place_that_cannot_be_written(refused: Callable[..., None], official: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    refused(["import", official, "--out", "file/t"], "choose another --out")


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ([], "the following arguments are required: import|describe"),
        (["import", "f"], "--out"),
        (["import", "f", "--out", "t", "--datasets", "cifar"], "invalid choice: 'cifar'"),
        (["import", "absent", "--out", "t"], "absent: is not a folder; unpack NATS-tss-v1_0-3ffb9-simple.tar"),
        (["import", ".", "--out", "t"], ".: has no meta.pickle.pbz2; unpack NATS-tss-v1_0-3ffb9-simple.tar"),
    ],
)
def test_bad_words_take_one_line(refused: Callable[..., None], words: list[str | Path], named: str) -> None:
    refused(words, named)


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ({"archs": []}, "has no list meta_archs"),
        ([], "has no list meta_archs"),
        ({"meta_archs": ["8:8:8:8:8"]}, "architecture 0 is not of the topology space (tss): genotype: arch_str has 1"),
        ({"meta_archs": TEXTS[:4]}, "has 4 architectures; the topology space (tss) has 5"),
        ({"meta_archs": [*TEXTS[:4], TEXTS[1]]}, f"architectures 1 and 4 are both {TEXTS[1]}"),
    ],
)
def test_a_list_of_architectures_that_is_not_the_benchmarks(
    refused: Callable[..., None], copy: Path, content: Any, named: str
) -> None:
    (copy / META).unlink()
    write_meta(copy, content)
    refused(["import", copy, "--out", "t"], f"{META}: {named}")


def test_missing_architectures_are_counted(refused: Callable[..., None], copy: Path) -> None:
    file_of(copy, 2).unlink()
    file_of(copy, 4).unlink()
    refused(["import", copy, "--out", "t"], "2 of 5 architectures are missing, starting with 000002.pickle.pbz2")


@pytest.mark.parametrize("damaged", [b"", b"no pickle", "half"])
def test_a_damaged_file(refused: Callable[..., None], official: Path, copy: Path, damaged: bytes | str) -> None:
    whole = file_of(official, 3).read_bytes()
    file_of(copy, 3).unlink()
    file_of(copy, 3).write_bytes(whole[: len(whole) // 2] if isinstance(damaged, str) else damaged)
    refused(["import", copy, "--out", "t"], "000003.pickle.pbz2: cannot be read: ", "unpack")


def _of(states: States, epochs: str, data: str, seed: int) -> dict[str, Any]:
    training: dict[str, Any] = states[epochs]["all_results"][data, seed]
    return training


@pytest.mark.parametrize(
    ("how", "named"),
    [
        (lambda s: s.pop("200"), "has no results of 200 epochs"),
        (lambda s: s["12"].update(arch_index=4), f"holds architecture 4, {TEXTS[3]}; {META} has {TEXTS[3]} there"),
        (
            lambda s: s["200"].update(arch_str=TEXTS[0]),
            f"holds architecture 3, {TEXTS[0]}; {META} has {TEXTS[3]} there",
        ),
        (
            lambda s: s["200"]["dataset_seed"]["cifar100"].remove(888),
            "cifar100, 200 epochs: lists trainings 777, 999, but holds 777, 888, 999",
        ),
        (
            lambda s: s["200"]["all_results"].pop(("cifar100", 888)),
            "cifar100, 200 epochs: lists trainings 777, 888, 999, but holds 777, 999",
        ),
        (
            lambda s: (s["12"]["dataset_seed"].pop("cifar10"), s["12"]["all_results"].pop(("cifar10", 777))),
            "cifar10, 12 epochs: lists trainings none, but holds none",
        ),
        (
            lambda s: _of(s, "200", "cifar10", 888).update(epochs=199),
            "cifar10, 200 epochs: the training of seed 888 has 199 epochs",
        ),
        (
            lambda s: _of(s, "200", "cifar100", 888)["eval_acc1es"].pop("x-test@199"),
            "cifar100, 200 epochs: a training has no accuracy on x-test after its last epoch",
        ),
        (
            lambda s: _of(s, "12", "cifar10-valid", 777)["train_acc1es"].pop(11),
            "cifar10-valid, 12 epochs: a training has no accuracy on train after its last epoch",
        ),
        (
            lambda s: _of(s, "12", "cifar10", 777)["eval_acc1es"].update({"ori-test@11": 100.5}),
            "cifar10, 12 epochs: the training of seed 777 has an accuracy of 100.5 % on ori-test",
        ),
        (
            lambda s: _of(s, "12", "cifar10", 777)["eval_acc1es"].update({"ori-test@11": float("nan")}),
            "cifar10, 12 epochs: the training of seed 777 has an accuracy of nan % on ori-test",
        ),
    ],
)
def test_a_file_that_is_not_what_the_benchmark_documents(
    refused: Callable[..., None], copy: Path, how: Callable[[States], object], named: str
) -> None:
    change(copy, 3, how)
    refused(["import", copy, "--out", "t"], f"000003.pickle.pbz2: {named}")


def test_a_mean_that_is_not_that_of_the_trainings(
    refused: Callable[..., None], official: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nats_bench.ArchResults, "get_metrics", lambda self, data, images: {"accuracy": 50.0})
    refused(
        ["import", official, "--out", "t"], "cifar10, 12 epochs: the mean on train is 50 %, but its trainings average "
    )


# --- describe ---


def test_a_table_is_described(official: Path, tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    assert run(table.main, "import", official, "--datasets", "cifar10", "cifar10-valid", "--out", path).code == 0
    scores = read(path)
    found = table.description(str(path), SPEC)
    assert {key: value for key, value in found.items() if key != "columns"} == {
        "file": str(path),
        "sha256": scores.digest,
        "space": "nasbench201",
        "architectures": 5,
        "unit": "percent",
        "source": "NATS-tss-v1_0-3ffb9-simple",
        "default": {"evaluation.score": "cifar10valid_valid_e12", "evaluation.final": "cifar10_test_e200"},
    }
    columns = {column.pop("name"): column for column in found["columns"]}
    assert list(columns) == [name for name in scores.scores if "_seed" not in name]
    assert columns["cifar10valid_valid_e200"] == {
        "data": "cifar10valid",
        "split": "val",
        "epochs": 200,
        "architectures": 5,
        "trainings": {"777": 5, "888": 5, "999": 4},
        "best": pytest.approx(scores.scores["cifar10valid_valid_e200"].max()),
        "best_genotype": {"arch_str": TEXTS[4]},
        "mean": pytest.approx(scores.scores["cifar10valid_valid_e200"].mean()),
    }


def five(path: Path, **columns: Any) -> Path:
    """A user's table."""
    pq.write_table(pa.table({"alpha": [alpha_E.tolist() for alpha_E in ALPHAS], **columns}), path)
    return path


def test_scores_that_are_not_there_are_counted(tmp_path: Path) -> None:
    path = five(tmp_path / "t", mine_val_e3=[0.5, None, 0.25, None, 0.75], mine_val_e9=pa.nulls(5, pa.float32()))
    found = table.description(str(path), SPEC)
    first, second = found["columns"]
    assert (first["architectures"], first["best"], first["mean"], first["trainings"]) == (3, 0.75, 0.5, {})
    assert (second["architectures"], second["best"], second["best_genotype"], second["mean"]) == (0, None, None, None)
    assert found["default"] == {"evaluation.score": "mine_val_e3", "evaluation.final": None}
    text = table.report(found)
    assert "unit    not stated; a column that exceeds 1 is read as percentages" in text
    assert "mine_val_e3  val         3   75.00   50.00  mean only; 2 rows without a score" in text
    assert "mine_val_e9  val         9       -       -  mean only; 5 rows without a score" in text
    assert text[-1] == "evaluation.final must be named"


def test_the_real_table_is_described(test_data: Path) -> None:
    path = test_data / "nasbench201" / "nasbench201_cifar10.parquet"
    said = run(table.main, "describe", path)
    assert (said.code, said.err) == (0, "")
    assert said.out.splitlines()[2] == "rows    15,625, all architectures of space nasbench201"
    assert "cifar10valid_valid_e200  val       200   91.61   83.69  777, 888, 999 (8,169 rows)\n" in said.out
    assert "cifar10_test_e200        test      200   94.37   87.06  mean only\n" in said.out
    assert said.out.endswith(
        "\nevaluation.score is cifar10valid_valid_e12 by default\nevaluation.final is cifar10_test_e200 by default\n"
    )
    found = json.loads(run(table.main, "describe", path, "--json").out)
    assert found["columns"][3]["best"] == pytest.approx(0.9437, abs=5e-5)
    assert found["sha256"] in said.out


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["describe", "absent"], "absent cannot be read: No such file or directory"),
        (["describe", "t"], "t: has 5 architectures; a table of space 'nasbench201' needs all 15,625"),
        (
            ["describe", "t", "--space", "cell"],
            "t: row 0: alpha [2, 0, 0, 0, 0, 0] is not an architecture of space 'cell'",
        ),
        (["describe", "t", "--space", "cel"], "did you mean cell?"),
    ],
)
def test_what_cannot_be_described_takes_one_line(
    refused: Callable[..., None], tmp_path: Path, words: list[str | Path], named: str
) -> None:
    five(tmp_path / "t", mine_val_e3=[0.5] * 5)
    refused(words, named)
