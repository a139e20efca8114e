"""Runs with scripted scores, their pages parsed, and what holds for every page."""

from __future__ import annotations

import dataclasses
import re
import shutil
from collections.abc import Callable, Mapping
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from ddpnas_ray import report
from ddpnas_ray.core.requests import EvalRequest, EvalResult
from ddpnas_ray.experiment.config import dump, load
from ddpnas_ray.experiment.experiment import Experiment
from ddpnas_ray.experiment.run import run_experiment
from ddpnas_ray.runs.directory import create_run
from tests.commands import run
from tests.conftest import TINY
from tests.experiment.test_loop import FakeExecutor

MOBILE = [
    "space={name: mobile, widths: [4, 4, 8, 8, 16], depths: [2, 1], strides: [1, 2], stem_stride: 1}",
    "target={}",
    "pruning.epochs_per_round=2",
]
CELL = [*TINY, "pruning.epochs_per_round=2"]
OTHER_PAGE = re.compile(r"retrained/[^/:]+/report\.html")  # a link, which loads nothing
PICTURE = re.compile(r"data:image/png;base64,[A-Za-z0-9+/]+=*")
VOID = {"meta", "link", "br", "img", "input", "hr", "base"}


@dataclasses.dataclass
class Element:
    """A parsed element: its attributes, and elements and texts within."""

    tag: str
    attributes: Mapping[str, str]
    content: list[Element | str]

    @property
    def children(self) -> list[Element]:
        """The elements directly within."""
        return [child for child in self.content if isinstance(child, Element)]

    @property
    def text(self) -> str:
        """All text within."""
        return "".join(child if isinstance(child, str) else child.text for child in self.content)

    def all(self, tag: str) -> list[Element]:
        """Every one below of that name; "" is any."""
        below = [other for child in self.children for other in child.all(tag)]
        return ([self] if not tag or self.tag == tag else []) + below

    def find(self, identifier: str) -> Element:
        """The one of that id."""
        (found,) = [e for e in self.all("") if e.attributes.get("id") == identifier]
        return found

    def rows(self) -> list[list[str]]:
        """The body of a table."""
        (body,) = self.all("tbody")
        return [[cell.text.strip() for cell in row.children] for row in body.children]


class Page(HTMLParser):
    """Parser of a page that requires every tag to be closed, in order."""

    def __init__(self, data: bytes) -> None:
        super().__init__(convert_charrefs=True)
        self.root = Element("", {}, [])
        self.open = [self.root]
        self.feed(data.decode())
        self.close()
        assert self.open == [self.root]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len({name for name, _ in attrs}) == len(attrs), f"an attribute of <{tag}> is duplicate"
        element = Element(tag, {name: value or "" for name, value in attrs}, [])
        self.open[-1].content.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop().tag == tag

    def handle_data(self, data: str) -> None:
        self.open[-1].content.append(data)


def page_of(*runs: Path, file: Path | None = None) -> Element:
    """Write a page, check what holds for every page, and parse it."""
    said = run(report.main, *runs, "--html", *([file] if file else []))
    assert (said.code, said.err) == (0, "")
    written = file or runs[0] / "report.html"
    data = written.read_bytes()
    assert said.out == f"{written}: {len(data) / 1000:,.0f} kB\n"
    assert len(data) < 3_000_000
    root = Page(data).root
    loads_nothing(root)
    can_be_read_by_all(root)
    return root


def loads_nothing(root: Element) -> None:
    """Check that a page neither loads anything nor runs what is not its own."""
    for element in root.all(""):
        for name, value in element.attributes.items():
            assert not name.startswith("on"), f"<{element.tag} {name}>"
            if name in ("src", "href", "xlink:href", "action", "data", "poster", "srcset"):
                inline = value.startswith("#") or value == "data:," or PICTURE.fullmatch(value)
                assert inline or OTHER_PAGE.fullmatch(value), f"<{element.tag} {name}={value}>"
    (style,) = root.all("style")
    assert not re.search(r"@import|url\(|//", style.text)
    program, data = [script for script in root.all("script") if script.text][::-1]
    assert data.attributes["type"] == "application/json"
    assert not re.search(r"fetch|XMLHttp|import|eval|innerHTML", program.text)
    (policy,) = [m.attributes["content"] for m in root.all("meta") if "http-equiv" in m.attributes]
    assert policy.startswith("default-src 'none';")


def can_be_read_by_all(root: Element) -> None:
    """Check names, roles and ids, which readers by ear or keyboard need."""
    ids = [e.attributes["id"] for e in root.all("") if "id" in e.attributes]
    assert len(set(ids)) == len(ids)
    for element in root.all(""):
        at = element.attributes
        assert at.get("aria-labelledby", ids[0]) in ids
        href = at.get("href", "#main")
        assert href[1:] in [*ids, "ata:,"] or OTHER_PAGE.fullmatch(href)
        if element.tag == "svg":
            assert at.get("aria-hidden") == "true" or (at["role"] == "img" and at["aria-label"])
        if at.get("role") == "region":
            assert at["aria-label"] and at["tabindex"] == "0"
        if element.tag == "th":
            assert at["scope"] in ("row", "col")
    assert root.all("html")[0].attributes["lang"] == "en"
    assert len(root.all("main")) == len(root.all("h1")) == 1


def shown(value: float, digits: int = 4) -> str:
    """Return a score as a page shows it."""
    return f"{value:.{digits}f}"


def records(folder: Path, name: str) -> list[dict[str, Any]]:
    """Return the rows of a Parquet file of a run."""
    return pq.read_table(folder / name, use_threads=False).to_pylist()


def by_chance(request: EvalRequest) -> EvalResult:
    """Return a scripted score and time."""
    rng = np.random.default_rng([request.epoch, *request.alpha_E])
    worker = request.architecture % 2
    seconds = float(rng.uniform(1, 3))
    return EvalResult(
        float(rng.uniform(0.3, 0.9)), 1.0, seconds=seconds, worker=f"ddpnas-worker-{worker}/7", node=f"{worker}"
    )


def searched(out: Path, *overrides: str, script: Callable[[EvalRequest], EvalResult] = by_chance) -> Path:
    """Write the run directory of a search with scripted scores."""
    experiment = Experiment.prepare(load(None, overrides))
    folder = create_run(str(out), experiment.first_files(dump(experiment.config)))
    assert run_experiment(experiment, folder, FakeExecutor(script), experiment.progress()) is not None
    shutil.rmtree(out / "checkpoints")
    return out
