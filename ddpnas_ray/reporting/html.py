"""The HTML report of a run: one self-contained page from the files of its directory.

Nothing is loaded from anywhere: styles, script and charts are in the page, and its content policy forbids the rest.
Equal files give equal pages. Axes: E edges, K candidates, R rounds.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import shlex
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from ddpnas_ray import __version__
from ddpnas_ray.console.progress import duration
from ddpnas_ray.core.generation.budgets import is_time, quantity
from ddpnas_ray.core.space import SearchSpace
from ddpnas_ray.core.state import Evaluation
from ddpnas_ray.reporting import charts, networks
from ddpnas_ray.reporting.confidence import INHERITED, how_sure, inherited_text
from ddpnas_ray.reporting.explain import RoundStory, edge_story, verdict
from ddpnas_ray.reporting.runfiles import RunFiles, keep_per_group
from ddpnas_ray.spaces.target import target_text

COLOURS = 10  # of operations; then they repeat
STORY_ROWS = 3500  # operations in the tables of all edges' stories
LEDGER_ROWS = 3000
SCATTER_POINTS = 2000
EPOCH_ROWS = 1000  # of tables by epoch and by round


# --- pages ----------------------------------------------------------------------------------------------------------


def run_page(run: RunFiles) -> bytes:
    """The page of one run."""
    rounds, edges = len(run.history), _edges(run)
    colours = _colours(run.space)
    has_theta = moved(run)
    stories, epochs = _stories(run), _epochs(run)
    return render(
        "run.html.j2",
        {"theta": _theta_data(edges, run) if has_theta else None},
        run=run,
        title=run.title,
        facts=facts(run),
        scores=score_rows(run),
        headline=next((row for row in run.result.get("score_sheet", ()) if row["what"] != INHERITED), None),
        inherited=" ".join(line.strip() for line in inherited_text(run.result)),
        sure=[line.strip() for line in how_sure(run.result)],
        stability=(run.result.get("confidence") or {}).get("resampling"),
        costs=[(name, quantity(name, value)) for name, value in run.result["costs"].items()],
        target=target_text(run.result["target"]),
        cells=[(cell, networks.draw(cell, colours)) for cell in networks.cells(run.result["genotype"])],
        stages=networks.stages(run.result["genotype"], *_chain(run)),
        left_out=networks.LEFT_OUT,
        answer=_answer(run),
        genotype=[(key, json.dumps(value)) for key, value in run.result["genotype"].items()],
        moved=has_theta,
        rounds=rounds,
        operations=_operations(run.space),
        theta=_theta(run, edges, stories) if has_theta else [],
        thinned=has_theta and rounds + 1 > charts.SHOWN_POINTS,
        ledger=run.ledger[-LEDGER_ROWS:],
        ledger_left_out=max(0, len(run.ledger) - LEDGER_ROWS),
        mistakes=_mistakes(run),
        progress=_progress(run, epochs),
        scattered=len(run.evaluations) <= SCATTER_POINTS,
        epochs=epochs,
        fairness=_fairness(run),
        generated=_networks(run),
        probe=_probe(run),
        work=_work(run),
        environment=environment(run),
        commands=_commands(run),
    )


def render(template: str, data: Mapping[str, Any], **values: Any) -> bytes:
    """A page from one of the templates.

    Args:
        template: Its file in ``templates/``.
        data: What the page's script needs, plain JSON.
        values: What the template shows. Strings are escaped, markup is not.
    """
    loader = PackageLoader("ddpnas_ray.reporting")
    page = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    page.globals["EPOCH_ROWS"] = EPOCH_ROWS
    page.filters |= {"fixed": _fixed, "share": lambda x: f"{100 * x:.0f} %", "duration": _seconds}
    style, script = (loader.get_source(page, name)[0] for name in ("style.css", "script.js"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    text = page.get_template(template).render(
        style=Markup(style),
        script=Markup(script),
        script_hash=f"sha256-{digest}",
        data=data,
        version=__version__,
        **values,
    )
    return text.encode()


# --- summary --------------------------------------------------------------------------------------------------------


def facts(run: RunFiles) -> list[tuple[str, str]]:
    """What kind of search it was, and what it took."""
    result, of_table = run.result, str(run.result["scores"]["of"]).endswith("from the table")
    spent = "evaluations" if of_table else "architecture-epochs"
    started = next((event["time"] for event in run.log if event["event"] == "start"), None)
    when = "unknown" if started is None else time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(started))
    return [
        ("strategy", str(result.get("strategy") or "pruning")),
        ("seed", str(result["seed"])),
        (spent, f"{len(run.evaluations):,}"),
        ("rounds", str(result.get("rounds", len(run.history)))),
        ("epochs", str(result.get("epochs", "unknown"))),
        ("search time", _seconds(result["seconds"])),
        ("workers", str(result.get("workers", "unknown"))),
        *_devices(result.get("devices", {})),
        ("started", when),
        ("E[alpha] of the answer (Eq. 9)", f"{result['expectation']:.6f}"),
        ("fingerprint", str(result["fingerprint"])),
    ]


def _devices(evaluations: Mapping[str, int]) -> list[tuple[str, str]]:
    """What trained; nothing for a table, and for older runs."""
    if len(evaluations) < 2:
        return [("device", kind) for kind in evaluations]
    found = ", ".join(f"{kind} ({count} evaluations)" for kind, count in evaluations.items())
    return [("devices", f"{len(evaluations)} kinds, so that the result may differ from one on a single kind: {found}")]


def score_rows(run: RunFiles) -> list[dict[str, Any]]:
    """The score sheet with what older runs have of it; every number with its split."""
    scores = run.result["scores"]
    rows = [{"what": f"best of {scores['of']}", "split": scores["split"], "value": scores["best"]}]
    rows.append({"what": "mean of the last epoch", "split": scores["split"], "value": scores["last_epoch_mean"]})
    return [*run.result.get("score_sheet", ()), *rows]


def _answer(run: RunFiles) -> list[tuple[str, str]]:
    return [(edge.name, edge.candidates[k].name) for edge, k in zip(run.space.edges, run.result["alpha"], strict=True)]


def _chain(run: RunFiles) -> tuple[Sequence[int], Sequence[int]]:
    """Channels and strides of the stages of a chain, where the configuration says them."""
    widths, strides = run.setting("space.widths"), run.setting("space.strides")
    if not isinstance(widths, list) or not isinstance(strides, list):
        return (), ()
    return widths[2 : 2 + len(strides)], strides


# --- theta ----------------------------------------------------------------------------------------------------------


def _colours(space: SearchSpace) -> dict[str, int]:
    names = dict.fromkeys(op.name for edge in space.edges for op in edge.candidates)
    return {name: i % COLOURS for i, name in enumerate(names)}


def _operations(space: SearchSpace) -> list[dict[str, Any]]:
    """The legend."""
    groups = {op.name: op.group for edge in space.edges for op in edge.candidates}
    return [
        {"name": name, "colour": colour, "dashed": groups[name] == "non_parameter"}
        for name, colour in _colours(space).items()
    ]


def _edges(run: RunFiles) -> list[charts.EdgeTheta]:
    colours, edges = _colours(run.space), []
    for e, edge in enumerate(run.space.edges):
        count = len(edge.candidates)
        theta = [np.full(count, 1 / count), *(record.theta_EK[e, :count] for record in run.history)]
        gone = [next((i for i, r in enumerate(run.history, 1) if not r.live_EK[e, k]), None) for k in range(count)]
        edges.append(
            charts.EdgeTheta(
                name=edge.name,
                operations=tuple(op.name for op in edge.candidates),
                colours=tuple(colours[op.name] for op in edge.candidates),
                dashed=tuple(op.group == "non_parameter" for op in edge.candidates),
                theta_RK=np.array(theta),
                pruned=tuple(gone),
                chosen=run.result["alpha"][e] if edge.candidates[run.result["alpha"][e]].generable else None,
            )
        )
    return edges


def moved(run: RunFiles) -> bool:
    """Whether the strategy holds a distribution that it moves."""
    uniform_EK = run.space.exists_EK / run.space.exists_EK.sum(axis=1, keepdims=True)
    return any(not np.array_equal(record.theta_EK, uniform_EK) for record in run.history)


def _theta_data(edges: Sequence[charts.EdgeTheta], run: RunFiles) -> dict[str, Any]:
    """What the script shows beside a pointer."""
    shown = charts.shown_rounds(len(run.history) + 1)
    return {
        "rounds": shown,
        "edges": [
            {
                "name": edge.name,
                "operations": edge.operations,
                "colours": edge.colours,
                "pruned": edge.pruned,
                "theta": [[round(float(v), 6) for v in edge.theta_RK[shown, k]] for k in range(len(edge.operations))],
            }
            for edge in edges
        ],
    }


def _theta(
    run: RunFiles, edges: Sequence[charts.EdgeTheta], stories: Sequence[Sequence[RoundStory]]
) -> list[dict[str, Any]]:
    span, distances = charts.theta_span(edges), charts.distance_span(edges)
    return [
        {
            "name": edge.name,
            "chosen": "left out" if edge.chosen is None else edge.operations[edge.chosen],
            "left_out": edge.chosen is None,
            "small": [
                charts.theta_chart(edge, span, e, large=False),
                charts.theta_chart(edge, distances, e, large=False, distance=True),
            ],
            "large": [
                charts.theta_chart(edge, span, e, large=True),
                charts.theta_chart(edge, distances, e, large=True, distance=True),
            ],
            "story": [
                {
                    "round": story.ledger.round + 1,
                    "epochs": story.epochs,
                    "architectures": story.architectures,
                    "sigma": story.ledger.sigma,
                    "operations": story.operations,
                    "scores": [_score_list(row.scores) for row in story.operations],
                    "verdict": verdict(story.ledger),
                }
                for story in stories[e]
            ],
            "command": shlex.join(["python", "-m", "ddpnas_ray.report", run.uri, "--explain", edge.name]),
        }
        for e, edge in enumerate(edges)
    ]


def _stories(run: RunFiles) -> list[list[RoundStory]]:
    """Every edge's; of very long searches the last rounds alone."""
    keep = keep_per_group(run.config)
    stories = [
        edge_story(edge.name, run.history, run.evaluations, run.space, keep, run.ledger) for edge in run.space.edges
    ]
    total = sum(len(story.operations) for rounds in stories for story in rounds)
    if total <= STORY_ROWS:
        return stories
    last = max(1, len(run.history) * STORY_ROWS // total)
    return [rounds[-last:] for rounds in stories]


def _score_list(scores: Sequence[float]) -> str:
    shown = " ".join(f"{score:.3f}" for score in scores[:8]) or "none"
    return shown if len(scores) <= 8 else f"{shown} and {len(scores) - 8} more"


def _mistakes(run: RunFiles) -> dict[str, Any] | None:
    """How many prunings there were, and how many of them are expected to have been of the best."""
    pruned = [row for row in run.ledger if row.pruned is not None]
    known = [row.p_best_pruned for row in pruned if not math.isnan(row.p_best_pruned)]
    return {"pruned": len(pruned), "known": len(known), "expected": math.fsum(known)} if pruned else None


# --- evaluations ----------------------------------------------------------------------------------------------------


def _epochs(run: RunFiles) -> list[dict[str, Any]]:
    """A row an epoch."""
    (_, walls_s), rows = _epoch_times(run), []
    by_epoch: dict[int, list[Evaluation]] = {}
    for row in run.evaluations:
        by_epoch.setdefault(row.epoch, []).append(row)
    for epoch, records in sorted(by_epoch.items()):
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


def _progress(run: RunFiles, rows: Sequence[Mapping[str, Any]]) -> Markup:
    """Scores by epoch."""
    best, so_far = -math.inf, []
    for row in rows:
        best = max(best, row["best"]) if math.isfinite(row["best"]) else best
        so_far.append((float(row["epoch"]), best))
    single = len(run.evaluations) == len(rows)  # one architecture an epoch: the mean is the score
    splits = sorted({row.split for row in run.evaluations})
    lines = [charts.Line("best so far", so_far)]
    if not single:
        lines.append(charts.Line("mean of the epoch", [(float(row["epoch"]), row["mean"]) for row in rows]))
    points = [
        (row.epoch + 1.0, row.score, f"epoch {row.epoch + 1}, architecture {row.architecture}: {row.score:.4f}")
        for row in run.evaluations
    ]
    return charts.lines_chart(
        f"scores of the {' and '.join(splits)} split by epoch; the numbers are in the table by epoch",
        lines,
        x_label="epoch",
        y_label=f"score ({' and '.join(splits)} split)",
        scatter=points if len(points) <= SCATTER_POINTS else (),
    )


def _fairness(run: RunFiles) -> dict[str, Any]:
    """How often every operation was trained, by edge; and by round how unevenly."""
    space = run.space
    trained = [row for row in run.evaluations if row.trained]
    counts_EK = np.zeros(space.shape, dtype=np.int64)
    by_round: dict[int, Any] = {}
    for row in trained:
        alpha_E = np.array(row.alpha_E)
        active = np.flatnonzero(space.active(alpha_E))
        own_EK = by_round.setdefault(row.round, np.zeros(space.shape, dtype=np.int64))
        own_EK[active, alpha_E[active]] += 1
        counts_EK[active, alpha_E[active]] += 1
    names = list(_colours(space))
    live_EK, rounds, live_in = space.exists_EK, [], {}
    for record in run.history:
        live_in[record.round] = live_EK
        live_EK = record.live_EK
    for number, own_EK in sorted(by_round.items()):
        alive_EK = live_in.get(number, live_EK)
        spread = [int(np.ptp(own[live])) for own, live in zip(own_EK, alive_EK, strict=True) if live.any()]
        fewest, most = int(own_EK[alive_EK].min()), int(own_EK[alive_EK].max())
        equal = sum(s == 0 for s in spread)
        rounds.append({"round": number + 1, "fewest": fewest, "most": most, "equal": equal, "spread": max(spread)})
    rows = []
    for e, edge in enumerate(space.edges):
        place = {op.name: k for k, op in enumerate(edge.candidates)}
        rows.append((edge.name, [int(counts_EK[e, place[name]]) if name in place else None for name in names]))
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
    """When the log's epochs began, in seconds since 1970, and their wall time; of one that was run again the last."""
    events = [event for event in run.log if event["event"] == "epoch" and {"epochs_done", "epoch_s"} <= event.keys()]
    walls_s = {event["epochs_done"] - 1: float(event["epoch_s"]) for event in events}
    return {event["epochs_done"] - 1: float(event["time"]) - float(event["epoch_s"]) for event in events}, walls_s


def _work(run: RunFiles) -> dict[str, Any] | None:
    """Who worked when; None where nothing took time."""
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
    clock_s, logged = 0.0, True
    started = all(row.start_s is not None and row.epoch in starts_s for row in run.evaluations)
    by_epoch: dict[int, list[Evaluation]] = {}
    for row in run.evaluations:
        by_epoch.setdefault(row.epoch, []).append(row)
    for epoch, records in sorted(by_epoch.items()):
        begins_s[epoch] = clock_s
        rounds_s.setdefault(f"round {records[0].round + 1}", clock_s)
        until_s = dict.fromkeys(range(len(workers)), clock_s)
        for row in sorted(records, key=lambda row: row.architecture):
            at = place[row.node, row.worker.partition("/")[0]]
            kind = "failed" if not row.ok else "even" if row.round % 2 else "odd"
            doing = "trained and scored" if row.trained else "scored"
            text = (
                f"round {row.round + 1}, epoch {epoch + 1}, architecture {row.architecture} {doing} by {row.worker}: "
                f"{row.seconds:.2f} s, score {row.score:.4f} ({row.split})"
            )
            if started and row.start_s is not None:
                until_s[at] = clock_s + max(0.0, row.start_s - starts_s[epoch])
            bars.append(charts.Bar(at, until_s[at], row.seconds, kind, text))
            until_s[at] += row.seconds
        logged = logged and epoch in walls_s
        clock_s = max(clock_s + walls_s.get(epoch, 0.0), *until_s.values())
    resumes_s = [
        begins_s[e["epoch"]] for e in run.log if e["event"] == "start" and e.get("epoch") in begins_s and e["epoch"]
    ]
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
        "logged": logged,
        "started": started,
        "resumes": len(resumes_s),
        "merged": len(bars) > charts.SHOWN_BARS,
    }


