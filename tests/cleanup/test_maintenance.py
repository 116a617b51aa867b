"""What keeps deletions going when a message is lost."""

import os
import re
from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import event, select, text, update
from uuid_utils.compat import uuid7

from app.cleanup import operations
from app.cleanup.outcomes import Failed, Finished
from app.db import session_scope
from app.health.heartbeat import Process, note_alive
from app.lifecycle import DeletionState, DeploymentStatus, JobStatus, WorkspaceState
from app.maintenance import orphan_scan, sweep
from app.models import CleanupControl, Deletion, DeletionEvent, Deployment, MaintenanceStep, Workspace
from app.models.maintenance import Step
from tests import factories
from tests.cleanup.conftest import the
from tests.support.actors import trusted
from tests.support.aging import age_everything, note_sweeps
from tests.support.statements import compact
from workers import celery_app, maintenance_tasks


def failed_deletion(session, context, delete, drive, faulty):
    workspace = factories.make_workspace(session)
    bad = factories.make_fileset(session, workspace, "bad")
    session.commit()
    faulty.faults[bad.id] = OSError("503")
    deletion_id = delete("ml-team")
    assert isinstance(drive(deletion_id)[-1], Failed)
    return deletion_id


def test_the_sweep_enqueues_a_deletion_whose_message_was_lost(session, context, delete, publisher, clock):
    workspace = factories.make_workspace(session)
    factories.make_project(session, workspace)
    session.commit()
    deletion_id = delete("ml-team")
    publisher.published.clear()

    swept = sweep.sweep(context)

    assert swept.enqueued == 1
    [message] = publisher.published
    assert message.task == "workspace.cleanup.projects"
    assert message.facts["deletion_id"] == str(deletion_id)
    assert session.get_one(CleanupControl, 1, populate_existing=True).last_sweep_at is not None


def test_the_sweep_does_not_enqueue_again_while_its_message_is_in_the_queue(session, context, delete, clock):
    factories.make_workspace(session)
    session.commit()
    delete("ml-team")
    sweep.sweep(context)

    clock.pass_(1)
    assert sweep.sweep(context).enqueued == 0
    clock.pass_(15)
    assert sweep.sweep(context).enqueued == 1


def test_one_of_the_messages_of_an_outage_makes_a_sweep(session, context, monkeypatch, clock):
    def swept_at():
        session.rollback()
        return session.get_one(CleanupControl, 1).last_sweep_at

    monkeypatch.setattr(celery_app, "_context", context)
    maintenance_tasks.sweep()
    first = swept_at()
    maintenance_tasks.sweep()
    assert swept_at() == first

    clock.pass_(context.settings.sweep_seconds / 3)
    aged = swept_at()
    maintenance_tasks.sweep()
    assert swept_at() > aged


def test_the_sweep_leaves_alone_what_a_worker_holds_and_takes_what_it_lost(session, context, delete, clock):
    factories.make_workspace(session)
    session.commit()
    deletion_id = delete("ml-team")
    session.execute(update(Deletion).values(lease_owner="w", lease_until=clock.now() + timedelta(seconds=60)))
    session.commit()

    assert sweep.sweep(context).enqueued == 0
    clock.pass_(61)
    assert sweep.sweep(context).enqueued == 1
    assert the(session, deletion_id).lease_owner == "w", "the sweep enqueues; only a claim takes"


def test_a_failed_deletion_is_tried_again_in_rounds_and_then_left_to_a_person(
    session, context, delete, drive, faulty, clock
):
    deletion_id = failed_deletion(session, context, delete, drive, faulty)
    soon_failing = replace(context, settings=context.settings.model_copy(update={"max_attempts": 2}))

    waits = []
    for _ in range(7):
        deletion = the(session, deletion_id)
        assert deletion.next_reattempt_at is not None
        waits.append((deletion.next_reattempt_at - clock.now()).total_seconds())
        clock.pass_(waits[-1] - 60)
        assert sweep.sweep(context).reattempted == 0
        clock.pass_(60)
        assert sweep.sweep(context).reattempted == 1
        assert the(session, deletion_id).state is DeletionState.DELETING
        assert session.scalars(select(Workspace.state).where(Workspace.name == "ml-team")).all() == [
            WorkspaceState.DELETING
        ]
        assert isinstance(drive(deletion_id, context=soon_failing)[-1], Failed)

    assert [round(wait, -2) for wait in waits] == [600, 3600, 21600, 86400, 86400, 86400, 86400]
    assert the(session, deletion_id).next_reattempt_at is None


