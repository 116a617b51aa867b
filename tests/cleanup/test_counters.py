"""What becomes of deletions is counted in the transaction of the change: exactly, and whatever becomes of processes."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, create_engine, func, select, text, update
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool

from app.cleanup import failures, lease, ledger, operations
from app.cleanup.engine import run_slice
from app.cleanup.outcomes import Failed, Finished
from app.context import Context
from app.db import session_scope
from app.health.metrics import counters
from app.health.metrics.counters import BUCKETS, counter_metrics, fold_counters
from app.lease import LeaseLost
from app.lifecycle import DeletionState, FailureClass, JobStatus
from app.maintenance import sweep
from app.models import Deletion, DeletionCounter, DeletionFailure
from app.models.resource_count import FOLDED, Counted
from tests import factories
from tests.cleanup.conftest import the
from tests.runtime.runs import wait_until
from tests.support.actors import trusted
from tests.support.deadlines import DEADLINE_S
from tests.support.statements import NESTED_LOOPS


def counts(session: Session, counted: Counted) -> dict[tuple[str, str], float]:
    """The sums by kind and label."""
    session.rollback()
    kept = DeletionCounter
    sums = select(kept.kind, kept.label, func.sum(kept.value)).where(kept.counted == counted)
    return {
        (kind, label): value for kind, label, value in session.execute(sums.group_by(kept.kind, kept.label))
    }


def exported(session: Session, name: str) -> dict[tuple[str, ...], float]:
    [family] = [one for one in counter_metrics(session) if one.name == name]
    return {tuple(one.labels.values()): one.value for one in family.samples}


def test_what_goes_is_counted_by_kind_and_the_deletion_with_its_time(session, context, delete, drive, clock):
    workspace = factories.make_workspace(session)
    for number in range(3):
        factories.make_fileset(session, workspace, f"fs-{number}")
        factories.make_entity(session, workspace, f"entity-{number}")
    session.commit()
    deletion_id = delete("ml-team")
    clock.pass_(100)

    assert isinstance(drive(deletion_id)[-1], Finished)

    assert counts(session, Counted.RESOURCES) == {("filesets", "deleted"): 3, ("entities", "deleted"): 3}
    assert counts(session, Counted.ENDED) == {("", "done"): 1}
    assert counts(session, Counted.DURATION) == {("", "300"): 1}
    assert counts(session, Counted.DURATION_SUM) == {("", ""): pytest.approx(100, abs=60)}
    ended = exported(session, "workspaces_deletions_finished")
    assert ended == {("done",): 1, ("failed",): 0, ("restored",): 0}


def test_rows_are_counted_chunk_by_chunk(session, context, delete, drive, settings):
    workspace = factories.make_workspace(session)
    for number in range(5):
        factories.make_entity(session, workspace, f"entity-{number}")
    session.commit()
    by_twos = replace(context, settings=settings.model_copy(update={"chunk_size": 2}))

    drive(delete("ml-team"), context=by_twos)

    assert counts(session, Counted.RESOURCES) == {("entities", "deleted"): 5}


@pytest.mark.parametrize(
    ("took_s", "bucket"), [(0, "1"), (1, "1"), (1.5, "5"), (43_200, "43200"), (43_201, "+Inf")]
)
def test_a_time_is_in_the_smallest_bucket_that_holds_it(session, took_s: float, bucket: str) -> None:
    session.add(Deletion(workspace_id=factories.make_workspace(session).id, workspace_name="ml-team"))
    session.flush()
    end = Deletion.purge_after + func.make_interval(0, 0, 0, 0, 0, 0, took_s)
    session.execute(update(Deletion).values(state=DeletionState.DONE, finished_at=end))
    session.commit()

    assert counts(session, Counted.DURATION) == {("", bucket): 1}
    [histogram] = [one for one in counter_metrics(session) if one.type == "histogram"]
    below = {one.labels["le"]: one.value for one in histogram.samples if one.name.endswith("_bucket")}
    assert list(below) == list(BUCKETS)
    assert next(name for name, number in below.items() if number) == bucket
    assert below["+Inf"] == 1


def test_an_end_before_the_grace_period_takes_no_time(session) -> None:
    """As of a deletion that a restored backup has brought back."""
    session.add(Deletion(workspace_id=factories.make_workspace(session).id, workspace_name="ml-team"))
    session.flush()
    before = Deletion.purge_after - func.make_interval(0, 0, 0, 0, 1)
    session.execute(update(Deletion).values(state=DeletionState.DONE, finished_at=before))
    session.commit()

    assert counts(session, Counted.DURATION_SUM) == {("", ""): 0}


def test_each_failing_attempt_is_counted_once_by_class(session, context, delete, drive, faulty, clock):
    workspace = factories.make_workspace(session)
    down, denied = (factories.make_fileset(session, workspace, name) for name in ("down", "denied"))
    session.commit()
    faulty.faults |= {down.id: OSError("503"), denied.id: PermissionError("denied")}

    assert isinstance(drive(delete("ml-team"))[-1], Failed)

    tried = dict(session.execute(select(DeletionFailure.name, DeletionFailure.attempts)).all())
    assert tried["down"] > 1
    assert counts(session, Counted.ATTEMPTS) == {
        ("filesets", "transient"): tried["down"],
        ("filesets", "permanent"): tried["denied"],
    }
    assert counts(session, Counted.ENDED) == {("", "failed"): 1}


def test_to_wait_is_no_attempt(session, context, delete, clock):
    workspace = factories.make_workspace(session)
    factories.make_job(session, workspace, status=JobStatus.ACTIVE, host="gpu-1")
    session.commit()
    deletion_id = delete("ml-team")
    for _ in range(3):
        run_slice(context, deletion_id, owner="w")
        clock.pass_(20)

    assert the(session, deletion_id).polls == 3
    assert counts(session, Counted.ATTEMPTS) == {}


def test_what_an_administrator_skips_is_counted(session, context, delete, drive, faulty, clock):
    workspace = factories.make_workspace(session)
    for name in ("one", "two"):
        faulty.faults[factories.make_fileset(session, workspace, name).id] = PermissionError("denied")
    session.commit()
    deletion_id = delete("ml-team")
    drive(deletion_id)
    with session_scope(context.sessions) as other:
        operations.force(
            other, context, trusted("root"), other.get_one(Deletion, deletion_id), reason="ticket 7"
        )

    assert isinstance(drive(deletion_id)[-1], Finished)

    assert counts(session, Counted.RESOURCES) == {("filesets", "skipped"): 2}
    assert counts(session, Counted.ENDED) == {("", "failed"): 1, ("", "done"): 1}


def test_a_deletion_that_is_called_off_is_counted_as_restored(session, context, delete):
    factories.make_workspace(session)
    session.commit()
    deletion_id = delete("ml-team")
    with session_scope(context.sessions) as other:
        operations.restore(other, context, trusted("root"), other.get_one(Deletion, deletion_id))

    assert counts(session, Counted.ENDED) == {("", "restored"): 1}
    assert counts(session, Counted.DURATION) == counts(session, Counted.DURATION_SUM) == {}


def test_a_worker_that_was_lost_is_counted_and_one_that_has_yielded_is_not(session, context, delete, clock):
    factories.make_workspace(session)
    session.commit()
    deletion_id = delete("ml-team")
    claim = claimed(context, deletion_id, "first")
    with session_scope(context.sessions) as other:
        lease.release(other, claim, cursor=None)
    claimed(context, deletion_id, "second")
    assert counts(session, Counted.WORKER_LOST) == {}

    clock.pass_(context.settings.lease_seconds + 1)
    claimed(context, deletion_id, "third")

    assert counts(session, Counted.WORKER_LOST) == {("", ""): 1}


def claimed(context: Context, deletion_id: Any, owner: str) -> lease.Claim:
    with session_scope(context.sessions) as session:
        claim = lease.claim(session, owner=owner, lease_s=60, deletion_id=deletion_id)
    assert claim is not None
    return claim


def test_a_worker_whose_fencing_token_is_outdated_counts_nothing(session, context, delete, clock):
    workspace = factories.make_workspace(session)
    factories.make_entity(session, workspace)
    session.commit()
    deletion_id = delete("ml-team")
    stale = claimed(context, deletion_id, "paused")
    clock.pass_(context.settings.lease_seconds + 1)
    claimed(context, deletion_id, "next")

    def write() -> None:
        with session_scope(context.sessions) as other:
            ours = {"name": "x", "error_class": FailureClass.TRANSIENT, "message": "late"}
            failures.upsert(other, deletion_id, "entities", resource_id=None, **ours)
            ledger.count_deleted(other, stale, "entities", removed=1)

    with pytest.raises(LeaseLost):
        write()

    assert counts(session, Counted.RESOURCES) == counts(session, Counted.ATTEMPTS) == {}


# --- by whom it is counted ----------------------------------------------------------------------------------


@contextmanager
def connection_of_its_own(url: str) -> Iterator[Connection]:
    engine = create_engine(url, poolclass=NullPool)
    with engine.connect() as connection:
        yield connection
    engine.dispose()


def count_one(connection: Connection) -> int:
    """Count a deletion as ended over a connection, without a commit: the number of its server process."""
    connection.execute(
        text(
            "INSERT INTO deletions (id, workspace_id, workspace_name, state, requested_by, requested_at, purge_after, "
            "has_progressed, attempts, polls, round, next_run_at, created_counts, deleted_counts) VALUES "
            "(gen_random_uuid(), gen_random_uuid(), 'x', 'DELETING', '', now(), now(), false, 0, 0, 0, now(), "
            "'{}', '{}')"
        )
    )
    connection.execute(
        text("UPDATE deletions SET state = 'DONE', finished_at = now() WHERE state = 'DELETING'")
    )
    return int(connection.scalar(text("SELECT pg_backend_pid()")) or 0)


def backends(session: Session) -> set[int]:
    session.rollback()
    return set(session.scalars(select(DeletionCounter.backend)))


def test_two_who_count_the_same_do_not_wait_for_each_other(
    database: Engine, session, database_url: str
) -> None:
    with connection_of_its_own(database_url) as first, connection_of_its_own(database_url) as second:
        count_one(first)
        # Were there one row for both, this would wait for the first to commit.
        second.execute(text(f"SET lock_timeout = '{DEADLINE_S / 5}s'"))
        count_one(second)
        second.commit()
        first.commit()

    assert counts(session, Counted.ENDED) == {("", "done"): 2}


def test_the_numbers_of_connections_that_are_gone_are_kept_in_few_rows(
    database: Engine, session, context, database_url: str
) -> None:
    gone = set()
    for _ in range(2):
        with connection_of_its_own(database_url) as connection:
            gone.add(count_one(connection))
            connection.commit()
    alive = text("SELECT count(*) FROM pg_stat_activity WHERE pid = ANY(:gone)")

    def have_ended() -> bool:
        session.rollback()
        return session.scalar(alive, {"gone": list(gone)}) == 0

    wait_until(have_ended, "the server processes have ended")
    with connection_of_its_own(database_url) as connection:
        living = count_one(connection)
        connection.commit()
        before = counts(session, Counted.ENDED)

        sweep.sweep(context)
        sweep.sweep(context)

        assert backends(session) == {FOLDED, living}
        assert counts(session, Counted.ENDED) == before == {("", "done"): 3}
        count_one(connection)
        connection.commit()
    with session_scope(context.sessions) as other:
        fold_counters(other)
    assert counts(session, Counted.ENDED) == {("", "done"): 4}


@pytest.mark.parametrize("settings", [[], NESTED_LOOPS], ids=["as planned", "nested loops"])
def test_a_bounded_number_of_rows_is_folded_at_once(
    session: Session, monkeypatch: pytest.MonkeyPatch, settings: list[str]
) -> None:
    monkeypatch.setattr(counters, "_FOLDED_AT_ONCE", 2)
    for pid in range(-3, 0):  # no process has such numbers
        session.add(DeletionCounter(backend=pid, counted=Counted.ENDED, kind="", label="done", value=1))
    session.flush()
    for setting in settings:
        session.execute(text(f"SET LOCAL {setting}"))

    for left in (1, 0):
        fold_counters(session)
        rows = session.execute(select(DeletionCounter.backend, DeletionCounter.value)).all()
        assert sorted(value for _, value in rows) == [1] * left + [3 - left]
        assert sum(backend != FOLDED for backend, _ in rows) == left
