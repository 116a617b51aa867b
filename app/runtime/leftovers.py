"""What is left of a run whose keeper was killed, and its end.

It is found in two ways: it carries the mark of its run in its environment, or descends from what does; and whatever has
shed that becomes a child of this process, if this was made the parent of orphans.
"""

import contextlib
import ctypes
import os
import signal
import subprocess
import threading
import time
from uuid import UUID

import psutil

from app.logs import get_logger

log = get_logger(__name__)

MARK = "WORKSPACES_RUN"
"""The variable that names the run a process belongs to."""

keepers: "set[subprocess.Popen[bytes]]" = set()
"""The keepers that this process has started and not seen to end."""
starting = threading.Lock()
"""Held while a keeper is a child of this process and not yet among `keepers`, or it would seem to be an orphan."""

_PR_SET_CHILD_SUBREAPER = 36
_UNKILLABLE_AFTER_S = 10.0
"""An orphan that lives so long after SIGKILL may be another run's: it is told, and keeps no run from ending."""
_BRIEF_S = 0.02

_adopts_orphans = threading.Event()
_first_seen: dict[psutil.Process, float] = {}


def adopt_orphans() -> None:
    """Make this process the parent of whatever loses its keeper, for as long as it lives.

    For a process that starts nothing in sessions of their own but keepers: what else is below it there, also what a
    library has started and left, is killed.
    """
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0:
        _adopts_orphans.set()


def leftovers(run: UUID) -> list[int]:
    """The processes on this host that belong to a run, whoever started them and whatever became of its keeper."""
    return [one.pid for one in _marked(run)]


def kill_leftovers(run: UUID, *, within_s: float) -> bool:
    """Kill whatever belongs to a run, and orphans of any run; whether nothing is left.

    Looks at least once, also if `within_s` is 0.
    """
    deadline = time.monotonic() + within_s
    while True:
        living = _marked(run)
        for one in living:
            with contextlib.suppress(psutil.Error):
                one.kill()
        # In this order: what loses its keeper by that becomes an orphan.
        if not _end_orphans() and not living:
            return True
        if time.monotonic() >= deadline:
            return False
        time.sleep(_BRIEF_S)


def _marked(run: UUID) -> list[psutil.Process]:
    mark = str(run)
    found = []
    for one in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if one.environ().get(MARK) == mark and one.status() != psutil.STATUS_ZOMBIE:
                # A keeper that was stopped has not ended what shed the mark below it.
                found += [one, *one.children(recursive=True)]
    return found


def _end_orphans() -> bool:
    """Kill what has lost its keeper and become ours, with all that it started; whether there was any.

    One that had ended counts too: it may have been the parent of another that is not ours yet.
    """
    if not _adopts_orphans.is_set():
        return False
    found = False
    with starting:
        for keeper in list(keepers):
            if keeper.poll() is not None:
                keepers.discard(keeper)
        ours = {keeper.pid for keeper in keepers}
        for child in psutil.Process().children():
            with contextlib.suppress(OSError, psutil.Error):
                # Nobody can enter a session from outside: what is in ours, we have started.
                if child.pid in ours or os.getsid(child.pid) == os.getsid(0):
                    continue
                _kill_with_group(child)
                if os.waitpid(child.pid, os.WNOHANG) != (0, 0):
                    _first_seen.pop(child, None)
                    found = True
                else:
                    found |= not _is_unkillable(child)
    return found


def _kill_with_group(orphan: psutil.Process) -> None:
    # At once with its group: one that goes on forking is faster than a list of pids.
    os.killpg(os.getpgid(orphan.pid), signal.SIGKILL)
    for one in orphan.children(recursive=True):
        with contextlib.suppress(psutil.Error):
            one.kill()


def _is_unkillable(orphan: psutil.Process) -> bool:
    now = time.monotonic()
    if now - _first_seen.setdefault(orphan, now) < _UNKILLABLE_AFTER_S:
        return False
    log.error("runtime.orphan_remains", pid=orphan.pid)
    return True
