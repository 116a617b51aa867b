"""No entity loses its parent, whatever meets whatever: the guarantee of a foreign key, checked once a statement."""

from collections.abc import Callable
from typing import Any
from uuid import UUID, uuid4

import pytest
from psycopg.errors import ForeignKeyViolation, ObjectNotInPrerequisiteState
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.orm import Session

from app.models import Entity, Workspace
from tests import factories
from tests.support.locks import has_to_wait, meanwhile

INSERT = text(
    "INSERT INTO entities (id, workspace_id, entity_type, name, parent_id, db_version, created_at, created_by, "
    "updated_at, updated_by) VALUES (:id, :workspace, 'thing', CAST(:id AS text), :parent, 1, now(), '', now(), '')"
)
DELETE = text("DELETE FROM entities WHERE id = :id")


@pytest.fixture
def workspace(session: Session) -> Workspace:
    return factories.make_workspace(session)


@pytest.fixture
def parent(session: Session, workspace: Workspace) -> Entity:
    parent = factories.make_entity(session, workspace, "parent")
    session.commit()
    return parent


def child_of(parent: Entity) -> dict[str, Any]:
    return {"id": uuid4(), "workspace": parent.workspace_id, "parent": parent.id}


def refused(act: Callable[[], Any]) -> None:
    with pytest.raises(IntegrityError) as error:
        act()
    assert isinstance(error.value.orig, ForeignKeyViolation)


def orphans(connection: Connection) -> int:
    found = connection.scalar(
        text(
            "SELECT count(*) FROM entities AS child WHERE parent_id IS NOT NULL AND NOT EXISTS (SELECT FROM entities "
            "WHERE id = child.parent_id AND workspace_id = child.workspace_id)"
        )
    )
    return int(found or 0)


def test_a_parent_that_gets_a_child_before_its_deletion_stays(database: Engine, parent: Entity) -> None:
    parent_id = parent.id

    def delete() -> None:
        with database.begin() as deleting:
            deleting.execute(DELETE, {"id": parent_id})

    with database.connect() as adding:
        adding.execute(INSERT, child_of(parent))
        with meanwhile(delete) as deletion:
            assert has_to_wait(database, deletion)
            adding.commit()
        refused(deletion.result)
        assert orphans(adding) == 0


def test_a_child_that_comes_after_the_deletion_of_its_parent_is_refused(
    database: Engine, parent: Entity
) -> None:
    child = child_of(parent)

    def add() -> None:
        with database.begin() as adding:
            adding.execute(INSERT, child)

    with database.connect() as deleting:
        deleting.execute(DELETE, {"id": parent.id})
        with meanwhile(add) as addition:
            assert has_to_wait(database, addition)
            deleting.commit()
        refused(addition.result)
        assert orphans(deleting) == 0


def test_a_child_is_taken_where_the_deletion_of_its_parent_is_undone(
    database: Engine, parent: Entity
) -> None:
    child = child_of(parent)

    def add() -> None:
        with database.begin() as adding:
            adding.execute(INSERT, child)

    with database.connect() as deleting:
        deleting.execute(DELETE, {"id": parent.id})
        with meanwhile(add) as addition:
            assert has_to_wait(database, addition)
            deleting.rollback()
        addition.result()
        assert orphans(deleting) == 0


@pytest.mark.parametrize("level", ["REPEATABLE READ", "SERIALIZABLE"])
def test_no_deletion_trusts_an_old_snapshot(database: Engine, parent: Entity, level: str) -> None:
    old = database.connect().execution_options(isolation_level=level)
    with old as deleting, pytest.raises(DBAPIError) as error:
        deleting.execute(DELETE, {"id": parent.id})

    assert isinstance(error.value.orig, ObjectNotInPrerequisiteState)


def test_a_parent_is_in_the_workspace_of_its_child(session: Session, parent: Entity) -> None:
    other = factories.make_workspace(session, "other")
    child = child_of(parent)

    def add(**wrong: UUID) -> None:
        with session.begin_nested():
            session.execute(INSERT, child | wrong)

    refused(lambda: add(workspace=other.id))
    refused(lambda: add(parent=uuid4()))
    add()


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE entities SET parent_id = gen_random_uuid() WHERE id = :child",
        "UPDATE entities SET workspace_id = :other WHERE id = :child",
        "UPDATE entities SET workspace_id = :other WHERE id = :parent",
        "UPDATE entities SET id = gen_random_uuid() WHERE id = :parent",
        "DELETE FROM entities WHERE id = :parent",
    ],
)
def test_no_change_parts_the_two(session: Session, parent: Entity, change: str) -> None:
    other, child = factories.make_workspace(session, "other"), child_of(parent)
    session.execute(INSERT, child)

    refused(
        lambda: session.execute(text(change), {"child": child["id"], "parent": parent.id, "other": other.id})
    )


def test_both_may_come_and_go_in_one_statement(session: Session, workspace: Workspace) -> None:
    first, second = uuid4(), uuid4()
    session.execute(
        text(
            "INSERT INTO entities (id, workspace_id, name, parent_id, entity_type, db_version, created_at, created_by, "
            "updated_at, updated_by) SELECT one.*, 'thing', 1, now(), '', now(), '' FROM (VALUES "
            "(CAST(:second AS uuid), CAST(:workspace AS uuid), 'child', CAST(:first AS uuid)), "
            "(:first, :workspace, 'parent', NULL)) AS one"
        ),
        {"first": first, "second": second, "workspace": workspace.id},
    )
    gone = session.execute(
        text("DELETE FROM entities WHERE workspace_id = :id RETURNING id"), {"id": workspace.id}
    )

    assert set(gone.scalars()) == {first, second}


def test_no_trigger_fires_for_each_row_that_is_deleted(session: Session) -> None:
    """One statement for all rows of a chunk: by the foreign key it was two for each."""
    for_each_row, on_delete = 1, 8
    fired = text(
        "SELECT tgname FROM pg_trigger WHERE tgrelid = 'entities'::regclass "
        "AND tgtype & :row > 0 AND tgtype & :delete > 0"
    )

    assert session.scalars(fired, {"row": for_each_row, "delete": on_delete}).all() == []


def test_what_is_checked_is_found_by_an_index(session: Session) -> None:
    """Also by a plan that was made while the table was small."""
    settings = text(
        "SELECT proconfig FROM pg_proc WHERE proname IN ('entities_have_parents', 'entities_leave_no_children')"
    )

    assert ["enable_seqscan=off" in one for one in session.scalars(settings)] == [True, True]
