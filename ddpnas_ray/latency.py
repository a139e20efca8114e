"""Build and check latency tables of a device: ``python -m ddpnas_ray.latency``."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ddpnas_ray.console.cluster import checked_address, cluster
from ddpnas_ray.console.command import OK, Parser, guarded, say
from ddpnas_ray.console.options import add_address_option, add_set_option, count, image_size, positive
from ddpnas_ray.console.progress import counting, duration
from ddpnas_ray.core.errors import ConfigError, DataError
from ddpnas_ray.devices.config import TimingOptions, device_label

if TYPE_CHECKING:
    from ddpnas_ray.core.space import FloatArray, SearchSpace
    from ddpnas_ray.devices.table import Latency, LatencyRow, LatencyTable, Timings
    from ddpnas_ray.experiment.config import SearchConfig
    from ddpnas_ray.spaces.base import Part, SpaceSpec
    from ddpnas_ray.spaces.target import Target

SIZES = ("image_size", "classes", "input_channels", "sequence_length", "vocabulary")  # options, as no data set is read
DESCRIPTION = """\
Time the parts of a space's networks on a device, so that `generate` can bound latency. A device is the set of Ray nodes
with a given label; without --address, a cluster starts here and this machine carries the label.

examples:
  python -m ddpnas_ray.latency build --space mobile --image-size 224 --classes 1000 --device-label pc --out t.parquet
  python -m ddpnas_ray.latency build --run runs/cell --device-label jetson --address auto --out jetson.parquet
  python -m ddpnas_ray.latency check t.parquet --networks 50        compare sums of parts with measured networks
  ray start --address=HEAD:6379 --labels ddpnas-device=jetson       on the device: join the cluster with the label

`ddpnas latency build --help` and `ddpnas latency check --help` show their options.
"""
BUILD = """\
Time every distinct part of every choice, in several passes, each in its own random order. Parts run back to back,
interleaved with a reference network: caches are as warm as inside a network, and a temporary slowdown affects both and
cancels. A node runs one timing at a time.

examples:
  python -m ddpnas_ray.latency build --space mobile --image-size 224 --classes 1000 --device-label pc --out t.parquet
  python -m ddpnas_ray.latency build --space cell --set target.cells=14 --image-size 32 --classes 10 \\
      --device-label jetson --address auto --out t.parquet
  python -m ddpnas_ray.latency build --space my_lab.texts:make --sequence-length 128 --vocabulary 30522 --classes 2 \\
      --device-label pc --out t.parquet
  python -m ddpnas_ray.latency build --run RUN --device-label board=rev-b --threads 4 --dtype bf16 --out t.parquet
"""
CHECK = """\
Draw random networks of the table's space, measure each end to end, and compare with the sums of their parts: median
relative error, bias (mean signed relative error) and rank correlation (Spearman). The table's reference network is
measured along with each, so drift is reported and divided out.

examples:
  python -m ddpnas_ray.latency check t.parquet
  python -m ddpnas_ray.latency check t.parquet --networks 200 --full-depth-networks 0 --csv measured.csv --json