def test_a_re_attempt_finishes_once_the_cause_is_gone(session, context, delete, drive, faulty, clock):
    deletion_id = failed_deletion(session, context, delete, drive, faulty)
    faulty.faults.clear()
    clock.pass_(601)

    sweep.sweep(context)

    assert isinstance(drive(deletion_id)[-1], Finished)
    events = select(DeletionEvent.actor).where(DeletionEvent.event == "reattempted")
    assert session.scalars(events).all() == ["sweep"]


def test_reopening_leaves_failures_that_are_not_due_alone(session, context, delete, drive, faulty, clock):
    deletion_id = failed_deletion(session, context, delete, drive, faulty)

    clock.pass_(500)

    assert sweep.sweep(context).reattempted == 0
    assert the(session, deletion_id).state is DeletionState.FAILED


def test_the_sweep_removes_a_deployment_that_was_shown_as_deleted_long_enough(session, context, clock):
    factories.make_deployment(session, factories.make_workspace(session), status=DeploymentStatus.DELETED)
    session.commit()

    clock.pass_(10)
    sweep.sweep(context)
    assert session.scalars(select(Deployment.name)).all() == ["chat"]
    clock.pass_(21)
    sweep.sweep(context)

    assert session.scalars(select(Deployment.name)).all() == []


def test_the_orphan_scan_is_content_with_what_belongs_to_somebody(session, context, clock):
    workspace = factories.make_workspace(session)
    factories.fill(session, context.store, workspace)

    assert orphan_scan.scan_for_orphans(context).startswith("no orphans in 1 stored workspaces")


def test_the_orphan_scan_fails_over_bytes_without_a_workspace_and_names_it(session, context, clock):
    gone = uuid7()
    context.store.publish(context.store.stage(gone, uuid7(), "secret.txt", [b"leak"]))

    with pytest.raises(orphan_scan.OrphansFound, match=str(gone)):
        orphan_scan.scan_for_orphans(context)


def test_the_orphan_scan_names_it_also_where_an_upload_cannot_be_collected(
    session, context, clock, monkeypatch
):
    gone = uuid7()
    context.store.publish(context.store.stage(gone, uuid7(), "secret.txt", [b"leak"]))

    def refuse(*_, **__):
        raise PermissionError("held")

    monkeypatch.setattr(context.store, "collect_staged_uploads", refuse)

    with pytest.raises(
        orphan_scan.OrphansFound, match=f"could not be collected: PermissionError: held; .*{gone}"
    ):
        orphan_scan.scan_for_orphans(context)


def test_the_orphan_scan_knows_what_an_administrator_chose_to_leave(
    session, context, delete, drive, faulty, clock
):
    workspace = factories.make_workspace(session)
    bad = factories.make_fileset(session, workspace, "bad", store=faulty.real, files={"x": b"kept"})
    session.commit()
    faulty.faults[bad.id] = PermissionError("no")
    deletion_id = delete("ml-team")
    drive(deletion_id)
    with session_scope(context.sessions) as other:
        operations.force(
            other, context, trusted("root"), other.get_one(Deletion, deletion_id), reason="ticket 7"
        )
    assert isinstance(drive(deletion_id)[-1], Finished)

    assert orphan_scan.scan_for_orphans(context).startswith("no orphans")


def test_the_orphan_scan_collects_uploads_that_were_abandoned(session, context, clock, tmp_path):
    workspace = factories.make_workspace(session)
    session.commit()
    context.store.stage(workspace.id, uuid7(), "a", [b"half"])
    for path in (tmp_path / "blobs").rglob("*"):
        if path.is_file():
            old = (clock.now() - timedelta(days=2)).timestamp()
            os.utime(path, (old, old))
    context.store.stage(workspace.id, uuid7(), "b", [b"fresh"])

    assert orphan_scan.scan_for_orphans(context).endswith("1 abandoned uploads collected")


# --- steps --------------------------------------------------------------------------------------------------


def succeeded(session) -> set[str]:
    session.rollback()
    return set(session.scalars(select(MaintenanceStep.name)))


