"""Messages for jobs without a process or with a lost runner, and the messages that the sweep sends."""

from dataclasses import replace
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from threading import Event
from typing import Any
from unittest.mock import patch
from uuid import UUID

import pytest
from sqlalchemy import func, select, update
from sqlalchemy.orm import Session
from uuid_utils.compat import uuid7

from app import clock
from app.cleanup.kinds.base import Deleted, Pending
from app.cleanup.kinds.jobs import KIND
from app.clock import seconds_from_now
from app.context import Context, open_store
from app.health.heartbeat import Process, note_alive
from app.lifecycle import JOB_TERMINAL, JobStatus, WorkspaceState
from app.maintenance import sweep
from app.models import Fileset, Heartbeat, Job, JobLog
from app.runtime.hosts.startup import messages_for_hosts
from app.runtime.jobs import supervisor
from app.runtime.lease import Runner
from app.runtime.processes.workdir import WorkDirectory
from app.runtime.sweep import unsupervised_jobs
from app.services import job_removal
from app.storage.purge import PartialPurge
from tests.factories import make_fileset, make_job, make_workspace
from tests.runtime.runs import dead_runner, tuned
from tests.support.aging import age
from tests.support.publisher import RecordingPublisher

INTERVAL = timedelta(seconds=15)
LONG_AGO = clock.now() - timedelta(hours=1)
ELSEWHERE = {"host": "elsewhere", "lease_owner": "7@1.00", "fence": 3}
STOPPING = Event()
STOPPING.set()
"""Of a worker that starts nothing any more: the messages of these tests need no process."""


def deliver(context: Context, job_id: UUID) -> str:
    return supervisor.supervise(context, job_id, stopping=STOPPING)


def find(session: Session, job_id: UUID) -> Job | None:
    session.rollback()
    return session.get(Job, job_id, populate_existing=True)


def status_of(session: Session, job_id: UUID) -> JobStatus | None:
    job = find(session, job_id)
    return job.status if job else None


def put(
    session: Session, status: JobStatus, *, state: WorkspaceState = WorkspaceState.ACTIVE, **values: Any
) -> Job:
    job = make_job(session, make_workspace(session, state=state), "train", status, **values)
    session.commit()
    return job


@pytest.mark.parametrize("state", WorkspaceState)
@pytest.mark.parametrize("before", JobStatus)
def test_requests_that_need_no_process_are_confirmed_at_once_in_a_workspace_of_any_state(
    session: Session, context: Context, before: JobStatus, state: WorkspaceState
) -> None:
    job = put(session, before, state=state)

    deliver(context, job.id)
    deliver(context, job.id)

    confirmed = {asked: answer.value.after for asked, answer in supervisor.CONFIRMED.items()}
    assert status_of(session, job.id) is confirmed.get(before, before)


@pytest.mark.parametrize("state", [WorkspaceState.DELETING, WorkspaceState.FAILED])
def test_nothing_is_started_in_a_workspace_that_is_being_deleted(
    session: Session, context: Context, state: WorkspaceState
) -> None:
    job = put(session, JobStatus.CREATED, state=state)

    summary = supervisor.supervise(context, job.id, stopping=Event())

    assert summary == "stays created, its workspace is being deleted"
    assert find(session, job.id).host is None


def test_where_no_process_may_be_started_a_job_ends_with_the_reason(
    session: Session, context: Context
) -> None:
    job = put(session, JobStatus.PENDING)

    supervisor.supervise(tuned(context, subprocess_provider="off"), job.id, stopping=Event())

    ended = find(session, job.id)
    assert (ended.status, ended.host) == (JobStatus.ERROR, None)
    assert "WORKSPACES_SUBPROCESS_PROVIDER is off" in ended.error_details["message"]


def test_where_the_store_is_another_one_a_job_is_left_to_other_hosts(
    context: Context, session: Session, tmp_path: Path
) -> None:
    """Its results would be stored where nobody finds them, and stay when its workspace is deleted."""
    job = put(session, JobStatus.CREATED)
    elsewhere = context.settings.model_copy(update={"data_dir": tmp_path / "elsewhere"})
    context = replace(context, settings=elsewhere, store=open_store(elsewhere, context.sessions))

    summary = supervisor.supervise(context, job.id, stopping=Event())

    assert "stays created: the store has no marker" in summary
    assert status_of(session, job.id) is JobStatus.CREATED
    assert not elsewhere.data_dir.exists()


def test_a_message_for_a_job_that_is_gone_is_harmless(context: Context) -> None:
    assert deliver(context, uuid7()) == "gone, nothing to do"


