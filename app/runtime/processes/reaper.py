"""Keeps one command and everything it starts, so that none of it outlives the command or those who asked for it.

A program of its own, run by path: `reaper.py <parent's pid> <status fd> <grace seconds> <command> …`; on stdin it is
given the command's environment as a JSON object, so that none of it can change how the keeper itself runs. It adopts
every descendant of the command, also those that detach themselves. When the command has ended, when it is told
SIGTERM, or when the process that started it dies, it ends them all: SIGTERM, after the grace SIGKILL, until none is
left. Then it ends as the command did. SIGUSR1 makes it kill at once.

On the status fd it says "ok", or the number of the error that kept the command from starting.
"""

import ctypes
import errno
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
POLL_S = 0.05
_THREADS = Path("/proc/self/task")
BURST = 100
"""Times in a row that children are killed: what goes on forking into sessions of their own is in no group for long."""


def main() -> None:
    """Start the command, wait for its end or for a request, and leave nothing behind."""
    parent, status_fd, grace_s, command = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), sys.argv[4:]
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    requested: list[int] = []
    for caught in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(caught, lambda number, _: requested.append(number))
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != parent:
        return  # it died before it could be watched

    os.set_inheritable(status_fd, False)  # noqa: FBT003 -- positional only
    try:
        environment = json.load(sys.stdin)
        child = subprocess.Popen(  # noqa: S603 -- that is its purpose
            command, env=environment, process_group=0, stdin=subprocess.DEVNULL
        )
    except (OSError, ValueError) as error:
        _report(status_fd, str(getattr(error, "errno", errno.EINVAL)))
        return
    _report(status_fd, "ok")
    # Whoever reads the output waits until all writers are gone; this one never writes.
    devnull = os.open(os.devnull, os.O_RDWR)
    os.dup2(devnull, 1)
    os.dup2(devnull, 2)

    while child.poll() is None and not requested:
        _reap_adopted(child)
        _rest()
    _end_all(child, requested, grace_s)
    code = child.returncode
    if code < 0:
        # As the command died, so that the one who waits for us sees it.
        if -code != signal.SIGKILL:
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)


def _report(status_fd: int, word: str) -> None:
    with suppress(OSError):  # Nobody listens any more: then the signal that says so is on its way.
        os.write(status_fd, word.encode())
    os.close(status_fd)


def _end_all(child: subprocess.Popen[bytes], requested: list[int], grace_s: float) -> None:
    """Return when nothing is left but this process."""
    me = psutil.Process()
    deadline = time.monotonic() + grace_s
    asked: set[psutil.Process] = set()
    while True:
        child.poll()
        # Zombies too: of one whose other threads go on, only the first has ended.
        living = me.children(recursive=True)
        if not _reap_adopted(child) and child.returncode is not None:
            return
        is_over = time.monotonic() >= deadline or signal.SIGUSR1 in requested
        if is_over:
            for _ in range(BURST):
                for pid in children():  # which only this process reaps, so that their pids are still theirs
                    kill_with_group(pid)
        for one in living:
            if is_over:
                _send(one, signal.SIGKILL)
            elif one not in asked:
                asked.add(one)
                _send(one, signal.SIGTERM)
                _send(one, signal.SIGCONT)  # a stopped one could not even hear it
        _rest()


def _send(process: psutil.Process, number: int) -> None:
    with suppress(psutil.Error):
        process.send_signal(number)  # makes sure that the pid is still that process


def _reap_adopted(child: subprocess.Popen[bytes]) -> bool:
    """Collect orphans that ended, the command itself is left to `child.poll`; whether there is any child still.

    The kernel's own word: a list of processes, read one by one, misses who forks and ends meanwhile.
    """
    while True:
        try:
            ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return False
        if ended is None or ended.si_pid == child.pid:
            return True
        with suppress(ChildProcessError):
            os.waitpid(ended.si_pid, os.WNOHANG)


def children() -> set[int]:
    """The children of this process that have not been reaped, at once: no other process is looked at for it."""
    found = set[int]()
    try:
        for thread in _THREADS.iterdir():
            with suppress(ProcessLookupError):  # That thread has ended.
                found.update(map(int, (thread / "children").read_text().split()))
    except FileNotFoundError:
        # The kernel keeps no such lists, or that thread has ended: the slow way.
        return {one.pid for one in psutil.Process().children()}
    return found


def kill_with_group(pid: int) -> None:
    """Kill a child, and its group at once: one that goes on forking can be faster than a list of its pids."""
    with suppress(OSError):
        os.kill(pid, signal.SIGKILL)
        group = os.getpgid(pid)
        if group != os.getpgrp():
            os.killpg(group, signal.SIGKILL)


def _rest() -> None:
    time.sleep(POLL_S)


if __name__ == "__main__":
    main()
