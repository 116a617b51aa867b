"""The lock of every creator on its workspace: a DELETE waits for those that have it, later ones for the DELETE."""

from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Engine, create_engine, event, select, update
from sqlalchemy.orm import Session
from uuid_utils.compat import uuid7

from app.cleanup.operations import set_protection
from app.cleanup.requests import request_deletion
from app.context import Context
from app.db import Base
from app.errors import NotFound
from app.lifecycle import WorkspaceState
from app.models import Job, Workspace
from app.services import entities
from app.services.workspaces import (
    create_workspace,
    lock_active_workspace,
    readable_workspace,
    update_workspace,
    writable_workspace,
)
from tests.factories import (
    make_binding,
    make_config,
    make_deployment,
    make_entity,
    make_fileset,
    make_job,
    make_job_log,
    make_project,
    make_secret,
    make_workspace,
    rows_of,
)
from tests.support.actors import trusted
from tests.support.locks import has_to_wait, meanwhile
from tests.support.tables import tables_of_workspaces

ANN = trusted("ann@example.com")

Make = Callable[[Session, Workspace], Any]

CHILDREN: dict[str, Make] = {
    "projects": make_project,
    "entities": make_entity,
    "filesets": make_fileset,
    "jobs": make_job,
    "job_logs": lambda session, workspace: make_job_log(
        session, Job(id=uuid7(), workspace_id=workspace.id, attempt_id=uuid7())
    ),
    "deployment_configs": make_config,
    "deployments": make_deployment,
    "role_bindings": make_binding,
    "secrets": make_secret,
}
every_child = pytest.mark.parametrize("table", CHILDREN)


@pytest.fixture
def workspace(session: Session) -> Workspace:
    made = make_workspace(session, "ml-team")
    session.commit()
    return made


@pytest.fixture
def without_the_lock(database_url: str) -> Iterator[Engine]:
    """Connections on which FOR SHARE is taken out of every statement."""
    engine = create_engine(database_url)

    @event.listens_for(engine, "before_cursor_execute", retval=True)
    def strip(
        _connection: Any,
        _cursor: Any,
        statement: str,
        parameters: Any,
        _context: Any,
        _many: bool,
    ) -> tuple[str, Any]:
        return statement.replace(" FOR SHARE", ""), parameters

    yield engine
    engine.dispose()


def close(engine: Engine, workspace_id: UUID) -> None:
    """Change the state as a DELETE does."""
    with Session(engine) as session, session.begin():
        session.execute(
            update(Workspace).where(Workspace.id == workspace_id).values(state=WorkspaceState.DELETING)
        )


def race(creators: Engine, engine: Engine, workspace: Workspace, make: Make) -> bool:
    """A creator locks the workspace, a DELETE comes, the creator goes on. Whether the DELETE had to wait for it."""
    with Session(creators) as creator:
        workspace_row = writable_workspace(creator, ANN, "ml-team")
        with meanwhile(lambda: close(engine, workspace.id)) as closing:
            waited = has_to_wait(engine, closing)
            make(creator, workspace_row)
            creator.commit()
        closing.result()
    return waited


def test_every_table_below_a_workspace_takes_part_in_the_race() -> None:
    assert set(CHILDREN) == {table.name for table in tables_of_workspaces(Base.metadata)}, (
        "A new table below workspaces: give it a factory, and add it to CHILDREN."
    )


@every_child
def test_a_delete_waits_for_an_open_creator(
    database: Engine, session: Session, workspace: Workspace, table: str
) -> None:
    assert race(database, database, workspace, CHILDREN[table]), (
        "the DELETE took effect under an open creator"
    )

    assert rows_of(session, workspace.id) == {table: 1}
    with Session(database) as later:
        for find in (writable_workspace, readable_workspace):
            with pytest.raises(NotFound):
                find(later, ANN, "ml-team")