@pytest.mark.parametrize("before", JobStatus)
def test_another_hosts_job_is_left_to_that_host(
    session: Session, context: Context, before: JobStatus
) -> None:
    job = put(session, before, **ELSEWHERE, lease_until=LONG_AGO)

    assert deliver(context, job.id) == f"{before}, supervised on host 'elsewhere'"

    after = find(session, job.id)
    assert (after.status, after.host, after.fence) == (before, "elsewhere", 3)


@pytest.mark.parametrize("before", sorted(set(JobStatus) - JOB_TERMINAL))
def test_a_job_whose_lease_has_lapsed_is_an_error_and_its_host_stays_on_record(
    session: Session, before: JobStatus
) -> None:
    lost = put(session, before, **ELSEWHERE, lease_until=LONG_AGO, steps=[step(before)])
    workspace = make_workspace(session, "neighbour")
    alive = make_job(session, workspace, "alive", before, **ELSEWHERE, lease_until=clock.now() + INTERVAL)
    session.commit()

    assert supervisor.mark_lost(session) == 1
    session.commit()

    found = find(session, lost.id)
    assert (found.status, found.host, found.lease_owner, found.fence) == (
        JobStatus.ERROR,
        "elsewhere",
        None,
        4,
    )
    assert found.error_details == {"message": f"runner lost: the job was {before} on host 'elsewhere'"}
    assert (found.steps[0]["status"], found.steps[0]["error_details"]) == ("error", found.error_details)
    assert find(session, alive.id).status is before


def step(status: JobStatus) -> dict[str, Any]:
    return {"name": "main", "status": status, "error_details": None, "tasks": []}


@pytest.mark.parametrize("before", JobStatus)
def test_a_host_that_comes_back_sees_that_nothing_is_left_of_its_lost_jobs(
    session: Session, context: Context, before: JobStatus
) -> None:
    runner = Runner.of_this_process(context.settings)
    dead = dead_runner(context)
    job = put(session, before, host=runner.host, lease_owner=dead, lease_until=clock.now() + INTERVAL)
    directory = WorkDirectory(context.settings, job.id)
    directory.make()

    assert [message.queue for message in messages_for_hosts(session, [runner.host])] == [
        f"runtime.{runner.host}"
    ]
    deliver(context, job.id)

    found = find(session, job.id)
    assert found.status is (before if before in JOB_TERMINAL else JobStatus.ERROR)
    assert (found.host, found.lease_owner, found.lease_until) == (None, None, None)
    assert not directory.path.exists()


def test_a_runner_in_another_container_of_the_same_host_name_is_given_the_time_of_its_lease(
    session: Session, context: Context
) -> None:
    runner = Runner.of_this_process(context.settings)
    pid, _, rest = dead_runner(context).partition("@")
    namespace, _, born = rest.partition(":")
    away = {"host": runner.host, "lease_owner": f"{pid}@{int(namespace) + 1}:{born}"}
    job = put(session, JobStatus.ACTIVE, **away, lease_until=clock.now() + INTERVAL)

    assert deliver(context, job.id) == f"active, supervised on host '{runner.host}'"
    age(session, job, INTERVAL.total_seconds())
    assert supervisor.mark_lost(session) == 1
    session.commit()
    deliver(context, job.id)

    found = find(session, job.id)
    assert (found.status, found.host, found.lease_owner) == (JobStatus.ERROR, None, None)


def test_a_job_to_be_deleted_goes_with_its_fileset_bytes_and_log_once_it_has_ended(
    session: Session, context: Context
) -> None:
    job = put(session, JobStatus.CANCELLING, delete_requested_at=clock.now())
    workspace_id = job.workspace_id
    workspace = make_workspace(session, "neighbour")
    other = make_fileset(session, workspace, job.fileset, store=context.store, files={"a": b"1"})
    own = Fileset(workspace_id=workspace_id, name=job.fileset)
    line = {
        "workspace_id": workspace_id,
        "attempt_id": job.attempt_id,
        "step": "main",
        "task": "main",
        "message": "",
    }
    session.add_all([own, *(JobLog(job_id=job_id, **line) for job_id in [job.id] * 5 + [uuid7()])])
    session.commit()
    context.store.publish(context.store.stage(workspace_id, own.id, "log.txt", [b"bytes"]))

    summary = deliver(tuned(context, chunk_size=2), job.id)

    assert summary.endswith("removed, as requested")
    assert status_of(session, job.id) is None
    assert session.scalars(select(Fileset.id)).all() == [other.id]
    assert session.scalar(select(func.count()).select_from(JobLog)) == 1
    assert context.store.files(workspace_id, own.id) == []
    assert len(context.store.files(workspace.id, other.id)) == 1


