"""Commands as the runtime runs them: none of their descendants outlives the command.

A reaper (see reaper.py) stands between each command and this process. If the reaper is killed, the processes it leaks
are found all the same (see leaked_processes.py). If it does not react in time, it is killed.
"""

import contextlib
import errno
import json
import math
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import IO, Self, cast
from uuid import UUID

import psutil

from app.logs import get_logger
from app.runtime.processes.leaked_processes import RUN_VARIABLE, kill_leaked_processes, reapers, starting

log = get_logger(__name__)

_REAPER = Path(__file__).with_name("reaper.py")
_START_S = 10.0
"""Limit for a reaper to report that the command runs. The command can stop its reaper, which then never reports."""
_REPORT_BYTES = 16
"""More than any report has, which the reaper writes at once."""
_LATE_S = 2.0
"""How long after the grace a reaper may still take to end everything before it is killed."""
_PAUSE_S = 5.0
_KILL_POLL_S = 0.05  # A poll looks at every process once the reaper is gone.
_BRIEF_S = 0.01


class Process:
    """A running command with all its descendants.

    Ends when the thread that started it ends: the kernel signals the reaper. Not thread-safe, except that one thread
    may read `output` while another uses the rest.
    """

    def __init__(
        self, reaper: "subprocess.Popen[bytes]", output: IO[bytes], *, run: UUID, grace_s: float
    ) -> None:
        self._reaper, self._run, self._grace_s = reaper, run, grace_s
        self._due_at = math.inf
        self._is_cleared = False
        self.output = output
        """Stdout and stderr of the command; ends when all writers are gone."""

    @classmethod
    def start(
        cls,
        command: Sequence[str],
        *,
        run: UUID,
        environment: Mapping[str, str],
        directory: Path,
        grace_s: float,
        limits: Mapping[str, int] = MappingProxyType({}),
    ) -> Self:
        """Start a command in `directory` with nothing but `environment` and the variable that names its run.

        `limits` of each of its processes are named as in an execution profile.
        Raises OSError, such as FileNotFoundError, when the command cannot be started.
        """
        if not directory.is_dir():
            raise FileNotFoundError(f"the working directory of '{command[0]}' does not exist")
        run_variable = {RUN_VARIABLE: str(run)}
        reaper, status, output = _start_reaper(command, run_variable, directory, grace_s)
        with contextlib.suppress(BrokenPipeError), cast("IO[bytes]", reaper.stdin) as stdin:
            given = {"environment": {**environment, **run_variable}, "limits": dict(limits)}
            stdin.write(json.dumps(given).encode())
        with status:
            number = _failure(reaper, status)
        if not number:
            return cls(reaper, output, run=run, grace_s=grace_s)
        output.close()
        reaper.kill()
        reaper.wait()
        kill_leaked_processes(run, within_s=_START_S)
        raise OSError(number, f"'{command[0]}' cannot be run: {os.strerror(number)}")

    def poll(self) -> int | None:
        """The command's exit code, negative for a signal, once it and all its descendants are gone.

        A reaper that is late with ending them is killed, and then so are they: -9.
        """
        code = self._reaper.poll()
        if code is None:
            if time.monotonic() > self._due_at:
                self._reaper.kill()  # It may have been stopped; then it does not react to signals.
            elif _is_stopped(self._reaper.pid):
                # Its command can do that. It would never report the end of the command.
                log.warning("runtime.reaper_was_stopped", run=str(self._run))
                self._reaper.send_signal(signal.SIGCONT)
            return None
        if code == -signal.SIGKILL and not self._is_cleared:
            # Its command died so, or the reaper itself was killed and left the descendants of the command.
            self._is_cleared = kill_leaked_processes(self._run, within_s=0)
            return code if self._is_cleared else None
        return code

    def terminate(self) -> None:
        """Ask all processes to end, and kill the rest after the grace. Returns at once."""
        self._signal_reaper(signal.SIGTERM, within_s=self._grace_s)

    def kill(self) -> None:
        """Kill everything. Returns at once, before that has happened."""
        self._signal_reaper(signal.SIGUSR1, within_s=0)

    def kill_and_wait(self, *, within_s: float) -> None:
        """Kill everything, and wait for its end so long at most."""
        self.kill()
        deadline = time.monotonic() + within_s
        while self.poll() is None and time.monotonic() < deadline:
            time.sleep(_KILL_POLL_S)

    def pause(self) -> None:
        """Stop all processes with SIGSTOP. Paused processes can still be terminated."""
        deadline = time.monotonic() + _PAUSE_S
        still_scans = 0
        # Until no running one is found: those not stopped yet may have started others meanwhile.
        while still_scans < 2 and time.monotonic() < deadline:
            running = [one for one in self._descendants() if _runs(one)]
            still_scans = 0 if running else still_scans + 1
            for one in running:
                with contextlib.suppress(OSError):
                    # Together with its group: a process that keeps forking can outrun a list.
                    os.killpg(os.getpgid(one.pid), signal.SIGSTOP)
            time.sleep(_BRIEF_S)

    def resume(self) -> None:
        """Let all processes run on."""
        for one in self._descendants():
            with contextlib.suppress(psutil.Error):
                one.resume()

    def close(self) -> None:
        """Close the output, once it was read."""
        self.output.close()

    def _signal_reaper(self, number: signal.Signals, *, within_s: float) -> None:
        self._due_at = min(self._due_at, time.monotonic() + within_s + _LATE_S)
        if self._reaper.poll() is None:
            self._reaper.send_signal(number)

    def _descendants(self) -> list[psutil.Process]:
        try:
            return psutil.Process(self._reaper.pid).children(recursive=True)
        except psutil.Error:
            return []


