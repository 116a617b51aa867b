"""Commands as the runtime runs them: with all their descendants, and none of these outlives the command.

Each has a keeper (see keeper.py) between itself and this process. What is left after a keeper was killed is found in
two ways: it carries the mark of its run in its environment, and whatever has shed that becomes a child of this
process, if this was made the parent of orphans.
"""

import contextlib
import ctypes
import errno
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Self, cast
from uuid import UUID

import psutil

MARK = "WORKSPACES_RUN"
"""The variable that names the run a process belongs to."""

_KEEPER = Path(__file__).with_name("keeper.py")
_PR_SET_CHILD_SUBREAPER = 36
_PAUSE_S = 5.0

_adopts_orphans = threading.Event()
_keepers: "set[subprocess.Popen[bytes]]" = set()
"""Those of this process that were not seen to have ended."""
_starting = threading.Lock()
"""Held while a keeper is a child of this process and not yet among them, or it would seem to be an orphan."""


class Process:
    """A running command with all its descendants.

    Ends at the latest when the thread that started it does: the kernel tells the keeper. Not safe for threads, except
    that one may read `output` while another uses the rest.
    """

    def __init__(self, keeper: "subprocess.Popen[bytes]", output: IO[bytes]) -> None:
        self._keeper = keeper
        self.output = output
        """What it writes to stdout and stderr, until all writers are gone."""

    @classmethod
    def start(
        cls,
        command: Sequence[str],
        *,
        run: UUID,
        environment: Mapping[str, str],
        directory: Path,
        grace_s: float,
    ) -> Self:
        """Start a command in `directory` with nothing but `environment` and the mark of its run.

        Raises OSError, such as FileNotFoundError, when the command cannot be started.
        """
        if not directory.is_dir():
            raise FileNotFoundError(f"the working directory of '{command[0]}' is not there")
        marked = {MARK: str(run)}
        reading, writing = os.pipe()
        output, printing = os.pipe()
        arguments = [str(os.getpid()), str(writing), str(grace_s), *command]
        try:
            with _starting:
                keeper = subprocess.Popen(  # noqa: S603 -- what is run is what users asked to be run
                    [sys.executable, "-I", str(_KEEPER), *arguments],
                    env=marked,
                    cwd=directory,
                    stdin=subprocess.PIPE,
                    stdout=printing,
                    stderr=printing,
                    start_new_session=True,
                    pass_fds=[writing],
                )
                _keepers.add(keeper)
        finally:
            os.close(writing)
            os.close(printing)
        with contextlib.suppress(BrokenPipeError), cast("IO[bytes]", keeper.stdin) as told:
            told.write(json.dumps({**environment, **marked}).encode())
        with os.fdopen(reading, "rb") as status:
            said = status.read()
        if said == b"ok":
            return cls(keeper, os.fdopen(output, "rb", buffering=0))
        os.close(output)
        keeper.wait()
        _keepers.discard(keeper)
        number = int(said or errno.ESRCH)
        raise OSError(number, f"'{command[0]}' cannot be run: {os.strerror(number)}")

    def poll(self) -> int | None:
        """The command's exit code, negative for a signal, once it and all its descendants are gone.

        Or else -9 because its keeper was killed; what `kill_leftovers` finds then may still live.
        """
        code = self._keeper.poll()
        if code is not None:
            _keepers.discard(self._keeper)
        return code

    def terminate(self) -> None:
        """Ask everything to end, and kill after the grace what has not. Returns at once."""
        self._signal_keeper(signal.SIGTERM)

    def kill(self) -> None:
        """Kill everything at once. Returns before it has happened."""
        self._signal_keeper(signal.SIGUSR1)

    def pause(self) -> None:
        """Stop everything where it is; what is paused can still be terminated."""
        deadline = time.monotonic() + _PAUSE_S
        # Until none is found that runs: what is not stopped yet may have started others meanwhile.
        while running := [one for one in self._descendants() if _runs(one)]:
            for one in running:
                with contextlib.suppress(psutil.Error):
                    one.suspend()
            if time.monotonic() > deadline:
                return

    def resume(self) -> None:
        """Let everything go on."""
        for one in self._descendants():
            with contextlib.suppress(psutil.Error):
                one.resume()

    def close(self) -> None:
        """Let go of the output, once it was read."""
        self.output.close()

    def _signal_keeper(self, number: signal.Signals) -> None:
        if self._keeper.poll() is None:
            self._keeper.send_signal(number)

    def _descendants(self) -> list[psutil.Process]:
        try:
            return psutil.Process(self._keeper.pid).children(recursive=True)
        except psutil.Error:
            return []


def adopt_orphans() -> None:
    """Make this process the parent of whatever loses its keeper, for as long as it lives.

    For a process that starts nothing in sessions of their own but keepers: its other such children are killed.
    """
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0:
        _adopts_orphans.set()


def leftovers(run: UUID) -> list[int]:
    """The processes on this host that belong to a run, whoever started them and whatever became of its keeper."""
    return [one.pid for one in _marked(run)]


def kill_leftovers(run: UUID, *, within_s: float) -> bool:
    """Kill whatever belongs to a run, and orphans of any run; whether nothing is left."""
    deadline = time.monotonic() + within_s
    while living := [*_marked(run), *_orphans()]:
        if time.monotonic() >= deadline:
            return False
        for one in living:
            with contextlib.suppress(psutil.Error):
                one.kill()
        psutil.wait_procs(living, timeout=0.2)
    return True


def _orphans() -> list[psutil.Process]:
    """What has lost its keeper and become ours, with all that it started; what of it has ended is collected."""
    if not _adopts_orphans.is_set():
        return []
    living = []
    with _starting:
        ours = {keeper.pid for keeper in _keepers}
        for child in psutil.Process().children():
            # Nobody can enter a session from outside: what is in ours, we have started.
            with contextlib.suppress(OSError, psutil.Error):
                if child.pid in ours or os.getsid(child.pid) == os.getsid(0):
                    continue
                if os.waitpid(child.pid, os.WNOHANG) == (0, 0):
                    living += [child, *child.children(recursive=True)]
    return living


def _runs(process: psutil.Process) -> bool:
    try:
        return process.status() not in (psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
    except psutil.Error:
        return False


def _marked(run: UUID) -> list[psutil.Process]:
    mark = str(run)
    found = []
    for one in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if one.environ().get(MARK) == mark and one.status() != psutil.STATUS_ZOMBIE:
                found.append(one)
    return found
