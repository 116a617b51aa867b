"""Jobs that ended long ago go with everything that is theirs, as after a DELETE, and no others do."""

import pytest
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.config import Settings
from app.context import Context
from app.lifecycle import JOB_TERMINAL, JobStatus, WorkspaceState
from app.maintenance.sweep import sweep
from app.models import Fileset, Job, JobLog
from app.services import job_removal
from tests.factories import make_fileset, make_job, make_job_log, make_workspace
from tests.runtime.test_jobs import deliver
from tests.support.aging import age
from tests.support.publisher import RecordingPublisher

DAY = 86400


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"job_retention_days": 30})


def jobs(session: Session) -> set[str]:
    session.rollback()
    return set(session.scalars(select(Job.name)))


def requested(session: Session) -> set[str]:
    session.rollback()
    return set(session.scalars(select(Job.name).where(Job.delete_requested_at.is_not(None))))


def test_an_old_job_goes_with_its_log_and_its_own_fileset_alone(
    session: Session, context: Context, publisher: RecordingPublisher
) -> None:
    workspace = make_workspace(session)
    old, young = (make_job(session, workspace, name, JobStatus.COMPLETED) for name in ("old", "young"))
    keeping = make_job(session, workspace, "keeping", JobStatus.ERROR, output_location="shared")
    for job in (old, young, keeping):
        make_job_log(session, job)
    for name in ("job-fileset-old", "job-fileset-young", "shared"):
        make_fileset(session, workspace, name, store=context.store, files={"a": b"1"})
    for job, days in ((old, 31), (keeping, 31), (young, 29)):
        age(session, job, days * DAY)

    sweep(context)
    assert requested(session) == {"old", "keeping"}
    for job in (old, keeping):
        age(session, session.get_one(Job, job.id), 20)
    publisher.published.clear()
    sweep(context)

    assert {message.facts["job_id"] for message in publisher.published} == {str(old.id), str(keeping.id)}
    for job_id in (old.id, keeping.id):
        deliver(context, job_id)
    assert jobs(session) == {"young"}
    assert set(session.scalars(select(Fileset.name))) == {"job-fileset-young", "shared"}
    assert session.scalars(select(JobLog.job_id)).all() == [young.id]


@pytest.mark.parametrize("status", JobStatus)
def test_only_what_has_ended_and_has_no_process_left_goes(
    session: Session, context: Context, status: JobStatus
) -> None:
    here, doomed = make_workspace(session), make_workspace(session, "doomed", state=WorkspaceState.DELETING)
    ended, on_host = make_job(session, here, "a", status), make_job(session, here, "b", status, host="h")
    for job in (ended, on_host, make_job(session, doomed, "c", status)):
        age(session, job, 31 * DAY)

    assert job_removal.expire_ended(session, older_than_s=30 * DAY) == (status in JOB_TERMINAL)
    session.commit()

    assert requested(session) == ({"a"} if status in JOB_TERMINAL else set())


def test_a_sweep_takes_some_at_a_time(
    session: Session, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_removal, "_EXPIRED_AT_ONCE", 2)
    workspace = make_workspace(session)
    for index in range(3):
        age(session, make_job(session, workspace, f"old-{index}", JobStatus.CANCELLED), (40 - index) * DAY)

    assert sweep(context).failed == []

    assert requested(session) == {"old-0", "old-1"}


def test_by_default_jobs_stay(session: Session, context: Context) -> None:
    kept = context.settings.model_copy(update={"job_retention_days": 0})
    object.__setattr__(context, "settings", kept)
    age(session, make_job(session, make_workspace(session), "old", JobStatus.COMPLETED), 9999 * DAY)

    assert sweep(context).failed == []

    assert requested(session) == set()
    assert session.scalar(select(func.count()).select_from(Job)) == 1
