"""Commands as the runtime runs them: with all their descendants, and none of these outlives the command.

Each has a keeper (see keeper.py) between itself and this process. Whatever a command started carries the mark of its
run in its environment, by which it is found even after its keeper was killed.
"""

import contextlib
import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Self
from uuid import UUID

import psutil

MARK = "WORKSPACES_RUN"
"""The variable that names the run a process belongs to."""

_KEEPER = Path(__file__).with_name("keeper.py")


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
        reading, writing = os.pipe()
        output, printing = os.pipe()
        try:
            keeper = subprocess.Popen(  # noqa: S603 -- what is run is what users asked to be run
                [sys.executable, "-I", str(_KEEPER), str(writing), str(grace_s), *command],
                env={**environment, MARK: str(run), "KEEPER_PARENT": str(os.getpid())},
                cwd=directory,
                stdin=subprocess.DEVNULL,
                stdout=printing,
                stderr=printing,
                start_new_session=True,
                pass_fds=[writing],
            )
        finally:
            os.close(writing)
            os.close(printing)
        with os.fdopen(reading, "rb") as status:
            said = status.read()
        if said == b"ok":
            return cls(keeper, os.fdopen(output, "rb", buffering=0))
        os.close(output)
        keeper.wait()
        number = int(said or errno.ESRCH)
        raise OSError(number, f"'{command[0]}' cannot be run: {os.strerror(number)}")

    def poll(self) -> int | None:
        """The command's exit code, negative for a signal, once it and all its descendants are gone."""
        return self._keeper.poll()

    def terminate(self) -> None:
        """Ask everything to end, and kill after the grace what has not. Returns at once."""
        self._signal_keeper(signal.SIGTERM)

    def kill(self) -> None:
        """Kill everything at once. Returns before it has happened."""
        self._signal_keeper(signal.SIGUSR1)

    def pause(self) -> None:
        """Stop everything where it is; what is paused can still be terminated."""
        for one in self._descendants():
            with contextlib.suppress(psutil.Error):
                one.suspend()

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


def leftovers(run: UUID) -> list[int]:
    """The processes on this host that belong to a run, whoever started them and whatever became of its keeper."""
    return [one.pid for one in _marked(run)]


def kill_leftovers(run: UUID, *, within_s: float) -> bool:
    """Kill whatever belongs to a run; whether nothing of it is left."""
    deadline = time.monotonic() + within_s
    while living := _marked(run):
        if time.monotonic() >= deadline:
            return False
        for one in living:
            with contextlib.suppress(psutil.Error):
                one.kill()
        psutil.wait_procs(living, timeout=0.2)
    return True


def _marked(run: UUID) -> list[psutil.Process]:
    mark = str(run)
    found = []
    for one in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if one.environ().get(MARK) == mark and one.status() != psutil.STATUS_ZOMBIE:
                found.append(one)
    return found
