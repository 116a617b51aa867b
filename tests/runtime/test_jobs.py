"""What the runtime does with a job, and that doing it twice does no harm."""

from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session
from uuid_utils.compat import uuid7

from app import clock
from app.context import Context
from app.lifecycle import JobStatus, WorkspaceState
from app.models import Fileset, Job
from app.runtime import unfinished
from app.runtime.jobs import CONFIRMED, TAKEN_UP, advance
from tests.factories import make_fileset, make_job, make_workspace


def status_of(session: Session, job_id: UUID) -> JobStatus | None:
    session.rollback()
    return session.scalar(select(Job.status).where(Job.id == job_id))


def put(
    session: Session, status: JobStatus, *, state: WorkspaceState = WorkspaceState.ACTIVE, **values: Any
) -> Job:
    job = make_job(session, make_workspace(session, state=state), "train", status)
    for name, value in values.items():
        setattr(job, name, value)
    session.commit()
    return job


@pytest.mark.parametrize("before", JobStatus)
def test_each_ring_does_the_next_thing_and_a_second_one_nothing(
    session: Session, context: Context, before: JobStatus
) -> None:
    job = put(session, before)
    expected = {**CONFIRMED, **TAKEN_UP}.get(before, before)

    first, second = advance(context, job.id), advance(context, job.id)

    assert status_of(session, job.id) is expected
    assert first.startswith(before)
    assert second == f"{expected}, nothing to do"


@pytest.mark.parametrize("state", [WorkspaceState.DELETING, WorkspaceState.FAILED])
@pytest.mark.parametrize("before", JobStatus)
def test_in_a_workspace_that_is_being_deleted_stops_are_confirmed_and_nothing_is_started(
    session: Session, context: Context, before: JobStatus, state: WorkspaceState
) -> None:
    job = put(session, before, state=state)

    advance(context, job.id)

    assert status_of(session, job.id) is CONFIRMED.get(before, before)


def test_a_ring_for_a_job_that_is_gone_is_harmless(context: Context) -> None:
    assert advance(context, uuid7()) == "gone, nothing to do"


def test_a_job_to_be_deleted_goes_with_its_fileset_and_bytes_once_it_has_ended(
    session: Session, context: Context
) -> None:
    job = put(session, JobStatus.CANCELLING, delete_requested_at=clock.now())
    home = job.workspace_id
    workspace = make_workspace(session, "neighbour")
    other = make_fileset(session, workspace, job.fileset, store=context.store, files={"a": b"1"})
    own = Fileset(workspace_id=home, name=job.fileset)
    session.add(own)
    session.commit()
    context.store.publish(context.store.stage(home, [b"bytes"]), home, own.id, "log.txt")

    told = advance(context, job.id)

    assert told.endswith("removed, as requested")
    assert status_of(session, job.id) is None
    assert session.scalars(select(Fileset.id)).all() == [other.id]
    assert context.store.files(home, own.id) == []
    assert len(context.store.files(workspace.id, other.id)) == 1


def test_a_job_whose_bytes_cannot_be_deleted_stays_and_goes_with_the_next_ring(
    session: Session, context: Context
) -> None:
    job = put(session, JobStatus.CANCELLED, delete_requested_at=clock.now())
    fileset = Fileset(workspace_id=job.workspace_id, name=job.fileset)
    session.add(fileset)
    session.commit()
    staged = context.store.stage(job.workspace_id, [b"bytes"])
    context.store.publish(staged, job.workspace_id, fileset.id, "log.txt")
    blobs = context.settings.data_dir / "blobs"
    blobs.rename(blobs.with_name("elsewhere"))
    blobs.write_text("not a directory")

    with pytest.raises(OSError, match=r".+"):
        advance(context, job.id)
    assert status_of(session, job.id) is JobStatus.CANCELLED

    blobs.unlink()
    blobs.with_name("elsewhere").rename(blobs)
    advance(context, job.id)
    assert status_of(session, job.id) is None


def test_a_job_to_be_deleted_is_left_to_the_cascade_once_its_workspace_is_being_deleted(
    session: Session, context: Context
) -> None:
    job = put(session, JobStatus.CANCELLING, state=WorkspaceState.DELETING, delete_requested_at=clock.now())

    advance(context, job.id)

    assert status_of(session, job.id) is JobStatus.CANCELLED


@pytest.mark.parametrize("state", WorkspaceState)
@pytest.mark.parametrize("status", JobStatus)
@pytest.mark.parametrize("delete_requested_at", [None, clock.now()], ids=["kept", "to-be-deleted"])
def test_the_sweep_is_told_of_exactly_the_jobs_for_which_a_ring_does_something(
    session: Session, context: Context, state: WorkspaceState, status: JobStatus, delete_requested_at: Any
) -> None:
    long_ago = clock.now() - timedelta(hours=1)
    job_id = put(
        session, status, state=state, delete_requested_at=delete_requested_at, updated_at=long_ago
    ).id

    messages = unfinished(session, older_than=clock.now() - timedelta(minutes=1))
    advance(context, job_id)

    does_something = status_of(session, job_id) is not status
    assert [message.facts["job_id"] for message in messages] == ([str(job_id)] if does_something else [])


def test_the_sweep_leaves_recent_jobs_alone_and_names_the_longest_waiting_first(session: Session) -> None:
    home = make_workspace(session)
    for name, minutes in (("fresh", 0), ("late", 5), ("later", 9)):
        make_job(session, home, name).updated_at = clock.now() - timedelta(minutes=minutes)

    messages = unfinished(session, older_than=clock.now() - timedelta(minutes=1))

    assert [message.facts["job"] for message in messages] == ["later", "late"]
