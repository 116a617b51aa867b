"""One attempt of a job, from the claim of its row to its end. Only this code starts the processes of jobs."""

import time
from threading import Event
from typing import Any

from sqlalchemy.orm import Session

from app.config.profiles import ExecutionProfile
from app.context import Context
from app.errors import DomainError
from app.health.capacity import WAITING
from app.lease import LeaseLost
from app.lifecycle import JobMove, JobStatus
from app.logs import get_logger
from app.models import Job
from app.runtime.jobs.endings import Cancelled, Ending, Failed, stopped_message
from app.runtime.jobs.environment import read_secrets, step_environment
from app.runtime.jobs.log import LogReader
from app.runtime.jobs.log_writer import LogWriter
from app.runtime.jobs.requests import DRAINING, Requests
from app.runtime.jobs.run_time import RunTime
from app.runtime.jobs.step_results import StepResults, describe_kept
from app.runtime.lease import Lease
from app.runtime.leased_row import LeasedRow
from app.runtime.processes.leaked_processes import kill_leaked_processes
from app.runtime.processes.process import Process
from app.runtime.processes.workdir import WorkDirectory
from app.services import job_results, job_steps
from app.services.hosts.rows import release
from app.services.jobs import fail, move

log = get_logger(__name__)

_BRIEF_S = 0.05  # Between two polls of processes that are about to end.
_KILL_S = 5.0  # For processes that get SIGKILL at once.
_DRAIN_S = 5.0  # For the last output to reach the log.