"""


def parser() -> argparse.ArgumentParser:
    """Build the argument parser."""
    p = Parser(prog="ddpnas latency", description=DESCRIPTION)
    commands = p.add_subparsers(dest="command", required=True, metavar="build|check")
    build = commands.add_parser("build", help="time the parts of a space's networks", description=BUILD)
    of = build.add_mutually_exclusive_group(required=True)
    of.add_argument("--space", metavar="NAME", help="a built-in space, or module:function, with its defaults")
    of.add_argument("--config", metavar="FILE", help="take sections space and target from a YAML file")
    of.add_argument("--run", metavar="RUN", help="take space and target from a finished search")
    add_set_option(build, "override one key of space or target: --set space.nodes=3")
    build.add_argument(
        "--image-size", metavar="N", type=image_size, help="side in pixels, or HEIGHTxWIDTH, as no data set is read"
    )
    build.add_argument("--classes", metavar="N", type=positive, help="number of classes")
    build.add_argument("--input-channels", metavar="N", type=positive, help="colour channels (default 3)")
    build.add_argument("--sequence-length", metavar="N", type=positive, help="tokens of a text")
    build.add_argument("--vocabulary", metavar="N", type=positive, help="number of token ids")
    build.add_argument("--target", metavar="KEY=V,...", help="with --run: another deploy network, as in generate")
    build.add_argument("--out", metavar="TABLE", required=True, help="Parquet file to write, local or a URI")
    build.add_argument("--force", action="store_true", help="overwrite --out")
    build.add_argument(
        "--device-label", metavar="LABEL", required=True, help="node label: key=value, or NAME for ddpnas-device=NAME"
    )
    build.add_argument("--threads", metavar="N", type=positive, default=1, help="CPU threads (default 1)")
    build.add_argument("--batch", metavar="N", type=positive, default=1, help="examples per batch (default 1)")
    build.add_argument("--dtype", choices=("fp32", "bf16", "fp16"), default="fp32", help="default fp32")
    build.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="default cpu")

    check = commands.add_parser("check", help="compare a table with measured networks", description=CHECK)
    check.add_argument("table", metavar="TABLE", help="table written by build")
    check.add_argument("--networks", metavar="N", type=count, default=50, help="networks of any depth (default 50)")
    check.add_argument(
        "--full-depth-networks", metavar="N", type=count, default=50, help="networks of full depth (default 50)"
    )
    check.add_argument("--seed", metavar="N", type=count, default=0, help="seed of the random networks (default 0)")
    check.add_argument("--csv", metavar="FILE", help="write every measurement as CSV")
    check.add_argument("--json", action="store_true", help="print one JSON object; progress goes to stderr")
    check.add_argument("--device-label", metavar="LABEL", help="node label; default: the table's")
    for command in (build, check):
        command.add_argument("--passes", metavar="N", type=positive, default=5, help="passes over all timings (5)")
        add_address_option(command)
    return p


@guarded
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    p = parser()
    args = p.parse_args(argv)
    if args.command == "check":
        if args.networks + args.full_depth_networks == 0:
            p.error("--networks and --full-depth-networks are both 0")
        return _check(args)
    if args.run and (args.overrides or any(getattr(args, key) for key in SIZES)):
        p.error(f"--run sets space and target; remove --set, {', '.join(map(_option, SIZES))}")
    if args.target and not args.run:
        p.error("--target needs --run; otherwise give --image-size, --classes and --set target.KEY=VALUE")
    return _build(args)


# --- build ----------------------------------------------------------------------------------------------------------


def _build(args: argparse.Namespace) -> int:
    from ddpnas_ray.devices.table import LatencyTable, edge_names, reference_latency
    from ddpnas_ray.storage.folder import place

    label = device_label(args.device_label)
    options = TimingOptions(
        threads=args.threads, batch=args.batch, dtype=args.dtype, device=args.device, passes=args.passes
    )
    section, spec, target = _resolved(args)
    if spec.parts is None:
        raise ConfigError(
            f"space.name: space {section['name']!r} does not list the parts of its networks, so they cannot be timed"
        )
    folder, name = place(args.out)
    if folder.has(name) and not args.force:
        raise DataError(f"{args.out}: exists; choose another --out, or overwrite it with --force")
    folder.make()

    parts = spec.parts(target)
    distinct = list({part.key: part for part in parts}.values())
    reference_alpha = _draw(spec.space, 1, seed=0, full_depth=False)[0]
    timed = counting("timings of parts", options.passes * len(distinct), sys.stderr)
    with cluster(checked_address(args.address), "time parts", sys.stderr, label=label), timed as advance:
        from ddpnas_ray.distributed import ray_timing

        machine = ray_timing.describe(label, options)
        say(f"{label}: {_hardware(machine)}")
        start = time.monotonic()
        timings = ray_timing.time_parts(
            ray_timing.network(spec, target, reference_alpha),
            distinct,
            label,
            options,
            on_timed=advance,
        )
        seconds = time.monotonic() - start
    reference = reference_latency(timings)
    table = LatencyTable(
        rows=_rows(spec.space, parts, distinct, timings, reference),
        device=label,
        machine=machine,
        timing=dataclasses.asdict(options),
        space=section,
        edges=edge_names(spec.space),
        target=dataclasses.asdict(target),
        reference_alpha=reference_alpha,
        reference=reference,
        date=time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    )
    table.save(args.out)
    print("\n".join(_summary(table, spec.space, str(target), len(distinct), seconds)))
    print(f"table {args.out}")
    return OK


def _resolved(args: argparse.Namespace) -> tuple[dict[str, Any], SpaceSpec, Target]:
    """Return section ``space``, its space and the target; no data set is read."""
    from ddpnas_ray.experiment.config import check, set_key, to_dict
    from ddpnas_ray.experiment.finished import FinishedRun
    from ddpnas_ray.experiment.yaml_text import parse, read_text
    from ddpnas_ray.spaces.base import find_space
    from ddpnas_ray.spaces.target import Target

    if args.run:
        run = FinishedRun.load(args.run, target=args.target)
        return to_dict(run.config)["space"], run.spec, run.target
    source = args.config or f"--space {args.space}"
    values = parse(read_text(args.config), source) if args.config else {"space": {"name": args.space}}
    for override in args.overrides:
        set_key(values, override)
    config = check(values, source, args.overrides)
    spec = find_space(config.space.name)(**config.space.options)
    inputs = spec.target.inputs(_sizes(args, config, spec.target.sizes, source))
    return to_dict(config)["space"], spec, Target.resolve(config.target, inputs, spec.target)


def _sizes(
    args: argparse.Namespace, config: SearchConfig, defaults: Mapping[str, int | None], source: str
) -> dict[str, Any]:
    """Return the sizes of the data: of section ``target``, of the options, or the space's defaults."""
    for key in SIZES:
        if key not in defaults and getattr(args, key):
            known = ", ".join(map(_option, defaults))
            raise ConfigError(
                f"{_option(key)}: networks of space {config.space.name!r} have no such size; give {known}"
            )
    sizes = {}
    for key, default in defaults.items():
        found = getattr(config.target, key, None) or getattr(args, key) or default
        if found is None:
            name = f"target.{key}" if hasattr(config.target, key) else key
            raise ConfigError(f"{source}: {name} is not set and no data set is read; give {_option(key)}")
        sizes[key] = found
    return sizes


