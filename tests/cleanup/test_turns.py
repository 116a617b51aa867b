"""Turns: requesters take them, however many deletions each of them has and whichever message comes first."""

from collections import Counter
from datetime import timedelta

import pytest
from sqlalchemy import func, insert, select, text
from uuid_utils.compat import uuid7

from app.cleanup import lease, requests
from app.cleanup.engine import run_slice
from app.cleanup.outcomes import Finished, Idle
from app.db import session_scope
from app.lifecycle import DeletionState
from app.models import Deletion
from tests import factories
from tests.support.actors import trusted
from tests.support.statements import compact


@pytest.fixture
def ask(session, context):
    """Make a workspace with a project and ask for its deletion; the deletion's id."""

    def run(who, name):
        factories.make_project(session, factories.make_workspace(session, name))
        session.commit()
        with session_scope(context.sessions) as other:
            return requests.request_deletion(other, context, trusted(who), name).id

    return run


@pytest.fixture
def claim(context, clock):
    """Claim a deletion, as a message for `named` would have it done; whose it is, and its id."""

    def run(named=None):
        with session_scope(context.sessions) as session:
            taken = lease.claim(session, owner="w", lease_s=60, deletion_id=named)
            return taken and (session.get_one(Deletion, taken.id).requested_by, taken.id)

    return run


def insert_deletions(session, number, **values):
    rows = [
        {"id": uuid7(), "workspace_id": uuid7(), "workspace_name": f"w-{i}", **values} for i in range(number)
    ]
    session.execute(insert(Deletion), rows)
    session.commit()
    return [row["id"] for row in rows]


def test_a_neighbours_first_slice_does_not_wait_for_a_thousand_deletions(session, ask, claim, clock):
    flood = insert_deletions(session, 1000, requested_by="ann", next_run_at=clock.now() - timedelta(hours=1))
    of_bob = ask("bob", "bobs")

    claims = [claim(named) for named in flood[:2]]

    assert {who for who, _ in claims} == {"ann", "bob"}
    assert of_bob in {one for _, one in claims}


def test_requesters_take_turns_whatever_each_of_them_has(session, claim, clock):
    due = clock.now() - timedelta(hours=1)
    flood = insert_deletions(session, 50, requested_by="ann", next_run_at=due)
    for who in ("bob", "eve"):
        insert_deletions(session, 5, requested_by=who, next_run_at=due + timedelta(minutes=1))

    order = [claim(named)[0] for named in flood[:15]]

    assert Counter(order) == {"ann": 5, "bob": 5, "eve": 5}
    assert all(len(set(order[i : i + 3])) == 3 for i in range(0, 15, 3)), order


def test_the_named_deletion_is_claimed_when_its_requester_has_the_turn(session, claim, clock):
    made = insert_deletions(session, 3, requested_by="", next_run_at=clock.now() - timedelta(hours=1))

    assert [claim(named)[1] for named in reversed(made)] == made[::-1]


def test_without_a_name_the_longest_due_of_the_requester_is_claimed(session, claim, clock):
    [young] = insert_deletions(session, 1, requested_by="ann", next_run_at=clock.now() - timedelta(seconds=5))
    [old] = insert_deletions(session, 1, requested_by="ann", next_run_at=clock.now() - timedelta(hours=1))

    assert [claim(), claim(), claim()] == [("ann", old), ("ann", young), None]


def test_a_message_for_what_is_not_due_serves_another(session, claim, clock):
    [waiting] = insert_deletions(session, 1, requested_by="ann", next_run_at=clock.now() + timedelta(hours=1))
    [due] = insert_deletions(session, 1, requested_by="bob", next_run_at=clock.now() - timedelta(hours=1))

    assert claim(waiting) == ("bob", due)
    assert claim(waiting) is None


def test_a_deletion_that_other_workers_are_about_to_take_is_not_waited_for(session, claim, clock, database):
    [of_ann] = insert_deletions(session, 1, requested_by="ann", next_run_at=clock.now() - timedelta(hours=1))
    [of_bob] = insert_deletions(session, 1, requested_by="bob", next_run_at=clock.now() - timedelta(hours=1))

    with database.connect() as other:
        other.execute(select(Deletion.id).where(Deletion.id == of_ann).with_for_update())
        assert claim(of_ann) == ("bob", of_bob)


def test_a_claim_costs_what_is_due_and_not_what_exists(session, claim, clock, database):
    """In rows that are read, beside those of a grace period, which only an index sees."""
    past, future = clock.now() - timedelta(hours=1), clock.now() + timedelta(hours=1)
    insert_deletions(session, 3000, requested_by="ann", next_run_at=past, state=DeletionState.DONE)
    insert_deletions(session, 1000, requested_by="bob", next_run_at=future, purge_after=future)
    insert_deletions(session, 1000, requested_by="carl", next_run_at=past)
    [of_dora] = insert_deletions(session, 1, requested_by="dora", next_run_at=past)
    session.commit()
    compact(database, "deletions")
    claim()
    read = text(
        "SELECT seq_tup_read + coalesce(idx_tup_fetch, 0) FROM pg_stat_xact_user_tables "
        "WHERE schemaname = 'public' AND relname = 'deletions'"
    )
    before = session.scalar(
        read
    )  # of this connection, in earlier transactions that are not accounted for yet

    taken = lease.claim(session, owner="w", lease_s=60)

    assert taken is not None
    assert taken.id == of_dora
    # Not of each requester's thousand.
    assert session.scalar(read) - before < 250


def test_every_deletion_ends_although_messages_serve_others(session, context, ask, clock):
    made = [ask(who, f"{who}-{i}") for who in ("ann", "bob") for i in range(3)]

    outcomes = []
    while not isinstance(outcome := run_slice(context, made[0], owner="w"), Idle):
        outcomes.append(outcome)

    assert sum(isinstance(one, Finished) for one in outcomes) == 6
    ended = select(func.count()).where(Deletion.state == DeletionState.DONE)
    session.rollback()
    assert session.scalar(ended) == 6
