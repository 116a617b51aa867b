"""How much of the documents of jobs and deployments those read that look after them: hundreds may be due at once."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakSet

import pytest
from sqlalchemy import event, select, update
from sqlalchemy.orm import Session

from app import clock
from app.cleanup.kinds import jobs as job_kind
from app.cleanup.kinds.base import Deleted
from app.clock import seconds_from_now
from app.context import Context
from app.lifecycle import DeploymentStatus, JobStatus
from app.models import Deployment, Job
from app.models.columns import without_documents
from app.runtime.deployments import supervisor as deployments
from app.runtime.hosts.startup import messages_for_hosts
from app.runtime.jobs import supervisor as jobs
from app.runtime.sweep import unsupervised_deployments, unsupervised_jobs
from app.services.hosts.purge import purge_host
from tests.factories import make_deployment, make_job, make_workspace
from tests.support.actors import trusted

NUMBER = 12
LAPSED: dict[str, Any] = {"host": "gone", "lease_owner": "7@1.00", "fence": 3, "lease_until": clock.now()}


@pytest.fixture
def many(session: Session) -> None:
    """Jobs and deployments whose runners are silent."""
    workspace = make_workspace(session)
    for number in range(NUMBER):
        job = make_job(session, workspace, f"job-{number}", JobStatus.ACTIVE)
        deployment = make_deployment(session, workspace, f"deployment-{number}", DeploymentStatus.READY)
        for row in (job, deployment):
            for name, value in LAPSED.items():
                setattr(row, name, value)
    session.commit()
    session.expunge_all()


@contextmanager
def in_memory() -> Iterator[dict[str, int]]:
    """The most rows with their documents that were there at the same time."""
    living: WeakSet[Any] = WeakSet()
    seen = {"most": 0}

    def count(row: Any, _: Any) -> None:
        living.add(row)
        seen["most"] = max(seen["most"], len(living))

    for model in (Job, Deployment):
        event.listen(model, "load", count)
    try:
        yield seen
    finally:
        for model in (Job, Deployment):
            event.remove(model, "load", count)


def lose_all(session: Session) -> int:
    return jobs.mark_lost(session) + deployments.mark_lost(session)


def purge_all(session: Session) -> int:
    purged = purge_host(session, trusted("root"), "gone")
    return purged.jobs + purged.deployments


def find_all(session: Session) -> int:
    return len(messages_for_hosts(session, ["gone"]))


def enqueue_all(session: Session) -> int:
    lose_all(session)
    for model in (Job, Deployment):
        session.execute(update(model).values(updated_at=seconds_from_now(-3600)))
    session.expunge_all()
    return len(unsupervised_jobs(session, requeue_s=1)) + len(unsupervised_deployments(session, requeue_s=1))


@pytest.mark.usefixtures("many")
@pytest.mark.parametrize("work", [lose_all, purge_all, find_all, enqueue_all])
def test_many_rows_are_handled_with_few_in_memory(session: Session, work: Callable[[Session], int]) -> None:
    with in_memory() as seen:
        assert work(session) == 2 * NUMBER

    assert seen["most"] <= 3


def test_the_cascade_removes_a_job_without_reading_its_documents(session: Session, context: Context) -> None:
    job = make_job(session, make_workspace(session), status=JobStatus.COMPLETED, spec={"large": "x" * 1000})
    session.commit()
    statements: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        statements.append(statement)

    engine = context.sessions.kw["bind"]
    event.listen(engine, "before_cursor_execute", note)
    try:
        assert isinstance(job_kind.KIND.delete(context, job), Deleted)
    finally:
        event.remove(engine, "before_cursor_execute", note)

    assert any("FROM jobs" in statement for statement in statements)
    assert not any("spec" in statement or "steps" in statement for statement in statements)


def test_a_row_without_documents_still_has_them_when_they_are_asked_for(session: Session) -> None:
    job = make_job(session, make_workspace(session), spec={"a": 1})
    session.commit()
    session.expunge_all()

    found = session.scalars(select(Job).options(*without_documents(Job))).one()

    assert "spec" not in found.__dict__
    assert (found.id, found.spec) == (job.id, {"a": 1})