class Attempt:
    """The supervisor of one attempt: runs its steps in order, and applies the state that requests ask for meanwhile.

    Every write is guarded by the fencing token. A supervisor that loses the lease kills what it started and writes
    nothing.
    """

    def __init__(
        self, context: Context, job: Job, workspace: str, held: Lease, *, stopping: Event, draining: Event
    ) -> None:
        self._context, self._settings = context, context.settings
        self._job, self._workspace = job, workspace
        self._stopping = stopping
        self._row = LeasedRow(context, job, job.status, held, stopping=stopping)
        self._log = LogWriter(context, job, held.fence)
        self._directory = WorkDirectory(self._settings, job.id)
        self._results = StepResults(
            context, job, self._row, self._directory, checkpoint=self._checkpoint, stopping=stopping
        )
        self._run_time = RunTime(self._settings)
        self._requests = Requests(
            context, self._row, self._run_time, host=job.host or "", stopping=stopping, draining=draining
        )

    def run(self) -> str:
        """Run the attempt to its end; a summary for the operator. Raises LeaseLost."""
        try:
            ending = self._run_steps()
        except LeaseLost:
            raise
        except Exception as error:
            # The boundary of an attempt: after any error, the job must not seem to run for ever.
            log.exception("job.runner_failed", job_id=str(self._job.id))
            ending = Failed(f"the runner failed: {type(error).__name__}")
        return self._finish(ending)

    def _run_steps(self) -> Ending | None:
        self._directory.make(on_progress=self._row.refresh)
        for step in self._job.platform_spec["steps"]:
            if ending := self._begin(step["name"]) or self._run_step(step):
                return ending
        return None

    def _begin(self, name: str) -> Ending | None:
        """Record that the step has begun, once the job is not paused."""

        def begin(session: Session, job: Job) -> bool:
            if job.status not in (JobStatus.PENDING, JobStatus.ACTIVE):
                return False
            if job.status is JobStatus.PENDING:
                move(session, job, JobMove.START)
            job_steps.begin_step(job, name)
            return True

        while not self._row.write(begin):
            self._requests.apply(None)
            if ending := self._requested_end():
                return ending
            self._stopping.wait(self._settings.runtime_poll_seconds)
        return None

    def _run_step(self, step: dict[str, Any]) -> Ending | None:
        name, profile_name = step["name"], job_steps.profile_of(step["executor"])
        profile = self._settings.profiles.get(profile_name)
        if profile is None:
            return Failed(f"the execution profile '{profile_name}' of step '{name}' does not exist any more")
        self._run_time.start_step()
        try:
            process = self._start(step, profile)
        except DomainError as error:
            return Failed(f"step '{name}' could not be started: {error.message}")
        except (OSError, ValueError) as error:
            return Failed(f"step '{name}' could not be started: {self._directory.message_of(error)}")
        reader = LogReader(self._log, name, process.output)
        try:
            ending, code = self._watch(process, reader, step, profile)
        except BaseException:
            reader.abandon()
            process.kill_and_wait(within_s=_KILL_S)
            raise
        return self._end_step(name, code, ending)

    def _start(self, step: dict[str, Any], profile: ExecutionProfile) -> Process:
        """Start the command of a step. Raises as `Process.start` and `read_secrets` do."""
        grace_s = profile.stop_grace_seconds
        secrets = read_secrets(self._row, self._settings, step)
        environment = step_environment(
            self._directory,
            self._job,
            self._workspace,
            step,
            profile.environment,
            secrets=secrets,
            api_url=self._settings.api_url,
        )
        return Process.start(
            job_steps.command_of(step["executor"]),
            run=self._job.id,
            environment=environment,
            directory=self._directory.path,
            grace_s=self._settings.stop_grace_seconds if grace_s is None else grace_s,
            limits=profile.limits,
        )

    def _watch(
        self, process: Process, reader: LogReader, step: dict[str, Any], profile: ExecutionProfile
    ) -> tuple[Ending | None, int]:
        """Apply requests and limits until every process of the step is gone and its output is in the log."""
        ending: Ending | None = None
        due = 0.0
        while (code := process.poll()) is None:
            if time.monotonic() >= due:
                due = time.monotonic() + self._settings.runtime_poll_seconds
                if ending:
                    self._row.refresh()
                else:
                    self._requests.apply(process)
                    ending = self._requested_end() or self._overrun(reader, step, profile)
                    if ending:
                        process.terminate()
                        process.resume()  # Paused processes do not react to SIGTERM.
            if reader.is_alive():
                reader.join(max(0.0, due - time.monotonic()))
            else:
                # Most processes close their output by ending. One that only closes it must not cost more queries.
                time.sleep(_BRIEF_S)
        deadline = time.monotonic() + _DRAIN_S
        while reader.is_alive():
            self._row.refresh()
            if time.monotonic() > deadline and reader.silence_s:
                reader.abandon()  # Processes of others hold the output open; those of the step are gone.
            reader.join(self._settings.runtime_poll_seconds)
        return ending, code

    def _end_step(self, name: str, code: int, ending: Ending | None) -> Ending | None:
        """Store the results of the step, however it ended, and record that; why the attempt ends, if it does."""
        kept = self._results.store(ending)
        emptying = self._empty_results()

        def record(_: Session, job: Job) -> None:
            folder = job_results.folder_of(job)
            job_results.note(job, {each: f"/{job.fileset}#{folder}/{each}" for each in kept.names})
            job.status_details = describe_kept(job.status_details, kept)
            if code == 0 and not ending:
                job_steps.settle_step(job, name, JobStatus.COMPLETED)

        self._row.write(record)
        return kept.ending_after(name, code) or emptying

    def _empty_results(self) -> Ending | None:
        try:
            self._directory.empty_results(on_progress=self._row.refresh)
        except OSError as error:
            return Failed(f"the results directory cannot be emptied: {self._directory.message_of(error)}")
        return None

    def _finish(self, ending: Ending | None) -> str:
        """Write the final status of the attempt, and that no process of it is left."""
        while not kill_leaked_processes(self._job.id, within_s=_KILL_S):
            self._row.refresh()
            log.error("job.processes_remain", job_id=str(self._job.id))
        self._directory.discard(on_progress=self._row.refresh)

        def settle(session: Session, job: Job) -> bool:
            if job.status is JobStatus.CANCELLING:
                move(session, job, JobMove.CONFIRM_CANCEL)
                job_steps.settle_last_step(job, JobStatus.CANCELLED)
            elif isinstance(ending, Failed):
                fail(session, job, ending.message, **ending.facts)
            elif job.status in (JobStatus.PENDING, JobStatus.ACTIVE):
                move(session, job, JobMove.COMPLETE)
            else:
                return False  # Paused after its last process had ended: completed once it is resumed.
            # What is true of a job that runs.
            job.status_details = {k: v for k, v in job.status_details.items() if k not in (DRAINING, WAITING)}
            release(job)
            return True

        while not self._row.write(settle):
            self._requests.apply(None)
            ending = ending or self._requested_end()
            self._stopping.wait(self._settings.runtime_poll_seconds)
        return (
            f"{self._row.status}: {ending.message}" if isinstance(ending, Failed) else str(self._row.status)
        )

    # --- requests and limits ------------------------------------------------------------------------------

    def _checkpoint(self) -> Ending | None:
        """Called during long work without a process: waits while the job is paused; why it has to end, if it has."""
        while True:
            self._requests.apply(None)
            ending = self._requested_end() or self._job_overrun()
            if ending or self._row.status not in (JobStatus.PAUSED, JobStatus.RESUMING):
                return ending
            self._stopping.wait(self._settings.runtime_poll_seconds)

    def _job_overrun(self) -> Ending | None:
        message = self._run_time.job_overrun()
        return Failed(message) if message else None

    def _requested_end(self) -> Ending | None:
        if self._row.status is JobStatus.CANCELLING:
            return Cancelled()
        return Failed(stopped_message(self._settings)) if self._stopping.is_set() else None

    def _overrun(self, reader: LogReader, step: dict[str, Any], profile: ExecutionProfile) -> Ending | None:
        message = self._run_time.job_overrun() or self._run_time.step_overrun(
            step, profile, silence_s=reader.silence_s
        )
        return Failed(message) if message else None
