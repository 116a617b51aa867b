"""Entities under concurrency: requests that meet."""

import pytest
from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from app.context import Context
from app.errors import Busy, Conflict
from app.models import Entity, Workspace
from app.services import entities
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


def create(session: Session, *, parent: Entity) -> None:
    entities.create_entity(
        session,
        ANN,
        "ml-team",
        "widget",
        name="late",
        parent=parent.id,
        project=None,
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


def delete(context: Context, *, expected_db_version: int | None = None) -> None:
    entities.delete_entity(
        context, ANN, "ml-team", "widget", "root", parent=None, expected_db_version=expected_db_version
    )


def test_a_tree_is_deleted_together_with_a_child_that_was_just_being_added(
    database: Engine, session: Session, workspace: Workspace, context: Context
) -> None:
    child = session.scalars(select(Entity).where(Entity.name == "child")).one()
    with Session(database) as creator:
        create(creator, parent=child)
        with meanwhile(lambda: delete(context)) as deleting:
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


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entities, "CHUNK", 10)


def grow(session: Session, workspace: Workspace, shape: str) -> None:
    """Put 60 entities below the root, and some beside it."""
    root = session.scalars(select(Entity).where(Entity.name == "root")).one()
    parents = [root]
    for number in range(60):
        above = {"broad": root, "deep": parents[-1], "bushy": parents[number // 3]}[shape]
        parents.append(make_entity(session, workspace, f"e{number}", parent=above))
    make_entity(session, workspace, "e1", parent=make_entity(session, workspace, "beside"))
    session.commit()


@pytest.mark.usefixtures("few_at_once", "small_chunks")
@pytest.mark.parametrize("shape", ["broad", "deep", "bushy"])
def test_a_tree_goes_that_no_single_statement_can_delete(
    session: Session, workspace: Workspace, context: Context, shape: str
) -> None:
    grow(session, workspace, shape)

    delete(context, expected_db_version=1)

    assert set(session.scalars(select(Entity.name))) == {"beside", "e1"}


@pytest.mark.usefixtures("small_chunks")
def test_a_tree_that_takes_too_long_is_deleted_by_the_requests_that_follow(
    session: Session, workspace: Workspace, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(entities, "DELETING_S", 0.0)
    grow(session, workspace, "broad")

    for _ in range(6):
        with pytest.raises(Busy):
            delete(context)
    delete(context)

    assert rows_of(session, workspace.id) == {"entities": 2, "projects": 1}


@pytest.mark.usefixtures("small_chunks")
def test_a_large_tree_whose_root_has_another_version_than_expected_stays_whole(
    session: Session, workspace: Workspace, context: Context
) -> None:
    grow(session, workspace, "broad")

    with pytest.raises(Conflict):
        delete(context, expected_db_version=2)

    assert rows_of(session, workspace.id) == {"entities": 64, "projects": 1}
