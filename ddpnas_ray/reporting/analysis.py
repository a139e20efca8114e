"""Compute the numbers of a run's page from its files. Axes: E edges, K candidates."""

from __future__ import annotations

import json
import math
import shlex
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

import numpy as np

from ddpnas_ray.console.progress import duration
from ddpnas_ray.core.generation.budgets import is_time, quantity
from ddpnas_ray.core.space import SearchSpace
from ddpnas_ray.core.state import Evaluation
from ddpnas_ray.reporting import charts
from ddpnas_ray.reporting.explain import RoundStory, edge_story
from ddpnas_ray.reporting.runfiles import RunFiles, keep_per_group
from ddpnas_ray.reporting.summary import spent_on
from ddpnas_ray.spaces.target import same_target, target_text
from ddpnas_ray.tabular.probe import tau_by_epoch

COLOURS = 10  # of operations, reused cyclically
STORY_ROWS = 3500  # total operations in the tables of all edges' histories
PREFERRED = ("macs", "latency", "params")  # costs whose charts come first


# --- the search -----------------------------------------------------------------------------------------------------


def metadata(run: RunFiles) -> list[tuple[str, str]]:
    """Describe the search and its resources."""
    result = run.result
    started = next((event["time"] for event in run.log if event["event"] == "start"), None)
    return [
        ("strategy", str(result["strategy"])),
        ("seed", str(result["seed"])),
        (spent_on(result), f"{len(run.evaluations):,}"),
        ("rounds", str(result["rounds"])),
        ("epochs", str(result["epochs"])),
        ("search time", seconds_text(result["seconds"])),
        ("workers", str(result["workers"])),
        *_devices(result["devices"]),
        ("started", "unknown" if started is None else time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(started))),
        ("E[alpha] of the result architecture (Eq. 9)", f"{result['expectation']:.6f}"),
        ("fingerprint", str(result["fingerprint"])),
    ]


def _devices(evaluations: Mapping[str, int]) -> list[tuple[str, str]]:
    """List the kinds of device; empty for tabular searches."""
    if len(evaluations) < 2:
        return [("device", kind) for kind in evaluations]
    found = ", ".join(f"{kind} ({count} evaluations)" for kind, count in evaluations.items())
    return [("devices", f"{len(evaluations)} kinds; a search on a single kind may give another result: {found}")]


