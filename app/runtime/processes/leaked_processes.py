"""Finds and kills the processes of a run that its reaper did not end, because the reaper itself was killed.

They are found in two ways. A process belongs to a run if the variable `RUN_VARIABLE` in its environment names the run,
or if it descends from such a process. A process that has cleared its environment and lost its parents becomes a child
of this process after `adopt_orphans`.
"""

import contextlib
import ctypes
import os
import subprocess
import threading
import time
from collections import defaultdict
from uuid import UUID

import psutil

from app.logs import get_logger
from app.runtime.processes.reaper import BURST, PR_SET_CHILD_SUBREAPER, children, kill_with_group

log = get_logger(__name__)

RUN_VARIABLE = "WORKSPACES_RUN"
"""The environment variable that names the run a process belongs to."""

reapers: "set[subprocess.Popen[bytes]]" = set()
"""The reapers that this process has started and that have not ended."""
starting = threading.Lock()
"""Held while a new reaper is a child of this process but not yet in `reapers`, or it would be taken for an orphan."""

_UNKILLABLE_AFTER_S = 10.0
"""An orphan that lives so long after SIGKILL may be another run's: it is logged, and no run waits for it any longer."""
_BRIEF_S = 0.02
_EMPTY_SCANS = 3
"""Scans in a row that must find none: an orphan becomes a child of this process a moment after its parent ended."""

_adopts_orphans = threading.Event()
_first_seen: dict[int, float] = {}
_reported: set[int] = set()


def adopt_orphans() -> None:
    """Make this process the parent of all processes below it that lose theirs, for as long as it lives.

    Only for a process that starts nothing but reapers in sessions of their own: any other process below it in another
    session is killed, also one that a library has started.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    # Elsewhere than on Linux no job is started, so no process loses its reaper.
    if hasattr(libc, "prctl") and libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0:
        _adopts_orphans.set()


def processes_of(run: UUID) -> list[int]:
    """The pids of the processes on this host that belong to a run, whether or not its reaper and worker are alive."""
    return [one.pid for one in _scan(run)]


def kill_leaked_processes(run: UUID, *, within_s: float) -> bool:
    """Kill the processes of a run, and adopted orphans of any run; whether none is left.

    Scans at least once, even if `within_s` is 0.
    """
    deadline = time.monotonic() + within_s
    while True:
        living = _scan(run)
        for one in living:
            with contextlib.suppress(psutil.Error):
                one.kill()
        # In this order: killing a reaper makes orphans of the processes below it.
        if not _end_orphans() and not living:
            return True
        if time.monotonic() >= deadline:
            return False
        time.sleep(_BRIEF_S)


def _scan(run: UUID) -> list[psutil.Process]:
    run_id, found = str(run), []
    below = defaultdict[int, list[psutil.Process]](list)
    for pid in psutil.pids():
        with contextlib.suppress(psutil.Error, OSError):
            # Not `process_iter`: it remembers who had the number before, and takes a new process for that one.
            one = psutil.Process(pid)
            below[one.ppid()].append(one)
            if one.environ().get(RUN_VARIABLE) == run_id and one.status() != psutil.STATUS_ZOMBIE:
                found.append(one)
    # Descendants that have cleared their environment: a reaper that was stopped has not ended them.
    known = set(found)
    for one in found:  # the list grows meanwhile
        started = [child for child in below[one.pid] if child not in known and _is_younger(child, one)]
        known.update(started)
        found += started
    return found


def _is_younger(child: psutil.Process, parent: psutil.Process) -> bool:
    # An older child had another parent, whose pid has been used again.
    try:
        return child.create_time() >= parent.create_time()
    except psutil.Error:
        return False


def _end_orphans() -> bool:
    """Kill the orphans that this process has adopted, with their descendants; whether there was any.

    One that had already ended counts too: its child may become an orphan a moment later.
    """
    if not _adopts_orphans.is_set():
        return False
    found = False
    with starting:
        for reaper in list(reapers):
            if reaper.poll() is not None:
                reapers.discard(reaper)
        ours = {reaper.pid for reaper in reapers}
        empty_scans = 0
        for _ in range(BURST):
            seen = [pid for pid in children() - ours if _is_orphan(pid) and _end_orphan(pid)]
            empty_scans = 0 if seen else empty_scans + 1
            found |= bool(seen)
            if empty_scans == _EMPTY_SCANS:
                break
    return found


def _is_orphan(pid: int) -> bool:
    # No process can enter a session from outside: those in the session of this process were started by it.
    try:
        return os.getsid(pid) != os.getsid(0)
    except OSError:
        return False


def _end_orphan(pid: int) -> bool:
    """Whether there was one that can be killed. Only this process reaps it, so the pid cannot have been used again."""
    kill_with_group(pid)
    with contextlib.suppress(ChildProcessError):
        if os.waitpid(pid, os.WNOHANG) == (0, 0):
            return _may_still_end(pid)
    _first_seen.pop(pid, None)
    _reported.discard(pid)
    return True


def _may_still_end(pid: int) -> bool:
    now = time.monotonic()
    if now - _first_seen.setdefault(pid, now) < _UNKILLABLE_AFTER_S:
        return True
    if pid not in _reported:
        _reported.add(pid)
        log.error("runtime.orphan_remains", pid=pid)
    return False
