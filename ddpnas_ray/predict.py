"""Predict images, their pixels, or texts with an exported network, or time it: ``python -m ddpnas_ray.predict``."""

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
    from ddpnas_ray.launch.predicting import Benchmark

DESCRIPTION = """\
Predict the classes of images or of their pixels, or the classes or numbers of texts, with an exported network. They
are prepared as in training; the search's data are not read. What cannot be read takes one line on stderr; the others
are predicted.

examples:
  python -m ddpnas_ray.predict RUN photos                     every image below a folder, with RUN/model
  python -m ddpnas_ray.predict my-model/model.onnx a.png 'photos/*.jpg' --top 5
  python -m ddpnas_ray.predict RUN photos --out predictions.parquet
  python -m ddpnas_ray.predict RUN photos/test --labelled     sub-folders are classes: accuracy and mistakes
  python -m ddpnas_ray.predict RUN photos --json | jq -r .label
  python -m ddpnas_ray.predict RUN --benchmark --threads 2    latency and images/s of every form on this machine
  python -m ddpnas_ray.predict RUN photos --out labelled      a network that labels pixels: NAME.png, NAME.overlay.png
  python -m ddpnas_ray.predict RUN photos --masks masks       the same: mIoU, pixel accuracy, and the IoU of classes
  python -m ddpnas_ray.predict RUN sentences.tsv --out predictions.parquet      a network of texts: a row per text
  python -m ddpnas_ray.predict RUN pairs.csv --task mrpc --labelled             one of its tasks: its metrics

MODEL is a run directory, a model folder of `python -m ddpnas_ray.export`, or a file of one: model.onnx, model.pt2,
network.py. Give models that you trust: network.py is run as Python code. Files of texts are TSV, CSV or Parquet with
the columns of training, or .txt with one text per line.

--json prints JSON Lines, one object per image: {"path", "label", "probability", "top": [{"label", "probability"}]}, or
{"path", "error"}. --out has the columns path, label, probability, probabilities (a list; the class names are in the
schema's metadata), with --labelled also expected. Of texts there are row (file and line) and the text columns instead
of path, and value where a number is predicted. Where pixels are labelled, there are height, width and shares instead of
label and probability, with --out FOLDER also label_map and overlay, with --masks also miou and pixel_accuracy; the
table is FOLDER/predictions.parquet. A label map is an 8-bit PNG of the image's size with class numbers and a palette.
--benchmark --json prints one object.
"""


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
    p.add_argument(
        "--top",
        metavar="K",
        type=positive,
        help="classes shown per example (default 3; where pixels are labelled, all that occur)",
    )
    p.add_argument(
        "--labelled",
        action="store_true",
        help="print the accuracy: images lie in folders named as classes, text files have the label column of training",
    )
    p.add_argument(
        "--masks",
        metavar="FOLDER",
        help="of a network that labels pixels: print mIoU and pixel accuracy; the mask of a/NAME.jpg is NAME.png below "
        "this folder, with the ids of training or the classes' colours",
    )
    p.add_argument(
        "--form", metavar="NAME", help="torch, pt2, onnx, huggingface, onnx_int8; default: the first that is there"
    )
    p.add_argument(
        "--batch",
        metavar="N",
        type=positive,
        help="examples in memory at once, up to 256 images or 64 texts per forward pass; with --benchmark, per forward "
        "pass (default 64; where pixels are labelled, fewer if images are large)",
    )
    p.add_argument("--force", action="store_true", help="use a model folder that was edited since it was written")
    p.add_argument(
        "--out",
        metavar="PLACE",
        help="write predictions to this Parquet file instead of the screen; of a network that labels pixels also to a "
        "new folder, label maps and overlays with them",
    )
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
        for option in ("labelled", "masks", "out"):
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
    from ddpnas_ray.console.predictions import answers_of
    from ddpnas_ray.core.errors import DataError
    from ddpnas_ray.deploy.loaded import load_model
    from ddpnas_ray.deploy.questions import Unreadable

    model = load_model(find_model(args.model), args.form, verify=not args.force)
    data = model.preprocessing
    questions = data.questions(args.examples, labelled=args.labelled, task=args.task, masks=args.masks)
    answers, batch = answers_of(questions), args.batch or data.batch
    if args.out:
        answers.check_out(args.out)
    total = len(questions) + len(questions.unread)
    predictions: list[Any] = []
    unread: list[str] = []

    def left_out(found: Unreadable) -> None:
        unread.append(found.reason)
        if total > 1:
            say(found.reason)
        if args.json:
            print(json.dumps({questions.key: found.path, "error": found.reason}), flush=True)

    for row in questions.unread:
        left_out(row)
    with counting(f"{data.one}s", len(questions), sys.stderr) as advance:
        for number, found in enumerate(answers.predict(model, batch, args.out), start=1):
            if number % batch == 0:
                advance(batch)
            if isinstance(found, Unreadable):
                left_out(found)
                continue
            predictions.append(found)
            if args.json:
                print(json.dumps(answers.line(found, args.top)), flush=True)
    if not predictions:
        raise DataError(unread[0] if total == 1 else f"none of the {total} {data.one}s can be read")
    if args.out:
        answers.write(args.out, predictions, model)
    lines = sys.stderr if args.json else sys.stdout
    if not args.json and not (args.out or "").endswith(".parquet"):
        answers.print(predictions, args.top, sys.stdout)
    answers.print_scores(predictions, lines)
    if args.out:
        print(f"predictions of {len(predictions)} {data.one}s: {args.out}", file=lines)
    if unread:
        say(f"{len(unread)} of {total} {data.one}s cannot be read; the others were predicted")
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
    from ddpnas_ray.console.predictions import print_table
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
        print_table(names, rows, names[2:], out)
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


if __name__ == "__main__":
    sys.exit(main())