def _rows(
    space: SearchSpace, parts: Sequence[Part], distinct: Sequence[Part], timings: Sequence[Timings], reference: Latency
) -> tuple[LatencyRow, ...]:
    """Return one row per choice and distinct part: how often it occurs, and its latency."""
    from ddpnas_ray.devices.table import LatencyRow

    latencies = {part.key: t.at(reference.median_ns) for part, t in zip(distinct, timings, strict=True)}
    counts = Counter((part.edge, part.candidate, part.key) for part in parts)
    return tuple(
        LatencyRow(None, None, key, count, latencies[key])
        if edge is None
        else LatencyRow(space.edges[edge].name, space.op(edge, k).name, key, count, latencies[key])
        for (edge, k, key), count in counts.items()
    )


def _summary(table: LatencyTable, space: SearchSpace, target: str, distinct: int, seconds: float) -> list[str]:
    """Summarise the table in a few lines."""
    import numpy as np

    cost = table.cost(space)
    slowest = max(table.rows, key=lambda row: row.latency.median_ns)
    predicted_ns = cost(np.array(table.reference_alpha))
    timing = table.timing
    return [
        f"{distinct} distinct parts of space {table.space['name']} ({target}), {timing['threads']} thread(s), batch "
        f"{timing['batch']}, {timing['dtype']} on {timing['device']}: {slowest.latency.runs} timings each in "
        f"{duration(seconds)}",
        f"base      {_ms(cost.base)}: common to all networks",
        f"slowest   {_ms(slowest.latency.median_ns)}: {slowest.key}",
        f"reference {_ms(table.reference.median_ns)} measured, {_ms(predicted_ns)} as the sum of its parts "
        f"({predicted_ns / table.reference.median_ns - 1:+.1%})",
    ]


# --- check ----------------------------------------------------------------------------------------------------------


def _check(args: argparse.Namespace) -> int:
    import numpy as np

    from ddpnas_ray.devices.table import read_table, reference_latency
    from ddpnas_ray.experiment.config import check
    from ddpnas_ray.spaces.base import find_space
    from ddpnas_ray.spaces.target import Target

    table = read_table(args.table)
    label = device_label(args.device_label or table.device)
    options = TimingOptions(**{**table.timing, "passes": args.passes})
    config = check({"space": dict(table.space)}, args.table)
    spec, target = find_space(config.space.name)(**config.space.options), Target(**table.target)
    cost = table.cost(spec.space)
    populations = {
        "any_depth": _draw(spec.space, args.networks, seed=args.seed, full_depth=False),
        "full_depth": _draw(spec.space, args.full_depth_networks, seed=args.seed, full_depth=True),
    }
    alphas = [alpha for drawn in populations.values() for alpha in drawn]
    timed = counting("timings of networks", options.passes * len(alphas), sys.stderr)
    with cluster(checked_address(args.address), "time networks", sys.stderr, label=label), timed as advance:
        from ddpnas_ray.distributed import ray_timing

        timings = ray_timing.time_parts(
            ray_timing.network(spec, target, table.reference_alpha),
            [ray_timing.network(spec, target, alpha) for alpha in alphas],
            label,
            options,
            whole=True,
            seed=args.seed,
            on_timed=advance,
        )
    now = reference_latency(timings)
    rows = [
        {
            "population": name,
            "alpha": " ".join(map(str, alpha)),
            "predicted_ns": cost(np.array(alpha)),
            "measured_ns": timing.at(table.reference.median_ns).median_ns,
            "as_measured_ns": timing.as_measured().median_ns,
        }
        for (name, alpha), timing in zip(
            [(name, alpha) for name, drawn in populations.items() for alpha in drawn], timings, strict=True
        )
    ]
    result = {
        "table": args.table,
        "device": label,
        "reference": {
            "table_ns": table.reference.median_ns,
            "now_ns": now.median_ns,
            "q1_ns": now.q1_ns,
            "q3_ns": now.q3_ns,
            "drift": now.median_ns / table.reference.median_ns - 1,
        },
        "populations": {
            name: _agreement([row for row in rows if row["population"] == name])
            for name, drawn in populations.items()
            if drawn
        },
    }
    if args.csv:
        _write_csv(args.csv, rows)
    print(json.dumps(result) if args.json else "\n".join(_report(result)))
    return OK


