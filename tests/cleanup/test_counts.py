"""Counts are kept or bounded, and never stand between an operator and what he does."""

from contextlib import contextmanager
from math import inf

import pytest
from sqlalchemy import text

from app.cleanup import remaining
from app.cleanup.engine import run_slice
from app.cleanup.kinds import KINDS
from app.cleanup.outcomes import Finished
from app.cleanup.preview import preview
from app.clock import database_now
from app.lifecycle import DeletionState, WorkspaceState
from tests import factories
from tests.cleanup.conftest import the
from tests.support.actors import trusted
from tests.support.statements import counted

DELETIONS = "/apis/entities/v2/deletions"


@pytest.fixture
def settings(settings):
    return settings.model_copy(update={"statement_timeout_seconds": 1})


@pytest.fixture
def failed(session, delete):
    """A deletion that is FAILED, of a workspace with a fileset and entities."""

    def make(*, has_begun: bool):
        workspace = factories.make_workspace(session)
        factories.make_fileset(session, workspace)
        factories.make_entity(session, workspace)
        session.commit()
        deletion = the(session, delete("ml-team"))
        deletion.state, deletion.reason = DeletionState.FAILED, "denied"
        workspace.state = WorkspaceState.FAILED
        if has_begun:
            deletion.started_at, deletion.created_counts = database_now(), {"filesets": 1, "entities": 7}
            deletion.deleted_counts = {"entities": 2}
        session.commit()
        return deletion

    return make


@contextmanager
def uncountable(engine, table):
    """As if the table were too large: whatever reads a row of it exceeds the statement time-out."""
    with engine.begin() as other:
        other.execute(text(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE"))
        yield


def test_nothing_is_counted_for_an_answer_about_a_deletion_that_has_begun(session, client, failed, database):
    deletion = failed(has_begun=True)

    # Those that run are looked up, but there are only as many as hosts can run.
    with uncountable(database, "filesets, entities"):
        one = client.get(f"{DELETIONS}/{deletion.id}")
        every = client.get(f"{DELETIONS}?state=FAILED&page_size=1000")
        retried = client.post(f"{DELETIONS}/{deletion.id}/retry")

    assert [answer.status_code for answer in (one, every, retried)] == [200, 200, 200]
    assert one.json["remaining"] == {"filesets": 1, "entities": 5}
    assert one.json["at_least"] == []
    assert the(session, deletion.id).state is DeletionState.DELETING


def test_what_an_operator_does_stays_done_if_it_cannot_be_described(session, client, failed, database):
    deletion = failed(has_begun=False)

    with uncountable(database, "jobs, filesets, entities"):
        retried = client.post(f"{DELETIONS}/{deletion.id}/retry")

    assert (retried.status_code, retried.json["state"]) == (200, "DELETING")
    assert set(retried.json["at_least"]) == set(KINDS), "nothing is known of what remains"
    assert the(session, deletion.id).state is DeletionState.DELETING


def test_a_pause_is_committed_before_what_is_held_is_counted(session, client, database):
    with uncountable(database, "deletion_holds"):
        client.put("/apis/entities/v2/cleanup-control", json={"paused": True})

    assert session.scalar(text("SELECT paused FROM cleanup_control"))


@pytest.fixture
def large(session):
    """A workspace with more lines of logs than one statement counts."""
    workspace = factories.make_workspace(session)
    job = factories.make_job(session, workspace)
    session.execute(
        text(
            "INSERT INTO job_logs (id, workspace_id, job_id, attempt_id, step, task, at, message) "
            "SELECT gen_random_uuid(), :workspace, :job, :job, '', '', now(), '' FROM generate_series(1, :number)"
        ),
        {"workspace": workspace.id, "job": job.id, "number": remaining.COUNT_LIMIT + 50},
    )
    session.commit()
    return workspace


def test_a_count_stops_at_its_limit_and_says_so(session, large):
    shown = preview(session, trusted("ann"), "ml-team")
    in_time = remaining.count_until(session, large.id, deadline=inf)
    too_late = remaining.count_until(session, large.id, deadline=-inf)

    assert shown.remaining == {"jobs": 1, "job_logs": remaining.COUNT_LIMIT}
    assert shown.at_least == ["job_logs"]
    assert (in_time.numbers["job_logs"], in_time.at_least) == (remaining.COUNT_LIMIT + 50, [])
    assert (too_late.numbers, too_late.at_least) == (shown.remaining, ["job_logs"])


def test_entities_are_not_counted_however_many_there_are(session, database, client, monkeypatch):
    monkeypatch.setattr(remaining, "COUNT_LIMIT", 10)
    workspace = factories.make_workspace(session)
    for i in range(25):
        factories.make_entity(session, workspace, f"e-{i}")
    session.commit()

    # Nothing of the table is read: the lock that this takes would wait for the one that it has.
    with uncountable(database, "entities"):
        shown = client.get("/apis/entities/v2/workspaces/ml-team/deletion-preview").json

    assert (shown["remaining"], shown["at_least"]) == ({"entities": 25}, [])


def test_the_first_slice_takes_the_number_of_entities_from_where_it_is_kept(
    session, context, delete, database, monkeypatch
):
    monkeypatch.setattr(remaining, "COUNT_LIMIT", 10)
    workspace = factories.make_workspace(session)
    for i in range(25):
        factories.make_entity(session, workspace, f"e-{i}")
    session.commit()
    deletion_id = delete("ml-team")

    with counted(context.sessions.kw["bind"]) as sent:
        run_slice(context, deletion_id, owner="w")

    of_entities = [
        one.text for one in sent if "entities.id" in one.text and not one.text.startswith("WITH removed")
    ]
    assert [one for one in of_entities if "count(" in one] == []
    assert the(session, deletion_id).created_counts == {"entities": 25}


def test_a_lower_bound_is_corrected_at_the_end(session, context, delete, drive, clock):
    workspace = factories.make_workspace(session)
    for i in range(3):
        factories.make_project(session, workspace, f"p-{i}")
    session.commit()
    deletion = the(session, delete("ml-team"))
    deletion.started_at, deletion.created_counts = database_now(), {"projects": 1}
    deletion.created_at_least = ["projects"]
    session.commit()

    assert isinstance(drive(deletion.id)[-1], Finished)

    deletion = the(session, deletion.id)
    assert deletion.created_counts == deletion.deleted_counts == {"projects": 3}
    assert deletion.created_at_least == []
