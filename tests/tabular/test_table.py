"""Tabular scores: reading, errors, and searches on the real table.

Axes: N architectures, E edges.
"""

from __future__ import annotations

import itertools
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ddpnas_ray import generate, report, search
from ddpnas_ray.core.errors import DataError, GenotypeError
from ddpnas_ray.core.requests import EvalRequest
from ddpnas_ray.core.space import IntArray
from ddpnas_ray.spaces.nasbench201.space import from_string
from ddpnas_ray.spaces.nasbench201.space import make as nasbench201
from ddpnas_ray.tabular.executor import TableExecutor
from ddpnas_ray.tabular.table import ScoreTable, epochs_of, expected_best, split_of
from ddpnas_ray.testing import counted_space
from tests.commands import ONE_EPOCH, Said, options, run

SPACE = counted_space("tiny", (3, 0, 0), (1, 1, 0))
ALPHAS = [[a, b] for a in range(3) for b in range(2)]
VAL = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]


def encode(genotype: dict[str, Any]) -> IntArray:
    """``a2b1`` -> [2, 1]."""
    text = genotype["arch_str"]
    if not isinstance(text, str) or len(text) != 4 or text[0] + text[2] != "ab":
        raise GenotypeError(f"genotype: {text!r} is no tiny string")
    return np.array([int(text[1]), int(text[3])])


def read(path: Path) -> ScoreTable:
    return ScoreTable.read(str(path), SPACE, encode)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tiny.parquet"


def write(path: Path, metadata: dict[str, str] | None = None, **columns: Any) -> Path:
    """Write a table of all architectures; ``columns`` override its columns, None drops one."""
    given = {"alpha": ALPHAS, "tiny_val_e12": VAL, "tiny_test_e200": [score + 0.3 for score in VAL]} | columns
    table = pa.table({name: column for name, column in given.items() if column is not None})
    pq.write_table(table if metadata is None else table.replace_schema_metadata(metadata), path)
    return path


# --- reading ---


def test_each_architecture_has_the_scores_of_its_row(path: Path) -> None:
    order = [3, 0, 5, 1, 4, 2]
    table = read(write(path, alpha=[ALPHAS[i] for i in order], tiny_val_e12=[VAL[i] for i in order]))
    for alpha, score in zip(ALPHAS, VAL, strict=True):
        assert table.score("tiny_val_e12", np.array(alpha)) == score
    assert (set(table.scores), table.source) == ({"tiny_val_e12", "tiny_test_e200"}, str(path))


def test_architectures_may_be_strings(path: Path) -> None:
    strings = [f"a{a}b{b}" for a, b in ALPHAS]
    table = read(write(path, alpha=None, arch_str=strings))
    assert table.score("tiny_val_e12", np.array([2, 1])) == 0.6
    with_both = read(write(path, alpha=ALPHAS, arch_str=["not read"] * 6))
    assert with_both.row_of == table.row_of


@pytest.mark.parametrize(
    ("metadata", "scores", "expected"),
    [
        ({}, [10.0, 20.0, 30.0, 40.0, 50.0, 60.0], VAL),  # by magnitude
        ({"unit": "percent"}, [0.1, 0.2, 0.3, 0.4, 0.5, 0.6], [0.001, 0.002, 0.003, 0.004, 0.005, 0.006]),
        ({"unit": "percent"}, [10, 20, 30, 40, 50, 60], VAL),
        ({"unit": "fraction"}, VAL, VAL),
        ({}, [0.0, 0.1, 0.2, 0.5, 0.9, 1.0], [0.0, 0.1, 0.2, 0.5, 0.9, 1.0]),
        ({}, [-1.0, -0.5, 0.0, 0.1, 0.2, 0.3], [-1.0, -0.5, 0.0, 0.1, 0.2, 0.3]),
        ({}, [Decimal(f"{score:.1f}") for score in VAL], VAL),
    ],
)
def test_scores_become_fractions(
    path: Path, metadata: dict[str, str], scores: list[float], expected: list[float]
) -> None:
    table = read(write(path, metadata, tiny_val_e12=scores))
    np.testing.assert_allclose(table.scores["tiny_val_e12"], expected, rtol=1e-15)


