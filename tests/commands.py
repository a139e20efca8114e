"""Run commands in this process as a user types them, with their output and files."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

from tests.conftest import ROOT, TINY

Command = Callable[[Sequence[str] | None], int]
Refused = Callable[..., str]  # the fixture of that name


def options(*keys: str) -> list[str]:
    """Return ``--set a=1`` for ``a=1``."""
    return [word for key in keys for word in ("--set", key)]


LOCAL = options(*TINY, "execution.backend=local")  # a whole search in this process, in a second or two
ONE_EPOCH = ["--time-limit", "0.001s"]  # at least one epoch is run
# A quiet process that finds the package; Ctrl-C reaches it even if the shell ignores it.
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT)}
SEARCH = [
    sys.executable,
    "-c",
    "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
    "from ddpnas_ray.search import main; sys.exit(main())",
]


@dataclass(frozen=True)
class Said:
    """Exit code, stdout and stderr of a command."""

    code: int
    out: str
    err: str


def run(command: Command, *words: str | Path) -> Said:
    """Run a command in this process."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        try:
            code = command([str(word) for word in words])
        except SystemExit as end:  # argparse
            code = end.code if isinstance(end.code, int) else 0
    return Said(code, out.getvalue(), err.getvalue())


def needs_neither_torch_nor_ray(calls: str, *words: str | Path) -> None:
    """Run Python that sets ``code`` in a fresh interpreter; it must succeed without importing torch or Ray."""
    code = f"import sys; {calls}; sys.exit(code or ' '.join({{'torch', 'ray'}} & set(sys.modules)) or 0)"
    command = [sys.executable, "-c", code, *map(str, words)]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def contents(folder: Path) -> dict[str, bytes | None]:
    """Return everything below a folder: bytes of files, None for folders."""
    return {str(path.relative_to(folder)): None if path.is_dir() else path.read_bytes() for path in folder.rglob("*")}
