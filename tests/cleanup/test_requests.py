"""Asking for a deletion, foreseeing it, forbidding it and calling it off."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Thread

import pytest
from sqlalchemy import select, text

from app.cleanup import control, operations, preview, requests
from app.cleanup.engine import run_slice
from app.cleanup.outcomes import Idle
from app.db import connect, session_scope, sessions_of
from app.errors import NameTaken, NotFound, Protected, WrongState
from app.lifecycle import DeletionState, WorkspaceState
from app.maintenance import sweep
from app.models import Deletion, RoleBinding, Workspace
from app.services.workspaces import create_workspace, readable_workspace, writable_workspace
from tests import factories
from tests.cleanup.conftest import the
from tests.support.actors import trusted

ANN = trusted("ann@example.com")


def test_a_deletion_revokes_every_role_and_hides_the_workspace_in_one_transaction(session, context, delete):
    workspace = factories.make_workspace(session)
    binding = factories.make_binding(session, workspace)
    other = factories.make_binding(session, factories.make_workspace(session, "neighbour"))
    session.commit()

    deletion_id = delete("ml-team")

    session.expire_all()
    assert binding.revoked_at is not None
    assert binding.revoked_by_deletion == deletion_id
    assert other.revoked_at is None
    for lookup in (readable_workspace, writable_workspace):
        with pytest.raises(NotFound, match="Workspace 'ml-team' not found"):
            lookup(session, ANN, "ml-team")


def test_nothing_is_revoked_when_the_request_rolls_back(session, context, publisher):
    workspace = factories.make_workspace(session)
    binding = factories.make_binding(session, workspace)
    session.commit()

    with context.sessions() as doomed:
        requests.request_deletion(doomed, context, ANN, "ml-team")
        doomed.rollback()

    session.expire_all()
    assert workspace.state is WorkspaceState.ACTIVE
    assert binding.revoked_at is None
    assert session.scalar(select(Deletion.id)) is None
    assert publisher.published == [], "no message before its row is committed"


def test_a_deletion_waits_for_writers_longer_than_any_statement_may_take(session, context, database):
    workspace = factories.make_workspace(session)
    session.commit()
    hasty = context.settings.model_copy(
        update={"statement_timeout_seconds": 0.5, "delete_lock_timeout_seconds": 60}
    )
    engine = connect(hasty)
    impatient = replace(context, settings=hasty, sessions=sessions_of(engine))

    def ask():
        with session_scope(impatient.sessions) as asking:
            requests.request_deletion(asking, impatient, ANN, "ml-team")

    waits = text(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
        "AND wait_event_type = 'Lock' AND now() - query_start > '1 s'"
    )
    with database.connect() as writer, database.connect() as observer, ThreadPoolExecutor() as pool:
        writer.execute(select(Workspace.id).where(Workspace.id == workspace.id).with_for_update(read=True))
        asked = pool.submit(ask)
        while not asked.done() and not observer.scalar(waits):
            observer.rollback()
        writer.rollback()
        asked.result(30)

    session.refresh(workspace)
    assert workspace.state is WorkspaceState.DELETING
    engine.dispose()


def test_asking_again_gives_the_same_deletion(session, context, delete, publisher):
    factories.make_workspace(session)
    session.commit()

    assert delete("ml-team") == delete("ml-team")
    assert len(publisher.published) == 1


def test_of_many_requests_at_once_one_makes_the_deletion(session, context, delete):
    factories.make_workspace(session)
    session.commit()
    ids = []

    threads = [Thread(target=lambda: ids.append(delete("ml-team"))) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(ids) == 5
    assert len(set(ids)) == 1


def test_the_name_is_free_at_once_and_the_next_delete_is_the_successors(session, context, delete):
    factories.make_workspace(session)
    session.commit()
    first = delete("ml-team")

    with session_scope(context.sessions) as other:
        create_workspace(other, ANN, "ml-team", description=None, with_admin=False)
    second = delete("ml-team")

    assert first != second


@pytest.mark.parametrize("name", ["default", "system"])
def test_built_in_workspaces_cannot_be_deleted(session, delete, name):
    with pytest.raises(Protected, match="built in"):
        delete(name)

    assert readable_workspace(session, ANN, name)


def test_a_protected_workspace_cannot_be_deleted_until_the_protection_is_gone(session, context, delete):
    workspace = factories.make_workspace(session, is_protected=True)
    session.commit()
    with pytest.raises(Protected, match="take the protection away"):
        delete("ml-team")

    with session_scope(context.sessions) as other:
        operations.set_protection(other, ANN, "ml-team", is_protected=False)

    assert the(session, delete("ml-team")).workspace_id == workspace.id


def test_a_restored_workspace_is_as_before_and_gives_back_exactly_the_roles_it_took(
    session, context, delete, clock
):
    workspace = factories.make_workspace(session)
    held = factories.fill(session, context.store, workspace)
    left_before = factories.make_binding(session, workspace, "left@example.com")
    left_before.revoked_at = clock.now()
    session.commit()
    deletion_id = delete("ml-team")

    with session_scope(context.sessions) as other:
        operations.restore(other, context, ANN, other.get_one(Deletion, deletion_id))

    assert readable_workspace(session, ANN, "ml-team").id == workspace.id
    assert factories.rows_of(session, workspace.id) == held | {"role_bindings": held["role_bindings"] + 1}
    active = select(RoleBinding).where(
        RoleBinding.workspace_id == workspace.id, RoleBinding.revoked_at.is_(None)
    )
    assert {one.principal for one in session.scalars(active)} == {"user-0@example.com", "user-1@example.com"}
    assert the(session, deletion_id).state is DeletionState.RESTORED
    assert run_slice(context, deletion_id, owner="late") == Idle("it is RESTORED")


def test_nothing_is_restored_once_destruction_has_begun(session, context, delete, clock, faulty):
    workspace = factories.make_workspace(session)
    faulty.faults[factories.make_fileset(session, workspace).id] = TimeoutError("slow")
    session.commit()
    deletion_id = delete("ml-team")
    run_slice(context, deletion_id, owner="w")

    with pytest.raises(WrongState, match="begun"), session_scope(context.sessions) as other:
        operations.restore(other, context, ANN, other.get_one(Deletion, deletion_id))

    assert the(session, deletion_id).state is DeletionState.DELETING


def test_a_taken_name_needs_another_to_restore_under(session, context, delete):
    workspace = factories.make_workspace(session)
    session.commit()
    deletion_id = delete("ml-team")
    successor = factories.make_workspace(session, "ml-team")
    session.commit()

    with pytest.raises(NameTaken), session_scope(context.sessions) as other:
        operations.restore(other, context, ANN, other.get_one(Deletion, deletion_id))
    with session_scope(context.sessions) as other:
        operations.restore(other, context, ANN, other.get_one(Deletion, deletion_id), name="ml-team-old")

    assert readable_workspace(session, ANN, "ml-team").id == successor.id
    assert readable_workspace(session, ANN, "ml-team-old").id == workspace.id


def test_a_pause_stops_destruction_but_not_revocation(session, context, delete, clock):
    workspace = factories.make_workspace(session)
    factories.make_project(session, workspace)
    binding = factories.make_binding(session, workspace)
    session.commit()
    with session_scope(context.sessions) as other:
        control.set_paused(other, paused=True, actor="root")

    deletion_id = delete("ml-team")
    outcome = run_slice(context, deletion_id, owner="w")

    session.expire_all()
    assert outcome == Idle("destruction is paused")
    assert binding.revoked_at is not None
    assert factories.rows_of(session, workspace.id) == {"projects": 1, "role_bindings": 1}
    assert sweep.sweep(context).enqueued == 0


def test_a_preview_counts_and_destroys_nothing(session, context):
    workspace = factories.make_workspace(session)
    held = factories.fill(session, context.store, workspace)

    foreseen = preview.preview(session, ANN, "ml-team")

    assert foreseen.remaining == held
    assert factories.rows_of(session, workspace.id) == held