# --- generated networks, probe --------------------------------------------------------------------------------------


def _networks(run: RunFiles) -> dict[str, Any] | None:
    if not run.generated:
        return None
    own = [n for n in run.generated if n["target"] == run.result["target"]]
    names = list(dict.fromkeys(name for network in run.generated for name in network["costs"]))
    pictures = []
    for name in names:
        having = [network for network in own if name in network["costs"]]
        points = [(_scaled(name, n["costs"][name]), n["expectation"], _network_text(n, name)) for n in having]
        if len({x for x, _, _ in points}) < 2:
            continue
        unit = f"{name} in ms" if is_time(name) else name
        label = f"E[alpha] of generated networks against {unit}; the numbers are in the table"
        axis = "E[alpha] (Eq. 9)"
        picture = charts.front_chart(label, points, _front(points), x_label=unit, y_label=axis)
        pictures.append((name, picture))
    preferred = ("macs", "latency", "params")
    pictures.sort(key=lambda pair: preferred.index(pair[0]) if pair[0] in preferred else len(preferred))
    rows = [
        {
            "budget": network["budget"],
            "expectation": network["expectation"],
            "costs": [quantity(name, network["costs"][name]) if name in network["costs"] else "" for name in names],
            "score": network.get("score"),
            "measured": network.get("measured_latency_ns"),
            "method": network["certificate"].get("method", ""),
            "gap": network["certificate"].get("gap"),
            "flags": [
                *network.get("flags", ()),
                *(["of another search than this run's"] if _foreign(run, network) else []),
                *([] if network in own else [f"of another target: {target_text(network['target'])}"]),
            ],
            "genotype": json.dumps(network["genotype"]),
        }
        for network in sorted(run.generated, key=lambda n: (-n["expectation"], n["costs"].get("macs", 0)))
    ]
    return {
        "names": names,
        "rows": rows,
        "pictures": pictures,
        "scored": any(row["score"] for row in rows),
        "measured": any(row["measured"] for row in rows),
    }


