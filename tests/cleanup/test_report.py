"""What is told of deletions."""

from datetime import timedelta
from uuid import uuid4

import pytest
from sqlalchemy import select, text, update

from app.cleanup import failures, lease, ledger
from app.cleanup.report import report
from app.config import Settings
from app.lifecycle import DeletionState, DeploymentStatus, FailureClass, JobStatus
from app.models import Deletion, DeletionFailure
from tests import factories
from tests.cleanup.conftest import the
from tests.support.aging import age, time_of
from tests.support.statements import compact, counted, rows_read


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

    assert len(for_all) == len(for_one) == 2
    assert [one.text for one in for_all] == [one.text for one in for_one]


def test_what_is_not_shown_is_not_read(session, engine):
    failed = factories.make_failed_deletion(session, "ml-team")
    session.refresh(failed)

    with counted(engine) as without:
        [shown] = report(session, [failed], most_failures=0)
    with counted(engine) as none:
        assert report(session, []) == []

    assert not any("deletion_failures" in one.text for one in without)
    assert (len(without), none, shown.failures) == (1, [], [])
    assert [cause.count for cause in shown.causes] == [1]


def test_no_more_failures_are_read_than_are_shown(session, engine):
    many, few = (factories.make_failed_deletion(session, name) for name in ("many", "few"))
    for deletion, number in ((many, 5_000), (few, 5)):
        session.execute(
            text(
                "INSERT INTO deletion_failures (deletion_id, kind, resource_id, name, error_class, message, attempts, "
                "first_seen_at, last_seen_at, skipped_by) SELECT :id, 'entities', n::text, 'e', 'permanent', "
                "'denied', 1, now(), now(), CASE WHEN n % 2 = 0 THEN 'ann' END FROM generate_series(1, :number) AS n"
            ),
            {"id": deletion.id, "number": number},
        )
    session.commit()
    compact(engine, "deletion_failures")

    read = rows_read(engine, lambda: report(session, [many, few], most_failures=10))
    shown = report(session, [many, few], most_failures=10)

    assert read["deletion_failures"] <= 2 * 2 * 10, "open and skipped ones, from where those of each begin"
    assert [[one.skipped_by for one in each.failures] for each in shown] == [
        [None] * 10,
        [None] * 4 + ["ann"] * 2,
    ]


@pytest.fixture
def expects_a_hundred(engine):
    """PostgreSQL expects a hundred failures of a deletion, and to sort them looks as cheap as to read them in order."""

    def alter(change):
        with engine.begin() as connection:
            connection.exec_driver_sql(f"ALTER TABLE deletion_failures ALTER deletion_id {change}")

    alter("SET (n_distinct = -0.01)")
    yield
    alter("RESET (n_distinct)")


@pytest.mark.usefixtures("expects_a_hundred")
def test_no_more_failures_are_read_than_are_shown_whatever_postgresql_expects(session, engine):
    many = "CASE WHEN workspace_name = 'team-1' THEN 20000 ELSE 2 END"
    for statement in (
        "INSERT INTO deletions (id, workspace_id, workspace_name, state, requested_by, requested_at, purge_after, "
        "started_at, has_progressed, attempts, polls, round, next_run_at, created_counts, deleted_counts) "
        "SELECT gen_random_uuid(), gen_random_uuid(), 'team-' || n, 'FAILED', '', now(), now(), now(), false, 0, 0, "
        "0, now(), '{}', '{}' FROM generate_series(1, 1000) AS n",
        "INSERT INTO deletion_failures (deletion_id, kind, resource_id, name, error_class, message, cause, attempts, "
        "first_seen_at, last_seen_at) SELECT id, 'filesets', n::text, 'data', 'permanent', 'denied: ' || n, 'denied', "
        f"1, now(), now() FROM deletions, generate_series(1, {many}) AS n",
        "ANALYZE deletion_failures",
    ):
        session.execute(text(statement))
    session.commit()
    deletion = session.scalars(select(Deletion).where(Deletion.workspace_name == "team-1")).one()

    read = rows_read(engine, lambda: report(session, [deletion], most_failures=100))

    assert read["deletion_failures"] <= 2 * 100


def test_jobs_of_other_workspaces_are_not_those_of_a_deletion(session, delete):
    for name in ("mine", "kept"):
        workspace = factories.make_workspace(session, name)
        factories.make_job(session, workspace, "train", JobStatus.ACTIVE, host="gpu-1")
    over = factories.make_workspace(session, "over")
    factories.make_job(session, over, "train", JobStatus.ACTIVE, host="gpu-1")
    session.commit()
    deletions = [the(session, delete(name)) for name in ("mine", "over")]
    deletions[1].state = DeletionState.DONE
    session.flush()

    assert [one.running_jobs for one in report(session, deletions)] == [1, 0]


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


def test_the_time_in_which_it_was_failed_says_nothing_of_the_speed(session, delete, clock):
    workspace = factories.make_workspace(session)
    for i in range(40):
        factories.make_project(session, workspace, f"p-{i}")
    session.commit()
    deletion = the(session, delete("ml-team"))

    deletion.started_at, deletion.created_counts = time_of(session), {"projects": 40}
    session.commit()

    def delete_chunk(number):
        claim = lease.claim(session, owner="w", lease_s=60, deletion_id=deletion.id)
        ledger.count_deleted(session, claim, "projects", removed=number)
        lease.release(session, claim, cursor=None)
        session.commit()
        session.refresh(deletion)

    age(session, deletion, 9)
    delete_chunk(10)
    claim = lease.claim(session, owner="w", lease_s=60, deletion_id=deletion.id)
    ledger.fail(session, claim, Settings(), reason="no", is_permanent=True, attempts=1)
    session.commit()
    age(session, deletion, 36_000)
    ledger.reopen(session, deletion.id, event="retried", actor="ann")
    session.commit()

    assert report(session, [the(session, deletion.id)])[0].eta_seconds == pytest.approx(27, abs=2)
    age(session, deletion, 9)
    delete_chunk(10)
    assert report(session, [the(session, deletion.id)])[0].eta_seconds == pytest.approx(18, abs=2)


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