@every_child
def test_without_the_lock_a_row_appears_in_a_workspace_that_is_being_deleted(
    database: Engine,
    without_the_lock: Engine,
    session: Session,
    workspace: Workspace,
    table: str,
) -> None:
    """The foreign key alone does not keep the creator out, so the test above proves the lock."""
    assert not race(without_the_lock, database, workspace, CHILDREN[table])

    assert rows_of(session, workspace.id) == {table: 1}
    state = select(Workspace.state).where(Workspace.id == workspace.id)
    assert session.scalar(state) == WorkspaceState.DELETING


def test_a_creator_that_comes_during_a_delete_waits_and_is_refused(
    database: Engine, session: Session, workspace: Workspace
) -> None:
    def create() -> None:
        with Session(database) as creator:
            make_project(creator, writable_workspace(creator, ANN, "ml-team"))
            creator.commit()

    with Session(database) as deleter:
        deleter.get_one(Workspace, workspace.id).state = WorkspaceState.DELETING
        deleter.flush()
        with meanwhile(create) as creating:
            assert has_to_wait(database, creating)
            deleter.commit()
    with pytest.raises(NotFound):
        creating.result()

    assert rows_of(session, workspace.id) == {}


def test_a_creator_that_waited_for_a_delete_succeeds_if_the_delete_is_rolled_back(
    database: Engine, session: Session, workspace: Workspace
) -> None:
    def create() -> None:
        with Session(database) as creator:
            make_project(creator, writable_workspace(creator, ANN, "ml-team"))
            creator.commit()

    with Session(database) as deleter:
        deleter.get_one(Workspace, workspace.id).state = WorkspaceState.DELETING
        deleter.flush()
        with meanwhile(create) as creating:
            assert has_to_wait(database, creating)
            deleter.rollback()
    creating.result()

    assert rows_of(session, workspace.id) == {"projects": 1}


def test_creators_do_not_wait_for_each_other(
    database: Engine, session: Session, workspace: Workspace
) -> None:
    def create() -> None:
        with Session(database) as creator:
            make_project(creator, writable_workspace(creator, ANN, "ml-team"), "second")
            creator.commit()

    with Session(database) as first:
        make_project(first, writable_workspace(first, ANN, "ml-team"), "first")
        with meanwhile(create) as creating:
            assert not has_to_wait(database, creating)
            first.commit()
    creating.result()

    assert rows_of(session, workspace.id) == {"projects": 2}


def create(engine: Engine, name: str = "late") -> None:
    with Session(engine) as creator:
        make_project(creator, writable_workspace(creator, ANN, "ml-team"), name)
        creator.commit()


def create_for_runtime(engine: Engine, workspace_id: UUID) -> bool:
    """Write to a workspace that is known by its id, as the runtime does; whether it was ACTIVE."""
    with Session(engine) as creator:
        if not lock_active_workspace(creator, workspace_id):
            return False
        make_project(creator, creator.get_one(Workspace, workspace_id), "late")
        creator.commit()
        return True


def delete(engine: Engine, context: Context) -> None:
    with Session(engine) as deleter:
        request_deletion(deleter, context, ANN, "ml-team")
        deleter.commit()


def test_creators_that_come_while_a_delete_waits_queue_behind_it(
    database: Engine, session: Session, workspace: Workspace, context: Context
) -> None:
    with Session(database) as first:
        make_project(first, writable_workspace(first, ANN, "ml-team"), "first")
        with meanwhile(lambda: delete(database, context)) as deleting:
            has_to_wait(database, deleting)
            with (
                meanwhile(lambda: create(database)) as creating,
                meanwhile(lambda: create_for_runtime(database, workspace.id)) as running,
            ):
                queued = has_to_wait(database, creating, together=3)
                first.commit()
        assert queued, "a stream of creators would starve the DELETE"
        deleting.result()
        with pytest.raises(NotFound):
            creating.result()
        assert running.result() is False

    assert rows_of(session, workspace.id) == {"projects": 1}


