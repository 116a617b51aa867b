"""The lease of a job or a deployment: one runner at a time supervises its processes, on the host where they are.

It works like the lease of a deletion. In addition, `host` stays on record until that host has confirmed that no
process is left; the row must not be deleted before.
"""

import os
import socket
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Self

from sqlalchemy import select
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import Session

from app import lease
from app.clock import seconds_from_now
from app.config import Settings
from app.models import Deployment, Job

Row = Job | Deployment

DATABASE_AWAY = (OperationalError, InterfaceError, PoolTimeout)
"""Errors that a supervisor waits out."""


@dataclass(frozen=True)
class Runner:
    """A process that supervises others. `name` is unique among all processes that were ever on its host."""

    host: str
    name: str

    @classmethod
    def of_this_process(cls, settings: Settings) -> Self:
        """The runner that this process is."""
        pid = os.getpid()
        return cls(settings.runtime_host or socket.gethostname(), f"{pid}@{_pid_namespace()}:{_birth(pid)}")

    def has_died(self, name: str) -> bool:
        """Whether the runner of that name, on the same host, is certainly gone.

        False for a runner in another container, which cannot be seen from here: its lease decides.
        """
        return _lives(name) is False

    def is_alive(self, name: str) -> bool:
        """Whether the runner of that name, on the same host, certainly lives. False if it cannot be seen from here."""
        return _lives(name) is True


def _lives(name: str) -> bool | None:
    """Whether the process of a runner lives; None if it cannot be seen from here."""
    pid, _, rest = name.partition("@")
    namespace, _, started = rest.partition(":")
    if not pid.isdigit() or namespace != _pid_namespace():
        return None
    try:
        return _birth(int(pid)) == started
    except (FileNotFoundError, ProcessLookupError):
        return False
    except OSError:
        return None


def _pid_namespace() -> str:
    """The id of this process's PID namespace: containers with the same host name have one each."""
    return str(Path("/proc/self/ns/pid").stat().st_ino)


def _birth(pid: int) -> str:
    """When a process started, in the kernel's ticks since boot, because the time of day can be set.

    Raises OSError if there is no such process.
    """
    ticks = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()}:{ticks}"


@dataclass(frozen=True)
class Lease:
    """What a claim gives."""

    fence: int
    """The fencing token."""
    until: float
    """A time of `monotonic()`, before which the database does not let the lease lapse."""


def claim(session: Session, row: Row, runner: Runner, *, lease_s: float) -> Lease | None:
    """Take the lease of a row that the caller has locked FOR UPDATE, for `lease_s` seconds; None if it is not free.

    A row with a host can only be claimed on that host, because processes may be alive there. The lease is free when
    nobody holds it, when its owner is dead, or when it has lapsed and its owner cannot be seen from here: one that
    lives takes its lease again after an outage. Does not commit.
    """
    if row.host not in (None, runner.host) or is_supervised(session, row, runner):
        return None
    asked_at = monotonic()
    row.host, row.lease_owner = runner.host, runner.name
    row.lease_until = seconds_from_now(lease_s)
    row.fence += 1
    return Lease(row.fence, asked_at + lease_s)


def is_supervised(session: Session, row: Row, runner: Runner) -> bool:
    """Whether the lease of a row on the host of `runner` is held by one that is not certainly dead.

    The sweep takes the lease from an owner that lives and does not renew it.
    """
    model = type(row)
    owner, is_valid = session.execute(
        select(model.lease_owner, lease.holds(model)).where(model.id == row.id)
    ).one()
    if owner is None:
        return False
    return not runner.has_died(owner) if is_valid else runner.is_alive(owner)
