"""The reaper: supervises one command with all its descendants, so that none outlives the command or its runtime worker.

A program of its own, run by path: `reaper.py <parent's pid> <status fd> <grace seconds> <command> …`. It reads the
command's environment and its limits from stdin as a JSON object, so that no variable can change how the reaper itself
runs. It
adopts every descendant of the command, including those that detach themselves (`setsid`, double fork). When the
command has ended, on SIGTERM, or when its parent dies, it ends them all: SIGTERM, after the grace SIGKILL, until none
is left. Then it ends as the command did. On SIGUSR1 it kills at once.

The command says "begun" at the status fd just before it runs, because it may end its reaper in that moment. Then the
reaper says "ok", or the number of the error that kept the command from starting.
"""

import ctypes
import errno
import json
import os
import resource
import signal
import subprocess
import sys
import time
from contextlib import suppress
from functools import partial
from pathlib import Path

import psutil

RESOURCES = {
    "max_memory_bytes": resource.RLIMIT_AS,
    "max_processes": resource.RLIMIT_NPROC,
    "max_file_bytes": resource.RLIMIT_FSIZE,
}
PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
POLL_S = 0.05
_THREADS = Path("/proc/self/task")
BURST = 100
"""Kills in a row: processes that keep forking into sessions of their own stay in no group for long."""


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
        return  # the parent died before its death could be watched

    os.set_inheritable(status_fd, False)  # noqa: FBT003 -- positional only
    try:
        given = json.load(sys.stdin)
        child = subprocess.Popen(  # noqa: S603 -- that is its purpose
            command,
            env=given["environment"],
            process_group=0,
            stdin=subprocess.DEVNULL,
            preexec_fn=partial(_begin, given["limits"], status_fd),  # noqa: PLW1509 -- there is only this thread
        )
    except (OSError, ValueError) as error:
        _report(status_fd, str(getattr(error, "errno", errno.EINVAL)))
        return
    _report(status_fd, "ok")
    # The reader of the output waits until all writers are gone; the reaper itself never writes.
    devnull = os.open(os.devnull, os.O_RDWR)
    os.dup2(devnull, 1)
    os.dup2(devnull, 2)

    while child.poll() is None and not requested:
        _reap_adopted(child)
        _pause()
    _end_all(child, requested, grace_s)
    code = child.returncode
    if code < 0:
        # Die by the same signal, so that the runtime worker sees how the command ended.
        if -code != signal.SIGKILL:
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)


def _begin(limits: dict[str, int], status_fd: int) -> None:
    """Limit this process and all its descendants, and say that it begins. Lower limits of the host stay."""
    for name, highest in limits.items():
        _, hard = resource.getrlimit(RESOURCES[name])
        limit = highest if hard == resource.RLIM_INFINITY else min(highest, hard)
        resource.setrlimit(RESOURCES[name], (limit, limit))
    os.write(status_fd, b"begun")


def _report(status_fd: int, word: str) -> None:
    with suppress(OSError):  # The reader is gone, so the signal of its death is on its way.
        os.write(status_fd, word.encode())
    os.close(status_fd)


def _end_all(child: subprocess.Popen[bytes], requested: list[int], grace_s: float) -> None:
    """Return when nothing is left but this process."""
    me = psutil.Process()
    deadline = time.monotonic() + grace_s
    asked: set[psutil.Process] = set()
    while True:
        child.poll()
        # Zombies too: a process whose first thread has ended looks like one while its other threads run.
        living = me.children(recursive=True)
        if not _reap_adopted(child) and child.returncode is not None:
            return
        is_over = time.monotonic() >= deadline or signal.SIGUSR1 in requested
        if is_over:
            for _ in range(BURST):
                for pid in children():  # only this process reaps them, so no pid can have been used again
                    kill_with_group(pid)
        for one in living:
            if is_over:
                _send(one, signal.SIGKILL)
            elif one not in asked:
                asked.add(one)
                _send(one, signal.SIGTERM)
                _send(one, signal.SIGCONT)  # a stopped process does not react to SIGTERM
        _pause()


def _send(process: psutil.Process, number: int) -> None:
    with suppress(psutil.Error):
        process.send_signal(number)  # makes sure that the pid is still that process


def _reap_adopted(child: subprocess.Popen[bytes]) -> bool:
    """Collect adopted processes that ended, but leave the command to `child.poll`; whether any child is left.

    The kernel answers that at once: a list of processes, read one by one, misses those that fork and end meanwhile.
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
    """The children of this process that have not been reaped, as one snapshot from the kernel where it keeps a list."""
    found = set[int]()
    try:
        for thread in _THREADS.iterdir():
            with suppress(ProcessLookupError):  # the thread has ended
                found.update(map(int, (thread / "children").read_text().split()))
    except FileNotFoundError:
        # The kernel keeps no such lists, or the thread has ended: the slow way.
        return {one.pid for one in psutil.Process().children()}
    return found


def kill_with_group(pid: int) -> None:
    """Kill a child together with its group: a process that keeps forking can outrun a list of its pids."""
    with suppress(OSError):
        os.kill(pid, signal.SIGKILL)
        group = os.getpgid(pid)
        if group != os.getpgrp():
            os.killpg(group, signal.SIGKILL)


def _pause() -> None:
    time.sleep(POLL_S)


if __name__ == "__main__":
    main()
