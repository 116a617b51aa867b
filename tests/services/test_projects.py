"""Projects that are deleted while somebody uses them, or while more refers to them than one statement can clear."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from flask.testing import FlaskClient
from sqlalchemy import Engine, create_engine, func, insert, select, update
from sqlalchemy.orm import Session

from app import clock
from app.context import Context
from app.db import session_scope, sessions_of
from app.errors import NotFound, Unprocessable
from app.maintenance.sweep import sweep
from app.models import Deployment, Entity, Project, Workspace
from app.services import deployments, projects
from tests.factories import make_config, make_deployment, make_entity, make_project, make_workspace
from tests.support.actors import trusted
from tests.support.locks import has_to_wait, meanwhile
from tests.support.statements import NESTED_LOOPS

ANN = trusted("ann")
PROJECTS = "/apis/entities/v2/workspaces/ml-team/projects"
ENTITIES = "/apis/entities/v2/workspaces/ml-team/entities/widget"
MANY = 50


@pytest.fixture
def workspace(session: Session) -> Workspace:
    made = make_workspace(session, "ml-team")
    make_project(session, made, "apollo")
    session.commit()
    return made


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(projects, "CHUNK", 10)


def refer(session: Session, workspace: Workspace, *, number: int = MANY) -> None:
    values = [
        {
            "workspace_id": workspace.id,
            "entity_type": "widget",
            "name": f"w{i}",
            "project": "apollo",
            "data": {},
        }
        for i in range(number)
    ]
    session.execute(insert(Entity), values)
    session.commit()


def references(session: Session) -> int:
    session.rollback()
    return session.scalars(select(func.count()).where(Entity.project.is_not(None))).one()


def begin_deletion(session: Session, workspace: Workspace) -> None:
    """As `delete_project` begins, without its commit."""
    projects.find_project(session, workspace, "apollo", lock="delete").delete_requested_at = clock.now()
    session.flush()


@pytest.mark.parametrize("act", ["update", "delete"])
def test_who_comes_after_a_deletion_finds_no_project(
    session: Session, workspace: Workspace, context: Context, database: Engine, act: str
) -> None:
    def follow() -> None:
        if act == "delete":
            projects.delete_project(context, ANN, "ml-team", "apollo")
        else:
            with session_scope(context.sessions) as later:
                projects.update_project(later, ANN, "ml-team", "apollo", {"description": "x"})

    begin_deletion(session, workspace)
    with meanwhile(follow) as following:
        assert has_to_wait(database, following)
        session.commit()

    assert isinstance(following.exception(), NotFound)


@pytest.fixture(params=["as planned", "nested loops"])
def planned(request: pytest.FixtureRequest, context: Context, database: Engine) -> Iterator[Context]:
    """A process whose statements are planned as the statistics have it, or as they would be planned at the worst."""
    if request.param == "as planned":
        yield context
        return
    options = " ".join(f"-c {setting}" for setting in NESTED_LOOPS)
    engine = create_engine(database.url, connect_args={"options": options})
    yield replace(context, sessions=sessions_of(engine))
    engine.dispose()


@pytest.mark.usefixtures("few_at_once")
def test_a_project_goes_whose_references_no_single_statement_can_clear(
    session: Session, workspace: Workspace, planned: Context
) -> None:
    refer(session, workspace)

    projects.delete_project(planned, ANN, "ml-team", "apollo")

    assert references(session) == 0
    assert session.scalars(select(Project)).all() == []
    assert set(session.scalars(select(Entity.db_version))) == {2}


def test_a_deletion_that_was_cut_off_between_two_chunks_is_finished_by_the_sweep(
    session: Session, workspace: Workspace, hasty: Context, database: Engine
) -> None:
    refer(session, workspace)
    last = select(Entity.id).order_by(Entity.id.desc()).limit(1)
    with Session(database) as other:
        other.execute(select(Entity.id).where(Entity.id.in_(last)).with_for_update())

        projects.delete_project(hasty, ANN, "ml-team", "apollo")

        assert 0 < references(session) < MANY
        assert "remove_projects" in sweep(hasty).failed
        other.rollback()

    swept = sweep(hasty)

    assert (swept.ended, swept.failed) == (1, [])
    assert references(session) == 0
    assert session.scalars(select(Project)).all() == []


def test_a_project_whose_references_are_still_being_cleared_is_gone_for_everybody(
    session: Session,
    workspace: Workspace,
    client: FlaskClient,
    context: Context,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    refer(session, workspace)
    monkeypatch.setattr(projects, "CLEARING_S", 0.0)

    answer = client.delete(f"{PROJECTS}/apollo")

    assert (answer.status_code, answer.json) == (
        200,
        {"message": "Project deleted successfully", "id": "ml-team/apollo"},
    )
    assert client.get(f"{PROJECTS}/apollo").status_code == 404
    assert client.put(f"{PROJECTS}/apollo", json={"description": "x"}).status_code == 404
    assert client.delete(f"{PROJECTS}/apollo").status_code == 404
    assert client.get(PROJECTS).json["data"] == []
    assert client.post(ENTITIES, json={"name": "late", "data": {}, "project": "apollo"}).status_code == 422
    taken = client.post(PROJECTS, json={"name": "apollo"})
    assert taken.status_code == 409
    assert "still being cleared" in taken.json["detail"]

    sweep(context)

    assert client.post(PROJECTS, json={"name": "apollo"}).status_code == 201
    found = client.get(ENTITIES, query_string={"filter": '{"project": "apollo"}'})
    assert found.json["pagination"]["total_results"] == 0


def test_a_new_version_does_not_take_over_a_project_that_is_being_deleted(
    session: Session, workspace: Workspace, context: Context, database: Engine
) -> None:
    make_config(session, workspace)
    make_deployment(session, workspace, project="apollo")
    session.commit()

    def version() -> Any:
        with session_scope(context.sessions) as later:
            return deployments.create_version(
                later, ANN, "ml-team", "chat", config="small", config_version=None
            )

    begin_deletion(session, workspace)
    with meanwhile(version) as creating:
        assert has_to_wait(database, creating)
        session.commit()

    assert creating.result().project is None
    assert set(session.scalars(select(Deployment.project))) == {"apollo", None}


def test_references_in_a_workspace_that_is_being_deleted_are_left_to_its_deletion(
    session: Session, workspace: Workspace, context: Context
) -> None:
    refer(session, workspace)
    begin_deletion(session, workspace)
    session.execute(update(Workspace).where(Workspace.id == workspace.id).values(state="DELETING"))
    session.commit()

    assert sweep(context).failed == []

    assert references(session) == MANY


def test_a_project_that_is_being_deleted_gets_no_new_reference(
    session: Session, workspace: Workspace, context: Context, database: Engine
) -> None:
    def join() -> None:
        with session_scope(context.sessions) as later:
            projects.require_project(later, workspace, "apollo")

    begin_deletion(session, workspace)
    with meanwhile(join) as joining:
        assert has_to_wait(database, joining)
        session.commit()

    assert isinstance(joining.exception(), Unprocessable)


def test_the_deletion_of_a_project_waits_for_a_new_reference_and_then_clears_it(
    session: Session, workspace: Workspace, context: Context, database: Engine
) -> None:
    projects.require_project(session, workspace, "apollo")
    make_entity(session, workspace).project = "apollo"
    session.flush()
    with meanwhile(lambda: projects.delete_project(context, ANN, "ml-team", "apollo")) as deleting:
        assert has_to_wait(database, deleting)
        session.commit()

    deleting.result()
    assert references(session) == 0