@pytest.mark.parametrize("change", ["update", "protection"])
def test_creators_that_come_while_a_change_of_the_workspace_waits_queue_behind_it(
    database: Engine, session: Session, workspace: Workspace, change: str
) -> None:
    def act() -> None:
        with Session(database) as changer:
            if change == "update":
                update_workspace(changer, ANN, "ml-team", description="new")
            else:
                set_protection(changer, ANN, "ml-team", is_protected=True)
            changer.commit()

    with Session(database) as first:
        make_project(first, writable_workspace(first, ANN, "ml-team"), "first")
        with meanwhile(act) as changing:
            has_to_wait(database, changing)
            with meanwhile(lambda: create(database)) as creating:
                queued = has_to_wait(database, creating, together=2)
                first.commit()
        assert queued, "a stream of creators would starve the change"
        changing.result()
        creating.result()

    assert rows_of(session, workspace.id) == {"projects": 2}


def test_a_creator_that_waited_for_a_delete_creates_nothing_in_the_successor_of_the_name(
    database: Engine, session: Session, workspace: Workspace, context: Context
) -> None:
    with Session(database) as deleter:
        request_deletion(deleter, context, ANN, "ml-team")
        successor = create_workspace(deleter, ANN, "ml-team", description=None, with_admin=False).id
        with meanwhile(lambda: create(database)) as creating:
            assert has_to_wait(database, creating)
            deleter.commit()
    with pytest.raises(NotFound):
        creating.result()

    assert rows_of(session, workspace.id) == rows_of(session, successor) == {}


def test_a_delete_that_waited_for_another_answers_with_its_deletion_although_the_name_has_a_successor(
    database: Engine, session: Session, workspace: Workspace, context: Context
) -> None:
    def ask() -> UUID:
        with Session(database) as asking:
            return request_deletion(asking, context, ANN, "ml-team").workspace_id

    with Session(database) as deleter:
        request_deletion(deleter, context, ANN, "ml-team")
        successor = create_workspace(deleter, ANN, "ml-team", description=None, with_admin=False).id
        with meanwhile(ask) as asking:
            assert has_to_wait(database, asking)
            deleter.commit()

    assert asking.result() == workspace.id
    assert session.get_one(Workspace, successor).state is WorkspaceState.ACTIVE


def add_thing(session: Session, name: str = "late") -> None:
    entities.create_entity(
        session, ANN, "ml-team", "widget", name=name, parent=None, project=None, data={"by": "ann"}
    )


def change_thing(session: Session) -> None:
    entities.update_entity(
        session,
        ANN,
        "ml-team",
        "widget",
        "thing",
        parent=None,
        new_name=None,
        project=None,
        data={"by": "ann"},
        expected_db_version=None,
    )


ONE_STATEMENT = {"create": add_thing, "update": change_thing}
"""Writes whose statement has the lock of the workspace in it."""


@pytest.mark.parametrize("is_of_a_previous_release", [False, True])
@pytest.mark.parametrize("name", ONE_STATEMENT)
def test_a_write_in_one_statement_waits_for_a_delete_and_is_refused(
    database: Engine,
    session: Session,
    workspace: Workspace,
    context: Context,
    name: str,
    is_of_a_previous_release: bool,
) -> None:
    thing = make_entity(session, workspace)
    session.commit()

    def write() -> None:
        with Session(database) as writer:
            ONE_STATEMENT[name](writer)
            writer.commit()

    with Session(database) as deleter:
        if is_of_a_previous_release:  # which takes the lock of the row alone
            deleter.get_one(Workspace, workspace.id).state = WorkspaceState.DELETING
            deleter.flush()
        else:
            request_deletion(deleter, context, ANN, "ml-team")
        with meanwhile(write) as writing:
            assert has_to_wait(database, writing)
            deleter.commit()
    with pytest.raises(NotFound):
        writing.result()

    session.refresh(thing)
    assert (rows_of(session, workspace.id), thing.data) == ({"entities": 1}, {})


@pytest.mark.parametrize("name", ONE_STATEMENT)
def test_a_delete_waits_for_an_open_write_in_one_statement(
    database: Engine, session: Session, workspace: Workspace, name: str
) -> None:
    make_entity(session, workspace)
    session.commit()

    with Session(database) as writer:
        ONE_STATEMENT[name](writer)
        with meanwhile(lambda: close(database, workspace.id)) as closing:
            assert has_to_wait(database, closing), "the DELETE took effect under an open write"
            writer.commit()
        closing.result()
