"""HTML report of a finished retraining: one self-contained page, in the style of the run's page."""

from __future__ import annotations

import dataclasses
import shlex
import time
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from ddpnas_ray.reporting import charts, networks
from ddpnas_ray.reporting.analysis import COLOURS, environment, flat, seconds_text, value_text
from ddpnas_ray.reporting.glue import table_5
from ddpnas_ray.reporting.illustrated import read_illustrated
from ddpnas_ray.reporting.layers import draw_layers
from ddpnas_ray.reporting.page import render
from ddpnas_ray.reporting.retrained import examples_text
from ddpnas_ray.reporting.retrained_files import RetrainedFiles, Row
from ddpnas_ray.reporting.runfiles import setting
from ddpnas_ray.spaces.target import target_text
from ddpnas_ray.tasks.recipe import RetrainingConfig

CURVES = {  # key of an epoch: title, format
    "loss": ("training loss", ".4f"),
    "val": ("validation score", ".4f"),
    "lr": ("learning rate", ".4g"),
    "examples_per_s": ("examples/s", ",.0f"),
}
STARTED_FROM = {"inherited": "the supernet's", "pretrained": "those of the pretrained model"}  # by retraining.init
SEARCH = {  # key of the search's facts: name
    "run": "run",
    "data": "searched on",
    "strategy": "strategy",
    "seed": "seed of the search",
    "architecture_epochs": "architecture-epochs",
    "seconds": "search time",
    "budget": "budget",
    "expectation": "E[alpha] (Eq. 9)",
    "fingerprint": "fingerprint of the search",
}


def retrained_page(files: RetrainedFiles) -> bytes:
    """Render the page of a finished retraining."""
    network, result = files.network, files.result
    assert result is not None
    colours = {name: i % COLOURS for i, name in enumerate(networks.operations(network["genotype"]))}
    recipe = _recipe_rows(files.config["retraining"])
    illustrated = read_illustrated(files.folder, result["seed"])
    return render(
        "retrained.html.j2",
        {},
        files=files,
        result=result,
        title=f"Network {files.label} trained on {result['data']}",
        headline=[score for score in result["scores"] if score["split"] == "test"] or result["scores"],
        glue=table_5(result),
        illustrated=illustrated,
        parts=_parts(result, () if illustrated is None else illustrated.classes),
        target=target_text(network["target"]),
        cells=[(cell, networks.draw(cell, colours)) for cell in networks.cells(network["genotype"])],
        stages=networks.stages(network["genotype"], *networks.widths(network["space"])),
        layers=draw_layers(network["genotype"]),
        left_out=networks.LEFT_OUT,
        colours=colours,
        metadata=metadata(files),
        origin=origin(files),
        curves=curves({f"seed {seed}": rows for seed, rows in files.histories.items()}, "seed"),
        seeds=list(files.histories),
        epochs=[
            {"seed": seed, **{key: row.get(key) for key in ("epoch", "train_s", "score_s", "workers", *CURVES)}}
            for seed, rows in files.histories.items()
            for row in rows
        ],
        changed=[row for row in recipe if row[1] != row[2]],
        recipe=recipe,
        interruptions=interruptions(files.log),
        limits=limits(files),
        environment=environment(files.environment),
        commands=_commands(files),
    )


def _parts(result: Mapping[str, Any], classes: Sequence[str]) -> dict[str, Any] | None:
    """Return the table of scores by task, or by class if that is what they are of, with bars from four rows on."""
    scored = {score["split"]: score["by_task"] for score in result["scores"] if len(score.get("by_task", {})) > 1}
    names = list(dict.fromkeys(name for by_task in scored.values() for name in by_task))
    if not names:
        return None
    return {
        "each": "class" if set(names) <= set(classes) else "task",
        "splits": list(scored),
        "rows": [(name, [by_task.get(name) for by_task in scored.values()]) for name in names],
        "bars": len(names) > 3,
    }