def test_other_columns_do_not_matter(path: Path) -> None:
    table = read(write(path, index=list("abcdef"), tiny_val=VAL, tiny_val_e12_params=[1e9] * 6, seconds_e200=VAL))
    assert set(table.scores) == {"tiny_val_e12", "tiny_test_e200"}


def test_the_digest_is_that_of_the_file(path: Path) -> None:
    digest = read(write(path)).digest
    assert len(digest) == 64
    assert read(write(path)).digest == digest
    assert read(write(path, tiny_val_e12=[*VAL[:5], 0.61])).digest != digest


# --- errors: one line with the file, the problem and the fix ---

MISSING = [VAL[0], None, *VAL[2:]]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"alpha": None}, "no column alpha or arch_str, which name the architecture of each row"),
        ({"alpha": [[5, 0], *ALPHAS[1:]]}, "row 0: alpha [5, 0] is not an architecture of space 'tiny'"),
        ({"alpha": [*ALPHAS[:5], [2, -1]]}, "row 5: alpha [2, -1] is not an architecture of space 'tiny'"),
        ({"alpha": [*ALPHAS[:5], [2]]}, "row 5: alpha [2] is not an architecture of space 'tiny'"),
        ({"alpha": [*ALPHAS[:5], [2, 1, 0]]}, "row 5: alpha [2, 1, 0] is not an architecture of space 'tiny'"),
        ({"alpha": [*ALPHAS[:5], ALPHAS[2]]}, "duplicate rows of alpha [1, 0]"),
        (
            {"alpha": [*ALPHAS[:5], None]},
            "column alpha holds list<element: int64>; a list of integers per row is needed",
        ),
        ({"alpha": [*ALPHAS[:5], [2, None]]}, "column alpha holds list<element: int64>; a list of integers"),
        ({"alpha": [0, 1, 2, 3, 4, 5]}, "column alpha holds int64; a list of integers per row is needed"),
        ({"alpha": [[0.5, 1.0]] * 6}, "column alpha holds list<element: double>; a list of integers per row is needed"),
        ({"alpha": [["0", "1"]] * 6}, "column alpha holds list<element: string>; a list of integers per row is needed"),
        (
            {"alpha": None, "arch_str": ["a0b0", "nothing", "a1b0", "a1b1", "a2b0", "a2b1"]},
            "column arch_str does not fit this space: genotype: 'nothing' is no tiny string",
        ),
        ({"alpha": None, "arch_str": [None] * 6}, "column arch_str does not fit this space: genotype: None is no tiny"),
        (
            {"tiny_val_e12": None, "tiny_test_e200": None, "tiny_params": VAL},
            "no score columns; their names are <data>_<split>_e<epochs>, such as cifar10_val_e12",
        ),
        ({"tiny_val_e12": list("abcdef")}, "column tiny_val_e12 holds string; numbers are needed"),
        ({"tiny_val_e12": ["0.5"] * 6}, "column tiny_val_e12 holds string; numbers are needed"),
        ({"tiny_val_e12": [[0.5]] * 6}, "column tiny_val_e12 holds list<element: double>; numbers are needed"),
        ({"tiny_val_e12": [None] * 6}, "column tiny_val_e12 holds null; numbers are needed"),
        ({"tiny_val_e12": [True] * 6}, "column tiny_val_e12 holds bool; numbers are needed"),
        ({"tiny_val_e12": [*VAL[:5], 123.0]}, "column tiny_val_e12 has 1.23; fractions are at most 1"),
        ({"tiny_val_e12": [*VAL[:5], float("inf")]}, "column tiny_val_e12 has inf; fractions are at most 1"),
    ],
)
def test_a_table_that_cannot_be_used(path: Path, columns: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError) as error:
        read(write(path, **columns))
    assert str(error.value).startswith(f"{path}: {message}")
    assert "\n" not in str(error.value)


def test_declared_fractions_are_not_percentages(path: Path) -> None:
    with pytest.raises(DataError, match="column tiny_val_e12 has 60; fractions are at most 1, percentages at most 100"):
        read(write(path, {"unit": "fraction"}, tiny_val_e12=[100 * score for score in VAL]))