def test_an_upload_that_comes_between_the_purge_and_the_end_of_the_row_goes_too(
    session: Session, context: Context
) -> None:
    job = put(session, JobStatus.CANCELLING, delete_requested_at=clock.now())
    own = Fileset(workspace_id=job.workspace_id, name=job.fileset)
    session.add(own)
    session.commit()
    workspace_id, fileset_id, purge = job.workspace_id, own.id, context.store.purge_fileset

    def upload_after_the_first(*place: UUID, within_s: float) -> PartialPurge | None:
        unfinished = purge(*place, within_s=within_s)
        if purged.call_count == 1:
            context.store.publish(context.store.stage(*place, "late.txt", [b"bytes"]))
        return unfinished

    with patch.object(context.store, "purge_fileset", side_effect=upload_after_the_first) as purged:
        deliver(context, job.id)

    assert status_of(session, job.id) is None
    assert context.store.files(workspace_id, fileset_id) == []


def test_a_job_to_be_deleted_stays_while_processes_of_it_may_be_alive_on_a_host(
    session: Session, context: Context
) -> None:
    job = put(session, JobStatus.ERROR, delete_requested_at=clock.now(), host="elsewhere")

    assert not job_removal.remove_ended(context, job.id)

    assert status_of(session, job.id) is JobStatus.ERROR


@pytest.mark.parametrize("status", sorted(JOB_TERMINAL))
def test_the_cascade_waits_for_the_host_of_a_job_that_has_ended_but_may_have_left_processes(
    session: Session, context: Context, publisher: RecordingPublisher, status: JobStatus
) -> None:
    job = put(session, status, state=WorkspaceState.DELETING, host="elsewhere")

    outcome = KIND.delete(context, job)

    waiting_for = f"{status}: waiting for host 'elsewhere' to confirm that its processes are gone"
    assert outcome == Pending(waiting_for)
    assert publisher.published == []
    due = unsupervised_jobs(session, requeue_s=0)
    assert [(one.facts["job_id"], one.queue) for one in due] == [(str(job.id), "runtime.elsewhere")]

    session.execute(update(Job).values(host=None))
    session.commit()
    assert KIND.delete(context, job) == Deleted()


def test_the_cascade_enqueues_a_job_that_it_stops_once_however_often_it_looks(
    session: Session, context: Context, publisher: RecordingPublisher
) -> None:
    """Ten thousand jobs that wait for a busy host would otherwise be ten thousand messages at every poll."""
    job = put(session, JobStatus.ACTIVE, state=WorkspaceState.DELETING, host="elsewhere")

    outcomes = [KIND.delete(context, job) for _ in range(3)]

    assert {type(outcome) for outcome in outcomes} == {Pending}
    assert [one.queue for one in publisher.published] == ["runtime.elsewhere"]


def test_a_job_whose_bytes_cannot_be_deleted_stays_and_goes_with_the_next_message(
    session: Session, context: Context
) -> None:
    job = put(session, JobStatus.CANCELLED, delete_requested_at=clock.now())
    fileset = Fileset(workspace_id=job.workspace_id, name=job.fileset)
    session.add(fileset)
    session.commit()
    context.store.publish(context.store.stage(job.workspace_id, fileset.id, "log.txt", [b"bytes"]))
    blobs = context.settings.data_dir / "blobs"
    blobs.rename(blobs.with_name("elsewhere"))
    blobs.write_text("not a directory")

    with pytest.raises(OSError, match=r".+"):
        deliver(context, job.id)
    assert status_of(session, job.id) is JobStatus.CANCELLED

    blobs.unlink()
    blobs.with_name("elsewhere").rename(blobs)
    deliver(context, job.id)
    assert status_of(session, job.id) is None


def test_a_job_to_be_deleted_is_left_to_the_cascade_once_its_workspace_is_being_deleted(
    session: Session, context: Context
) -> None:
    job = put(session, JobStatus.CANCELLING, state=WorkspaceState.DELETING, delete_requested_at=clock.now())

    deliver(context, job.id)

    assert status_of(session, job.id) is JobStatus.CANCELLED


