"""Sweeps from the command to the files: searches, resumes after a kill, and errors."""

from __future__ import annotations

import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from ddpnas_ray import report, search, sweep
from ddpnas_ray.ablations import grid as grids
from ddpnas_ray.ablations.grid_report import Ended
from ddpnas_ray.ablations.grid_report import report as grid_report
from ddpnas_ray.experiment.config import load
from ddpnas_ray.experiment.yaml_text import parse
from ddpnas_ray.runs.directory import parsed
from ddpnas_ray.runs.log import read_log
from ddpnas_ray.runs.sealed import newest_epoch
from ddpnas_ray.storage.folder import Folder
from tests.commands import ENVIRONMENT, Said, contents, options, run
from tests.conftest import TINY
from tests.score_tables import write_table

Words = list[str]
VAL, TEST = "val: result architecture, made_val_e12", "test: result architecture, made_test_e200"
INHERITED = "val: result architecture with inherited weights"
SWEEP = [sys.executable, "-m", "ddpnas_ray.sweep"]
QUIET = ["--log", "none"]


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_table(tmp_path_factory.mktemp("table") / "made.parquet")


@pytest.fixture(scope="module")
def by_table(table: Path) -> Words:
    """Options of searches of milliseconds."""
    keys = ["space={name: nasbench201}", "evaluation.kind=table", f"evaluation.table={table}", "strategy=pruning"]
    return options(*keys, "target={cells: 5, channels: 16}")


@pytest.fixture
def on_the_cluster(ray_cluster: None) -> None:
    """Run the command on the session's cluster, of 4 logical CPUs: a connection that exists is used."""


