"""Predict images or texts with an exported network, or time it: ``python -m ddpnas_ray.predict``."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, TextIO

from ddpnas_ray.console.command import FAILED, OK, Parser, guarded, say
from ddpnas_ray.console.options import positive
from ddpnas_ray.console.progress import counting
from ddpnas_ray.launch.predicting import find_model

if TYPE_CHECKING:
    from ddpnas_ray.deploy.benchmark import Speed
    from ddpnas_ray.deploy.predicting import Prediction
    from ddpnas_ray.launch.predicting import Benchmark

DESCRIPTION = """\
Predict the classes of images, or the classes or numbers of texts, with an exported network. They are prepared as in
training; the search's data are not read. What cannot be read takes one line on stderr; the others are predicted.

examples:
  python -m ddpnas_ray.predict RUN photos                     every image below a folder, with RUN/model
  python -m ddpnas_ray.predict my-model/model.onnx a.png 'photos/*.jpg' --top 5
  python -m ddpnas_ray.predict RUN photos --out predictions.parquet
  python -m ddpnas_ray.predict RUN photos/test --labelled     sub-folders are classes: accuracy and mistakes
  python -m ddpnas_ray.predict RUN photos --json | jq -r .label
  python -m ddpnas_ray.predict RUN --benchmark --threads 2    latency and images/s of every form on this machine
  python -m ddpnas_ray.predict RUN sentences.tsv --out predictions.parquet      a network of texts: a row per text
  python -m ddpnas_ray.predict RUN pairs.csv --task mrpc --labelled             one of its tasks: its metrics

MODEL is a run directory, a model folder of `python -m ddpnas_ray.export`, or a file of one: model.onnx, model.pt2,
network.py. Give models that you trust: network.py is run as Python code. Files of texts are TSV, CSV or Parquet with
the columns of training, or .txt with one text per line.

