"""A failure that is over is over: it is judged by the pass that saw it."""

from dataclasses import replace
from itertools import pairwise

import pytest
from psycopg.errors import QueryCanceled
from sqlalchemy import delete as delete_from
from sqlalchemy import select, text
from sqlalchemy.exc import InvalidRequestError, OperationalError

from app.cleanup import failures, operations, remaining
from app.cleanup.engine import run_slice
from app.cleanup.kinds import KINDS
from app.cleanup.outcomes import Failed, Finished, Postponed
from app.db import session_scope
from app.lifecycle import DeletionState, JobStatus
from app.models import Deletion, DeletionFailure, Fileset
from tests import factories
from tests.cleanup.conftest import the
from tests.cleanup.test_engine import settle_runtime
from tests.support.actors import trusted


@pytest.fixture
def hiccup(monkeypatch):
    """Let the next page of a pass exceed the statement time-out, once per entry of the list."""
    pending = []
    page = remaining.page

    def maybe(*arguments, **keywords):
        if pending:
            pending.pop()
            raise OperationalError(
                "SELECT", None, QueryCanceled("canceling statement due to statement timeout")
            )
        return page(*arguments, **keywords)

    monkeypatch.setattr(remaining, "page", maybe)
    return pending


def make_slow_job(session):
    workspace = factories.make_workspace(session)
    factories.make_job(session, workspace, "slow", JobStatus.ACTIVE, host="gpu-1")
    session.commit()


def test_one_statement_time_out_does_not_count_while_a_job_stops(session, context, delete, clock, hiccup):
    make_slow_job(session)
    deletion_id = delete("ml-team")
    run_slice(context, owner="w")
    hiccup.append(True)

    for _ in range(12):
        clock.pass_(60)
        assert isinstance(run_slice(context, owner="w"), Postponed)

    deletion = the(session, deletion_id)
    assert (deletion.state, deletion.attempts) == (DeletionState.DELETING, 1), (
        "only the pass with the time-out"
    )
    open_now = session.scalars(select(DeletionFailure.name)).all()
    assert open_now == ["slow"], "the time-out is still shown"
    settle_runtime(session)
    clock.pass_(60)
    while not isinstance(outcome := run_slice(context, owner="w"), Finished):
        assert not isinstance(outcome, Failed)
        clock.pass_(1)


def test_a_retry_starts_clean(session, context, delete, clock, hiccup):
    make_slow_job(session)
    deletion_id = delete("ml-team")
    hiccup.extend([True] * context.settings.max_attempts)
    while not isinstance(outcome := run_slice(context, owner="w"), Failed):
        assert isinstance(outcome, Postponed)
        clock.pass_(1000)
    assert "jobs/*" in outcome.reason

    with session_scope(context.sessions) as own:
        operations.retry(own, context, trusted("ann"), own.get_one(Deletion, deletion_id))
    for _ in range(10):
        clock.pass_(60)
        outcome = run_slice(context, owner="w")
        assert isinstance(outcome, Postponed)
        assert "jobs/slow" in outcome.reason
    assert the(session, deletion_id).attempts == 0


@pytest.mark.parametrize("kind", ["jobs", None], ids=["skip", "force"])
def test_a_failure_of_a_whole_kind_can_be_acted_on(session, context, delete, clock, hiccup, kind):
    make_slow_job(session)
    deletion_id = delete("ml-team")
    hiccup.extend([True] * context.settings.max_attempts)
    while not isinstance(run_slice(context, owner="w"), Failed):
        clock.pass_(1000)

    with session_scope(context.sessions) as own:
        deletion = own.get_one(Deletion, deletion_id)
        about = {"reason": "it is mended"}
        if kind:
            about |= {"kind": kind, "resource_id": failures.WHOLE_KIND}
        (operations.skip if kind else operations.force)(own, context, trusted("ann"), deletion, **about)

    assert the(session, deletion_id).state is DeletionState.DELETING
    assert session.scalars(select(DeletionFailure)).all() == []


def test_a_failure_of_what_has_gone_by_itself_is_forgotten(session, context, delete, clock, monkeypatch):
    workspace = factories.make_workspace(session)
    for name in ("ghost", "bad"):
        factories.make_fileset(session, workspace, name)
    session.commit()
    monkeypatch.setattr(
        type(context.store), "purge_fileset", lambda *_, **__: (_ for _ in ()).throw(ConnectionError("503"))
    )
    delete("ml-team")
    run_slice(context, owner="w")
    assert set(session.scalars(select(DeletionFailure.name))) == {"ghost", "bad"}

    session.execute(delete_from(Fileset).where(Fileset.name == "ghost"))
    session.commit()
    clock.pass_(1000)
    outcome = run_slice(context, owner="w")

    assert "and 1 more" not in outcome.reason
    session.rollback()
    assert session.scalars(select(DeletionFailure.name)).all() == ["bad"]


# --- rows -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("depth", [1, 3])
def test_entities_with_younger_ids_than_their_children_go(session, context, delete, drive, depth):
    """The clock of the host that made the parents was ahead."""
    workspace = factories.make_workspace(session)
    chains = [[factories.make_entity(session, workspace, f"e-{i}-{level}") for level in range(depth + 1)]
              for i in range(12)]  # fmt: skip
    for chain in chains:
        for child, parent in pairwise(chain):
            child.parent_id = parent.id  # the parent was made later
    session.commit()
    small = replace(context, settings=context.settings.model_copy(update={"chunk_size": 10}))

    outcomes = drive(delete("ml-team"), context=small)

    assert isinstance(outcomes[-1], Finished)
    assert not any(isinstance(outcome, Postponed) for outcome in outcomes)


@pytest.mark.parametrize("kind", ["job_logs", "entities"])
def test_deleting_rows_reads_each_once_although_somebody_still_sees_them(session, kind):
    """As beside an old snapshot: what this transaction has deleted stays in the index until it ends."""
    workspace = factories.make_workspace(session)
    job = factories.make_job(session, workspace, "job")
    for i in range(600):
        factories.make_job_log(session, job) if kind == "job_logs" else factories.make_entity(
            session, workspace, f"e-{i}"
        )
    session.commit()
    session.execute(text(f"ANALYZE {kind}"))
    session.commit()
    read = text(
        "SELECT sum(pg_stat_get_xact_tuples_returned(indexrelid)) FROM pg_index WHERE indrelid = :kind ::regclass"
    ).bindparams(kind=kind)
    for other in ("seqscan", "bitmapscan", "sort", "hashjoin", "mergejoin"):  # as for a large table
        session.execute(text(f"SET LOCAL enable_{other} = off"))

    cursor, reads = None, [0]
    for _ in range(20):
        chunk = KINDS[kind].delete_chunk(session, workspace.id, 30, cursor)
        cursor = chunk.cursor
        assert chunk.removed == 30
        reads.append(int(session.scalar(read)))

    first_half, second_half = reads[10] - reads[0], reads[20] - reads[10]
    assert second_half < 1.5 * first_half
    session.rollback()


def test_the_pages_of_a_pass_hold_no_documents(session, context, delete):
    workspace = factories.make_workspace(session)
    factories.make_job(session, workspace, "large", JobStatus.COMPLETED)
    session.commit()
    deletion_id = delete("ml-team")

    [job] = remaining.page(session, KINDS["jobs"], workspace.id, deletion_id, after=None, limit=10)

    assert job.name == "large"
    session.expunge_all()
    [job] = remaining.page(session, KINDS["jobs"], workspace.id, deletion_id, after=None, limit=10)
    with pytest.raises(InvalidRequestError):
        _ = job.spec