def score_rows(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the score sheet of ``result.json``, and the scores seen by the search; every number with its split."""
    scores = result["scores"]
    seen = {f"best of {scores['of']}": scores["best"], "mean of the last epoch": scores["last_epoch_mean"]}
    return [*result["score_sheet"], *({"what": k, "split": scores["split"], "value": v} for k, v in seen.items())]


def environment(content: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Flatten ``environment.json``, in the file's order."""
    found = []
    for key, value in flat(content).items():
        shown = f"{value / 2**30:.1f} GiB" if key == "memory_bytes" and value else value_text(value)
        found.append((key.removeprefix("packages."), shown))
    return found


def commands(run: RunFiles) -> list[tuple[str, str]]:
    """Return commands that reproduce and inspect the run, each with its purpose."""
    found: list[tuple[str, Sequence[str]]] = []
    if commit := str(run.environment.get("git_commit") or ""):
        changed = " (with uncommitted changes)" if commit.endswith("+changes") else ""
        found.append((f"check out its code{changed}", ["git", "checkout", commit.removesuffix("+changes")]))
    python = ("python", "-m")
    found += [
        (
            "repeat the search; equal seeds give equal fingerprints on the same kind of device",
            [*python, "ddpnas_ray.search", "--config", run.config_uri, "--out", "again"],
        ),
        ("verify that the files are unchanged", [*python, "ddpnas_ray.report", run.uri, "--verify-fingerprint"]),
        ("compare this run with another", [*python, "ddpnas_ray.report", run.uri, "again", "--html", "both.html"]),
    ]
    if "macs" in run.result["costs"] and moved(run):
        sweep = [*python, "ddpnas_ray.generate", run.uri, "--sweep", "macs=50%..100%:20"]
        found.append(("generate the best networks for 20 budgets", sweep))
    return [(what, shlex.join(words)) for what, words in found]


# --- theta ----------------------------------------------------------------------------------------------------------


def colours(space: SearchSpace) -> dict[str, int]:
    """Assign a colour number to every operation."""
    names = dict.fromkeys(op.name for edge in space.edges for op in edge.candidates)
    return {name: i % COLOURS for i, name in enumerate(names)}


def moved(run: RunFiles) -> bool:
    """Return whether the strategy updates theta."""
    uniform_EK = run.space.exists_EK / run.space.exists_EK.sum(axis=1, keepdims=True)
    return any(not np.array_equal(record.theta_EK, uniform_EK) for record in run.history)


def edges(run: RunFiles) -> list[charts.EdgeTheta]:
    """Return theta of every edge by round."""
    colour, found = colours(run.space), []
    for e, edge in enumerate(run.space.edges):
        count, chosen = len(edge.candidates), run.result["alpha"][e]
        theta = [np.full(count, 1 / count), *(record.theta_EK[e, :count] for record in run.history)]
        gone = [next((i for i, r in enumerate(run.history, 1) if not r.live_EK[e, k]), None) for k in range(count)]
        found.append(
            charts.EdgeTheta(
                name=edge.name,
                operations=tuple(op.name for op in edge.candidates),
                colours=tuple(colour[op.name] for op in edge.candidates),
                dashed=tuple(op.group == "non_parameter" for op in edge.candidates),
                theta_RK=np.array(theta),
                pruned=tuple(gone),
                chosen=chosen if edge.candidates[chosen].generable else None,
            )
        )
    return found


def stories(run: RunFiles) -> list[list[RoundStory]]:
    """Return the history of every edge; only the last rounds of very long searches."""
    keep = keep_per_group(run.config)
    found = [
        edge_story(edge.name, run.history, run.evaluations, run.space, keep, run.ledger) for edge in run.space.edges
    ]
    total = sum(len(story.operations) for rounds in found for story in rounds)
    last = len(run.history) if total <= STORY_ROWS else max(1, len(run.history) * STORY_ROWS // total)
    return [rounds[-last:] for rounds in found]


def mistakes(run: RunFiles) -> dict[str, Any] | None:
    """Count the prunings, and how many of them are expected to have removed the best operation; None if none."""
    pruned = [row for row in run.ledger if row.pruned is not None]
    known = [row.p_best_pruned for row in pruned if not math.isnan(row.p_best_pruned)]
    return {"pruned": len(pruned), "known": len(known), "expected": math.fsum(known)} if pruned else None


# --- evaluations ----------------------------------------------------------------------------------------------------


def _by_epoch(run: RunFiles) -> list[tuple[int, list[Evaluation]]]:
    rows = sorted(run.evaluations, key=lambda row: row.epoch)
    return [(epoch, list(group)) for epoch, group in groupby(rows, key=lambda row: row.epoch)]


def epochs(run: RunFiles) -> list[dict[str, Any]]:
    """Return one row per epoch."""
    (_, walls_s), rows = _epoch_times(run), []
    for epoch, records in _by_epoch(run):
        finite = [row.score for row in records if math.isfinite(row.score)]
        rows.append(
            {
                "epoch": epoch + 1,
                "round": records[0].round + 1,
                "evaluations": len(records),
                "mean": math.fsum(finite) / len(finite) if finite else math.nan,
                "best": max(finite, default=math.nan),
                "busy": math.fsum(row.seconds for row in records),
                "wall": walls_s.get(epoch, math.nan),
                "failed": sum(not row.ok for row in records),
            }
        )
    return rows


def fairness(run: RunFiles) -> dict[str, Any]:
    """Count how often each operation was trained, by edge, and how unevenly, by round."""
    space, by_round = run.space, dict[int, Any]()
    trained = [row for row in run.evaluations if row.trained]
    for row in trained:
        alpha_E = np.array(row.alpha_E)
        active = np.flatnonzero(space.active(alpha_E))
        by_round.setdefault(row.round, np.zeros(space.shape, dtype=np.int64))[active, alpha_E[active]] += 1
    live = [space.exists_EK, *(record.live_EK for record in run.history)]  # before each round, and at the end
    live_in = dict(zip((record.round for record in run.history), live, strict=False))
    rounds = []
    for number, own_EK in sorted(by_round.items()):
        live_EK = live_in.get(number, live[-1])
        spread = [int(np.ptp(own[row])) for own, row in zip(own_EK, live_EK, strict=True) if row.any()]
        fewest, most = int(own_EK[live_EK].min()), int(own_EK[live_EK].max())
        equal = sum(s == 0 for s in spread)
        rounds.append({"round": number + 1, "fewest": fewest, "most": most, "equal": equal, "spread": max(spread)})
    names, counts_EK, rows = list(colours(space)), sum(by_round.values(), np.zeros(space.shape, dtype=np.int64)), []
    for edge, counts_K in zip(space.edges, counts_EK.tolist(), strict=True):
        count = dict(zip((op.name for op in edge.candidates), counts_K, strict=False))
        rows.append((edge.name, [count.get(name) for name in names]))
    return {
        "names": names,
        "rows": rows,
        "most": max(1, int(counts_EK.max())),
        "rounds": rounds,
        "edges": len(space.edges),
        "worst": max((row["spread"] for row in rounds), default=0),
        "trained": len(trained),
    }


def _epoch_times(run: RunFiles) -> tuple[dict[int, float], dict[int, float]]:
    """Return Unix start time and wall time of each epoch in the log; of a repeated epoch, the last."""
    events = [event for event in run.log if event["event"] == "epoch"]
    walls_s = {event["epochs_done"] - 1: float(event["epoch_s"]) for event in events}
    return {event["epochs_done"] - 1: float(event["time"]) - float(event["epoch_s"]) for event in events}, walls_s


def work(run: RunFiles) -> dict[str, Any] | None:
    """Return the timeline of the workers and sums by worker; None if no evaluation took time."""
    if not any(row.seconds > 0 for row in run.evaluations):
        return None
    starts_s, walls_s = _epoch_times(run)
    workers = sorted({(row.node, row.worker.partition("/")[0]) for row in run.evaluations})
    nodes = {node: f"node {i}" for i, node in enumerate(dict.fromkeys(node for node, _ in workers), start=1)}
    names = [name if len(nodes) == 1 else f"{name}, {nodes[node]}" for node, name in workers]
    place = {worker: i for i, worker in enumerate(workers)}
    bars: list[charts.Bar] = []
    begins_s: dict[int, float] = {}
    rounds_s: dict[str, float] = {}
    clock_s = 0.0
    started = all(row.start_s is not None and row.epoch in starts_s for row in run.evaluations)
    for epoch, records in _by_epoch(run):
        begins_s[epoch] = clock_s
        rounds_s.setdefault(f"round {records[0].round + 1}", clock_s)
        until_s = dict.fromkeys(range(len(workers)), clock_s)
        for row in sorted(records, key=lambda row: row.architecture):
            at = place[row.node, row.worker.partition("/")[0]]
            text = (
                f"round {row.round + 1}, epoch {epoch + 1}, architecture {row.architecture} "
                f"{'trained and scored' if row.trained else 'scored'} by {row.worker}: "
                f"{row.seconds:.2f} s, score {row.score:.4f} ({row.split})"
            )
            if started and row.start_s is not None:
                until_s[at] = clock_s + max(0.0, row.start_s - starts_s[epoch])
            kind = "failed" if not row.ok else "even" if row.round % 2 else "odd"
            bars.append(charts.Bar(at, until_s[at], row.seconds, kind, text))
            until_s[at] += row.seconds
        clock_s = max(clock_s + walls_s.get(epoch, 0.0), *until_s.values())
    resumed = [event.get("epoch") for event in run.log if event["event"] == "start"]
    resumes_s = [begins_s[epoch] for epoch in resumed if epoch and epoch in begins_s]
    busy_s = [math.fsum(bar.seconds for bar in bars if bar.row == i) for i in range(len(workers))]
    done = Counter(bar.row for bar in bars)
    return {
        "chart": charts.timeline(names, bars, rounds_s, resumes_s),
        "rows": [
            (name, nodes[node], node or "this machine", done[i], busy_s[i], busy_s[i] / clock_s)
            for i, ((node, _), name) in enumerate(zip(workers, names, strict=True))
        ],
        "wall": clock_s,
        "busy": math.fsum(busy_s),
        "share": math.fsum(busy_s) / (clock_s * len(workers)),
        "logged": begins_s.keys() <= walls_s.keys(),
        "started": started,
        "resumes": len(resumes_s),
        "merged": len(bars) > charts.SHOWN_BARS,
    }


# --- generated networks, probe --------------------------------------------------------------------------------------


def generated(run: RunFiles) -> dict[str, Any] | None:
    """Return the networks of all budgets, and a chart for each cost that varies; None without networks."""
    if not run.generated:
        return None
    own = [network for network in run.generated if same_target(network["target"], run.result["target"])]
    names = list(dict.fromkeys(name for network in run.generated for name in network["costs"]))
    figures = []
    for name in sorted(names, key=lambda name: PREFERRED.index(name) if name in PREFERRED else len(PREFERRED)):
        scale, unit = (1e6, f"{name} in ms") if is_time(name) else (1.0, name)
        having = [network for network in own if name in network["costs"]]
        points = [(n["costs"][name] / scale, n["expectation"], _network_text(n, name)) for n in having]
        if len({x for x, _, _ in points}) > 1:
            label = f"E[alpha] of generated networks against {unit}; the table has the numbers"
            axes = {"x_label": unit, "y_label": "E[alpha] (Eq. 9)"}
            figures.append((name, charts.front_chart(label, points, _front(points), **axes)))
    rows = sorted(run.generated, key=lambda network: (-network["expectation"], network["costs"].get("macs", 0)))
    return {
        "names": names,
        "rows": [dict(network) | {"notes": _notes(run, network)} for network in rows],
        "figures": figures,
        "scored": any(row.get("score") for row in rows),
        "measured": any(row.get("measured_latency_ns") for row in rows),
    }


def _notes(run: RunFiles, network: Mapping[str, Any]) -> list[str]:
    notes = list(network.get("flags", ()))
    if network.get("search_fingerprint", run.result["fingerprint"]) != run.result["fingerprint"]:
        notes.append("from another search than this run's")
    if not same_target(network["target"], run.result["target"]):
        notes.append(f"for another target: {target_text(network['target'])}")
    return notes


def _network_text(network: Mapping[str, Any], name: str) -> str:
    value, score = quantity(name, network["costs"][name]), network.get("score")
    scored = f", score {score['value']:.4f} ({score['split']})" if score else ""
    return f"budget {network['budget']}: E[alpha] {network['expectation']:.6f}, {name} {value}{scored}"


def _front(points: Sequence[tuple[float, float, str]]) -> list[tuple[float, float]]:
    """Return the Pareto front: no other point has a lower cost and at least the same value."""
    front: list[tuple[float, float]] = []
    for x, y, _ in sorted(points, key=lambda point: (point[0], -point[1])):
        if not front or y > front[-1][1]:
            front.append((x, y))
    return front


def probe(run: RunFiles) -> dict[str, Any] | None:
    """Return Kendall's tau by epoch, and the networks after the last epoch; None without a probe."""
    if not run.probe:
        return None
    last = max(row["epoch"] for row in run.probe)
    of_last = [row for row in run.probe if row["epoch"] == last]
    n = len(of_last)
    band = 1.96 * (math.sqrt(2 * (2 * n + 5) / (9 * n * (n - 1))) if n > 1 else math.nan)
    tau = [(float(epoch), value) for epoch, value in tau_by_epoch(run.probe).items()]
    points = []
    for row in of_last:
        x, y = row["score"], row["table_score"]
        if math.isfinite(x) and math.isfinite(y):
            points.append((x, y, f"network {row['architecture']}: inherited {x:.4f} (val), table {y:.4f}"))
    return {
        "networks": n,
        "epoch": last,
        "tau": tau,
        "chart": charts.lines_chart(
            f"Kendall's tau of {n} networks by epoch; the table has the numbers",
            [charts.Line("Kendall's tau", tau)],
            x_label="epoch",
            y_label="Kendall's tau, inherited scores (val) with the table",
            band=(-band, band),
            band_text="95 % of unrelated rankings",
        ),
        "scatter": charts.front_chart(
            f"inherited scores against the table's after epoch {last}",
            points,
            (),
            x_label="score with inherited weights (val)",
            y_label="score in the table",
        ),
        "rows": of_last,
    }


# --- text -----------------------------------------------------------------------------------------------------------


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten nested dictionaries to dotted keys."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return found


def value_text(value: Any) -> str:
    """Format a configuration value as in YAML."""
    return value if isinstance(value, str) else json.dumps(value, default=str)


def seconds_text(value: float) -> str:
    """Format a duration; short ones to hundredths of a second."""
    return "unknown" if math.isnan(value) else f"{value:.2f} s" if value < 10 else duration(value)
