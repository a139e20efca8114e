"""Counters of a running retraining, and how they are shown."""

from __future__ import annotations

import io

from ddpnas_ray.console.progress import Display, retraining_line
from ddpnas_ray.retraining.progress import RetrainingProgress

ROW = {"lr": 0.1, "loss": 1.5, "val": 0.25, "examples_per_s": 1234.0, "workers": 2, "device": "cpu a"}


def started() -> RetrainingProgress:
    progress = RetrainingProgress("mine", [3, 4], 10)
    assert progress.snapshot()["phase"] == "starting"
    progress.begin(3, ())
    return progress


def test_it_counts_epochs_of_all_seeds() -> None:
    progress = started()
    progress.step(0, 5, 10)
    assert progress.snapshot()["done"] == 0.5 and progress.snapshot()["of"] == 20
    progress.epoch_done((ROW,))
    now = progress.snapshot()
    assert (now["epochs_done"], now["epoch"], now["done"], now["loss"], now["best_val"]) == (1, 2, 1.0, 1.5, 0.25)
    progress.begin(4, ())
    now = progress.snapshot()
    assert (now["seed"], now["training"], now["done"], now["loss"]) == (4, 2, 10.0, None)


def test_the_rest_is_estimated_from_what_this_process_trained() -> None:
    progress = RetrainingProgress("mine", [3], 10)
    progress.begin(3, (ROW,) * 5)
    assert progress.snapshot()["seconds_left"] is None, "nothing trained yet"
    progress._start -= 2.0
    progress.epoch_done((ROW,) * 6)
    assert 7.5 < progress.snapshot()["seconds_left"] < 8.5, "2 s an epoch"


def test_lines_name_what_is_known() -> None:
    progress = started()
    assert retraining_line(progress.snapshot()) == "seed 3 (1/2), 0/10 epochs"
    progress.epoch_done((ROW,))
    progress.note = "waiting"
    line = retraining_line(progress.snapshot())
    assert line.startswith("seed 3 (1/2), 1/10 epochs, loss 1.5000, val 0.2500, 1,234 examples/s, ")
    assert line.endswith("(waiting)")
    blind = RetrainingProgress("mine", [3], 10)
    blind.begin(3, ({**ROW, "val": None},))
    assert "val" not in retraining_line(blind.snapshot()) and "seed" not in retraining_line(blind.snapshot())


def test_every_epoch_gets_one_line_and_a_terminal_a_panel() -> None:
    progress, out = started(), io.StringIO()
    with Display("title", out, live=False) as display:
        for history in ((), (ROW,), (ROW,), (ROW, ROW)):
            progress.epoch_done(history)
            display.show(progress.snapshot())
        progress.begin(4, ())
        display.show(progress.snapshot())
    assert [line.partition(" epochs")[0] for line in out.getvalue().splitlines()] == [
        "seed 3 (1/2), 0/10",
        "seed 3 (1/2), 1/10",
        "seed 3 (1/2), 2/10",
        "seed 4 (2/2), 0/10",
    ]
    from rich.console import Console

    from ddpnas_ray.console.progress import _panel

    shown = Console(file=(panel := io.StringIO()), width=100)
    progress.epoch_done((ROW,))
    shown.print(_panel("title", progress.snapshot()))
    for text in ("mine", "4 (2/2)", "2/10", "1.5000", "0.2500", "1,234"):
        assert text in panel.getvalue()
