"""Follow the progress of a running search or training: ``python -m ddpnas_ray.attach``."""

from __future__ import annotations

import os
import shlex
import socket
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from ddpnas_ray.console.cluster import refuse_dead_address
from ddpnas_ray.console.command import FAILED, INTERRUPTED, OK, Parser, guarded, say
from ddpnas_ray.console.out import events, resume_command, saved_text
from ddpnas_ray.console.progress import Display, duration
from ddpnas_ray.core.errors import DriverGoneError, ResourceError, RunDirError
from ddpnas_ray.reporting.retrained import retrained_summary
from ddpnas_ray.reporting.retrained_files import is_retraining, logged_snapshot, read_retraining, retrainings_of
from ddpnas_ray.reporting.retrained_files import resume_command as resume_training
from ddpnas_ray.reporting.summary import summary
from ddpnas_ray.retraining.files import read_retrained
from ddpnas_ray.runs.directory import existing_run, read_result
from ddpnas_ray.runs.lock import holder_text, lock_holder
from ddpnas_ray.storage.folder import Folder

if TYPE_CHECKING:
    from ddpnas_ray.distributed.ray_attach import Attached

DESCRIPTION = """\
Follow the progress of a running search, or of the training of a network, as in its own terminal, until it ends, then
print its result. Ctrl-C detaches; what it followed continues.

examples:
  python -m ddpnas_ray.attach runs/cifar                                a search on this machine, from another terminal
  python -m ddpnas_ray.attach s3://bucket/run                           on a node of its cluster: every architecture
  python -m ddpnas_ray.attach s3://bucket/run                           on any other machine: one line per epoch
  python -m ddpnas_ray.attach s3://bucket/run --address ray://head:10001     there, with Ray's client port forwarded
  python -m ddpnas_ray.attach runs/cifar                                after the search: its `retrain`, if one runs
  python -m ddpnas_ray.attach runs/cifar/retrained/result               the training of one network

RUN/LOCK names the search's cluster. If that cannot be reached from here, or the search uses none
(execution.backend=local), attach follows RUN/log.jsonl. If the cluster asks for a token, set RAY_AUTH_TOKEN, or store
the token in ~/.ray/auth_token. To let a search outlive its terminal, submit it as a job:
`ray job submit --no-wait -- python -m ddpnas_ray.search --address auto --out RUN ...` (clusters/README.md).
"""

STORE_S = 5.0  # polling interval on an object store, where each request costs
SILENT_S = 30.0  # give up on a silent driver; Ray ends this process 60 s after losing the head


def parser() -> Parser:
    """Build the argument parser."""
    p = Parser(prog="ddpnas attach", description=DESCRIPTION)
    p.add_argument("run", metavar="RUN", help="run directory, or folder of a retraining, local or a URI")
    p.add_argument(
        "--address",
        metavar="HOST:PORT",
        help="the search's cluster as seen from here: HOST:PORT, auto or ray://HOST:PORT; default: from RUN/LOCK",
    )
    p.epilog = (
        "exit codes: 0 the search or training is done, or reached its time limit; 1 it ended without a result; 2 bad "
        "input, or none is running; 130 Ctrl-C (it continues)"
    )
    return p


@guarded
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    args = parser().parse_args(argv)
    folder = _running_in(existing_run(args.run))
    what = "training" if is_retraining(folder) else "search"
    if _searching(folder) is not None:
        refuse_dead_address(args.address or "")
    elif not folder.has("result.json"):
        raise RunDirError(f"{folder.uri}: no {what} is running there; {_rest(folder)}")
    try:
        with Display(f"ddpnas attach: {folder.uri}", sys.stdout) as display:
            _follow(folder, args.address, display)
    except KeyboardInterrupt:
        command = f"python -m ddpnas_ray.attach {shlex.quote(args.run)}"
        say(f"detached; the {what} continues. Attach again with: {command}")
        return INTERRUPTED
    if not folder.has("result.json"):
        return _ended(folder, what)
    if what == "training":
        print(retrained_summary(read_retrained(folder), folder.uri))
    else:
        print(summary(read_result(folder), args.run))
    return OK


def _running_in(run: Folder) -> Folder:
    """Return the folder to follow: the latest training below a run whose search has finished, else the run's own."""
    if is_retraining(run) or not run.has("result.json"):
        return run
    running = [(holder, folder) for folder in retrainings_of(run) if (holder := _searching(folder)) is not None]
    return max(running, key=lambda found: str(found[0].get("start")))[1] if running else run


def _rest(folder: Folder) -> str:
    """Describe what is saved, and how to resume."""
    if is_retraining(folder):
        return f"{read_retraining(folder).saved_text}. Resume with: {resume_training(folder)}"
    return f"{saved_text(folder)}. Resume with: {resume_command(folder.uri)}"


