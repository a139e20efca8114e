"""One-line errors and exit codes, shared by all commands."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

from ddpnas_ray.core.errors import BadInput, DdpnasError

OK, FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130


class Parser(argparse.ArgumentParser):
    """Argument parser with one-line errors."""

    def __init__(self, **options: Any) -> None:
        super().__init__(formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False, **options)

    def error(self, message: str) -> NoReturn:
        """Print one line, without the usage, and exit with ``BAD_INPUT``."""
        self.exit(BAD_INPUT, f"{self.prog}: {message}; see --help\n")


def guarded(command: Callable[[Sequence[str] | None], int]) -> Callable[..., int]:
    """Decorate a command: errors become one line on stderr and an exit code (2 bad input, 1 failure, 130 Ctrl-C)."""

    def main(argv: Sequence[str] | None = None) -> int:
        warnings = logging.StreamHandler()
        logging.getLogger().addHandler(warnings)
        try:
            return command(argv)
        except DdpnasError as error:
            kind = "" if isinstance(error, BadInput) else "failed: "
            say(f"{type(error).__name__}: {kind}{' '.join(str(error).split())}")
            return error.exit_code
        except KeyboardInterrupt:
            say("interrupted")
            return INTERRUPTED
        except BrokenPipeError:  # the reader closed the pipe, such as `| head`
            sys.stderr.close()
            return FAILED
        finally:
            logging.getLogger().removeHandler(warnings)

    main.__doc__ = command.__doc__
    return main


def say(text: str) -> None:
    """Print a line to stderr at once; stdout may be JSON."""
    print(text, file=sys.stderr, flush=True)


@contextmanager
def redirected(descriptor: int, to: int) -> Iterator[None]:
    """Redirect a file descriptor, 1 (stdout) or 2 (stderr): C++ libraries bypass ``sys.stdout`` and ``sys.stderr``."""
    sys.stdout.flush()
    kept = os.dup(descriptor)
    os.dup2(to, descriptor)
    try:
        yield
    finally:
        os.dup2(kept, descriptor)
        os.close(kept)