def rows(out: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = pq.ParquetFile(out / "results.parquet").read(use_threads=False).to_pylist()
    return found


def done(*words: str | Path) -> Said:
    said = run(sweep.main, *words)
    assert (said.code, said.err) == (0, "")
    return said


def searched(out: Path, *words: str) -> dict[str, Any]:
    """Return the result of a search."""
    said = run(search.main, *words, "--set", "execution.backend=local", "--out", out, "--json")
    assert said.code == 0, said.err
    result: dict[str, Any] = json.loads(said.out)
    return result


# --- searches ---


@pytest.mark.ray
def test_every_combination_and_seed_is_a_search(by_table: Words, on_the_cluster: None, tmp_path: Path) -> None:
    out = tmp_path / "runs" / "sweep"
    grid = ["--grid", "pruning.gamma=0.5,0.9", "--grid", "pruning.epochs_per_round=1,2"]
    said = done(*by_table, *grid, "--seeds", "3..4", "--out", out, "--concurrent", "1")
    first, *_ = said.out.splitlines()
    assert first == f"{out}: 8 of 8 searches, 1 worker(s) of 1 CPU and 0 GPU each, on the connected cluster"
    assert said.out.endswith(f"\n{(out / 'results.md').read_text()}\n{out}\n")
    assert {path.name for path in out.iterdir()} == {
        *("sweep.yaml", "trials", "tune", "results.parquet", "results.md", "plot.png", "plot.svg")
    }
    found = rows(out)
    expected = [(g, t, s) for s in (3, 4) for g in (0.5, 0.9) for t in (1, 2)]
    assert [(r["pruning.gamma"], r["pruning.epochs_per_round"], r["seed"]) for r in found] == expected
    assert [row["evaluations"] for row in found] == [12 * t for _, t, _ in expected]
    assert {row["status"] for row in found} == {"finished"}
    one = found[5]
    keys = options("pruning.gamma=0.5", "pruning.epochs_per_round=2", "seed=4")
    result = searched(tmp_path / "run", *by_table, *keys)
    assert one["run"] == "trials/gamma=0.5,epochs_per_round=2,seed=4"
    assert (one["fingerprint"], one["costs.params"]) == (result["fingerprint"], result["costs"]["params"])
    assert [one[VAL], one[TEST]] == [row["value"] for row in result["score_sheet"][:2]]
    assert len({row["fingerprint"] for row in found}) == 8
    assert len(list((out / "tune").rglob("events.out.tfevents.*"))) == 8
    assert "pruning.epochs_per_round: mean ± standard deviation over seeds" in (out / "plot.svg").read_text()

    before = contents(out)
    again = done("--out", out, "--resume")
    assert again.out == f"{(out / 'results.md').read_text()}\n{out}\n", "nothing is searched twice"
    assert contents(out) == before


@pytest.mark.slow
@pytest.mark.ray
def test_a_trial_is_a_whole_run_that_search_could_have_written(on_the_cluster: None, tmp_path: Path) -> None:
    out, words = tmp_path / "sweep", options(*TINY)
    grid = ["--grid", "pruning.gamma=0.5,0.9", "--grid", "training.lr=0.01,0.1"]
    done(*words, *grid, "--out", out)
    found = rows(out)
    assert len({row["fingerprint"] for row in found}) == 4
    keys = options("pruning.gamma=0.9", "training.lr=0.01")
    run_of_search = tmp_path / "run"
    assert found[2]["fingerprint"] == searched(run_of_search, *words, *keys)["fingerprint"]
    own = out / found[2]["run"]
    assert {path.name for path in own.iterdir()} == {path.name for path in run_of_search.iterdir()}
    assert run(report.main, own, "--verify-fingerprint").code == 0
    assert INHERITED in found[2] and INHERITED in (out / "results.md").read_text()
    [events] = (out / "tune" / own.name).glob("events.out.tfevents.*")
    assert _steps(events, "candidates_left") == [1, 2, 3, 4, 5, 6], "one an epoch, the last with the result"


def _steps(events: Path, what: str) -> list[int]:
    """Return the steps of a TensorBoard file."""
    from tensorboardX.proto.event_pb2 import Event

    steps, data = [], events.read_bytes()
    while data:  # length, its checksum, the record, its checksum
        (length,) = struct.unpack("<Q", data[:8])
        event = Event.FromString(data[12 : 12 + length])
        steps += [event.step for value in event.summary.value if value.tag.endswith(what)]
        data = data[16 + length :]
    return steps


@pytest.mark.slow
@pytest.mark.ray
def test_only_what_is_missing_is_searched_again(by_table: Words, on_the_cluster: None, tmp_path: Path) -> None:
    out, grid = tmp_path / "sweep", ["--grid", "pruning.gamma=0.5,0.9", "--grid", "pruning.epochs_per_round=1,2"]
    done(*by_table, *grid, "--seeds", "3..4", "--out", out)
    found = rows(out)
    lost, broken = out / found[5]["run"], out / found[2]["run"]
    shutil.rmtree(lost)
    (broken / "result.json").unlink()
    environment = json.loads((broken / "environment.json").read_text()) | {"data_digest": "0" * 64}
    (broken / "environment.json").write_text(json.dumps(environment))
    said = run(sweep.main, "--out", out, "--resume", *grid, "--seeds", "3..4", "--concurrent", "1")
    assert said.code == 1 and f"{out}: 2 of 8 searches, " in said.out
    first, last = said.err.splitlines()
    assert first.startswith(f"{broken.name}: RunDirError: {out}/trials/{broken.name}: the data differ from those of")
    assert last == f"1 of 8 searches failed; retry with: python -m ddpnas_ray.sweep --out {out} --resume"
    again = rows(out)
    assert [row["status"] for row in again].count("failed") == 1 and again[2]["status"] == "failed"
    fingerprints = [[row["fingerprint"] for i, row in enumerate(some) if i != 2] for some in (found, again)]
    assert fingerprints[0] == fingerprints[1]
    assert "RunDirError" in again[2]["error"]
    assert f"\n1 failed: {broken.name}\n" in (out / "results.md").read_text()


@pytest.mark.slow
@pytest.mark.ray
def test_a_search_that_diverges_leaves_the_others_alone(on_the_cluster: None, tmp_path: Path) -> None:
    out = tmp_path / "sweep"
    words = options(*TINY, "training.grad_clip=0")
    said = run(sweep.main, *words, "--grid", "training.lr=1.0e+30,0.01", "--out", out, *QUIET)
    assert said.code == 1
    first, last = said.err.splitlines()
    assert first.startswith("lr=1e+30,seed=0: DivergedError: ") and "lower training.lr" in first
    assert last == f"1 of 2 searches failed; retry with: python -m ddpnas_ray.sweep --out {out} --resume"
    assert [row["status"] for row in rows(out)] == ["failed", "finished"]
    trial = Folder.open(str(out / "trials" / "lr=1e+30,seed=0"))
    last_event = parsed(trial, "log.jsonl", read_log)[-1]
    assert last_event["event"] == "failed" and last_event["error"] in first
    assert (rows(out)[0]["best"], rows(out)[0]["fingerprint"]) == (None, None)


# --- kills ---


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(600)
def test_killed_and_resumed_equals_never_killed(tmp_path: Path) -> None:
    longer = options(*TINY, "pruning.epochs_per_round=3")  # 18 epochs
    words = [*longer, "--grid", "pruning.gamma=0.5,0.9", "--seeds", "2", *QUIET]
    out = tmp_path / "killed"
    process = subprocess.Popen([*SWEEP, *words, "--out", str(out)], env=ENVIRONMENT, start_new_session=True)
    deadline = time.monotonic() + 120
    while not (list(out.glob("trials/*/result.json")) and _between(out)):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    finished = {
        path: path.read_bytes() for path in out.glob("trials/*/log.jsonl") if (path.parent / "result.json").exists()
    }
    assert 1 <= len(finished) < 4 and not (out / "results.parquet").exists()
    subprocess.run([*SWEEP, "--out", str(out), "--resume"], env=ENVIRONMENT, check=True, timeout=200)
    assert all(path.read_bytes() == before for path, before in finished.items()), "not searched again"
    went_on = [path for path in out.glob("trials/*/log.jsonl") if path.read_text().count('"event": "start"') == 2]
    assert went_on and any('"event": "start", "epoch": 0' not in path.read_text().split("\n", 1)[1] for path in went_on)
    subprocess.run([*SWEEP, *words, "--out", str(tmp_path / "whole")], env=ENVIRONMENT, check=True, timeout=200)
    wanted = ("pruning.gamma", "seed", "status", "fingerprint", "best", INHERITED)
    killed, whole = ([[row[key] for key in wanted] for row in rows(tmp_path / name)] for name in ("killed", "whole"))
    assert killed == whole


def _between(out: Path) -> bool:
    """Return whether a search has a checkpoint from its first third, so that the kill comes before its end."""
    runs = [Folder.open(str(path)) for path in out.glob("trials/*") if not (path / "result.json").exists()]
    return any(1 <= newest_epoch(run / "checkpoints") <= 6 for run in runs)


@pytest.mark.slow
@pytest.mark.ray
def test_ctrl_c_says_how_to_go_on(tmp_path: Path) -> None:
    out = tmp_path / "sweep"
    quick = "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
    code = quick + "from ddpnas_ray.sweep import main; sys.exit(main())"
    words = [*options(*TINY), "--grid", "pruning.gamma=0.5,0.9", "--seeds", "4", *QUIET, "--out", str(out)]
    process = subprocess.Popen([sys.executable, "-c", code, *words], env=ENVIRONMENT, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not list(out.glob("trials/*/result.json")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.splitlines()[-1].startswith("interrupted; ")
    assert err.endswith(f"Resume with: python -m ddpnas_ray.sweep --out {out} --resume\n")


# --- errors ---


def refused(*words: str | Path) -> str:
    said = run(sweep.main, *words)
    printed = [line for line in said.out.splitlines() if not line.startswith("starting Ray on this machine ")]
    assert (said.code, printed, said.err.count("\n")) == (2, [], 1), said.err
    return said.err.rstrip()


@pytest.mark.parametrize(
    ("words", "fragment"),
    [
        ([], "ConfigError: --grid is missing; give a key and its values, such as --grid pruning.gamma=0.7,0.8,0.9"),
        (["--grid", "pruning.gamma"], "--grid pruning.gamma: expected KEY=V1,V2,..."),
        (["--grid", "pruning.gamma="], "no value; write --grid pruning.gamma=V1,V2,..."),
        (["--grid", "pruning.gamma=0.7,,0.8"], "is not valid YAML"),
        (["--grid", "pruning.gamma=0.7,0.7"], "duplicate value 0.7; give it once"),
        (["--grid", "pruning.gamma=0.7", "--grid", "pruning.gamma=0.8"], "duplicate key pruning.gamma; give all"),
        (
            ["--grid", "pruning.gama=0.7"],
            "--grid pruning.gama=0.7: pruning.gama is not a key; did you mean pruning.gamma?",
        ),
        (["--grid", "prunning.gamma=0.7"], "prunning is not a key; did you mean pruning?"),
        (["--grid", "pruning.gamma=0.7,1.5"], "--grid pruning.gamma=1.5: pruning.gamma is 1.5; input should be less"),
        (["--grid", "strategy.gamma=0.7"], "strategy is a value, not a section"),
        (["--grid", "seed=1,2"], "set seeds with --seeds, such as --seeds 4"),
        (["--grid", "evolution.population=10,20"], "evolution.population: has no effect with strategy pruning; vary"),
        (["--grid", "pruning.gamma=0.7", "--seeds", "0"], "--seeds: 0 contains no seed"),
        (["--grid", "pruning.gamma=0.7", "--stop", "early"], "--stop: invalid choice: 'early'"),
        (
            ["--grid", "pruning.gamma=0.7", "--log", "tensorbord"],
            "--log: 'tensorbord' is not a logger; did you mean te",
        ),
        (["--resume"], "--resume needs the sweep directory; give it with --out"),
        (["--resume", "--out", "nothing"], "nothing: is not a sweep (no sweep.yaml in it); give the --out of a sweep"),
        (["--grid", "data.path=nowhere", "--set", "data.name=folder"], "nowhere"),
    ],
)
def test_bad_input_takes_one_line(words: Words, fragment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert fragment in refused(*words)
    assert contents(tmp_path) == {}


def test_a_logger_that_is_not_there_is_named_with_the_way_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sweep.LOGGERS, "mlflow", "no_such_package")
    line = refused("--grid", "pruning.gamma=0.7", "--log", "mlflow")
    assert line == "ResourceError: --log mlflow: is not installed; pip install no_such_package, or remove it"


def test_tables_are_not_stopped_early(by_table: Words) -> None:
    line = refused(*by_table, "--grid", "pruning.gamma=0.7", "--stop", "asha")
    assert line.startswith("ConfigError: --stop asha: tabular searches take milliseconds")


def test_a_key_that_changes_nothing_is_refused(by_table: Words) -> None:
    line = refused(*by_table, "--set", "strategy=random", "--grid", "pruning.gamma=0.7,0.8")
    assert "--grid pruning.gamma: has no effect with strategy random" in line
    line = refused(*by_table, "--grid", "training.batch_size=64,128")
    assert "--grid training.batch_size: has no effect on tabular searches" in line


@pytest.mark.ray
def test_what_can_never_fit_is_refused_before_anything_starts(
    by_table: Words, on_the_cluster: None, tmp_path: Path
) -> None:
    words = [*options(*TINY), "--grid", "execution.workers=1,9", "--out", tmp_path / "sweep"]
    line = refused(*words)
    assert line.startswith(
        "ResourceError: trial workers=9,seed=0: needs 9 worker(s) of 1 CPU and 0 GPU at once; the cluster's nodes have "
        "4 CPU and 0 GPU; lower execution.workers"
    )
    assert contents(tmp_path) == {}


def test_only_the_same_sweep_resumes(by_table: Words, table: Path, tmp_path: Path) -> None:
    out, words = tmp_path / "sweep", [*by_table, "--grid", "pruning.gamma=0.7,0.8", "--seeds", "2"]
    plan = sweep._plan(sweep.parser().parse_args(words))
    planned = grids.plan(plan.config, plan.grid, plan.seeds)
    experiments = grids.prepare(planned, plan.grid)
    out.mkdir()
    content = sweep._content(plan) | {"digest": "0" * 64}
    (out / "sweep.yaml").write_text(sweep.to_yaml(content))
    assert sweep._read((out / "sweep.yaml").read_bytes(), "here").config == plan.config
    resume = ["--resume", "--out", out]
    line = refused(*resume, "--grid", "pruning.gamma=0.7,0.9")
    assert "the sweep was started with --grid pruning.gamma=0.7,0.8; remove --grid, or start a new sweep" in line
    assert "the sweep was started with --seeds 2; " in refused(*resume, "--seeds", "3")
    assert "the data differ from those" in refused(*resume, "--seeds", "0..1"), "the same seeds in other words"
    assert "the sweep was started with --stop none; " in refused(*resume, "--stop", "asha")
    assert "other values of training.lr; only execution.*, data.path" in refused(*resume, "--set", "training.lr=1")
    assert "--resume reads the sweep's own sweep.yaml" in refused(*resume, "--config", "x.yaml")
    assert "the data differ from those of the sweep" in refused(*resume)
    (out / "sweep.yaml").write_text("schema_version: 1\n")
    assert "sweep.yaml cannot be read: it has no 'config'" in refused(*resume)
    assert len(experiments) == 1
    assert "add --resume to resume that sweep, or choose another --out" in refused(*words, "--out", out)


# --- names and figures ---


def test_names_are_readable_and_differ() -> None:
    config = load(None, ())
    planned = grids.plan(config, {"data.path": ["a/b", "a b"], "training.lr": [0.1, 1e-5]}, "1")
    names = [grids.name(one) for one in planned.trials]
    assert names[1] == "path=a-b,lr=1e-05-1,seed=0"
    assert len(set(names)) == 4
    clash = grids.plan(config, {"data.path": ["a/", "a-", "a-1"]}, "1")
    assert [grids.name(one) for one in clash.trials] == ["path=a-0,seed=0", "path=a-1,seed=0", "path=a-1-2,seed=0"]
    assert grids.label({"space.shift": -0.5, "data.path": "/a/b"}) == "shift=-0.5,path=a-b"


@pytest.mark.parametrize(
    ("grid", "panels"),
    [
        ({"pruning.gamma": [0.5, 0.9]}, 1),
        ({"training.lr": [1e-4, 1e-2, 1.0], "training.merge": ["mean", "sequential"]}, 1),
        ({"pruning.gamma": [0.5, 0.9], "training.lr": [0.1, 0.2], "training.precision": ["fp32", "bf16"]}, 3),
    ],
)
def test_a_panel_for_one_or_two_keys_else_one_a_key(grid: dict[str, list[Any]], panels: int) -> None:
    config = load(None, ["execution.backend=local"])
    planned = grids.plan(config, grid, "2")
    sheet = [{"what": "result architecture with inherited weights", "split": "val", "value": 0.5}]
    result = {"architecture_epochs": 3, "seconds": 1.0, "fingerprint": "f", "genotype": {}, "costs": {"params": 7}}
    ended = [
        Ended(one, f"trials/{grids.name(one)}", result | {"score_sheet": sheet} if i else None, 0.5, 3)
        for i, one in enumerate(planned.trials)
    ]
    table, files = grid_report(planned, grid, ended, "made up")
    assert f"\n1 stopped: {grids.name(planned.trials[0])}\n" in table
    assert files["plot.svg"].count(b'id="axes_') == panels
    assert b"val accuracy of the result" in files["plot.svg"]


def test_without_finished_searches_there_is_a_table_but_no_figure() -> None:
    planned = grids.plan(load(None, ()), {"pruning.gamma": [0.5]}, "1")
    table, files = grid_report(
        planned, {"pruning.gamma": [0.5]}, [Ended(planned.trials[0], "trials/x", None, error="E: e")], ""
    )
    assert table == "no search finished\n\n1 failed: x\n"
    assert sorted(files) == ["results.md", "results.parquet"]


def test_what_is_saved_is_resolved(by_table: Words) -> None:
    plan = sweep._plan(sweep.parser().parse_args([*by_table, "--grid", "pruning.gamma=.7"]))
    content = parse(sweep.to_yaml(sweep._content(plan)), "here")
    assert content["grid"] == {"pruning.gamma": [0.7]} and content["config"]["strategy"] == "pruning"
