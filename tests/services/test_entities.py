"""Entities and projects under concurrency: requests that meet."""

import pytest
from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from app.errors import Conflict, Unprocessable
from app.models import Entity, Workspace
from app.services import entities, projects
from tests.factories import make_entity, make_project, make_workspace, rows_of
from tests.support.actors import trusted
from tests.support.locks import has_to_wait, meanwhile

ANN = trusted("ann")


@pytest.fixture
def workspace(session: Session) -> Workspace:
    """A workspace with a project, and an entity that has a child."""
    made = make_workspace(session, "ml-team")
    make_entity(session, made, "child", parent=make_entity(session, made, "root"))
    make_project(session, made, "alpha")
    session.commit()
    return made


def create(session: Session, *, parent: Entity | None = None, project: str | None = None) -> None:
    entities.create_entity(
        session,
        ANN,
        "ml-team",
        "widget",
        name="late",
        parent=parent.id if parent else None,
        project=project,
        data={},
    )


def update(session: Session, data: dict[str, int]) -> None:
    entities.update_entity(
        session,
        ANN,
        "ml-team",
        "widget",
        "root",
        parent=None,
        new_name=None,
        project=None,
        data=data,
        expected_db_version=1,
    )


def delete(engine: Engine) -> None:
    with Session(engine) as session, session.begin():
        entities.delete_entity(
            session, ANN, "ml-team", "widget", "root", parent=None, expected_db_version=None
        )


def test_a_tree_is_deleted_together_with_a_child_that_was_just_being_added(
    database: Engine, session: Session, workspace: Workspace
) -> None:
    child = session.scalars(select(Entity).where(Entity.name == "child")).one()
    with Session(database) as creator:
        create(creator, parent=child)
        with meanwhile(lambda: delete(database)) as deleting:
            assert has_to_wait(database, deleting)
            creator.commit()
    deleting.result()

    assert rows_of(session, workspace.id) == {"projects": 1}


@pytest.mark.usefixtures("workspace")
def test_of_two_updates_of_the_same_version_one_is_refused(database: Engine, session: Session) -> None:
    def second_update() -> None:
        with Session(database) as second, second.begin():
            update(second, {"by": 2})

    with Session(database) as first:
        update(first, {"by": 1})
        with meanwhile(second_update) as updating:
            assert has_to_wait(database, updating)
            first.commit()
    with pytest.raises(Conflict, match="Expected version 1, but current version is 2"):
        updating.result()

    root = session.scalars(select(Entity).where(Entity.name == "root")).one()
    assert (root.data, root.db_version) == ({"by": 1}, 2)


@pytest.mark.usefixtures("workspace")
def test_the_deletion_of_a_project_waits_for_a_new_reference_and_then_clears_it(
    database: Engine, session: Session
) -> None:
    def delete_project() -> None:
        with Session(database) as second, second.begin():
            projects.delete_project(second, ANN, "ml-team", "alpha")

    with Session(database) as creator:
        create(creator, project="alpha")
        with meanwhile(delete_project) as deleting:
            assert has_to_wait(database, deleting)
            creator.commit()
    deleting.result()

    assert session.scalars(select(Entity).where(Entity.name == "late")).one().project is None


def test_a_project_that_is_being_deleted_gets_no_new_reference(
    database: Engine, session: Session, workspace: Workspace
) -> None:
    def join() -> None:
        with Session(database) as second, second.begin():
            create(second, project="alpha")

    with Session(database) as deleter:
        projects.delete_project(deleter, ANN, "ml-team", "alpha")
        with meanwhile(join) as joining:
            assert has_to_wait(database, joining)
            deleter.commit()
    with pytest.raises(Unprocessable):
        joining.result()

    assert rows_of(session, workspace.id) == {"entities": 2}
