"""The breaker: it holds the deletions of one requester who deletes more than a person would, and nobody else's."""

from datetime import timedelta

import pytest
from sqlalchemy import select, update

from app import clock as real_clock
from app.cleanup import operations, requests
from app.cleanup.engine import run_slice
from app.cleanup.outcomes import Finished, Idle
from app.db import session_scope
from app.lifecycle import WorkspaceState
from app.maintenance import sweep
from app.models import AuditRecord, Deletion, DeletionEvent, DeletionHold, Workspace
from tests import factories
from tests.support.actors import trusted

CONTROL = "/apis/entities/v2/cleanup-control"


@pytest.fixture
def make(session):
    """Make old workspaces of these names."""

    def run(*names, age=timedelta(hours=1)):
        for name in names:
            factories.make_workspace(session, name, created_at=real_clock.now() - age)
        session.commit()

    return run


@pytest.fixture
def ask(context):
    """Ask for deletions in somebody's name; their ids."""

    def run(who, *names):
        ids = []
        for name in names:
            with session_scope(context.sessions) as session:
                ids.append(requests.request_deletion(session, context, trusted(who), name).id)
        return ids

    return run


def names_of(owner, number):
    return [f"{owner}-{i:03}" for i in range(number)]


def holds(session):
    session.rollback()
    query = select(DeletionHold.requested_by).where(DeletionHold.released_at.is_(None))
    return session.scalars(query).all()


def test_five_of_fourteen_old_workspaces_are_more_than_a_third(session, context, make, ask, clock):
    """Those that are built in are old too, and do not count: nobody can delete them."""
    make(*names_of("ann", 14))
    session.execute(update(Workspace).values(created_at=real_clock.now() - timedelta(hours=1)))
    session.commit()

    ask("ann", *names_of("ann", 4))
    assert holds(session) == []
    [fifth] = ask("ann", "ann-004")

    assert holds(session) == ["ann"]
    assert run_slice(context, fifth, owner="w") == Idle("the deletions of 'ann' are held")
    assert sweep.sweep(context).enqueued == 0
    event = session.scalars(select(DeletionEvent).where(DeletionEvent.event == "held")).one()
    assert (event.deletion_id, event.actor) == (fifth, "service:breaker")
    assert event.detail == {"reason": "5 of 14 workspaces were deleted within 600 s"}


def test_more_than_a_third_of_a_larger_installation_is_held_and_a_third_is_not(session, make, ask):
    make(*names_of("ann", 30))

    ask("ann", *names_of("ann", 10))
    assert holds(session) == []
    ask("ann", "ann-010")

    assert holds(session) == ["ann"]


def test_the_deletions_of_others_go_on(session, context, make, ask, clock):
    make(*names_of("ann", 5), *names_of("bob", 5))
    ask("ann", *names_of("ann", 5))
    [of_bob] = ask("bob", "bob-000")

    outcome = run_slice(context, of_bob, owner="w")

    assert isinstance(outcome, Finished)
    assert holds(session) == ["ann"]


def test_later_requests_of_a_held_requester_revoke_and_are_held(session, context, make, ask, clock):
    make(*names_of("ann", 6))
    ask("ann", *names_of("ann", 5))

    [later] = ask("ann", "ann-005")

    assert session.scalars(select(Workspace.state).where(Workspace.name == "ann-005")).all() == [
        WorkspaceState.DELETING
    ], "revocation never waits"
    assert run_slice(context, later, owner="w") == Idle("the deletions of 'ann' are held")


def test_what_is_held_and_has_not_begun_can_be_restored(session, context, make, ask):
    make(*names_of("ann", 5))
    held = ask("ann", *names_of("ann", 5))

    for deletion_id in held:
        with session_scope(context.sessions) as other:
            operations.restore(other, context, trusted("root"), other.get_one(Deletion, deletion_id))

    states = select(Workspace.state).where(Workspace.name.in_(names_of("ann", 5)))
    assert set(session.scalars(states)) == {WorkspaceState.ACTIVE}


def test_young_workspaces_do_not_count(session, make, ask):
    make(*names_of("script", 20), age=timedelta(minutes=5))

    ask("ann", *names_of("script", 20))

    assert holds(session) == []


def test_old_requests_do_not_count(session, make, ask):
    make(*names_of("ann", 8))
    ask("ann", *names_of("ann", 4))
    session.execute(update(Deletion).values(requested_at=Deletion.requested_at - timedelta(minutes=11)))
    session.commit()

    ask("ann", *names_of("ann", 8)[4:])

    assert holds(session) == []


def test_requests_of_different_people_are_not_added_up(session, make, ask):
    make(*names_of("team", 8))

    ask("ann", *names_of("team", 4))
    ask("bob", *names_of("team", 8)[4:])

    assert holds(session) == []


def test_an_administrator_sees_who_is_held_and_releases_them_by_name(
    session, context, client, make, ask, clock
):
    make(*names_of("ann", 7))
    held = ask("ann", *names_of("ann", 5))
    since = session.scalars(select(DeletionHold.held_at)).one().isoformat().replace("+00:00", "Z")

    shown = client.get(CONTROL).json
    refused = client.put(CONTROL, json={"release": "bob"})
    released = client.put(CONTROL, json={"release": "ann"})
    outcome = run_slice(context, held[0], owner="w")

    assert shown["held"] == [{"requested_by": "ann", "count": 5, "since": since}]
    assert shown["paused"] is False
    assert refused.status_code == 404
    assert (released.status_code, released.json["held"]) == (200, [])
    assert isinstance(outcome, Finished)
    ask("ann", *names_of("ann", 7)[5:])
    assert holds(session) == [], "only what is requested after the release counts"


def test_a_second_burst_after_a_release_is_held_again(session, client, make, ask):
    make(*names_of("ann", 10))
    ask("ann", *names_of("ann", 5))
    client.put(CONTROL, json={"release": "ann"})

    ask("ann", *names_of("ann", 10)[5:])

    assert holds(session) == ["ann"]


def test_a_release_does_not_end_a_pause(client, context, make, ask, clock):
    make(*names_of("ann", 5))
    held = ask("ann", *names_of("ann", 5))
    client.put(CONTROL, json={"paused": True})

    client.put(CONTROL, json={"release": "ann"})

    assert client.get(CONTROL).json["paused"] is True
    assert run_slice(context, held[0], owner="w") == Idle("destruction is paused")


@pytest.mark.parametrize("body", [{}, {"paused": None}, {"release": None}, {"release": 1}])
def test_an_update_that_says_nothing_is_refused(client, database, body):
    assert client.put(CONTROL, json=body).status_code == 422


def test_zero_switches_the_breaker_off(session, context, settings, make, ask):
    object.__setattr__(context, "settings", settings.model_copy(update={"burst_deletions": 0}))
    make(*names_of("ann", 6))

    ask("ann", *names_of("ann", 6))

    assert holds(session) == []


def test_no_caller_is_taken_for_the_breaker(session, context, make, ask):
    make(*names_of("breaker", 5))

    ask("breaker", *names_of("breaker", 5))

    actors = dict(session.execute(select(AuditRecord.event, AuditRecord.actor)).all())
    assert actors == {"deletion.requested": "breaker", "deletions.held": "service:breaker"}


def test_operators_see_in_status_and_metrics_that_something_is_held(client, session, make, ask):
    make(*names_of("ann", 5))
    ask("ann", *names_of("ann", 5))

    assert client.get("/status").json["controllers"]["status"]["workspace_cleanup_none_held"] is False
    assert "workspaces_deletions_held 5.0" in client.get("/metrics").text