def test_a_table_needs_every_architecture(path: Path) -> None:
    pq.write_table(pa.table({"alpha": ALPHAS[:4], "tiny_val_e12": VAL[:4]}), path)
    with pytest.raises(DataError, match="has 4 architectures; a table of space 'tiny' needs all 6"):
        read(path)
    pq.write_table(
        pa.table({"alpha": pa.array([], pa.list_(pa.int64())), "tiny_val_e12": pa.array([], pa.float64())}), path
    )
    with pytest.raises(DataError, match="has 0 architectures; a table of space 'tiny' needs all 6"):
        read(path)


@pytest.mark.parametrize("content", [None, b"", b"PAR1", b"alpha,score\n", "folder"])
def test_what_is_no_parquet_file(path: Path, content: bytes | str | None) -> None:
    if content == "folder":
        path.mkdir()
    elif isinstance(content, bytes):
        path.write_bytes(content)
    with pytest.raises(DataError) as error:
        read(path)
    assert str(error.value).startswith(f"evaluation.table: {path} cannot be read: ")
    assert str(error.value).endswith("; a Parquet file is needed")


# --- columns ---


def test_without_a_name_val_is_the_shortest_training_and_test_the_longest(path: Path) -> None:
    more = {f"tiny_{split}_e{epochs}": VAL for split in ("valid", "test") for epochs in (12, 90, 200)}
    trainings = {"tiny_valid_e4_seed1": VAL, "tiny_test_e999_seed1": VAL}
    table = read(write(path, tiny_val_e12=None, **more, **trainings))
    assert table.column(None, "val", "evaluation.score") == "tiny_valid_e12"
    assert table.column(None, "test", "evaluation.final") == "tiny_test_e200"
    assert table.column("tiny_valid_e90", "val", "evaluation.score") == "tiny_valid_e90"
    assert table.column("tiny_valid_e4_seed1", "val", "evaluation.score") == "tiny_valid_e4_seed1"


def test_a_column_that_is_not_there_or_of_another_split(path: Path) -> None:
    table = read(write(path, tiny_test_e200=None, tiny_train_e12=VAL))
    for name, split, message in [
        ("tiny_val_e21", "val", f"evaluation.x: {path} has no column 'tiny_val_e21'; did you mean tiny_val_e12?"),
        ("zzz", "val", f"evaluation.x: {path} has no column 'zzz'; allowed: tiny_train_e12, tiny_val_e12"),
        ("tiny_train_e12", "val", "evaluation.x: tiny_train_e12 is a column of the train split; val is needed"),
        ("tiny_val_e12", "test", "evaluation.x: tiny_val_e12 is a column of the val split; test is needed"),
        (None, "test", f"{path}: no column for the test split; evaluation.x needs one"),
    ]:
        with pytest.raises(DataError) as error:
            table.column(name, split, "evaluation.x")
        assert str(error.value) == message


def test_names_say_split_and_epochs() -> None:
    names = ["a_train_e1", "b_val_e12", "b_c_valid_e200", "d_test_e200_seed777", "valid_test_e7"]
    assert [split_of(name) for name in names] == ["train", "val", "val", "test", "test"]
    assert [epochs_of(name) for name in names] == [1, 12, 200, 200, 7]


# --- look-up ---


def requests(alphas: list[list[int]], epoch: int = 0) -> list[EvalRequest]:
    return [EvalRequest(0, epoch, n, np.array(alpha), 0.0) for n, alpha in enumerate(alphas)]


@pytest.fixture
def trained(path: Path) -> ScoreTable:
    """Three trainings; one architecture has only two, one only one."""
    seeds = {f"tiny_val_e12_seed{seed}": [score + seed / 100 for score in VAL] for seed in (1, 2, 3)}
    seeds["tiny_val_e12_seed2"][1] = seeds["tiny_val_e12_seed3"][1] = float("nan")
    seeds["tiny_val_e12_seed3"][0] = float("nan")
    return read(write(path, **seeds))


def test_results_come_in_request_order_and_reach_the_callback(trained: ScoreTable) -> None:
    executor, received = TableExecutor(trained, "tiny_val_e12"), []
    asked = requests([[2, 1], [0, 0], [2, 1]])
    results = executor.evaluate(asked, lambda request, result: received.append((request.architecture, result.score)))
    assert [result.score for result in results] == [0.6, 0.1, 0.6]
    assert received == [(0, 0.6), (1, 0.1), (2, 0.6)]
    assert all(result.ok and result.worker == "table" and np.isnan(result.loss) for result in results)
    assert executor.evaluate([]) == []
    assert executor.weights() == {}
    executor.load_weights({})
    executor.close()


