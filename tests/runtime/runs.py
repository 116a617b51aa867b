"""Jobs with real processes, supervised in threads of the test."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from threading import Event, Thread
from typing import Any
from uuid import UUID

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from app.context import Context
from app.db import session_scope
from app.lifecycle import JobStatus
from app.models import Job, JobLog, Workspace
from app.runtime.jobs import supervisor
from app.runtime.lease import Runner
from app.runtime.processes.leaked_processes import kill_leaked_processes, processes_of
from app.runtime.processes.workdir import WorkDirectory
from tests.factories import make_fileset, make_job, make_workspace
from tests.support.deadlines import DEADLINE_S

QUICK: dict[str, Any] = {"runtime_poll_seconds": 0.05, "stop_grace_seconds": 0.5, "runtime_lease_seconds": 5}

STUBBORN = (
    "trap '' TERM; (trap '' TERM; setsid sh -c 'trap \"\" TERM; while :; do sleep 0.1; done') & echo ready; "
)
"""A shell that ignores SIGTERM, with a grandchild in a session of its own that does so too."""


def tuned(context: Context, **settings: Any) -> Context:
    """The context with other settings."""
    return replace(context, settings=context.settings.model_copy(update=settings))


def dead_runner(context: Context) -> str:
    """The name of a runner that has died here."""
    _, _, born = Runner.of_this_process(context.settings).name.partition("@")
    return f"999999999@{born}"


def step(script: str, name: str = "main", **more: Any) -> dict[str, Any]:
    """A step that is a shell script."""
    return {"name": name, "executor": {"provider": "subprocess", "command": ["sh", "-c", script]}, **more}


def submit(
    session: Session, *steps: dict[str, Any], workspace: Workspace | None = None, **values: Any
) -> UUID:
    """A job that waits for the runtime, with its fileset; its id."""
    workspace = workspace or make_workspace(session)
    job = make_job(session, workspace, platform_spec={"steps": list(steps)}, **values)
    make_fileset(session, workspace, job.fileset)
    session.commit()
    return job.id


@dataclass
class Run:
    """One supervisor of a job, in a thread."""

    context: Context
    job_id: UUID
    stopping: Event = field(default_factory=Event)
    draining: Event = field(default_factory=Event)
    summary: str | None = None

    def start(self) -> "Run":
        self._thread = Thread(target=self._supervise)
        self._thread.start()
        return self

    def _supervise(self) -> None:
        self.summary = supervisor.supervise(
            self.context, self.job_id, stopping=self.stopping, draining=self.draining
        )

    def end(self, *, timeout_s: float = DEADLINE_S) -> Job:
        """The job, once its supervisor has returned."""
        self._thread.join(timeout_s)
        assert not self._thread.is_alive(), f"{self.job.status}, log: {self.log}"
        return self.job

    @property
    def job(self) -> Job:
        with session_scope(self.context.sessions) as session:
            return session.get_one(Job, self.job_id)

    @property
    def log(self) -> list[str]:
        query = select(JobLog.message).where(JobLog.job_id == self.job_id).order_by(JobLog.id)
        with session_scope(self.context.sessions) as session:
            return list(session.scalars(query))

    def ask(self, status: JobStatus) -> None:
        """What a request does to the row."""
        with session_scope(self.context.sessions) as session:
            session.execute(update(Job).where(Job.id == self.job_id).values(status=status))

    def wait_for(self, status: JobStatus) -> None:
        wait_until(lambda: self.job.status is status, f"{status}, not {self.job.status}")

    def wait_for_line(self, line: str) -> None:
        wait_until(lambda: line in self.log, f"{line} in the log")


@contextmanager
def supervised(context: Context, job_id: UUID, **settings: Any) -> Iterator[Run]:
    """A job under a supervisor, which has left nothing behind when the block ends, or the test fails."""
    run = Run(tuned(context, **{**QUICK, **settings}), job_id).start()
    try:
        yield run
    finally:
        run.draining.set()
        run.stopping.set()
        run.end()
        left = processes_of(job_id)
        kill_leaked_processes(job_id, within_s=10)
        assert left == []


def wait_until(condition: Callable[[], Any], what: str, *, timeout_s: float = DEADLINE_S) -> None:
    """Return as soon as it holds; fail after the time-out."""
    started = time.monotonic()
    while not condition():
        waited_s = time.monotonic() - started
        assert waited_s < timeout_s, f"not within {timeout_s:g} s: {what}"
        time.sleep(min(max(0.02, waited_s / 10), 0.2))


def is_all_gone(run: Run) -> bool:
    """No process, no directory, no host on record."""
    return not (
        processes_of(run.job_id)
        or WorkDirectory(run.context.settings, run.job_id).path.exists()
        or run.job.host
    )