def _foreign(run: RunFiles, network: Mapping[str, Any]) -> bool:
    return bool(network.get("search_fingerprint", run.result["fingerprint"]) != run.result["fingerprint"])


def _scaled(name: str, value: int) -> float:
    return value / 1e6 if is_time(name) else float(value)


def _network_text(network: Mapping[str, Any], name: str) -> str:
    value = quantity(name, network["costs"][name])
    score = network.get("score")
    scored = f", score {score['value']:.4f} ({score['split']})" if score else ""
    return f"budget {network['budget']}: E[alpha] {network['expectation']:.6f}, {name} {value}{scored}"


def _front(points: Sequence[tuple[float, float, str]]) -> list[tuple[float, float]]:
    """Those that no other has for less with at least as much."""
    front: list[tuple[float, float]] = []
    for x, y, _ in sorted(points, key=lambda point: (point[0], -point[1])):
        if not front or y > front[-1][1]:
            front.append((x, y))
    return front


def _probe(run: RunFiles) -> dict[str, Any] | None:
    if not run.probe:
        return None
    last = max(row["epoch"] for row in run.probe)
    of_last = [row for row in run.probe if row["epoch"] == last]
    n = len(of_last)
    deviation = math.sqrt(2 * (2 * n + 5) / (9 * n * (n - 1))) if n > 1 else math.nan
    tau = [(float(epoch), value) for epoch, value in run.tau_by_epoch.items()]
    points = [
        (
            row["score"],
            row["table_score"],
            f"network {row['architecture']}: inherited {row['score']:.4f} (val), table {row['table_score']:.4f}",
        )
        for row in of_last
        if math.isfinite(row["score"]) and math.isfinite(row["table_score"])
    ]
    return {
        "networks": n,
        "epoch": last,
        "tau": tau,
        "band": 1.96 * deviation,
        "chart": charts.lines_chart(
            f"Kendall's tau of {n} networks by epoch; the numbers are in the table",
            [charts.Line("Kendall's tau", tau)],
            x_label="epoch",
            y_label="Kendall's tau, inherited scores (val) with the table",
            band=(-1.96 * deviation, 1.96 * deviation),
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


# --- environment ----------------------------------------------------------------------------------------------------


def environment(run: RunFiles) -> list[tuple[str, str]]:
    """Flat, in the file's order."""
    facts = []
    for key, value in flat(run.environment).items():
        shown = f"{value / 2**30:.1f} GiB" if key == "memory_bytes" and value else value_text(value)
        facts.append((key.removeprefix("packages."), shown))
    return facts


def _commands(run: RunFiles) -> list[tuple[str, str]]:
    """What repeats the run and looks at it, with what each is for."""
    words = ["python", "-m"]
    commit = str(run.environment.get("git_commit") or "")
    commands = []
    if commit:
        changed = " (its files had changes that are not in the commit)" if commit.endswith("+changes") else ""
        what = f"the code that it ran with{changed}"
        commands.append((what, shlex.join(["git", "checkout", commit.removesuffix("+changes")])))
    again = [*words, "ddpnas_ray.search", "--config", run.config_uri, "--out", "again"]
    what = "the same search; an equal seed gives an equal fingerprint on the same kind of device"
    commands.append((what, shlex.join(again)))
    verify = [*words, "ddpnas_ray.report", run.uri, "--verify-fingerprint"]
    commands.append(("are the files what the search wrote?", shlex.join(verify)))
    both = [*words, "ddpnas_ray.report", run.uri, "again", "--html", "both.html"]
    commands.append(("this run beside another", shlex.join(both)))
    generate = [*words, "ddpnas_ray.generate", run.uri, "--sweep", "macs=50%..100%:20"]
    if "macs" in run.result["costs"] and moved(run):
        commands.append(("the best networks for 20 budgets", shlex.join(generate)))
    return commands


# --- text -----------------------------------------------------------------------------------------------------------


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dictionaries as one of dotted keys."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return found


def value_text(value: Any) -> str:
    """A value of a configuration as people write it."""
    return value if isinstance(value, str) else json.dumps(value, default=str)


def _fixed(value: float | None, digits: int = 4) -> str:
    """A number with so many decimals; what is not known says so."""
    return "not defined" if value is None else "unknown" if math.isnan(value) else f"{value:.{digits}f}"


def _seconds(value: float) -> str:
    """A duration for people; short ones to the hundredth."""
    return "unknown" if math.isnan(value) else f"{value:.2f} s" if value < 10 else duration(value)
