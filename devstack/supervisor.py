"""Runs the parts of a stack together: one labelled log, restarts with back-off, and no process left at the end."""

import os
import selectors
import signal
import subprocess
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum
from math import inf
from typing import TextIO

from devstack import DevstackError
from devstack.processes import Command, kill_group

TICK_S = 0.1
POLL_S = 0.25  # servers log each request for their readiness


class StackStopped(Exception):
    """The stack was asked to stop."""


class Stage(IntEnum):
    """The order in which parts end: first those that accept new work, then the workers, then the servers."""

    ENTRY = 1
    WORKERS = 2
    SERVERS = 3


# Seconds before each stage is killed; their sum is less than the ten seconds in which the stack has to stop.
GRACE_S = {Stage.ENTRY: 2.0, Stage.WORKERS: 5.5, Stage.SERVERS: 1.5}


@dataclass(frozen=True)
class Part:
    """One program of the stack; its name labels its lines in the log."""

    name: str
    command: Command
    stage: Stage = Stage.ENTRY
    ready_words: str = ""
    """Text of the line that a ready program prints; empty if it prints none."""
    repair: Callable[[str], str | None] | None = None
    """Called with the last lines of a crashed program before its restart; what it returns is logged."""


@dataclass(frozen=True)
class RestartPolicy:
    """The delay before a crashed part is restarted, and the number of crashes after which a start is given up."""

    first_s: float = 2.0
    longest_s: float = 30.0
    attempts: int = 5
    steady_after_s: float = 60.0
    """A part that ran for this long was healthy: its earlier crashes no longer count."""

    def delay_s(self, crashes: int) -> float:
        """The delay after this many crashes in a row: 2, 4, 8, 16, 30, 30 … seconds."""
        # Bounded, because 2 ** 1024 is beyond a float: by then the longest one has long been reached.
        return min(self.longest_s, self.first_s * 2.0 ** min(crashes - 1, 100))


@dataclass(eq=False)
class _Run:
    """The present process of a part, or the time of its next start."""

    part: Part
    ends_by_itself: bool = False
    process: "subprocess.Popen[bytes] | None" = None
    started_at: float = 0.0
    restart_at: float = 0.0
    crashes: int = 0
    unfinished_line: bytes = b""
    last_line: str = ""
    last_lines: deque[str] = field(default_factory=lambda: deque(maxlen=8))
    is_at_work: bool = False

    @property
    def is_alive(self) -> bool:
        return self.process is not None and self.process.poll() is None


