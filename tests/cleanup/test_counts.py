"""Counts are kept, and never stand between an operator and what he does."""

from contextlib import contextmanager

import pytest
from sqlalchemy import delete as delete_rows
from sqlalchemy import func, select, text

from app.cleanup import remaining
from app.cleanup.engine import run_slice
from app.cleanup.kinds import KINDS
from app.clock import database_now
from app.lifecycle import DeletionState, WorkspaceState
from tests import factories
from tests.cleanup.conftest import the
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


def test_nothing_is_counted_for_a_preview_or_at_the_start(session, context, client, delete, database, drive):
    workspace = factories.make_workspace(session)
    expected = factories.fill(session, context.store, workspace, number=3)

    session.commit()

    # The tables of jobs and deployments are asked for those that run, and role bindings for the caller's rights.
    with uncountable(database, ", ".join(expected.keys() - {"jobs", "deployments", "role_bindings"})):
        shown = client.get("/apis/entities/v2/workspaces/ml-team/deletion-preview").json
    deletion_id = delete("ml-team")
    with counted(context.sessions.kw["bind"]) as sent:
        run_slice(context, deletion_id, owner="w")

    assert (shown["remaining"], shown["at_least"]) == (expected, [])
    assert list(shown["remaining"]) == [kind for kind in KINDS if kind in expected]
    counting = [one.text for one in sent if "count(" in one.text]
    assert [one for one in counting if not one.startswith("WITH removed")] == []
    assert the(session, deletion_id).created_counts == expected
    drive(deletion_id)
    assert the(session, deletion_id).deleted_counts == expected


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "entities"])
def test_the_kept_count_of_each_kind_follows_its_table(session, context, kind):
    workspace, other = factories.make_workspace(session), factories.make_workspace(session, "other")
    for one in (workspace, other):
        factories.fill(session, context.store, one)
    model = KINDS[kind].model
    key = model.workspace_id == workspace.id

    # A statement of the database: whoever adds or removes rows, they are counted.
    session.execute(
        delete_rows(model).where(model.id == select(model.id).where(key).limit(1).scalar_subquery())
    )

    held = remaining.count_by_kind(session, [workspace.id, other.id])
    number = session.scalar(select(func.count()).select_from(model).where(key))
    assert (held[workspace.id][kind], number) == (held[other.id][kind] - 1, held[other.id][kind] - 1), (
        f"the migration that makes the table of {kind} has to call `op.count_resources`"
    )
