"""Keeps what a step left as results, also if the job has to end, and waits for a store that does not take them."""

import errno
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from threading import Event
from typing import Any, BinaryIO

from sqlalchemy.orm import Session

from app.context import Context
from app.health.capacity import WAITING
from app.lifecycle import JobStatus
from app.logs import explain, get_logger
from app.models import Job
from app.runtime.jobs.endings import Ending, Failed
from app.runtime.jobs.result_files import NotStored, ResultFile, ResultFiles
from app.runtime.jobs.results import ResultUploader, Unstorable
from app.runtime.lease import DATABASE_AWAY
from app.runtime.leased_row import LeasedRow
from app.runtime.processes.workdir import WorkDirectory
from app.services.job_results import MOST_RESULTS, folder_of
from app.storage.tree import told_to_clients

log = get_logger(__name__)

_CHUNK = 1024 * 1024
_MOST_NAMED = 50  # They are part of the job's row.
_PROGRESS_S = 0.1
_CHECK_S = 1.0  # Between two looks whether a cancelled job is to be deleted as well.
_OF_A_PATH = frozenset({errno.EISDIR, errno.ENOTDIR, errno.ENAMETOOLONG, errno.EFBIG})

NOT_STORED = "results_not_stored"
"""Key in the status details of a job."""


class _GaveUp(Exception):
    """The results that are left are not stored; the message says why."""


@dataclass
class Kept:
    """What became of the results of a step."""

    names: list[str] = field(default_factory=list)
    """Names at the top of the results directory of which at least one file was stored."""
    not_stored: dict[str, str] = field(default_factory=dict)
    """What was not, with the reason, by its path below the results directory."""
    ending: Ending | None = None
    """Why the job has to end, if it was to, or came to it meanwhile."""
    lost: str | None = None
    """Why results were lost that could have been stored at another time."""

    def ending_after(self, step: str, code: int) -> Ending | None:
        """Why an attempt ends after the step, which ended with that exit code; None if the next one begins."""
        if self.ending:
            return self.ending
        if self.lost:
            return Failed(f"the results of step '{step}' could not be stored: {self.lost}")
        if code < 0:
            why = " because it wrote a larger file than it may" if code == -signal.SIGXFSZ else ""
            return Failed(f"step '{step}' was ended by signal {-code}{why}", {"exit_code": code})
        return Failed(f"step '{step}' ended with exit code {code}", {"exit_code": code}) if code else None


