"""The console script, and behaviour shared by all commands."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from ddpnas_ray import __version__, check, cli, report, search
from tests.commands import Command, run


@pytest.mark.parametrize("words", [(), ("--help",), ("-h",)])
def test_without_a_command_it_lists_the_commands(words: tuple[str, ...]) -> None:
    said = run(cli.main, *words)
    assert (said.code, said.err) == (0, "")
    assert all(f"\n  {name} " in said.out for name in ("search", "table", "check", "report", "ablate", "sweep"))


def test_it_knows_its_version() -> None:
    assert run(cli.main, "--version").out == f"{__version__}\n"


@pytest.mark.parametrize("name", sorted(cli.COMMANDS))
def test_every_command_explains_itself_with_examples(name: str) -> None:
    said = run(cli.main, name, "--help")
    assert (said.code, said.err) == (0, "")
    assert said.out.startswith(f"usage: ddpnas {name} ")
    assert "examples:\n  python -m ddpnas_ray." in said.out


@pytest.mark.parametrize("command", [search.main, check.main, report.main])
def test_an_unknown_option_takes_one_line(command: Command) -> None:
    said = run(command, "run", "--colour")
    assert (said.code, said.out, said.err.count("\n")) == (2, "", 1)
    assert "--colour" in said.err
    assert said.err.endswith("see --help\n")


def test_words_are_passed_on_to_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["ddpnas", "report", str(tmp_path)])
    assert cli.main() == 2


def test_an_unknown_command_gets_a_suggestion() -> None:
    said = run(cli.main, "serch")
    assert (said.code, said.out, said.err) == (2, "", "ddpnas: serch is not a command; did you mean search?\n")
