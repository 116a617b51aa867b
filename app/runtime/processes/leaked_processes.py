"""What is left of a run whose keeper was killed, and its end.

It is found in two ways: it carries the mark of its run in its environment, or descends from what does; and whatever has
shed that becomes a child of this process, if this was made the parent of orphans.
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
from app.runtime.processes.reaper import BURST, children, kill_with_group

log = get_logger(__name__)

RUN_VARIABLE = "WORKSPACES_RUN"
"""The variable that names the run a process belongs to."""

reapers: "set[subprocess.Popen[bytes]]" = set()
"""The keepers that this process has started and not seen to end."""
starting = threading.Lock()
"""Held while a keeper is a child of this process and not yet among `keepers`, or it would seem to be an orphan."""

_PR_SET_CHILD_SUBREAPER = 36
_UNKILLABLE_AFTER_S = 10.0
"""An orphan that lives so long after SIGKILL may be another run's: it is told, and keeps no run from ending."""
_BRIEF_S = 0.02
_EMPTY_SCANS = 3
"""So often none must be seen: between the end of a parent and its child's becoming ours there is a moment."""

_adopts_orphans = threading.Event()
_first_seen: dict[int, float] = {}
_reported: set[int] = set()


def adopt_orphans() -> None:
    """Make this process the parent of whatever loses its keeper, for as long as it lives.

    For a process that starts nothing in sessions of their own but keepers: what else is below it there, also what a
    library has started and left, is killed.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    # Elsewhere than on Linux no job is started, so nothing loses its keeper.
    if hasattr(libc, "prctl") and libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0:
        _adopts_orphans.set()


def processes_of(run: UUID) -> list[int]:
    """The processes on this host that belong to a run, whoever started them and whatever became of its keeper."""
    return [one.pid for one in _scan(run)]


def kill_leaked_processes(run: UUID, *, within_s: float) -> bool:
    """Kill whatever belongs to a run, and orphans of any run; whether nothing is left.

    Looks at least once, also if `within_s` is 0.
    """
    deadline = time.monotonic() + within_s
    while True:
        living = _scan(run)
        for one in living:
            with contextlib.suppress(psutil.Error):
                one.kill()
        # In this order: what loses its keeper by that becomes an orphan.
        if not _end_orphans() and not living:
            return True
        if time.monotonic() >= deadline:
            return False
        time.sleep(_BRIEF_S)


def _scan(run: UUID) -> list[psutil.Process]:
    run_id, found = str(run), []
    below = defaultdict[int, list[psutil.Process]](list)
    for one in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            below[one.ppid()].append(one)
            if one.environ().get(RUN_VARIABLE) == run_id and one.status() != psutil.STATUS_ZOMBIE:
                found.append(one)
    # A keeper that was stopped has not ended what shed the mark below it.
    known = set(found)
    for one in found:  # which grows meanwhile
        started = [child for child in below[one.pid] if child not in known and _is_younger(child, one)]
        known.update(started)
        found += started
    return found


def _is_younger(child: psutil.Process, parent: psutil.Process) -> bool:
    # Otherwise its parent was another process, of which the pid was used again.
    try:
        return child.create_time() >= parent.create_time()
    except psutil.Error:
        return False


def _end_orphans() -> bool:
    """Kill what has lost its keeper and become ours, with what it has started; whether there was any.

    One that had ended counts too: it may have been the parent of another that is not ours yet.
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
    # Nobody can enter a session from outside: what is in ours, we have started.
    try:
        return os.getsid(pid) != os.getsid(0)
    except OSError:
        return False


def _end_orphan(pid: int) -> bool:
    """Whether there was one that can be ended. Only this process reaps it, so that the pid is still its own."""
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