class Supervisor:
    """Owns the processes of a stack; they belong to the thread that calls its methods.

    Setting `stopping`, which is safe in a signal handler, makes the running method raise StackStopped. Once `is_up` is
    set, a part that keeps crashing is started again for ever: what else runs is not ended because of it.
    """

    def __init__(self, stream: TextIO, *, restarts: RestartPolicy | None = None) -> None:
        self.stopping = False
        self.is_up = False
        self._stream = stream
        self._restarts = restarts or RestartPolicy()
        self._runs: list[_Run] = []
        self._outputs = selectors.DefaultSelector()
        self._last_line_at = 0.0

    def start(self, part: Part) -> None:
        """Start a part; from now on it is restarted whenever it ends."""
        run = _Run(part)
        self._runs.append(run)
        self._spawn(run)

    def run_to_end(self, part: Part) -> None:
        """Run a part that ends by itself. Raises DevstackError if its exit status is not 0."""
        run = _Run(part, ends_by_itself=True)
        self._runs.append(run)
        process = self._spawn(run)
        self.wait_until(lambda: not run.is_alive, f"{part.name} does not end")
        self._drain()
        if process.returncode:
            raise DevstackError(f"{part.name} {_ending(process)}: {run.last_line}")

    def wait_until(self, condition: Callable[[], bool], complaint: str, *, timeout_s: float = inf) -> None:
        """Keep the stack running until the condition holds. Raises DevstackError after `timeout_s`."""
        deadline = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() > deadline:
                raise DevstackError(f"{complaint} ({timeout_s:g} s).")
            next_poll = time.monotonic() + POLL_S
            while time.monotonic() < next_poll:
                self.tick()

    @property
    def all_at_work(self) -> bool:
        """Whether each part that says when it is at work has said so."""
        return all(run.is_at_work for run in self._runs if run.part.ready_words)

    def wait_for_silence(self, *, silence_s: float, timeout_s: float) -> None:
        """Keep the stack running until no part has said anything for so long, or for `timeout_s`."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < min(deadline, self._last_line_at + silence_s):
            self.tick()

    def run(self) -> None:
        """Keep the stack running until it raises StackStopped, or DevstackError as long as it is not up."""
        while True:
            self.tick()

    def tick(self) -> None:
        """Relay the parts' output for a tenth of a second; restart crashed parts whose delay is over."""
        if self.stopping:
            raise StackStopped
        self._relay(TICK_S)
        for run in self._runs:
            if run.process is None and time.monotonic() >= run.restart_at:
                self._spawn(run)
            elif run.process and not run.ends_by_itself and not run.is_alive:
                self._plan_restart(run, run.process)

    def stop(self) -> None:
        """End every part, stage by stage, in less than ten seconds; kill those that do not end."""
        for stage, grace_s in GRACE_S.items():
            processes = {run: run.process for run in self._runs if run.part.stage is stage and run.process}
            for run, process in processes.items():
                process.send_signal(run.part.command.stop_signal)
            deadline = time.monotonic() + grace_s
            while (
                any(process.poll() is None for process in processes.values()) and time.monotonic() < deadline
            ):
                self._relay(TICK_S)  # a full pipe would prevent them from ending
            for process in processes.values():
                kill_group(process)
        self._drain()

    def log(self, text: str, *, name: str = "stack") -> None:
        """Write a line to the log."""
        self._stream.write(f"{name:<8} | {text}\n")
        self._stream.flush()

    def _spawn(self, run: _Run) -> "subprocess.Popen[bytes]":
        read_end, write_end = os.pipe()
        run.process = run.part.command.spawn(write_end)
        os.close(write_end)
        self._outputs.register(read_end, selectors.EVENT_READ, run)
        run.started_at = time.monotonic()
        return run.process

    def _plan_restart(self, run: _Run, process: "subprocess.Popen[bytes]") -> None:
        """Reap a crashed part and set the time of its restart.

        Raises DevstackError after too many crashes, if the stack was not up yet.
        """
        kill_group(process)
        self._drain()
        was_steady = time.monotonic() - run.started_at >= self._restarts.steady_after_s
        run.crashes = 1 if was_steady else run.crashes + 1
        run.process = None
        if run.crashes >= self._restarts.attempts and not self.is_up:
            ending = f"{_ending(process)}: {run.last_line}"
            raise DevstackError(
                f"{run.part.name} failed {run.crashes} times in a row; the last time it {ending}"
            )
        if run.part.repair and (done := run.part.repair("\n".join(run.last_lines))):
            self.log(done)
        delay_s = self._restarts.delay_s(run.crashes)
        run.restart_at = time.monotonic() + delay_s
        self.log(f"{run.part.name} {_ending(process)}; starting it again in {delay_s:g} s")

    def _drain(self) -> None:
        while self._relay(0):
            pass

    def _relay(self, timeout_s: float) -> bool:
        """Write the lines that arrive within the timeout to the log. Returns whether any arrived."""
        ready = self._outputs.select(timeout_s)
        for key, _ in ready:
            run: _Run = key.data
            chunk = os.read(key.fd, 65536)
            *lines, run.unfinished_line = (run.unfinished_line + chunk).split(b"\n")
            if not chunk:
                self._outputs.unregister(key.fd)
                os.close(key.fd)
                lines, run.unfinished_line = [line for line in [run.unfinished_line] if line], b""
            for line in lines:
                run.last_line = line.decode(errors="replace").rstrip()
                run.last_lines.append(run.last_line)
                run.is_at_work |= run.part.ready_words in run.last_line
                self._last_line_at = time.monotonic()
                self.log(run.last_line, name=run.part.name)
        return bool(ready)


def _ending(process: "subprocess.Popen[bytes]") -> str:
    """A description of how a process ended."""
    if process.returncode < 0:
        return f"was killed by {signal.Signals(-process.returncode).name}"
    return f"ended with status {process.returncode}"
