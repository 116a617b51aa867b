"""Who supervises the processes behind a job or a deployment: one runner at a time, on the host where they are.

As the lease of a cleaner, with one thing more: `host` stays until that host has seen that no process is left.
Whatever the row says otherwise, it must not go before.
"""

import os
import socket
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Self

from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from app import lease
from app.config import Settings
from app.models import Deployment, Job

Row = Job | Deployment

DATABASE_AWAY = (OperationalError, InterfaceError, PoolTimeout)
"""What a supervisor waits out, as long as its lease holds."""


@dataclass(frozen=True)
class Runner:
    """A process that supervises others; `name` tells it from every other one that was ever on its host."""

    host: str
    name: str

    @classmethod
    def of_this_process(cls, settings: Settings) -> Self:
        """The runner that this process is."""
        pid = os.getpid()
        return cls(settings.runtime_host or socket.gethostname(), f"{pid}@{_pid_namespace()}:{_birth(pid)}")

    def has_died(self, name: str) -> bool:
        """Whether the runner of that name, on the same host, is surely gone.

        Of one in another container nobody can tell: then its lease decides.
        """
        pid, _, rest = name.partition("@")
        namespace, _, started = rest.partition(":")
        if not pid.isdigit() or namespace != _pid_namespace():
            return False  # it cannot be looked for here
        try:
            return _birth(int(pid)) != started
        except (FileNotFoundError, ProcessLookupError):
            return True
        except OSError:
            return False


def _pid_namespace() -> str:
    """Which of the kernel's tables of processes this one sees: containers of one host name have each their own."""
    return str(Path("/proc/self/ns/pid").stat().st_ino)


def _birth(pid: int) -> str:
    """When a process was started, as the kernel counts it: the time of day can be set, and it would seem another.

    Raises OSError if there is none.
    """
    ticks = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()}:{ticks}"


def claim(row: Row, runner: Runner, *, now: datetime, lasting: timedelta) -> int | None:
    """Take the lease of a row that the caller has locked FOR UPDATE; the fence, or None if it is not to be had.

    It is free on the host where processes may be alive, and everywhere when none is; and when nobody holds it,
    its holder's time is over, or its holder is dead. Does not commit.
    """
    if row.host not in (None, runner.host) or is_supervised(row, runner, now=now):
        return None
    row.host, row.lease_owner = runner.host, runner.name
    row.lease_until = now + lasting
    row.fence += 1
    return row.fence


def is_supervised(row: Row, runner: Runner, *, now: datetime) -> bool:
    """Whether somebody holds the lease of a row on the host of `runner`, who is not surely dead."""
    is_held = row.lease_until is not None and row.lease_until > now and row.lease_owner is not None
    return is_held and not runner.has_died(row.lease_owner or "")


RELEASED: dict[str, None] = {"host": None, **lease.RELEASED}
"""What a runner writes last, when it has seen that none of its processes is left."""