def test_one_training_is_that_of_its_seed(path: Path) -> None:
    table = read(write(path, tiny_val_e12_seed7=[0.9] * 6, tiny_val_e12_seed77=[0.8] * 6))
    for training, score in (("mean", 0.1), (7, 0.9), (77, 0.8)):
        assert TableExecutor(table, "tiny_val_e12", training=training).evaluate(requests([[0, 0]]))[0].score == score


def test_a_random_training_is_redrawn_for_every_query(trained: ScoreTable) -> None:
    def scores(seed: int) -> list[float]:
        executor = TableExecutor(trained, "tiny_val_e12", training="random", seed=seed)
        return [result.score for epoch in range(20) for result in executor.evaluate(requests([[1, 0]] * 3, epoch))]

    assert scores(0) == scores(0)
    assert scores(0) != scores(1)
    counts = [scores(0).count(0.3 + seed / 100) for seed in (1, 2, 3)]
    assert sum(counts) == 60
    assert min(counts) > 10
    one_by_one = TableExecutor(trained, "tiny_val_e12", training="random")
    alone = [one_by_one.evaluate([request])[0].score for request in requests([[1, 0]] * 3)]
    assert alone == scores(0)[:3], "a draw depends on its request alone"


def test_a_random_training_is_one_that_there_is(trained: ScoreTable) -> None:
    executor = TableExecutor(trained, "tiny_val_e12", training="random")
    found = {n: set[float]() for n in range(2)}
    for epoch in range(30):
        for n, result in enumerate(executor.evaluate(requests(ALPHAS[:2], epoch))):
            assert result.ok
            found[n].add(round(result.score, 6))
    assert found == {0: {0.11, 0.12}, 1: {0.21}}


@pytest.mark.parametrize(
    ("training", "message"),
    [
        (9, "evaluation.training is 9: PATH has trainings 1, 2, 3 of tiny_val_e12; mean takes the column itself"),
        (3, "PATH: tiny_val_e12_seed3 lacks 2 of 6 architectures, and a search may query any; set evaluation.score"),
    ],
)
def test_a_training_that_the_table_does_not_have(trained: ScoreTable, path: Path, training: int, message: str) -> None:
    with pytest.raises(DataError) as error:
        TableExecutor(trained, "tiny_val_e12", training=training)
    assert str(error.value).startswith(message.replace("PATH", str(path)))


@pytest.mark.parametrize("training", ["random", 1])
def test_a_column_without_single_trainings(path: Path, training: str | int) -> None:
    with pytest.raises(DataError) as error:
        TableExecutor(read(write(path)), "tiny_val_e12", training=training)
    has_none = f"{path} has no single trainings of tiny_val_e12; mean takes the column itself"
    assert str(error.value) == f"evaluation.training is {training}: {has_none}"


def test_a_search_needs_a_score_of_every_architecture(path: Path) -> None:
    table = read(write(path, tiny_val_e12=MISSING))
    assert np.isnan(table.score("tiny_val_e12", np.array(ALPHAS[1])))
    with pytest.raises(DataError, match="tiny_val_e12 lacks 1 of 6 architectures, and a search may query any"):
        TableExecutor(table, "tiny_val_e12")


# --- exact random search ---

ranked = st.lists(st.tuples(st.integers(0, 4), st.floats(-1, 1)), min_size=1, max_size=7)


@settings(derandomize=True, deadline=None, max_examples=60)
@given(rows=ranked, evaluations=st.integers(1, 9))
def test_the_expectation_of_random_search_is_that_of_all_its_draws(
    rows: list[tuple[int, float]], evaluations: int
) -> None:
    val_N, final_N = (np.array(column, dtype=np.float64) for column in zip(*rows, strict=True))
    draws = list(itertools.combinations(range(len(rows)), min(evaluations, len(rows))))
    found = [final_N[max(draw, key=lambda i: (val_N[i], -i))] for draw in draws]  # ties: the first
    assert expected_best(val_N, final_N, evaluations) == pytest.approx(float(np.mean(found)), abs=1e-12)