@pytest.mark.parametrize("state", WorkspaceState)
@pytest.mark.parametrize("status", JobStatus)
@pytest.mark.parametrize("delete_requested_at", [None, clock.now()], ids=["kept", "to-be-deleted"])
def test_the_sweep_sends_messages_for_exactly_the_jobs_that_need_one(
    session: Session, state: WorkspaceState, status: JobStatus, delete_requested_at: Any
) -> None:
    job = put(session, status, state=state, delete_requested_at=delete_requested_at, updated_at=LONG_AGO)
    is_active = state is WorkspaceState.ACTIVE
    expected = status in supervisor.CONFIRMED or (
        is_active and status in JOB_TERMINAL and delete_requested_at is not None
    )

    messages = unsupervised_jobs(session, requeue_s=INTERVAL.total_seconds())

    assert [(one.facts["job_id"], one.queue) for one in messages] == ([(str(job.id), "runtime")] * expected)


@pytest.mark.parametrize("state", WorkspaceState)
@pytest.mark.parametrize("status", JobStatus)
def test_the_sweep_sends_messages_to_the_host_where_processes_may_be_alive_unless_they_are_supervised(
    session: Session, state: WorkspaceState, status: JobStatus
) -> None:
    workspace = make_workspace(session, state=state)
    make_job(session, workspace, "left", status, host="elsewhere", updated_at=LONG_AGO)
    supervised = {**ELSEWHERE, "lease_until": clock.now() + INTERVAL}
    make_job(session, workspace, "supervised", status, **supervised, updated_at=LONG_AGO)

    messages = unsupervised_jobs(session, requeue_s=INTERVAL.total_seconds())

    assert [(one.facts["job"], one.queue) for one in messages] == [("left", "runtime.elsewhere")]


@pytest.mark.parametrize(("silent_s", "is_enqueued"), [(0, True), (60, True), (3700, False)])
def test_the_sweep_sends_no_messages_to_a_host_that_has_been_silent_for_long(
    session: Session, silent_s: float, is_enqueued: bool
) -> None:
    note_alive(session, Process.RUNTIME, ["elsewhere"])
    session.execute(update(Heartbeat).values(heartbeat_at=seconds_from_now(-silent_s)))
    make_job(
        session, make_workspace(session), "left", JobStatus.CANCELLING, host="elsewhere", updated_at=LONG_AGO
    )

    messages = unsupervised_jobs(session, requeue_s=INTERVAL.total_seconds())

    assert [one.queue for one in messages] == ["runtime.elsewhere"] * is_enqueued


def test_the_sweep_leaves_recent_jobs_alone_and_names_the_longest_waiting_first(session: Session) -> None:
    workspace = make_workspace(session)
    for name, minutes in (("fresh", 0), ("late", 5), ("later", 9)):
        since = clock.now() - timedelta(minutes=minutes)
        make_job(session, workspace, name, JobStatus.PAUSING, updated_at=since)

    messages = unsupervised_jobs(session, requeue_s=INTERVAL.total_seconds())

    assert [message.facts["job"] for message in messages] == ["later", "late"]


@pytest.mark.parametrize("waited_h", [0.1, 5])
def test_of_an_emptied_queue_no_job_waits_longer_because_it_has_waited_long(
    session: Session, context: Context, publisher: RecordingPublisher, waited_h: float
) -> None:
    job = put(session, JobStatus.PAUSING)
    age(session, job, waited_h * 3600)
    sweep.sweep(context)
    [message] = publisher.published
    interval = context.settings.requeue_after_seconds

    age(session, job, interval - 2)
    publisher.empty_queues.add("runtime")
    sweep.sweep(context)
    assert publisher.published == [message], "a worker may have taken it just now"

    publisher.empty_queues.clear()
    age(session, job, 4)
    sweep.sweep(context)
    assert publisher.published == [message], "it is still queued"

    publisher.empty_queues.add("runtime")
    sweep.sweep(context)
    assert publisher.published == [message, message]


def test_the_sweep_sends_messages_less_often_the_longer_a_job_has_waited(session: Session) -> None:
    """All runtime workers may be busy for days, and the queue keeps every message."""
    job = put(session, JobStatus.PAUSING)
    ticks = [timedelta(seconds=20 * tick) for tick in range(15)] + [
        timedelta(minutes=m) for m in range(5, 12 * 60, 4)
    ]

    last_enqueued_at = []
    for before, tick in pairwise([timedelta(), *ticks]):
        age(session, job, (tick - before).total_seconds())
        if unsupervised_jobs(session, requeue_s=INTERVAL.total_seconds()):
            last_enqueued_at.append(tick)

    assert last_enqueued_at[0] <= timedelta(seconds=40)
    assert all(
        later - earlier <= timedelta(hours=1, minutes=4) for earlier, later in pairwise(last_enqueued_at)
    )
    assert len(last_enqueued_at) < 40