def _searching(folder: Folder) -> dict[str, Any] | None:
    """Return the lock's content while a search or training runs; None once it has a result, or if none is running."""
    holder = lock_holder(folder)
    return None if folder.has("result.json") else holder


def _follow(folder: Folder, address: str | None, display: Display) -> None:
    """Show progress until the search or training has ended."""
    while (holder := _searching(folder)) is not None:
        try:
            with _source(folder, holder, address) as source:
                _show(source, folder, holder, display)
        except DriverGoneError:  # the search is about to end, or was killed where no lock can tell
            time.sleep(STORE_S)
            if _searching(folder) == holder:
                return


class _Log:
    """Progress from ``log.jsonl``: the snapshot of the latest epoch."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self._retraining = read_retraining(folder) if is_retraining(folder) else None

    def status(self) -> Mapping[str, Any] | None:
        """Return the progress that the log tells."""
        log = events(self._folder)
        if self._retraining is not None:
            now = logged_snapshot(self._retraining, log)
        else:
            now = next((event for event in reversed(log) if event["event"] == "epoch"), None)
        return now or {"phase": "starting", "note": "no epoch has ended yet"}


@contextmanager
def _source(folder: Folder, holder: Mapping[str, Any], address: str | None) -> Iterator[Attached | _Log]:
    """Connect to the search's driver, or fall back to its log; prints which.

    Raises:
        DriverGoneError: The driver is not where the lock says; not raised for a local folder, whose lock suffices.
    """
    who = holder_text(holder)
    why = "it uses no Ray cluster"
    if "driver" in holder:
        with ExitStack() as stack:
            try:
                where = address or _address(holder)
                refuse_dead_address(where)
                if "auth" in holder:  # Ray reads it at import, and never infers it from an address
                    os.environ.setdefault("RAY_AUTH_MODE", str(holder["auth"]))
                from ddpnas_ray.distributed.ray_attach import attached

                driver = stack.enter_context(attached(where, str(holder["driver"])))
            except ResourceError as error:
                why = str(error)
            except DriverGoneError as error:
                if address is None and not folder.is_local:
                    raise
                why = str(error)
            else:
                say(f"{folder.uri}: attached to {holder['driver']} of {who}, cluster {where}")
                yield driver
                return
    log = events(folder)
    age = f", last written {duration(max(0.0, time.time() - log[-1]['time']))} ago" if log else ""
    say(f"{folder.uri}: following log.jsonl of {who}, one line per epoch{age} ({why})")
    yield _Log(folder)


def _address(holder: Mapping[str, Any]) -> str:
    """Return the cluster address in the lock.

    Raises:
        ResourceError: It is a loopback address of another machine.
    """
    address = str(holder.get("address"))
    if holder.get("host") != socket.gethostname() and address.startswith(("127.", "localhost:", "[::1]")):
        raise ResourceError(
            f"{address} can only be reached on {holder.get('host')}; run attach there, or give --address"
        )
    return address


def _show(source: Attached | _Log, folder: Folder, holder: Mapping[str, Any], display: Display) -> None:
    """Show progress until the lock changes or the source stays silent for ``SILENT_S``."""
    look_s = 1.0 if folder.is_local else STORE_S
    tick_s = look_s if isinstance(source, _Log) else 0.25
    last: Mapping[str, Any] = {"phase": "starting", "note": ""}
    heard_s = looked_s = time.monotonic()
    silent = False
    while heard_s + SILENT_S > time.monotonic():
        now = source.status()
        if now is not None:
            last, heard_s, silent = now, time.monotonic(), False
        elif not silent:
            silent = True
            say("the driver does not answer: it is starting, or restarting after a crash; waiting")
        display.show({**last, "note": "the driver does not answer; waiting"} if silent else last)
        if time.monotonic() - looked_s >= look_s:
            looked_s = time.monotonic()
            if _searching(folder) != holder:
                return
        time.sleep(tick_s)


def _ended(folder: Folder, what: str) -> int:
    """Print how a search or training without a result ended, and return the exit code."""
    log = events(folder)
    last = log[-1] if log else {"event": ""}
    if last["event"] == "stopped":
        say(f"time limit reached; {_rest(folder)}")
        return OK
    if (holder := lock_holder(folder)) is not None:
        how = f"its driver is gone, but LOCK still names {holder_text(holder)}: remove LOCK if that has ended"
    elif last["event"] == "failed":
        how = f"it failed: {' '.join(str(last['error']).split())}"
    else:
        how = "Ctrl-C, a kill or a lost machine"
    say(f"{folder.uri}: the {what} ended without a result ({how}); {_rest(folder)}")
    return FAILED


if __name__ == "__main__":
    sys.exit(main())
