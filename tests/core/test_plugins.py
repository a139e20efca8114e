"""Plug-ins are found by reading a folder; only the one that is chosen is imported."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ddpnas_ray.core.errors import ConfigError
from ddpnas_ray.core.plugins import Kind

TOYS = Kind("toy", "toy_box", function="make", returns="a toy")


@pytest.fixture(autouse=True)
def toy_box(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    box = tmp_path / "toy_box"
    box.mkdir()
    files = {
        "__init__.py": "",
        "ball.py": "def make(colour):\n    return colour\n",
        "broken.py": "def make():\n    pass\nimport no_such_module\n",
        "helper.py": "from toy_box.ball import make\n\n\ndef make_all():\n    pass\n",
        "nested.py": "class Factory:\n    def make(self):\n        pass\n",
    }
    for name, source in files.items():
        (box / name).write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    yield
    for name in [name for name in sys.modules if name.partition(".")[0] == "toy_box"]:
        del sys.modules[name]


def test_modules_that_define_the_function_are_listed_and_not_imported() -> None:
    assert TOYS.names() == ("ball", "broken")
    assert not {"toy_box.ball", "toy_box.broken"} & sys.modules.keys()


def test_only_the_chosen_one_is_imported() -> None:
    assert TOYS.find("ball", "toy")("red") == "red"
    assert "toy_box.broken" not in sys.modules


def test_a_helper_is_not_found_by_name_but_its_function_can_be_named() -> None:
    with pytest.raises(ConfigError, match=r"^toy: 'helper' is not a built-in toy or module:function; allowed: ball, "):
        TOYS.find("helper", "toy")
    assert TOYS.find("toy_box.helper:make", "toy") is TOYS.find("ball", "toy")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("bal", r"toy: 'bal' is not a built-in toy or module:function; did you mean ball\?"),
        (
            "broken",
            r"toy: 'broken' cannot be imported: No module named 'no_such_module'; is its folder on PYTHONPATH\?",
        ),
        ("toy_box.ball:mke", r"has no attribute 'mke'"),
        ("toy_box.ball:", r"cannot be imported"),
        (":make", r"cannot be imported: Empty module name"),
        ("toy_box.ball:__name__", r"'toy_box.ball:__name__' is a str; a function that returns a toy is needed"),
    ],
)
def test_an_unknown_name_is_a_one_line_error(name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        TOYS.find(name, "toy")
    assert "\n" not in str(error.value)
