"""What a trained network does on its page: bars, a heat map and pictures, escaped and within a size."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ddpnas_ray import report
from ddpnas_ray.reporting.illustrated import MOST_BYTES, MOST_CLASSES, confusions, heat, read_illustrated
from ddpnas_ray.reporting.retrained import retrained_list, retrained_summary
from ddpnas_ray.reporting.retrained_files import read_retraining
from ddpnas_ray.retraining.illustrations import write_illustrations
from ddpnas_ray.storage.folder import Folder
from ddpnas_ray.tasks.base import PNG, Illustrations
from tests.commands import run
from tests.reporting.pages import Element, page_of, shown
from tests.reporting.retrainings import retrained
from tests.retraining.showing import FAILING, TASK

HOSTILE = '"><img src=x onerror=alert(1)>{{ 7 * 7 }}'
CITY = [
    *(
        "road",
        "sidewalk",
        "building",
        "wall",
        "fence",
        "pole",
        "traffic light",
        "traffic sign",
        "vegetation",
        "terrain",
    ),
    *("sky", "person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle"),
]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return retrained(tmp_path_factory.mktemp("shown") / "known", TASK, "retraining.seeds=2")


@pytest.fixture(scope="module")
def page(trained: Path) -> Element:
    return page_of(trained)


@pytest.fixture
def out(trained: Path, tmp_path: Path) -> Path:
    return shutil.copytree(trained, tmp_path / "known", ignore=shutil.ignore_patterns("*.html"))


def index_of(out: Path, seed: int = 0) -> dict[str, Any]:
    text = (out / f"seed-{seed}" / "illustrations" / "illustrations.json").read_text()
    return json.loads(text)  # type: ignore[no-any-return]


def result_of(out: Path) -> dict[str, Any]:
    return json.loads((out / "result.json").read_text())  # type: ignore[no-any-return]


def show(out: Path, shown: Illustrations) -> Path:
    """Replace what is shown."""
    seed = result_of(out)["seed"]
    shutil.rmtree(out / f"seed-{seed}" / "illustrations")
    write_illustrations(Folder.open(str(out)), seed, shown, [{"test": 0.5}])
    return out


def ids(page: Element) -> set[str]:
    return {e.attributes["id"] for e in page.all("") if "id" in e.attributes}


def test_the_heat_map_has_the_counts_of_the_exported_seed(trained: Path, page: Element) -> None:
    seed = result_of(trained)["seed"]
    counts = np.array(index_of(trained, seed)["confusion"])
    (body,) = page.find("confusion").all("tbody")
    assert [row.children[-1].text for row in body.children] == [f"{total:,}" for total in counts.sum(axis=1)]
    for true, row in enumerate(body.children):
        for predicted, cell in enumerate(row.children[1:-1]):
            count, total = counts[true, predicted], counts[true].sum()
            said = f"true {true}, predicted {predicted}: {count:,} of {total:,} ({100 * count / total:.1f} %)"
            assert cell.attributes["data-tip"] == said
            assert cell.attributes["style"] == f"--w: {round(50 * count / total)}%"
            assert cell.text == (f"{100 * count / total:.0f}" if count else "")
    assert f"Of the test split, by the network of seed {seed}." in page.find("examples").text


def test_the_most_frequent_confusions_are_listed(trained: Path, page: Element) -> None:
    counts = np.array(index_of(trained, result_of(trained)["seed"])["confusion"])
    wrong = counts - np.diag(np.diag(counts))
    first = page.find("confusions").rows()[0]
    assert first[2] == f"{wrong.max():,}" and wrong[int(first[0]), int(first[1])] == wrong.max()
    assert first[3] == f"{100 * wrong.max() / counts[int(first[0])].sum():.1f} %"
    assert confusions(["a", "b"], [[3, 0], [0, 2]]) == []


def test_pictures_are_within_the_page_with_their_captions(page: Element) -> None:
    images = page.find("examples").all("img")
    assert [image.attributes["alt"] for image in images] == ["image 0", "image 1"]
    assert [caption.text for caption in page.find("examples").all("figcaption")] == ["image 0", "image 1"]


def widths(table: Element) -> list[str]:
    return [cell.attributes.get("style", "").removeprefix("--w: ") for cell in table.all("td")]


def test_many_scores_by_task_are_bars_in_the_order_of_the_task(trained: Path, page: Element) -> None:
    table, scores = page.find("parts"), result_of(trained)["scores"]
    assert [score["split"] for score in scores] == ["val", "test"]
    rows = [[name, *(score["by_task"][name] for score in scores)] for name in "0123456789"]
    assert table.attributes["class"] == "bars"
    assert table.rows() == [[name, *map(shown, values)] for name, *values in rows]
    assert widths(table) == [f"{round(100 * value)}%" for _, *values in rows for value in values]
    heads = [head.text for head in table.all("thead")[0].all("th")]
    assert heads == ["class", "val", "test"], "the tasks are the classes of the confusion matrix"


def test_few_scores_by_task_negative_and_missing_ones_break_nothing(out: Path) -> None:
    result = result_of(out)
    result["scores"] = [result["scores"][0] | {"by_task": {"cola": -0.1, "rte": 0.6}}]
    (out / "result.json").write_text(json.dumps(result))
    table = page_of(out).find("parts")
    assert "class" not in table.attributes and table.all("th")[0].text == "task"
    assert table.rows() == [["cola", "-0.1000"], ["rte", "0.6000"]] and widths(table) == ["", ""]
    other = result["scores"][0] | {"split": "test", "by_task": {"rte": 1.0, "sst2": 0.9, "mrpc": 0.7}}
    (out / "result.json").write_text(json.dumps(result | {"scores": [result["scores"][0], other]}))
    table = page_of(out).find("parts")
    assert [row[0] for row in table.rows()] == ["cola", "rte", "sst2", "mrpc"] and table.rows()[2][1] == "-"
    assert widths(table) == ["0%", "", "60%", "100%", "", "90%", "", "70%"]


def test_text_lists_the_scores_of_every_class(trained: Path) -> None:
    said = run(report.main, trained).out
    for score in result_of(trained)["scores"]:
        for name, value in score["by_task"].items():
            assert f"{name} {value:.4f}" in said
    files = read_retraining(Folder.open(str(trained)))
    assert len(retrained_list([files])) == 2, "one line each, without the scores of classes"
    result = result_of(trained)
    result["scores"][0]["by_task"] = dict.fromkeys(CITY, 0.5)
    lines = retrained_summary(result, "x").splitlines()
    listed = [line for line in lines if "road 0.5000" in line or "traffic sign 0.5000" in line or "bicycle" in line]
    assert len(listed) >= 2 and all(line.startswith("  ") and len(line) <= 102 for line in listed)
    assert [name for name in CITY if f"{name} 0.5000" not in "\n".join(lines)] == [], "no name is broken"


def test_nineteen_classes_have_a_heat_map_and_very_many_a_list_alone(out: Path) -> None:
    rng = np.random.default_rng(0)
    page = page_of(show(out, Illustrations({}, rng.integers(0, 10**6, (19, 19)).tolist(), CITY)))
    assert [len(row) for row in page.find("confusion").rows()] == [21] * 19
    assert [head.text for head in page.find("confusion").all("thead")[0].all("th")[1:-1]] == CITY
    many = MOST_CLASSES + 1
    page = page_of(show(out, Illustrations({}, rng.integers(0, 9, (many, many)).tolist(), list(map(str, range(many))))))
    assert "confusion" not in ids(page) and len(page.find("confusions").rows()) == 10


def test_classes_that_do_not_occur_are_rows_without_numbers() -> None:
    ((_, _, _), (name, cells, total)) = heat(["a", "b"], [[1, 1], [0, 0]])
    assert (name, total, [cell.text for cell in cells], [cell.shade for cell in cells]) == ("b", 0, ["", ""], [0, 0])


def test_pictures_too_large_for_a_page_are_left_out_and_named(out: Path) -> None:
    large, small = PNG + bytes(MOST_BYTES - 100), PNG + bytes(80)
    page = page_of(show(out, Illustrations({"large": large, "next": large, "small": small})))
    assert [image.attributes["alt"] for image in page.all("img")] == ["large", "small"]
    assert "1 of 3 pictures are left out, as the page would be too large: " in page.find("examples").text


def test_names_break_no_page(out: Path) -> None:
    page = page_of(show(out, Illustrations({HOSTILE: PNG}, [[1, 2], [3, 4]], [HOSTILE, "b"])))
    examples = page.find("examples")
    (image,) = examples.all("img")
    assert image.attributes["alt"] == HOSTILE == examples.all("figcaption")[0].text
    assert examples.all("th")[1].text == HOSTILE
    assert HOSTILE in examples.all("td")[1].attributes["data-tip"]


def test_what_is_missing_or_damaged_is_named(out: Path) -> None:
    seed = result_of(out)["seed"]
    folder = out / f"seed-{seed}" / "illustrations"
    (folder / "picture-1.png").unlink()
    (folder / "picture-2.png").write_bytes(b"<svg>")
    said = page_of(out).find("examples").text
    assert "picture-1.png cannot be read: no such file" in said
    assert "picture-2.png cannot be read: it is not a PNG file" in said
    for broken in (
        "{",
        "[]",
        "{}",
        json.dumps({**index_of(out, seed), "confusion": [[1]]}),
        json.dumps({**index_of(out, seed), "pictures": [{"file": "../weights.safetensors", "caption": "a"}]}),
    ):
        (folder / "illustrations.json").write_text(broken)
        page = page_of(out)
        assert "illustrations.json cannot be read: " in page.find("examples").text
        assert page.all("img") == [] and "confusion" not in ids(page)


def test_folders_of_older_versions_have_no_such_section(out: Path) -> None:
    for seed in (0, 1):
        shutil.rmtree(out / f"seed-{seed}" / "illustrations")
    assert read_illustrated(Folder.open(str(out)), 0) is None
    assert "examples" not in ids(page_of(out))


def test_why_a_network_is_not_shown_is_a_limit(tmp_path: Path) -> None:
    page = page_of(retrained(tmp_path / "x", FAILING))
    said = "The network of seed 0 could not be shown: ZeroDivisionError: no such colour."
    assert said in page.find("limits").text and "examples" not in ids(page)