@pytest.mark.parametrize("broken", Step)
def test_a_step_that_fails_stops_no_other_and_is_named(session, context, client, broken, monkeypatch, caplog):
    def fail(session, _):
        session.execute(text("SELECT 1 / 0"))

    monkeypatch.setitem(sweep._STEPS, broken, fail)

    swept = sweep.sweep(context)

    assert swept.failed == [broken]
    assert str(swept).endswith(f"; failed: {broken}")
    assert succeeded(session) == set(Step) - {broken}
    [line] = [one for one in caplog.records if one.name == "app.maintenance.sweep"]
    assert (line.msg["event"], line.msg["step"], line.exc_info) == ("maintenance.step_failed", broken, None)
    assert "22012" in line.msg["error"]
    checks = client.get("/status").json["controllers"]["status"]
    assert {name for name, is_well in checks.items() if not is_well} == {
        "workspace_cleanup_sweep",
        f"workspace_maintenance_{broken}",
    }
    sample = f'workspaces_maintenance_last_success_timestamp_seconds{{step="{broken}"}} 0.0'
    assert sample in client.get("/metrics").text
    assert session.get_one(CleanupControl, 1).last_sweep_at is None


def test_a_step_that_has_failed_for_a_minute_is_seen(session, context, client, monkeypatch):
    sweep.sweep(context)
    age_everything(session, 60)
    monkeypatch.setitem(sweep._STEPS, Step.ENQUEUE_JOBS, lambda *_: 1 / 0)

    sweep.sweep(context)

    checks = client.get("/status").json["controllers"]["status"]
    assert [name for name, is_well in checks.items() if "maintenance" in name and not is_well] == [
        "workspace_maintenance_enqueue_jobs"
    ]


ENDED = 20_000
"""Of each of jobs, deployments and deletions: enough for a plan that reads them all to lose against an index."""


@pytest.fixture
def many_that_have_ended(session, engine):
    """A few rows that are due, among many that are not."""
    workspace = factories.make_workspace(session)
    factories.make_job(session, workspace, "waiting")
    factories.make_job(session, workspace, "lost", JobStatus.ACTIVE, host="here", lease_owner="7@1.00")
    factories.make_deployment(session, workspace, "waiting")
    session.commit()
    age_everything(session, 60)
    note_sweeps(session, 60)
    note_alive(session, Process.RUNTIME, ["here"], job_slots=5)
    made = {"count": ENDED, "workspace": workspace.id}
    for statement in (
        "INSERT INTO jobs (id, workspace_id, name, attempt_id, source, fileset, status, created_at, created_by,"
        " updated_at, updated_by) SELECT gen_random_uuid(), :workspace, 'job-' || i, gen_random_uuid(), '', '',"
        " 'completed', now(), '', now(), '' FROM generate_series(1, :count) i",
        "INSERT INTO deployments (id, workspace_id, name, entity_version, config, config_version, status,"
        " status_message, created_at, created_by, updated_at, updated_by) SELECT gen_random_uuid(), :workspace,"
        " 'ended-' || i, 1, '', 1, 'ERROR', '', now(), '', now(), '' FROM generate_series(1, :count) i",
        "INSERT INTO deletions (id, workspace_id, workspace_name, state, requested_by, requested_at, purge_after,"
        " has_progressed, attempts, polls, round, next_run_at, created_counts, deleted_counts)"
        " SELECT gen_random_uuid(), gen_random_uuid(), 'gone', 'DONE', '', now(), now(), false, 0, 0, 0, now(), '{}',"
        " '{}' FROM generate_series(1, :count) i",
    ):
        session.execute(text(statement), made)
    session.commit()
    compact(engine, "jobs", "deployments", "deletions")


@pytest.mark.usefixtures("many_that_have_ended")
def test_no_step_reads_what_has_ended(session, context, engine, publisher):
    """A sweep costs what is due, not what exists."""
    publisher.empty_queues.add("runtime.here")
    plans = []

    def explain(_, cursor, statement, parameters, *__):
        if not statement.startswith(("SELECT", "WITH", "UPDATE", "DELETE")):
            return
        with cursor.connection.cursor() as explaining:
            explaining.execute(f"EXPLAIN {statement}", parameters)
            plans.append("\n".join(row[0] for row in explaining.fetchall()))

    bind = context.sessions.kw["bind"]
    event.listen(bind, "before_cursor_execute", explain)
    try:
        swept = sweep.sweep(context)
    finally:
        event.remove(bind, "before_cursor_execute", explain)

    assert not swept.failed
    assert (swept.ended, swept.enqueued) == (1, 2)
    scans = [plan for plan in plans if re.search("Seq Scan on (jobs|deployments|deletions)", plan)]
    assert scans == []
    assert len(plans) > len(Step)
