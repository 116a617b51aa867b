"""How often supervisors ask the database, and that each learns its own row's status all the same."""

import time
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, Event, Lock

import pytest
from sqlalchemy import update
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from app.context import Context
from app.lease import LeaseLost
from app.lifecycle import JobStatus
from app.models import Job
from app.runtime.joint_reads import JointReads
from app.runtime.lease import Lease
from app.runtime.leased_row import LeasedRow
from tests.factories import make_job, make_workspace
from tests.runtime.runs import tuned, wait_until
from tests.support.statements import counted

MANY, POLLS = 40, 5
POLL_S = 0.2


@pytest.fixture
def polling(context: Context) -> Context:
    return tuned(context, runtime_poll_seconds=POLL_S, runtime_lease_seconds=600)


@pytest.fixture
def rows(session: Session, polling: Context) -> list[LeasedRow[Job, JobStatus]]:
    workspace = make_workspace(session)
    jobs = [
        make_job(
            session, workspace, f"job-{number}", JobStatus.ACTIVE, host="here", lease_owner="7@1:2", fence=1
        )
        for number in range(MANY)
    ]
    session.commit()
    return [held(polling, job) for job in jobs]


def held(context: Context, job: Job) -> LeasedRow[Job, JobStatus]:
    lease = Lease(job.fence, time.monotonic() + context.settings.runtime_lease_seconds)
    return LeasedRow(context, job, job.status, lease, stopping=Event())


def test_supervisors_ask_together_however_many_they_are(
    polling: Context, rows: list[LeasedRow[Job, JobStatus]]
) -> None:
    start, at_once = time.monotonic(), Barrier(MANY)

    def poll(row: LeasedRow[Job, JobStatus]) -> None:
        for _ in range(POLLS):
            at_once.wait(60)
            row.refresh()

    with counted(polling.sessions.kw["bind"]) as sent, ThreadPoolExecutor(MANY) as supervisors:
        list(supervisors.map(poll, rows))

    rounds = max(POLLS, (time.monotonic() - start) / POLL_S * 2)  # a read is good for half a poll
    assert 1 <= len(sent) <= rounds + 1
    assert all("FROM jobs" in one.text for one in sent)


def test_each_learns_of_its_own_row(session: Session, rows: list[LeasedRow[Job, JobStatus]]) -> None:
    first, second, third = rows[:3]
    session.execute(update(Job).where(Job.id == first.row_id).values(status=JobStatus.CANCELLING))
    session.execute(update(Job).where(Job.id == second.row_id).values(fence=2))
    session.commit()

    wait_until(lambda: first.refresh() is JobStatus.CANCELLING, "the request")
    with pytest.raises(LeaseLost):
        wait_until(lambda: second.refresh() is None, "the loss")
    assert third.refresh() is JobStatus.ACTIVE


def test_what_was_read_before_a_supervisor_wrote_does_not_count(session: Session, context: Context) -> None:
    """Otherwise it would act once more on a request that it has confirmed."""
    seldom = tuned(context, runtime_poll_seconds=600, runtime_lease_seconds=600)
    workspace, of_here = make_workspace(session), {"host": "here", "lease_owner": "7@1:2"}
    jobs = [make_job(session, workspace, name, JobStatus.ACTIVE, **of_here) for name in ("first", "second")]
    session.commit()
    first, second = (held(seldom, job) for job in jobs)

    def pause(_: Session, job: Job) -> None:
        job.status = JobStatus.PAUSED

    second.refresh()  # reads both
    first.write(pause)

    assert first.refresh() is JobStatus.PAUSED


def test_a_row_that_is_added_is_not_taken_for_lost(
    session: Session, polling: Context, rows: list[LeasedRow[Job, JobStatus]]
) -> None:
    rows[0].refresh()
    added = make_job(session, make_workspace(session, "other"), "late", JobStatus.ACTIVE, lease_owner="7@1:2")
    session.commit()

    assert held(polling, added).refresh() is JobStatus.ACTIVE


class CountingLock:
    """A lock that knows how many have asked for it."""

    def __init__(self) -> None:
        self.asked, self._counting, self._lock = 0, Lock(), Lock()

    def __enter__(self) -> None:
        with self._counting:
            self.asked += 1
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()


def test_all_share_one_attempt_while_the_database_is_away(
    polling: Context, rows: list[LeasedRow[Job, JobStatus]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each would otherwise wait for a time-out of its own, one after another."""
    reads, reading, attempts = JointReads.of(polling.sessions, Job), CountingLock(), []

    def away() -> Session:
        attempts.append(None)
        wait_until(lambda: reading.asked == MANY, "all others wait")
        raise OperationalError("SELECT", {}, Exception("it hangs"))

    monkeypatch.setattr(reads, "_sessions", away)
    monkeypatch.setattr(reads, "_reading", reading)

    with ThreadPoolExecutor(MANY) as supervisors:
        statuses = set(supervisors.map(lambda row: row.refresh(), rows))

    assert statuses == {JobStatus.ACTIVE}
    assert len(attempts) == 1