def test_random_search_of_everything_finds_the_best() -> None:
    val_N, final_N = np.array([0.3, 0.9, 0.1]), np.array([0.5, 0.7, 0.8])
    assert expected_best(val_N, final_N, 3) == expected_best(val_N, final_N, 99) == 0.7
    assert expected_best(val_N, final_N, 1) == pytest.approx(2 / 3)


# --- the real table ---

BUDGET = 22
QUICK = options("space={name: nasbench201}", "evaluation.kind=table", f"evaluation.budget={BUDGET}")
FILES = (
    "checkpoints",
    "config.yaml",
    "environment.json",
    "evaluations.parquet",
    "ledger.parquet",
    "log.jsonl",
    "result.json",
    "space.json",
    "theta.parquet",
    "weights.safetensors",
)


@pytest.fixture(scope="module")
def real(test_data: Path) -> Path:
    return test_data / "nasbench201" / "nasbench201_cifar10.parquet"


@pytest.fixture(scope="module")
def words(real: Path) -> list[str]:
    return [*QUICK, *options(f"evaluation.table={real}")]


def found(said: Said) -> dict[str, Any]:
    assert said.code == 0, said.err
    result: dict[str, Any] = json.loads(said.out)
    return result


@pytest.fixture(scope="module")
def finished(words: list[str], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """Run directory and result of the default strategy."""
    out = tmp_path_factory.mktemp("table") / "run"
    return out, found(run(search.main, *words, "--out", out, "--json"))


def test_the_real_table_says_what_the_benchmark_says(real: Path) -> None:
    spec = nasbench201()
    table = ScoreTable.read(str(real), spec.space, spec.encode)
    rows = (
        pq.ParquetFile(real).read(["arch_str", "cifar10valid_valid_e12"], use_threads=False).slice(6111, 1).to_pylist()
    )
    alpha_E = from_string(rows[0]["arch_str"])
    assert table.score("cifar10valid_valid_e12", alpha_E) == pytest.approx(rows[0]["cifar10valid_valid_e12"] / 100)
    assert table.trainings("cifar10valid_valid_e200") == [f"cifar10valid_valid_e200_seed{s}" for s in (777, 888, 999)]
    assert 0.92 < expected_best(table.scores["cifar10valid_valid_e12"], table.scores["cifar10_test_e200"], 36) < 0.94


def test_a_search_leaves_a_whole_run(finished: tuple[Path, dict[str, Any]]) -> None:
    out, result = finished
    assert sorted(path.name for path in out.iterdir()) == sorted(FILES)
    assert result == json.loads((out / "result.json").read_text())
    assert (result["strategy"], result["architecture_epochs"], result["space"]) == ("surrogate", BUDGET, "nasbench201")
    rows = pq.ParquetFile(out / "evaluations.parquet").read(use_threads=False).to_pylist()
    best = max(rows, key=lambda row: row["score"])
    assert result["alpha"] == best["alpha"]
    assert result["scores"]["best"] == best["score"]
    assert {row["split"] for row in rows} == {"val"}
    assert "agrees" in run(report.main, out, "--verify-fingerprint").out
    assert "22 evaluations in 10 epochs" in run(report.main, out).out


def test_every_number_of_the_score_sheet_has_its_split(finished: tuple[Path, dict[str, Any]], real: Path) -> None:
    _, result = finished
    spec = nasbench201()
    table = ScoreTable.read(str(real), spec.space, spec.encode)
    alpha_E = np.array(result["alpha"])
    score, final = "cifar10valid_valid_e12", "cifar10_test_e200"
    assert result["score_sheet"] == [
        {"what": f"result architecture, {score}", "split": "val", "value": table.score(score, alpha_E)},
        {"what": f"result architecture, {final}", "split": "test", "value": table.score(final, alpha_E)},
        {
            "what": f"random search with {BUDGET} evaluations (expected), {final}",
            "split": "test",
            "value": expected_best(table.scores[score], table.scores[final], BUDGET),
        },
    ]
    assert result["score_sheet"][0]["value"] == result["scores"]["best"]


def test_nothing_is_kept_where_nothing_is_wanted(
    words: list[str], finished: tuple[Path, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = found(run(search.main, *words, "--out", "none", "--json"))
    assert {**result, "seconds": 0} == {**finished[1], "seconds": 0}
    said = run(search.main, *words, "--out", "none", *ONE_EPOCH)
    assert (said.code, said.err) == (0, "time limit reached before the end; --out none keeps nothing\n")
    assert not list(tmp_path.iterdir())


def test_a_search_stopped_and_resumed_equals_one_never_stopped(
    words: list[str], finished: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    out = tmp_path / "run"
    said = run(search.main, *words, "--out", out, *ONE_EPOCH)
    assert said.code == 0
    assert said.err.startswith("time limit reached; 1 of ")
    assert said.err.endswith(f" epochs are saved. Resume with: python -m ddpnas_ray.search --out {out} --resume\n")
    for _ in range(3):
        assert run(search.main, "--out", out, "--resume", *ONE_EPOCH).code == 0
    result = found(run(search.main, "--out", out, "--resume", "--json"))
    assert {**result, "seconds": 0} == {**finished[1], "seconds": 0}
    assert "agrees" in run(report.main, out, "--verify-fingerprint").out


def test_the_table_may_move_but_not_change(
    words: list[str], real: Path, finished: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    out, moved = tmp_path / "run", tmp_path / "moved.parquet"
    assert run(search.main, *words, "--out", out, *ONE_EPOCH).code == 0
    table = pq.ParquetFile(real).read(use_threads=False)
    pq.write_table(table.drop_columns(["cifar10valid_train_seconds_e200"]), moved)
    resume = ["--out", str(out), "--resume", *options(f"evaluation.table={moved}")]
    said = run(search.main, *resume)
    assert (said.code, said.err.count("\n")) == (2, 1)
    assert "the data differ from those of the run" in said.err
    moved.write_bytes(real.read_bytes())
    assert found(run(search.main, *resume, "--json"))["fingerprint"] == finished[1]["fingerprint"]


@pytest.mark.parametrize("strategy", ["pruning", "random", "evolution", "multinomial", "reinforce"])
def test_other_strategies_are_one_flag_away(words: list[str], tmp_path: Path, strategy: str) -> None:
    out = tmp_path / "run"
    result = found(
        run(search.main, *words, *options(f"strategy={strategy}", "pruning.epochs_per_round=1"), "--out", out, "--json")
    )
    assert (result["strategy"], result["architecture_epochs"]) == (strategy, BUDGET)
    assert [row["split"] for row in result["score_sheet"]] == ["val", "test", "test"]
    assert "agrees" in run(report.main, out, "--verify-fingerprint").out
    trained = pq.ParquetFile(out / "evaluations.parquet").read(use_threads=False)["trained"].to_pylist()
    assert trained.count(False) == (10 if strategy == "pruning" else 0), "what Algorithm 1 leaves verifies"


def test_trainings_that_some_architectures_lack_do_not_end_a_search(words: list[str]) -> None:
    """Half of the networks have two trainings for 200 epochs, the others three."""
    keys = ("strategy=random", "evaluation.score=cifar10valid_valid_e200", "evaluation.training=random")
    result = found(run(search.main, *words, *options(*keys), "--out", "none", "--json"))
    assert result["architecture_epochs"] == BUDGET


def test_nothing_is_generated_from_a_search_without_theta(finished: tuple[Path, dict[str, Any]]) -> None:
    out, _ = finished
    said = run(generate.main, out, "--budget", "macs=50M")
    assert said.code == 2
    assert "strategy surrogate has no theta" in said.err


def test_networks_are_generated_from_a_tabular_search(words: list[str], real: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    found(run(search.main, *words, *options("strategy=multinomial"), "--out", out, "--json"))
    said = run(generate.main, out, "--budget", "macs=50M,nonparametric=3..3", "--verify", "4")
    assert said.code == 0, said.err
    (file,) = (out / "generated").rglob("genotype.json")
    generated = json.loads(file.read_text())
    assert generated["costs"]["macs"] <= 50_000_000
    assert generated["costs"]["nonparametric"] == 3
    spec = nasbench201()
    table = ScoreTable.read(str(real), spec.space, spec.encode)
    rows = generated["candidates"]
    scores = [table.score("cifar10valid_valid_e12", np.array(row["alpha"])) for row in rows]
    assert [row["score"]["value"] for row in rows] == scores
    assert len(scores) == 4
    assert generated["score"]["value"] == max(scores)