class StepResults:
    """Stores the results of the steps of one attempt, under the lease of `row`.

    `checkpoint` is called now and then: it applies requests, and returns why the job has to end. From then on, and
    while the store takes nothing, WORKSPACES_JOB_RESULTS_SECONDS are left; when the worker has to stop, the seconds of
    WORKSPACES_STOP_GRACE_SECONDS. A job that is to be deleted keeps nothing.
    """

    def __init__(
        self,
        context: Context,
        job: Job,
        row: LeasedRow[Job, JobStatus],
        directory: WorkDirectory,
        *,
        checkpoint: Callable[[], Ending | None],
        stopping: Event,
    ) -> None:
        self._settings, self._row, self._directory = context.settings, row, directory
        self._uploader, self._folder = ResultUploader(context, job, row), folder_of(job)
        self._checkpoint, self._stopping = checkpoint, stopping
        self._end_by = self._store_by = self._next_check = self._next_progress = 0.0
        self._is_stop_noted = False
        self._message: str | None = None
        self._kept = Kept()

    def store(self, ending: Ending | None) -> Kept:
        """Store what is there; `ending` is why the job has to end, if it has to. Raises LeaseLost."""
        self._kept = kept = Kept(ending=ending)
        self._end_by, self._store_by, self._is_stop_noted = float("inf"), 0.0, False
        if ending:
            self._end_by = time.monotonic() + self._settings.job_results_seconds
        files = ResultFiles(self._directory.path, self._progress, kept.not_stored, folder=self._folder)
        names = self._row.write(lambda _, job: {result["name"] for result in job.results})
        try:
            for name, found in files.each():
                if len(names | {name}) > MOST_RESULTS:
                    files.skip(name, f"a job has at most {MOST_RESULTS} results")
                else:
                    self._store_name(name, found, files)
                    names.update(kept.names)
        except (Unstorable, _GaveUp) as error:
            kept.lost = str(error)
        self._describe_waiting(None)
        return kept

    def _store_name(self, name: str, found: Iterator[ResultFile], files: ResultFiles) -> None:
        is_cleared = False
        for file in found:
            try:
                if not is_cleared:
                    self._try(lambda: self._uploader.clear(f"{self._folder}/{name}", self._progress))
                    is_cleared = True
                self._try(lambda: self._put(file, files))  # noqa: B023 -- called at once
                if name not in self._kept.names[-1:]:
                    self._kept.names.append(name)
            except (NotStored, OSError) as error:
                files.skip(file.path, error)
            except _GaveUp as error:
                files.skip(file.path, str(error))
                raise

    def _put(self, file: ResultFile, files: ResultFiles) -> None:
        try:
            opened = files.open(file, at_most=self._settings.max_upload_bytes)
        except OSError as error:
            raise NotStored(error.strerror or str(error)) from None
        with opened:
            self._uploader.put(f"{self._folder}/{file.path}", self._chunks(opened), size=opened.size)

    def _chunks(self, file: BinaryIO) -> Iterator[bytes]:
        while True:
            try:
                chunk = file.read(_CHUNK)
            except OSError as error:
                raise NotStored(f"it cannot be read: {error.strerror}") from None
            if not chunk:
                return
            self._progress()
            yield chunk

    def _try(self, store: Callable[[], None]) -> None:
        """Repeat what the store refuses until it takes it, or the time is over."""
        while True:
            try:
                store()
            except (OSError, *DATABASE_AWAY) as error:
                if _is_of_the_path(error):
                    raise
                self._wait_for_store(error)
            else:
                self._store_by = 0.0
                self._describe_waiting(None)
                return

    def _wait_for_store(self, error: Exception) -> None:
        limit_s, now = self._settings.job_results_seconds, time.monotonic()
        self._store_by = self._store_by or now + limit_s
        message = told_to_clients(error).message if isinstance(error, OSError) else "The database is away."
        if self._message is None:
            log.warning("job.store_awaited", error=explain(error))
        if now > self._store_by:
            raise _GaveUp(f"{message} It was tried again for {limit_s:g} s.")
        self._describe_waiting(f"its results to be stored: {message} It is tried again for {limit_s:g} s.")
        self._progress(message)
        time.sleep(self._settings.runtime_poll_seconds)  # not `stopping.wait`, which would return at once

    def _describe_waiting(self, message: str | None) -> None:
        """Tell the owner of the job what it waits for."""
        if message == self._message:
            return

        def describe(_: Session, job: Job) -> None:
            others = {key: value for key, value in job.status_details.items() if key != WAITING}
            job.status_details = {**others, **({WAITING: message} if message else {})}

        self._row.write(describe)
        self._message = message

    def _progress(self, why: str = "") -> None:
        """Apply requests. Raises _GaveUp once the time is over that a job has which must end."""
        kept, now = self._kept, time.monotonic()
        if now < self._next_progress and not why:
            return  # called for each file, and each time it asks the database
        self._next_progress = now + _PROGRESS_S
        kept.ending = self._checkpoint() or kept.ending
        if kept.ending:
            self._end_by = min(self._end_by, now + self._settings.job_results_seconds)
        if self._stopping.is_set() and not self._is_stop_noted:
            self._is_stop_noted = True
            self._end_by = min(self._end_by, now + self._settings.stop_grace_seconds)
        if now > self._end_by:
            raise _GaveUp(why or "the time was over that a job has for it when it must end")
        if self._row.status is JobStatus.CANCELLING and now > self._next_check:
            self._next_check = now + _CHECK_S
            if self._row.write(lambda _, job: job.delete_requested_at is not None):
                raise _GaveUp("the job is being deleted")


def _is_of_the_path(error: Exception) -> bool:
    """Whether the store refuses one result alone: it is too long, or a file and a directory would share its path."""
    is_conflict = isinstance(error, IsADirectoryError | NotADirectoryError)
    return is_conflict or (isinstance(error, OSError) and error.errno in _OF_A_PATH)


def describe_kept(details: dict[str, Any], kept: Kept) -> dict[str, Any]:
    """The status details of a job with what was not stored of the results of a step; some dozens at most."""
    found = {name[-200:]: why[:300] for name, why in list(kept.not_stored.items())[:_MOST_NAMED]}
    if more := len(kept.not_stored) - len(found):
        found["…"] = f"{more} more"
    if kept.lost:
        found["all others"] = kept.lost
    earlier = dict(list(details.get(NOT_STORED, {}).items())[-_MOST_NAMED:])
    return {**details, NOT_STORED: {**earlier, **found}} if found else details
