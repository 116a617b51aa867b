"""What is told of deletions."""

from datetime import timedelta
from uuid import uuid4

import pytest
from sqlalchemy import select, update

from app.cleanup import failures
from app.cleanup.report import report
from app.lifecycle import DeploymentStatus, FailureClass, JobStatus
from app.models import Deletion, DeletionFailure
from tests import factories
from tests.cleanup.conftest import the
from tests.support.aging import age, time_of
from tests.support.statements import counted


def test_a_store_that_is_down_does_not_fill_the_report(session, delete, clock):
    factories.make_workspace(session)
    session.commit()
    deletion = the(session, delete("ml-team"))
    for i in range(150):
        failures.upsert(
            session,
            deletion.id,
            "filesets",
            resource_id=uuid4(),
            name=f"fs-{i:03}",
            error_class=FailureClass.TRANSIENT,
            message="503",
        )

    [shown] = report(session, [deletion])

    assert [one.name for one in shown.failures] == [f"fs-{i:03}" for i in range(100)], (
        "the longest known first"
    )


def test_what_still_runs_is_counted(session, delete):
    workspace = factories.make_workspace(session)
    factories.make_job(session, workspace, "train", JobStatus.ACTIVE, host="gpu-1")
    factories.make_job(session, workspace, "done", JobStatus.COMPLETED)
    for name in ("chat", "embed"):
        factories.make_deployment(session, workspace, name, DeploymentStatus.READY, host="gpu-1")
    session.commit()
    deletion = the(session, delete("ml-team"))

    [shown] = report(session, [deletion])

    assert (shown.running_jobs, shown.running_deployments) == (1, 2)


def test_the_number_of_queries_does_not_grow_with_the_number_of_deletions(session, delete, clock, engine):
    for i in range(6):
        factories.make_workspace(session, f"ws-{i}")
    session.commit()
    for i in range(6):
        delete(f"ws-{i}")
    deletions = session.scalars(select(Deletion)).all()

    with counted(engine) as for_one:
        report(session, deletions[:1])
    with counted(engine) as for_all:
        report(session, deletions)

    assert len(for_all) == len(for_one) > 0


def test_the_expected_end_follows_from_the_speed_so_far(session, delete, clock):
    workspace = factories.make_workspace(session)
    for i in range(30):
        factories.make_project(session, workspace, f"p-{i}")
    session.commit()
    deletion = the(session, delete("ml-team"))
    deletion.started_at = time_of(session) - timedelta(seconds=110)
    deletion.last_progress_at = time_of(session) - timedelta(seconds=10)
    deletion.deleted_counts = {"entities": 100}
    deletion.created_counts = {"entities": 100, "projects": 30}
    session.commit()

    [shown] = report(session, [deletion])
    assert shown.eta_seconds == pytest.approx(20, abs=2)

    etas = [shown.eta_seconds]
    for _ in range(3):  # it waits, and nothing more is deleted
        age(session, deletion, 8)
        etas.append(report(session, [deletion])[0].eta_seconds)
    assert etas == sorted(etas, reverse=True)
    assert etas[-1] == 0


@pytest.fixture
def failing(session, delete, clock):
    """A deletion with thirty filesets that may not be removed, and five that time out."""
    factories.make_workspace(session)
    session.commit()
    deletion = the(session, delete("ml-team"))
    denied = "PermissionError: [Errno 13] Permission denied: '{}/a b/f.txt'"
    for i in range(35):
        fileset = uuid4()
        failures.upsert(
            session,
            deletion.id,
            "filesets",
            resource_id=fileset,
            name=f"fs-{i:03}",
            error_class=FailureClass.PERMANENT if i < 30 else FailureClass.TRANSIENT,
            message=denied.format(fileset) if i < 30 else "TimeoutError: no answer within 10 s",
        )
    session.commit()
    return deletion


def test_failures_are_told_by_what_they_have_in_common(session, failing):
    [shown] = report(session, [failing])

    assert [(one.kind, one.error_class, one.count, one.message) for one in shown.causes] == [
        ("filesets", FailureClass.PERMANENT, 30, "PermissionError: [Errno 13] Permission denied: …"),
        ("filesets", FailureClass.TRANSIENT, 5, "TimeoutError: no answer within 10 s"),
    ]


def test_causes_that_are_all_different_are_not_all_told(session, failing):
    session.execute(update(DeletionFailure).values(cause=DeletionFailure.resource_id))

    [shown] = report(session, [failing])

    assert len(shown.causes) == 10


def test_a_failure_names_the_path_in_full(session, failing):
    [shown] = report(session, [failing])

    assert shown.failures[0].path == "ml-team/fs-000/a b/f.txt"
    assert shown.failures[34].path == "ml-team/fs-034"


def test_what_is_open_is_told_before_what_is_skipped(session, failing):
    some = select(DeletionFailure.resource_id).where(DeletionFailure.name < "fs-020")
    session.execute(
        update(DeletionFailure)
        .where(DeletionFailure.resource_id.in_(some))
        .values(skipped_by="ann", skip_reason="lost")
    )

    [shown] = report(session, [failing], most_failures=20)

    assert [one.name for one in shown.failures[:15]] == [f"fs-{i:03}" for i in range(20, 35)]
    assert [one.skipped_by for one in shown.failures[15:]] == ["ann"] * 5
    assert sum(cause.count for cause in shown.causes) == 15


def test_a_list_holds_few_failures_of_each_deletion_and_pages_hold_all(client, failing):
    deletions = "/apis/entities/v2/deletions"
    [listed] = client.get(deletions).json["data"]
    page = client.get(f"{deletions}/{failing.id}/failures?page_size=20&page=2").json
    timed_out = client.get(f"{deletions}/{failing.id}/failures?error_class=transient&kind=filesets").json

    assert len(listed["failures"]) == 3
    assert sum(cause["count"] for cause in listed["causes"]) == 35
    assert (len(page["data"]), page["pagination"]["total_results"]) == (15, 35)
    assert {one["name"] for one in timed_out["data"]} == {f"fs-{i:03}" for i in range(30, 35)}
    assert client.get(f"{deletions}/{failing.id}/failures?kind=jobs").json["data"] == []
    assert client.get(f"{deletions}/{uuid4()}/failures").status_code == 404
