"""Giving up on everything that fails: the decision is one row, however much it is about; workers carry it out."""

import json
from dataclasses import replace

import pytest
from sqlalchemy import func, insert, select, text

from app.cleanup import engine as cleanup_engine
from app.cleanup import failures, lease, operations, remaining
from app.cleanup.kinds import KINDS
from app.cleanup.outcomes import Advanced, Finished
from app.clock import database_now
from app.db import session_scope
from app.lifecycle import DeletionState, FailureClass
from app.models import AuditRecord, Deletion, DeletionEvent, DeletionFailure, Fileset
from tests import factories
from tests.cleanup.conftest import the
from tests.support.actors import trusted
from tests.support.statements import counted

ROOT = trusted("root")


@pytest.fixture
def failed(session, delete):
    """A deletion that is FAILED over so many filesets."""

    def make(number: int) -> Deletion:
        workspace = factories.make_workspace(session, f"ws-{number}")
        ids = session.scalars(
            insert(Fileset).returning(Fileset.id),
            [{"workspace_id": workspace.id, "name": f"fs-{i}"} for i in range(number)],
        ).all()
        session.commit()
        deletion = the(session, delete(workspace.name))
        now = {"first_seen_at": database_now(), "last_seen_at": database_now()}
        failure = {"deletion_id": deletion.id, "kind": "filesets", "name": "fs", "message": "denied"}
        session.execute(
            insert(DeletionFailure).values(**now, **failure, error_class=FailureClass.PERMANENT),
            [{"resource_id": str(one)} for one in ids],
        )
        deletion.state, deletion.reason = DeletionState.FAILED, "denied"
        deletion.started_at, deletion.created_counts = deletion.requested_at, {"filesets": number}
        session.execute(text("UPDATE workspaces SET state = 'FAILED' WHERE id = :id"), {"id": workspace.id})
        session.commit()
        return deletion

    return make


def force(context, deletion):
    with session_scope(context.sessions) as own:
        operations.force(own, context, ROOT, own.get_one(Deletion, deletion.id), reason="ticket 7")


def events_of(session, deletion, name):
    session.rollback()
    query = select(DeletionEvent.actor, DeletionEvent.detail).order_by(DeletionEvent.id)
    found = session.execute(
        query.where(DeletionEvent.deletion_id == deletion.id, DeletionEvent.event == name)
    )
    return [tuple(row) for row in found]


def number_skipped(session, deletion):
    session.rollback()
    return session.scalar(
        select(func.count()).where(
            DeletionFailure.deletion_id == deletion.id, DeletionFailure.skipped_by == "root"
        )
    )


def test_a_force_costs_the_same_whatever_it_is_about(context, failed):
    few, many = failed(2), failed(400)
    engine = context.sessions.kw["bind"]

    with counted(engine) as for_few:
        force(context, few)
    with counted(engine) as for_many:
        force(context, many)

    assert [one.rows for one in for_many] == [one.rows for one in for_few]


def test_what_is_forced_is_skipped_by_workers_and_summed_up(session, context, failed, drive, clock):
    deletion = failed(25)
    force(context, deletion)
    small = replace(context, settings=context.settings.model_copy(update={"chunk_size": 10}))

    outcomes = drive(deletion.id, context=small)

    assert isinstance(outcomes[-1], Finished)
    assert number_skipped(session, deletion) == 25
    assert the(session, deletion.id).deleted_counts == {}
    assert the(session, deletion.id).force is None
    assert events_of(session, deletion, "forced") == [("root", {"reason": "ticket 7"})]
    assert events_of(session, deletion, "skipped") == [
        ("root", {"kind": "filesets", "number": 25, "reason": "ticket 7"})
    ]
    on_record = session.execute(
        select(AuditRecord.event, AuditRecord.actor, AuditRecord.subject, AuditRecord.detail)
        .where(AuditRecord.event.in_(["deletion.forced", "deletion.skipped"]))
        .order_by(AuditRecord.id)
    ).all()
    assert [tuple(line) for line in on_record] == [
        ("deletion.forced", "root", str(deletion.id), {"reason": "ticket 7"}),
        ("deletion.skipped", "root", str(deletion.id), {"reason": "ticket 7", "skipped": {"filesets": 25}}),
    ]


def test_a_worker_that_dies_in_the_middle_leaves_the_rest_to_the_next(session, context, failed, drive, clock):
    deletion = failed(25)
    force(context, deletion)
    with session_scope(context.sessions) as dying:
        claim = lease.claim(dying, owner="dying", lease_s=60, deletion_id=deletion.id)
    for _ in range(2):
        with session_scope(context.sessions) as dying:
            assert operations.carry_out_force(dying, claim, limit=10)
    assert number_skipped(session, deletion) == 20

    clock.pass_(61)
    outcomes = drive(deletion.id)

    assert isinstance(outcomes[-1], Finished)
    assert events_of(session, deletion, "skipped") == [
        ("root", {"kind": "filesets", "number": 25, "reason": "ticket 7"})
    ]


def test_the_rows_of_what_is_retained_go_in_bounded_transactions(session, context, failed, drive, clock):
    deletion = failed(25)
    force(context, deletion)
    small = replace(context, settings=context.settings.model_copy(update={"chunk_size": 10}))

    with counted(context.sessions.kw["bind"]) as sent:
        assert isinstance(drive(deletion.id, context=small)[-1], Finished)

    assert [one.rows for one in sent if one.text.startswith("DELETE FROM filesets")] == [10, 10, 5]
    assert session.scalars(select(Fileset.id)).all() == []


def test_what_is_retained_is_looked_up_by_its_key_before_any_table_is_analysed(session, failed):
    """PostgreSQL believes that there is one failure, and then compares all of them with all rows."""
    deletion = failed(3000)
    failures.skip_chunk(session, deletion.id, actor="root", reason="r", limit=3000)
    query = select(remaining._has_rows(KINDS["filesets"], deletion.workspace_id, deletion.id))

    compiled = query.compile(session.get_bind(), compile_kwargs={"literal_binds": True})
    plan = json.dumps(session.scalar(text(f"EXPLAIN (FORMAT JSON) {compiled}")))

    assert "Join" not in plan
    assert "Nested Loop" not in plan
    assert "resource_id = " in plan
    assert remaining.first_kind(session, deletion.workspace_id, deletion.id) is None


def test_a_force_of_nothing_that_could_be_skipped_changes_nothing(session, context, failed):
    deletion = failed(1)
    failures.forget_all(session, deletion.id)
    session.commit()

    with pytest.raises(operations.NotFound):
        force(context, deletion)

    assert the(session, deletion.id).state is DeletionState.FAILED
    assert events_of(session, deletion, "forced") == []


def test_nothing_is_tried_before_a_force_is_carried_out(session, context, failed, clock, faulty):
    deletion = failed(3)
    force(context, deletion)

    cleanup_engine.run_slice(context, deletion.id, owner="w")

    assert faulty.purged == []


def test_a_force_that_takes_longer_than_a_slice_goes_on_in_the_next(session, context, failed, drive, clock):
    deletion = failed(25)
    force(context, deletion)
    hasty = context.settings.model_copy(update={"chunk_size": 10, "slice_seconds": 0})

    for _ in range(3):
        outcome = cleanup_engine.run_slice(replace(context, settings=hasty), deletion.id, owner="w")
        assert isinstance(outcome, Advanced)

    assert number_skipped(session, deletion) == 25
    assert isinstance(drive(deletion.id)[-1], Finished)