def _agreement(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Compare predictions with measurements, both drift-corrected and as measured."""
    import numpy as np

    predicted_N = np.array([row["predicted_ns"] for row in rows], dtype=np.float64)

    def against(column: str) -> dict[str, Any]:
        """Return error, bias and rank correlation for one column of measurements."""
        measured_N = np.array([row[column] for row in rows], dtype=np.float64)
        error_N = predicted_N / measured_N - 1
        return {
            "median_relative_error": float(np.median(np.abs(error_N))),
            "bias": float(error_N.mean()),
            "spearman": _spearman(predicted_N, measured_N),
        }

    return {"networks": len(rows), **against("measured_ns"), "as_measured": against("as_measured_ns")}


def _spearman(a_N: FloatArray, b_N: FloatArray) -> float | None:
    """Return the rank correlation; None if all values are equal or there is only one."""
    import numpy as np
    from scipy.stats import rankdata

    ranks_2N = np.array([rankdata(a_N), rankdata(b_N)])
    if (ranks_2N.std(axis=1) == 0).any():
        return None
    return float(np.corrcoef(ranks_2N)[0, 1])


def _report(result: Mapping[str, Any]) -> list[str]:
    """Format the result as lines of text."""
    reference = result["reference"]
    lines = [
        f"reference network: {_ms(reference['table_ns'])} in the table, {_ms(reference['now_ns'])} now "
        f"({reference['drift']:+.1%}), middle half {_ms(reference['q1_ns'])} to {_ms(reference['q3_ns'])}"
    ]
    for name, found in result["populations"].items():
        for title, figures in (
            (f"{found['networks']} networks, {name.replace('_', ' ')}", found),
            ("  without drift correction", found["as_measured"]),
        ):
            spearman = "undefined" if figures["spearman"] is None else f"{figures['spearman']:.3f}"
            lines.append(
                f"{title}: median relative error {figures['median_relative_error']:.1%}, bias {figures['bias']:+.1%}, "
                f"Spearman {spearman}"
            )
    return lines


def _write_csv(path: str, rows: Sequence[Mapping[str, Any]]) -> None:
    import csv
    import io

    from ddpnas_ray.storage.folder import place

    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0])
    writer.writeheader()
    writer.writerows(rows)
    folder, name = place(path)
    folder.write(name, text.getvalue().encode())


# --- both -----------------------------------------------------------------------------------------------------------


def _draw(space: SearchSpace, count: int, *, seed: int, full_depth: bool) -> list[tuple[int, ...]]:
    """Draw each block's choice uniformly.

    With full depth, only parameter operations on edges that have any, in a mode with the most active edges.
    """
    import numpy as np

    from ddpnas_ray.core.generation.problem import Problem, random_alphas

    choosable_EK = space.generable_EK
    if full_depth:
        layers_EK = choosable_EK & space.group_EK("parameter")
        choosable_EK = np.where(layers_EK.any(axis=1, keepdims=True), layers_EK, choosable_EK)
        if (gate := space.gate) is not None:
            modes = np.flatnonzero(choosable_EK[gate.edge])
            fewest = min(len(gate.inactive[k]) for k in modes)
            choosable_EK[gate.edge, modes] = [len(gate.inactive[k]) == fewest for k in modes]
    rng = np.random.default_rng((seed, full_depth))
    problem = Problem(space, np.zeros(space.shape), choosable_EK)
    return random_alphas(problem, count, rng)


def _option(size: str) -> str:
    """Return the option that gives a size."""
    return f"--{size.replace('_', '-')}"


def _hardware(machine: Mapping[str, Any]) -> str:
    gpu = f"{machine['gpu']}, " if "gpu" in machine else ""
    return f"{gpu}{machine['cpu']}, {machine['cores']} cores, torch {machine['packages']['torch']}"


def _ms(nanoseconds: float) -> str:
    return f"{nanoseconds / 1e6:.3f} ms"


if __name__ == "__main__":
    sys.exit(main())