def _recipe_rows(recipe: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Return key, value and default (empty if unknown) of a recipe."""
    defaults = {field.name: value_text(_plain(field.default)) for field in dataclasses.fields(RetrainingConfig)}
    return [(key, value_text(_plain(value)), defaults.get(key, "")) for key, value in flat(recipe).items()]


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def origin(files: RetrainedFiles) -> list[tuple[str, str]]:
    """Describe the search that found the network; empty if none did."""
    search = files.network["search"]
    shown = {"seconds": seconds_text, "expectation": lambda value: f"{value:.6f}"}
    rows = [(name, shown.get(key, str)(search[key])) for key, name in SEARCH.items() if key in search]
    if rows and (score := files.search_score) is not None:
        value = f"{score['value']:.4f} ({score['split']}; {score.get('what') or score.get('weights')})"
        rows.append(("score in the search", value))
    return rows


def interruptions(log: Sequence[Row]) -> list[dict[str, Any]]:
    """Return the restarts and failures in a log, by time.

    Returns:
        One row per event: ``time``, ``what``, ``seed`` and ``epoch`` (saved before it; None before the first), and
        ``pause`` in seconds since the event before.
    """
    rows: list[dict[str, Any]] = []
    before: Row | None = None
    driver, started, grouped, at = "", False, set[int](), {"seed": None, "epoch": None}
    for event in log:
        what = ""
        if event["event"] == "driver":
            if event["name"] == driver:
                what = "driver restarted by Ray"
            elif driver or started:
                what = "command resumed"
            driver, grouped = event["name"], set()
        elif event["event"] == "start":
            own = before is not None and before["event"] == "driver"  # the driver's own start
            what = "command resumed" if started and not own else ""
            started, grouped = True, set() if not own else grouped
        elif event["event"] == "worker" and event["rank"] == 0:
            what = f"workers restarted: now {event['world']}" if event["seed"] in grouped else ""
            grouped.add(event["seed"])
        elif event["event"] == "failed":
            what = f"failed: {' '.join(str(event['error']).split())}"
        elif event["event"] == "epoch":
            at = {"seed": event["seed"], "epoch": event["epoch"]}
        if what:
            pause = None if before is None else event["time"] - before["time"]
            rows.append({"time": _when(event["time"]), "what": what, "pause": pause, **at})
        before = event
    return rows


def limits(files: RetrainedFiles) -> list[str]:
    """Say what the result does not tell, one sentence each."""
    result, recipe, found = files.result, files.config["retraining"], []
    assert result is not None
    splits = {score["split"] for score in result["scores"]}
    if "val" not in splits:
        why = "it trained on the validation images too (retraining.train_on=all)" if result["train_on"] == "all" else ""
        found.append("There is no validation score" + (f": {why}." if why else "."))
    if "test" not in splits:
        found.append(f"There is no test score: {result['test_note'] or 'no test data'}.")
    if len(result["trainings"]) == 1:
        found.append("One seed: the standard deviation is unknown; retraining.seeds=3 trains three.")
    else:
        how = "best validation score" if "val" in splits else "first seed, as there is no validation score"
        found.append(f"The weights to export are those of seed {result['seed']} ({how}).")
    if (source := STARTED_FROM.get(recipe.get("init"))) is not None:
        found.append(f"The weights started from {source}, so the score is not that of a training from scratch.")
    for seed, rows in files.histories.items():
        if rows and (error := rows[-1].get("illustrations_error")):
            found.append(f"The network of seed {seed} could not be shown: {error}.")
    if len(result.get("devices", ())) > 1:
        found.append(f"It ran on {len(result['devices'])} kinds of device; one kind may give other weights.")
    if len(result.get("workers", ())) > 1:
        count = " and ".join(map(str, result["workers"]))
        found.append(f"The number of workers changed ({count}), and with it BatchNorm's statistics: not repeatable.")
    short = [seed for seed, rows in files.histories.items() if len(rows) < files.epochs]
    if short:
        found.append(f"log.jsonl lacks epochs of seed {', '.join(map(str, short))}: the curves have gaps.")
    return found


def metadata(files: RetrainedFiles) -> list[tuple[str, str]]:
    """Describe the training and its resources."""
    result = files.result
    assert result is not None
    started = next((_when(event["time"]) for event in files.log if event["event"] == "start"), "unknown")
    seeds = ", ".join(str(row["seed"]) for row in result["trainings"])
    return [
        ("data", str(result["data"])),
        ("training examples", f"{result['train_examples']:,} ({examples_text(result)})"),
        ("seeds", seeds),
        ("epochs", f"{result['epochs']}" + (" per seed" if len(result["trainings"]) > 1 else "")),
        ("training time", seconds_text(result["seconds"])),
        ("workers", " and ".join(map(str, result.get("workers", ())))),
        *(("device", kind) for kind in result.get("devices", ())),
        ("started", started),
        ("fingerprint", str(result.get("fingerprint", ""))),
    ]


def curves(histories: Mapping[str, Sequence[Row]], each: str) -> list[tuple[str, Markup]]:
    """Draw one chart per quantity of an epoch, with the lines given by name; those without numbers are left out."""
    found = []
    for key, (title, form) in CURVES.items():
        lines = [
            charts.Line(name, [(float(row["epoch"]), row[key]) for row in rows if row.get(key) is not None])
            for name, rows in histories.items()
        ]
        if any(line.points for line in lines):
            label = f"{title} by epoch, one line per {each}"
            found.append((title, charts.lines_chart(label, lines, x_label="epoch", y_label=title, form=form)))
    return found


def _commands(files: RetrainedFiles) -> list[tuple[str, str]]:
    """Return commands that repeat and check the training; a warm start or a teacher needs its run, too."""
    uri, recipe = files.folder.uri, files.config["retraining"]
    found = {"verify that the weights are unchanged": ["report", uri, "--verify-fingerprint"]}
    alone = recipe.get("init") == "scratch" and recipe.get("teacher") is None
    if alone and setting(files.config, "space.name") == files.network["space"]["name"]:
        config, network = (files.folder / "config.yaml").uri, (files.folder / "network.json").uri
        what = "repeat the training; it gives the same weights on one kind of device and number of workers"
        found[what] = ["retrain", "--config", config, "--genotype", network, "--out", "again"]
    return [(what, shlex.join(["python", "-m", f"ddpnas_ray.{words[0]}", *words[1:]])) for what, words in found.items()]


def _when(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(seconds))
