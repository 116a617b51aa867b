"""Records end when their retention is over, not before, and only as the owner of the tables has written down."""

from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import func, select, text
from sqlalchemy.orm import Session

from app.clock import database_now
from app.config import Settings
from app.context import Context
from app.db import Base, session_scope
from app.lifecycle import DeletionState
from app.maintenance.retention import prune_records, record_retentions
from app.maintenance.sweep import sweep
from app.models import AuditRecord, Deletion, DeletionEvent, DeletionFailure, DeletionFailureCount
from tests.factories import make_failed_deletion


@pytest.fixture
def settings(settings: Settings) -> Settings:
    kept = {"deletion_retention_days": 100, "audit_retention_days": 30}
    return settings.model_copy(update=kept)


@pytest.fixture
def retained(settings: Settings, context: Context) -> None:
    record_retentions(settings)


def ended(
    session: Session,
    name: str,
    *,
    days: float,
    state: DeletionState = DeletionState.DONE,
    skipped_by: str | None = None,
    events: int = 1,
) -> Deletion:
    """A deletion that ended so many days ago, with a failure and events."""
    deletion = make_failed_deletion(session, name)
    deletion.state = state
    deletion.finished_at = session.scalar(select(database_now() - timedelta(days=days)))
    session.query(DeletionFailure).filter_by(deletion_id=deletion.id).update({"skipped_by": skipped_by})
    for _ in range(events - 1):
        session.add(DeletionEvent(deletion_id=deletion.id, actor="w", event="retried"))
    session.commit()
    return deletion


def audited(session: Session, event: str, *, days: float) -> AuditRecord:
    at = session.scalar(select(database_now() - timedelta(days=days)))
    line = AuditRecord(event=event, actor="ann", at=at)
    session.add(line)
    session.commit()
    return line


def names(session: Session) -> set[str]:
    session.rollback()
    return set(session.scalars(select(Deletion.workspace_name)))


def number(session: Session, model: type[Base], *which: Any) -> int:
    session.rollback()
    return session.scalars(select(func.count()).select_from(model).where(*which)).one()


def pruned(session: Session) -> list[tuple[str | None, int]]:
    session.rollback()
    lines = session.scalars(select(AuditRecord).where(AuditRecord.event == "records.pruned"))
    return [(line.subject, line.detail["number"]) for line in lines]


@pytest.mark.usefixtures("retained")
def test_only_ended_deletions_that_retain_nothing_go_and_their_history_with_them(
    session: Session, context: Context
) -> None:
    old = [
        ended(session, "done", days=102).id,
        ended(session, "called-off", days=102, state=DeletionState.RESTORED).id,
    ]
    ended(session, "retains", days=400, skipped_by="an administrator")
    ended(session, "young", days=98)
    ended(session, "failed", days=400, state=DeletionState.FAILED)
    ended(session, "going-on", days=400, state=DeletionState.DELETING)

    assert sweep(context).failed == []

    assert names(session) == {"retains", "young", "failed", "going-on"}
    for table in (DeletionEvent, DeletionFailure, DeletionFailureCount):
        assert number(session, table, table.deletion_id.in_(old)) == 0
        assert number(session, table) >= 4
    assert pruned(session) == [("deletions", 2)]


@pytest.mark.usefixtures("retained")
def test_a_history_that_is_long_goes_in_chunks_and_the_deletion_last(
    session: Session, context: Context
) -> None:
    ended(session, "retains", days=400, skipped_by="an administrator")
    ended(session, "long", days=300, events=7)
    ended(session, "later", days=200)

    left = []
    for _ in range(5):
        with session_scope(context.sessions) as pruning:
            prune_records(pruning, at_most=3)
        left.append((number(session, DeletionEvent), names(session)))

    assert left == [
        (6, {"retains", "long", "later"}),
        (3, {"retains", "long", "later"}),
        (1, {"retains"}),
        (1, {"retains"}),
        (1, {"retains"}),
    ]


@pytest.mark.usefixtures("retained")
def test_deletions_that_stay_do_not_keep_later_ones_from_going(session: Session, context: Context) -> None:
    for index in range(4):
        ended(session, f"retains-{index}", days=400 - index, skipped_by="an administrator")
    ended(session, "done", days=200)

    for _ in range(3):
        with session_scope(context.sessions) as pruning:
            prune_records(pruning, at_most=2)

    assert names(session) == {f"retains-{index}" for index in range(4)}


@pytest.mark.usefixtures("retained")
def test_old_audit_records_go_and_a_line_says_so(session: Session, context: Context) -> None:
    for days in (33, 32, 31.1):
        audited(session, "workspace.created", days=days)
    young = audited(session, "member.granted", days=28)

    for _ in range(2):
        with session_scope(context.sessions) as pruning:
            prune_records(pruning, at_most=2)

    session.rollback()
    left = session.scalars(select(AuditRecord.id).where(AuditRecord.actor == "ann")).all()
    assert left == [young.id]
    assert pruned(session) == [("audit_records", 2), ("audit_records", 1)]


@pytest.mark.usefixtures("retained")
def test_a_line_that_grows_old_within_the_day_waits_for_its_end(session: Session, context: Context) -> None:
    today = select(func.extract("epoch", database_now() - func.date_trunc("day", database_now(), "UTC")))
    seconds = float(session.scalar(today) or 0)
    audited(session, "workspace.created", days=30 + seconds / 86400 / 2)

    sweep(context)

    assert number(session, AuditRecord, AuditRecord.event == "workspace.created") == 1
    assert pruned(session) == []


def test_by_default_everything_stays(session: Session, context: Context) -> None:
    record_retentions(
        context.settings.model_copy(update={"deletion_retention_days": 0, "audit_retention_days": 0})
    )
    ended(session, "done", days=5000)
    audited(session, "workspace.created", days=5000)

    assert sweep(context).failed == []

    assert names(session) == {"done"}
    assert number(session, AuditRecord) == 1


def test_the_settings_of_the_process_that_asks_change_nothing(session: Session, context: Context) -> None:
    """`context` has a retention, and nobody has written it down."""
    ended(session, "done", days=5000)
    audited(session, "workspace.created", days=5000)

    sweep(context)

    assert names(session) == {"done"}
    assert number(session, AuditRecord) == 1


@pytest.mark.usefixtures("retained")
def test_audit_records_are_append_only_again_after_pruning(session: Session) -> None:
    audited(session, "workspace.created", days=31.1)
    audited(session, "member.granted", days=1)

    assert session.scalar(select(func.prune_audit_log(10))) == 1
    with pytest.raises(Exception, match="audit_records is append-only"):
        session.execute(text("DELETE FROM audit_records"))