def _failure(reaper: "subprocess.Popen[bytes]", status: IO[bytes]) -> int:
    """The number of the error that kept the command from running, or 0 if it has begun.

    A command that stops its reaper leaves the report without an end, one that kills it without the reaper's word.
    """
    report, deadline = b"", time.monotonic() + _START_S
    while not report.endswith(b"ok") and time.monotonic() < deadline:
        if select.select([status], [], [], _KILL_POLL_S)[0]:
            if not (word := status.read(_REPORT_BYTES)):
                break
            report += word
        elif report and _is_stopped(reaper.pid):
            break
    if not report:
        return errno.ESRCH
    return int(report.removeprefix(b"begun").removesuffix(b"ok") or 0)


def _start_reaper(
    command: Sequence[str], environment: Mapping[str, str], directory: Path, grace_s: float
) -> "tuple[subprocess.Popen[bytes], IO[bytes], IO[bytes]]":
    """A reaper with that environment, its status and the output of its command. Raises OSError as Process.start."""
    with contextlib.ExitStack() as kept, contextlib.ExitStack() as handed_on:
        status, report_to = _pipe(kept, handed_on)
        output, output_to = _pipe(kept, handed_on)
        arguments = [str(os.getpid()), str(report_to.fileno()), str(grace_s), *command]
        try:
            with starting:
                reaper = subprocess.Popen(  # noqa: S603 -- what is run is what users asked to be run
                    [sys.executable, "-I", str(_REAPER), *arguments],
                    env=dict(environment),
                    cwd=directory,
                    stdin=subprocess.PIPE,
                    stdout=output_to,
                    stderr=output_to,
                    start_new_session=True,
                    pass_fds=[report_to.fileno()],
                )
                reapers.add(reaper)
        except OSError as error:  # The error names our Python; an example is an argument that is too long.
            raise OSError(error.errno, f"'{command[0]}' cannot be run: {error.strerror}") from None
        kept.pop_all()
    return reaper, status, output


def _pipe(reading: contextlib.ExitStack, writing: contextlib.ExitStack) -> tuple[IO[bytes], IO[bytes]]:
    read, write = os.pipe()
    ends = os.fdopen(read, "rb", buffering=0), os.fdopen(write, "wb", buffering=0)
    return reading.enter_context(ends[0]), writing.enter_context(ends[1])


def _is_stopped(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"
    return False


def _runs(process: psutil.Process) -> bool:
    """Whether any of its threads runs: a process whose first thread has ended looks like a zombie."""
    states = []
    for path in Path(f"/proc/{process.pid}/task").glob("*/stat"):
        with contextlib.suppress(OSError):  # the thread has ended
            states.append(path.read_text().rpartition(")")[2].split()[0])
    return any(state not in "TtZX" for state in states)