--json prints JSON Lines, one object per image: {"path", "label", "probability", "top": [{"label", "probability"}]}, or
{"path", "error"}. --out has the columns path, label, probability, probabilities (a list; the class names are in the
schema's metadata), with --labelled also expected. Of texts there are row (file and line) and the text columns instead
of path, and value where a number is predicted. --benchmark --json prints one object.
"""
MOST_CLASSES = 10  # shown by --labelled


class _Intermixed(Parser):
    """Parser that takes options between MODEL and EXAMPLES."""

    def parse_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:  # type: ignore[override]
        """See ``ArgumentParser.parse_intermixed_args``."""
        return self.parse_intermixed_args(args, namespace)


def parser() -> argparse.ArgumentParser:
    """Build the argument parser."""
    p = _Intermixed(prog="ddpnas predict", description=DESCRIPTION)
    p.add_argument("model", metavar="MODEL", help="run directory, model folder, or a file of one")
    p.add_argument(
        "examples",
        metavar="EXAMPLES",
        nargs="*",
        help="image files, folders, or patterns such as '*.png'; of networks of texts, text files",
    )
    p.add_argument("--task", metavar="NAME", help="of a network of several tasks of texts, this one")
    p.add_argument("--top", metavar="K", type=positive, default=3, help="classes shown per example (default 3)")
    p.add_argument(
        "--labelled",
        action="store_true",
        help="print the accuracy: images lie in folders named as classes, text files have the label column of training",
    )
    p.add_argument(
        "--form", metavar="NAME", help="torch, pt2, onnx, huggingface, onnx_int8; default: the first that is there"
    )
    p.add_argument(
        "--batch",
        metavar="N",
        type=positive,
        default=64,
        help="examples in memory at once, up to 256 images or 64 texts per forward pass; with --benchmark, per forward "
        "pass (default 64)",
    )
    p.add_argument("--force", action="store_true", help="use a model folder that was edited since it was written")
    p.add_argument("--out", metavar="FILE", help="write predictions to a Parquet file instead of the screen")
    p.add_argument("--json", action="store_true", help="print JSON Lines; the summary goes to stderr")
    g = p.add_argument_group("benchmark")
    g.add_argument(
        "--benchmark", action="store_true", help="time every form on this machine's CPU, on EXAMPLES or random ones"
    )
    g.add_argument("--threads", metavar="N", type=positive, help="default: those of --latency, else 1")
    g.add_argument("--latency", metavar="TABLE", help="estimate by this table; default: what `generate` counted")
    p.epilog = "exit codes: 0 done; 1 some examples cannot be read (the others are predicted); 2 bad input, or none can"
    return p


@guarded
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    p = parser()
    args = p.parse_args(argv)
    if args.benchmark:
        for option in ("labelled", "out"):
            if getattr(args, option):
                p.error(f"--{option} is not for --benchmark, which predicts nothing; remove it")
        return _benchmark(args)
    if not args.examples:
        p.error("give EXAMPLES: files, folders or patterns")
    if args.threads or args.latency:
        p.error(f"{'--threads' if args.threads else '--latency'} needs --benchmark")
    return _predict(args)


# --- prediction -----------------------------------------------------------------------------------------------------


def _predict(args: argparse.Namespace) -> int:
    from ddpnas_ray.core.errors import DataError
    from ddpnas_ray.deploy.loaded import load_model
    from ddpnas_ray.deploy.predicting import check_out, predict, write_predictions
    from ddpnas_ray.deploy.questions import Unreadable

    path = find_model(args.model)
    if args.out:
        check_out(args.out)
    model = load_model(path, args.form, verify=not args.force)
    data = model.preprocessing
    questions = data.questions(args.examples, labelled=args.labelled, task=args.task)
    total = len(questions) + len(questions.unread)
    predictions: list[Prediction] = []
    unread: list[str] = []

    def left_out(found: Unreadable) -> None:
        unread.append(found.reason)
        if total > 1:
            say(found.reason)
        if args.json:
            print(json.dumps({questions.key: found.path, "error": found.reason}), flush=True)

    for row in questions.unread:
        left_out(row)
    with counting(data.kind, len(questions), sys.stderr) as advance:
        for number, found in enumerate(predict(model, questions, batch=args.batch), start=1):
            if number % args.batch == 0:
                advance(args.batch)
            if isinstance(found, Unreadable):
                left_out(found)
                continue
            predictions.append(found)
            if args.json:
                print(json.dumps(_line(found, args.top)), flush=True)
    if not predictions:
        raise DataError(unread[0] if total == 1 else f"none of the {total} {data.kind} can be read")
    if args.out:
        write_predictions(args.out, predictions, model, questions.outputs.task)
    lines = sys.stderr if args.json else sys.stdout
    if not args.json and not args.out:
        _print_predictions(predictions, data.one, args.top, sys.stdout)
    if args.labelled:
        _print_scores(predictions, data.kind, questions.outputs.metrics, lines)
    if args.out:
        print(f"predictions of {len(predictions)} {data.kind}: {args.out}", file=lines)
    if unread:
        say(f"{len(unread)} of {total} {data.kind} cannot be read; the others were predicted")
        return FAILED
    return OK


def _benchmark(args: argparse.Namespace) -> int:
    from ddpnas_ray.deploy.loaded import find_forms
    from ddpnas_ray.launch.predicting import benchmark

    _, forms = find_forms(find_model(args.model), args.form, verify=not args.force)
    with counting("forms", len(forms), sys.stderr) as advance:
        found = benchmark(
            args.model,
            args.examples,
            form=args.form,
            table=args.latency,
            batch=args.batch,
            threads=args.threads,
            verify=not args.force,
            task=args.task,
            on_done=advance,
        )
    if args.json:
        print(json.dumps(_benchmark_json(found)))
    else:
        _print_benchmark(found, sys.stdout)
    failed = [form for form in found.untimed if not form.missing]
    for form in failed:
        say(f"form {form.form} cannot be timed: {form.reason}")
    return FAILED if failed else OK


def _line(found: Prediction, k: int) -> dict[str, object]:
    """Return one line of ``--json``."""
    line: dict[str, object] = dict(found.fields)
    if found.classes:
        top = [{"label": name, "probability": value} for name, value in found.top(k)]
        line |= {"label": found.label, "probability": found.probability, "top": top}
    else:
        line["value"] = float(found.values_O[0])
    return line if found.expected is None else {**line, "expected": found.expected}


def _print_predictions(predictions: Sequence[Prediction], one: str, k: int, out: TextIO) -> None:
    """Print one row per example."""
    first = predictions[0]
    labelled, others = first.expected is not None, k > 1 and len(first.classes) > 1
    answer = ["label", "probability"] if first.classes else ["value"]
    rows = []
    for prediction in predictions:
        row = [_shown(prediction.name), *[_shown(str(prediction.expected))] * labelled]
        if first.classes:
            (label, probability), *rest = prediction.top(k)
            row += [_shown(label), f"{probability:.3f}"]
            row += [", ".join(f"{_shown(name)} {value:.3f}" for name, value in rest)] * others
        else:
            row += [f"{prediction.values_O[0]:.3f}"]
        rows.append(row)
    names = [one, *["expected"] * labelled, *answer, *["runners-up"] * others]
    _print_table(names, rows, ("probability", "value"), out)


def _print_scores(predictions: Sequence[Prediction], kind: str, metrics: Sequence[str], out: TextIO) -> None:
    """Print the accuracy and the task's other metrics, and the classes with the most mistakes."""
    from ddpnas_ray.deploy.predicting import class_scores, metric_scores

    scores = class_scores(predictions) if predictions[0].classes else []
    if scores:
        right = sum(score.right for score in scores)
        print(f"accuracy {right / len(predictions):.4f} ({right} of {len(predictions)} {kind})", file=out)
    others = metric_scores(predictions, [name for name in metrics if name != "accuracy"])
    for name, value in others.items():
        print(f"{name} {value:.4f} ({len(predictions)} {kind})", file=out)
    worst = sorted((score for score in scores if score.right < score.examples), key=lambda s: s.right - s.examples)
    rows = [
        [
            _shown(score.name),
            str(score.examples),
            f"{score.right / score.examples:.3f}",
            f"{_shown(score.mistaken_for or '')} ({score.times})",
        ]
        for score in worst[:MOST_CLASSES]
    ]
    if rows:
        _print_table(["class", kind, "correct", "mostly mistaken for"], rows, (kind, "correct"), out)
    if len(worst) > MOST_CLASSES:
        print(f"{len(worst) - MOST_CLASSES} more classes with mistakes", file=out)


def _benchmark_json(found: Benchmark) -> dict[str, object]:
    from ddpnas_ray.runs.environment import machine

    return {
        "model": str(found.folder),
        "machine": machine(),
        "threads": found.threads,
        "batch": found.batch,
        found.kind: "random" if found.random else "given",
        "forms": [_speed_json(speed, found.kind) for speed in found.speeds],
        "untimed": [{"form": form.form, "reason": form.reason} for form in found.untimed],
        "estimate": None if found.estimate is None else asdict(found.estimate),
    }


def _speed_json(speed: Speed, kind: str) -> dict[str, object]:
    return {f"{kind}_per_s" if key == "examples_per_s" else key: value for key, value in asdict(speed).items()}


def _print_benchmark(found: Benchmark, out: TextIO) -> None:
    """Print one row per form, and the search's estimate."""
    from ddpnas_ray.runs.environment import machine

    names = ["form", "file", "size", "load", "latency", "90 % below", f"{found.kind}/s, batch {found.batch}"]
    rows = [
        [
            speed.form,
            speed.file,
            f"{speed.file_bytes / 1e6:.2f} MB",
            f"{speed.load_s:.2f} s",
            f"{speed.median_ns / 1e6:.3f} ms",
            f"{speed.p90_ns / 1e6:.3f} ms",
            f"{speed.examples_per_s:,.0f}",
        ]
        for speed in found.speeds
    ]
    if rows:
        _print_table(names, rows, names[2:], out)
    if found.estimate is not None:
        estimate = found.estimate
        print(
            f"estimate of the search: {estimate.latency_ns / 1e6:.3f} ms ({estimate.source}: {estimate.about})",
            file=out,
        )
    for form in found.untimed:
        if form.missing:
            print(f"no form {form.form}: {form.reason}", file=out)
    here, given = machine(), f"{'random' if found.random else 'given'} {found.kind} of shape {found.shape}"
    print(f"{here['cpu']}, {found.threads} thread(s); {given}, one for the latency (median)", file=out)


def _print_table(names: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[str], out: TextIO) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for name in names:
        table.add_column(name, justify="right" if name in right else "left", overflow="fold")
    for row in rows:
        table.add_row(*row)
    width = None if out.isatty() else 200
    Console(file=out, markup=False, emoji=False, highlight=False, width=width).print(table)


def _shown(name: str) -> str:
    """Return a class or file name that fits on a line."""
    return name if name and name.isprintable() else repr(name)


if __name__ == "__main__":
    sys.exit(main())
