"""Workspaces: the built-in ones, and concurrent changes."""

import pytest
from flask.testing import FlaskClient
from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from app.cleanup import operations
from app.context import Context
from app.models import Workspace
from app.services.workspaces import seed, update_workspace
from tests.factories import make_workspace
from tests.support.actors import trusted
from tests.support.locks import has_to_wait, meanwhile
from tests.support.statements import counted

ANN, BOB = trusted("ann@example.com"), trusted("bob@example.com")


def describe(session, actor):
    update_workspace(session, actor, "ml-team", description=f"by {actor}")


def protect(session, actor):
    operations.set_protection(session, actor, "ml-team", is_protected=actor is BOB)


@pytest.mark.parametrize("change", [describe, protect])
def test_two_changes_of_one_workspace_take_turns(database: Engine, session: Session, change):
    make_workspace(session, "ml-team", is_protected=True)
    session.commit()

    def second():
        with Session(database) as other, other.begin():
            change(other, BOB)

    with Session(database) as first:
        change(first, ANN)
        with meanwhile(second) as changing:
            assert has_to_wait(database, changing)
            first.commit()
        changing.result()

    session.expire_all()
    assert session.scalars(select(Workspace.updated_by).where(Workspace.name == "ml-team")).one() == BOB.id


def test_the_built_in_workspaces_are_seeded_once_and_keep_what_was_changed(
    database: Engine, session: Session
):
    update_workspace(session, ANN, "default", description="ours")
    session.commit()

    for _ in range(10):  # more often than a driver needs to prepare the statement and plan it anew
        assert seed(session) == []
        session.commit()

    described = session.scalars(select(Workspace.description).where(Workspace.name == "default"))
    assert described.all() == ["ours"]


def test_a_write_is_one_round_trip_for_each_step(client: FlaskClient, context: Context) -> None:
    workspaces = "/apis/entities/v2/workspaces"
    engine = context.sessions.kw["bind"]

    with counted(engine) as sent:
        assert client.post(workspaces, json={"name": "made"}).status_code == 201
    assert len(sent) == 1, "the workspace with its audit records and the role of its creator: everybody may"

    with counted(engine) as sent:
        assert client.put(f"{workspaces}/made", json={"description": "new"}).status_code == 200
    assert len(sent) == 2, "the lock of the workspace; its change and the record of it"

    with counted(engine) as sent:
        entity = {"name": "thing", "data": {"a": 1}}
        assert client.post(f"{workspaces}/made/entities/widget", json=entity).status_code == 201
    assert len(sent) == 2, "the lock of the workspace; its state and the entity"

    with counted(engine) as sent:
        assert client.put(f"{workspaces}/made/entities/widget/thing", json={"data": {}}).status_code == 200
    assert len(sent) == 2, "the lock of the workspace; its state and the entity"

    with counted(engine) as sent:
        assert client.get(f"{workspaces}/made/entities/widget/thing").status_code == 200
    assert len(sent) == 1
