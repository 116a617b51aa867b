"""What FAILED deletions have in common: every one of them is in a group, and only they are read."""

from datetime import timedelta
from uuid import UUID

import pytest
from sqlalchemy import Engine, select, text
from sqlalchemy.orm import Session

from app.cleanup import bulk, failures
from app.cleanup.bulk import Selection
from app.cleanup.report.causes import FailedCause, failed_causes
from app.context import Context
from app.db import read_scope
from app.lifecycle import DeletionState, FailureClass
from app.models import Deletion
from tests.factories import make_failed_deletion
from tests.support.aging import time_of
from tests.support.statements import compact, nodes, noted, rows_read

PERMANENT, TRANSIENT = FailureClass.PERMANENT, FailureClass.TRANSIENT


def fails(
    session: Session, deletion: Deletion, cause: str, *, kind: str = "filesets", number: int = 1
) -> None:
    """Let more resources of a deletion fail, each with its id in the message."""
    for one in range(number):
        failures.upsert(
            session,
            deletion.id,
            kind,
            resource_id=UUID(int=one),
            name=f"r-{one}",
            error_class=TRANSIENT,
            message=f"{cause} ({UUID(int=one)}/x)",
        )


def in_short(found: list[FailedCause]) -> list[tuple[object, ...]]:
    return [(one.kind, one.error_class, one.cause, one.deletions, one.resources) for one in found]


def test_deletions_are_grouped_by_what_fails_the_most_frequent_first(session: Session) -> None:
    for name in ("a", "b"):
        fails(session, make_failed_deletion(session, name), "503 of", number=3)
    make_failed_deletion(session, "c", error_class=TRANSIENT)

    assert in_short(failed_causes(session)) == [
        ("filesets", TRANSIENT, "503 of …", 2, 6),
        ("filesets", PERMANENT, "denied", 2, 2),
        ("filesets", TRANSIENT, "denied", 1, 1),
    ]
    assert in_short(failed_causes(session, at_most=1)) == [("filesets", TRANSIENT, "503 of …", 2, 6)]


def test_what_is_skipped_and_what_is_not_failed_is_in_no_group(session: Session) -> None:
    kept = make_failed_deletion(session, "kept")
    fails(session, kept, "lost", number=2)
    failures.skip(session, kept.id, "filesets", str(UUID(int=0)), actor="root", reason="r")
    make_failed_deletion(session, "retried").state = DeletionState.DELETING
    make_failed_deletion(session, "over").state = DeletionState.DONE
    session.flush()

    assert {one.cause: (one.deletions, one.resources) for one in failed_causes(session)} == {
        "denied": (1, 1),
        "lost …": (1, 1),
    }


@pytest.mark.parametrize("reason", ["filesets; no progress in 8 passes", None])
def test_a_deletion_without_a_failure_is_in_a_group_of_its_reason(
    session: Session, reason: str | None
) -> None:
    for name in ("odd", "odder"):
        odd = make_failed_deletion(session, name)
        odd.reason = reason
        failures.skip_chunk(session, odd.id, actor="root", reason="r", limit=9)
    make_failed_deletion(session, "plain").reason = reason
    session.flush()

    assert in_short(failed_causes(session)) == [
        (None, None, reason or "", 2, 0),
        ("filesets", PERMANENT, "denied", 1, 1),
    ]
    assert bulk.matching(session, Selection(time_of(session), cause=reason or "")).now == 2


def test_a_group_says_since_when_its_oldest_deletion_is_failed(session: Session) -> None:
    first, second = make_failed_deletion(session, "first"), make_failed_deletion(session, "second")
    session.flush()
    at = dict(session.execute(select(Deletion.id, Deletion.failed_at)).all())
    between = at[second.id] - timedelta(microseconds=1)

    [both] = failed_causes(session)
    [seen] = failed_causes(session, as_of=between)
    first.failed_at = time_of(session)
    session.flush()
    [anew] = failed_causes(session)

    assert (both.oldest_failed_at, both.deletions) == (at[first.id], 2)
    assert (seen.oldest_failed_at, seen.deletions) == (at[first.id], 1)
    assert (anew.oldest_failed_at, anew.deletions) == (at[second.id], 2)
    assert failed_causes(session, as_of=between) == []


def test_each_group_is_the_selection_of_its_kind_class_and_cause(session: Session) -> None:
    fails(session, make_failed_deletion(session, "a"), "503 of", number=3)
    fails(session, make_failed_deletion(session, "b"), "503 of", kind="jobs")
    odd = make_failed_deletion(session, "odd")
    failures.skip_chunk(session, odd.id, actor="root", reason="r", limit=9)
    as_of = time_of(session)

    for one in failed_causes(session):
        selection = Selection(as_of, one.kind, one.error_class, one.cause)
        assert bulk.matching(session, selection) == bulk.Matching(one.deletions, one.deletions)
    assert bulk.matching(session, Selection(as_of)) == bulk.Matching(3, 3)


FAILED, DONE = 1_000, 20_000
FILLED = f"""
INSERT INTO deletions (id, workspace_id, workspace_name, state, requested_by, requested_at, purge_after, started_at,
    phase, reason, failed_at, has_progressed, attempts, polls, round, next_run_at, created_counts, deleted_counts,
    fence)
SELECT gen_random_uuid(), gen_random_uuid(), 'team-' || n, CASE WHEN n <= {FAILED} THEN 'FAILED' ELSE 'DONE' END,
    'ann', now() - n * interval '1 min', now(), now(), 'filesets', 'denied', now(), false, 0, 0, 0, now(), '{{}}',
    '{{}}', 7
FROM generate_series(1, {FAILED + DONE}) AS n;

INSERT INTO deletion_events (deletion_id, at, actor, event, detail)
SELECT id, now(), 'w', event, '{{}}' FROM deletions, unnest(ARRAY['requested', 'started', 'failed']) AS event;

INSERT INTO deletion_failures (deletion_id, kind, resource_id, name, error_class, message, attempts, first_seen_at,
    last_seen_at, skipped_by)
SELECT id, 'filesets', '7', 'data', 'permanent', 'denied ' || length(workspace_name), 1, now(), now(),
    CASE WHEN state = 'DONE' THEN 'root' END
FROM deletions
"""
LARGE = ("deletions", "deletion_events", "deletion_failures", "deletion_failure_counts")


def test_only_what_is_failed_is_read(database: Engine, session: Session, context: Context) -> None:
    for statement in FILLED.split(";\n"):
        session.execute(text(statement))
    session.commit()
    compact(database, *LARGE)
    as_of = time_of(session)
    session.rollback()

    def look() -> None:
        with read_scope(context.sessions) as reader:
            assert sum(one.deletions for one in failed_causes(reader, as_of=as_of)) == FAILED
            one = Selection(as_of, "filesets", PERMANENT, "denied 7")
            assert bulk.matching(reader, one) == bulk.Matching(90, 90)

    read = rows_read(context.sessions.kw["bind"], look)
    with noted(context.sessions.kw["bind"]) as sent:
        look()

    # Two statements. Of each deletion its row and its count; nothing of a DONE one, and no event.
    assert max(read.values()) <= 2 * FAILED + 90, read
    assert not read["deletion_events"]
    with database.connect() as connection:
        for statement, parameters in sent:
            explained = connection.exec_driver_sql(f"EXPLAIN (FORMAT JSON) {statement}", parameters).scalar()
            scanned = {
                one.get("Relation Name")
                for one in nodes(explained[0]["Plan"])
                if one["Node Type"] == "Seq Scan"
            }
            assert scanned.isdisjoint(LARGE), statement
