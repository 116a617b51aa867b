"""The row of a job while its runner holds the lease: looked at often, changed under the fence, kept from lapsing."""

import time
from collections.abc import Callable
from datetime import timedelta
from typing import TypeVar

from sqlalchemy import select
from sqlalchemy.orm import Session

from app import clock
from app.context import Context
from app.db import session_scope
from app.lifecycle import JobStatus
from app.models import Job
from app.runtime.lease import DATABASE_AWAY, LeaseLost, renew

_AGAIN_S = 0.2  # Between two attempts to reach a database that is away.

T = TypeVar("T")


class HeldJob:
    """A job under the fence that its claim gave out."""

    def __init__(self, context: Context, job: Job, fence: int) -> None:
        self._context, self._job_id, self._fence = context, job.id, fence
        self._lease_s = context.settings.runtime_lease_seconds
        self._held_until = time.monotonic() + self._lease_s
        self.status: JobStatus = job.status
        """As seen last."""

    def look(self) -> JobStatus:
        """What is asked of the job. Renews the lease when a third of it has passed. Raises LeaseLost."""
        if time.monotonic() > self._held_until - self._lease_s * 2 / 3:
            self.write(lambda _session, _job: None)
            return self.status
        query = select(Job.status).where(
            Job.id == self._job_id, Job.fence == self._fence, Job.runner.is_not(None)
        )
        try:
            with session_scope(self._context.sessions) as session:
                status = session.scalar(query)
        except DATABASE_AWAY:
            return self.status
        if status is None:
            raise LeaseLost
        self.status = status
        return status

    def write(
        self, change: Callable[[Session, Job], T], *, first: Callable[[Session], None] | None = None
    ) -> T:
        """Change the row while the lease holds, and renew that; waits for a database that is away.

        `first` takes the locks that come before the row's. Raises LeaseLost, and then nothing has changed.
        """
        while True:
            now = time.monotonic()
            try:
                with session_scope(self._context.sessions) as session:
                    if first:
                        first(session)
                    until = clock.now() + timedelta(seconds=self._lease_s)
                    renew(session, Job, self._job_id, self._fence, until=until)
                    job = session.get_one(Job, self._job_id, populate_existing=True)
                    outcome = change(session, job)
            except DATABASE_AWAY as error:
                if now > self._held_until:
                    raise LeaseLost from error
                time.sleep(_AGAIN_S)
                continue
            self._held_until = now + self._lease_s
            self.status = job.status
            return outcome
