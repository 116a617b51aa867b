"""Applies what requests ask of a job that runs: to pause, and to go on once its host has a job slot for it."""

import time
from threading import Event

from sqlalchemy.orm import Session

from app.context import Context
from app.lifecycle import JobMove, JobStatus
from app.models import Job
from app.runtime.jobs.run_time import RunTime
from app.runtime.jobs.turns import may_go_on, offer_slot
from app.runtime.leased_row import LeasedRow
from app.runtime.processes.process import Process
from app.services import job_steps
from app.services.jobs import move

DRAINING = "runtime"
"""Key in the status details of a job whose worker is being stopped."""

_SLOT_S = 2.0  # Between two questions whether a slot is free.


class Requests:
    """The requests to one attempt, whose `row` and `run_time` change with them.

    They also tell the owner once the worker is `draining`. The end that a request asks for is the attempt's affair.
    """

    def __init__(
        self,
        context: Context,
        row: LeasedRow[Job, JobStatus],
        run_time: RunTime,
        *,
        host: str,
        stopping: Event,
        draining: Event,
    ) -> None:
        self._context, self._settings, self._host = context, context.settings, host
        self._row, self._run_time = row, run_time
        self._stopping, self._draining, self._is_drain_described = stopping, draining, False
        self._next_question = 0.0

    def apply(self, process: Process | None) -> None:
        """Read the row, and pause or resume the job as requested. Raises LeaseLost."""
        status = self._row.refresh()
        if self._draining.is_set() and not (self._is_drain_described or self._stopping.is_set()):
            self._row.write(self._describe_drain)
            self._is_drain_described = True
        if status is JobStatus.PAUSING:
            if process:
                process.pause()
            self._row.write(self._confirm_pause)
            self._run_time.pause()
            offer_slot(self._context, self._host)
        elif status is JobStatus.RESUMING and time.monotonic() >= self._next_question:
            self._next_question = time.monotonic() + _SLOT_S
            if self._row.write(self._go_on):
                self._run_time.resume()
                if process:
                    process.resume()

    def _describe_drain(self, _: Session, job: Job) -> None:
        limit_s = self._settings.runtime_drain_seconds
        message = (
            f"the runtime worker on host '{job.host}' is being stopped; the job may go on for {limit_s:g} s"
        )
        job.status_details = {**job.status_details, DRAINING: message}

    def _confirm_pause(self, session: Session, job: Job) -> None:
        if job.status is JobStatus.PAUSING:  # and not cancelled meanwhile
            move(session, job, JobMove.CONFIRM_PAUSE)
            job_steps.settle_last_step(job, job.status)

    def _go_on(self, session: Session, job: Job) -> bool:
        if job.status is JobStatus.ACTIVE:
            return True  # it was confirmed by a commit of which nobody knew
        if job.status is not JobStatus.RESUMING or not may_go_on(session, self._settings, job):
            return False
        move(session, job, JobMove.CONFIRM_RESUME)
        job_steps.settle_last_step(job, job.status)
        return True
