import pytest
from flask.testing import FlaskClient
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.lifecycle import WorkspaceState
from app.models import Deployment, DeploymentConfig, Entity, Fileset, Job, Workspace
from tests.factories import (
    make_config,
    make_deployment,
    make_entity,
    make_fileset,
    make_job,
    make_project,
    make_workspace,
)

WORKSPACES = "/apis/entities/v2/workspaces"
BASE = f"{WORKSPACES}/ml-team/projects"


@pytest.fixture(autouse=True)
def ml_team(client: FlaskClient) -> None:
    client.post(WORKSPACES, json={"name": "ml-team"})


def names(client: FlaskClient, workspace: str = "ml-team", **query: str) -> list[str]:
    page = client.get(f"{WORKSPACES}/{workspace}/projects", query_string=query).json
    return [project["name"] for project in page["data"]]


def test_a_project_is_shown_with_the_published_keys_and_who_made_it(client: FlaskClient):
    answer = client.post(
        BASE, json={"name": "alpha", "description": "First"}, headers={"X-NMP-Principal-Id": "ann"}
    )

    assert answer.status_code == 201
    assert {key: answer.json[key] for key in ("name", "workspace", "description")} == {
        "name": "alpha",
        "workspace": "ml-team",
        "description": "First",
    }
    assert set(answer.json) - {"name", "workspace", "description"} == {
        "id",
        "created_at",
        "created_by",
        "updated_at",
        "updated_by",
    }
    assert (answer.json["created_by"], answer.json["updated_by"]) == ("ann", "ann")
    assert client.get(f"{BASE}/alpha").json == answer.json


def test_names_are_unique_per_workspace(client: FlaskClient):
    client.post(BASE, json={"name": "alpha"})

    answer = client.post(BASE, json={"name": "alpha"})

    assert answer.status_code == 409
    assert answer.json == {"detail": "Project 'alpha' already exists in workspace 'ml-team'."}
    assert client.post(f"{WORKSPACES}/default/projects", json={"name": "alpha"}).status_code == 201


@pytest.mark.parametrize("body", [{}, {"name": "A"}, {"name": "alpha\n"}, {"name": "alpha", "x": 1}])
def test_a_body_that_does_not_fit_is_refused(client: FlaskClient, body: object):
    assert client.post(BASE, json=body).status_code == 422
    assert names(client) == []


def test_null_clears_a_description_and_an_absent_key_keeps_it(client: FlaskClient):
    made = client.post(BASE, json={"name": "alpha", "description": "First"}).json

    assert client.put(f"{BASE}/alpha", json={}).json == made
    changed = client.put(f"{BASE}/alpha", json={"description": None}, headers={"X-NMP-Principal-Id": "bob"})

    assert (changed.status_code, changed.json["description"]) == (200, None)
    assert (changed.json["updated_by"], changed.json["created_by"]) == ("bob", "")
    assert changed.json["updated_at"] > made["updated_at"]


def test_projects_are_listed_newest_first_and_filtered(client: FlaskClient):
    client.post(BASE, json={"name": "alpha", "description": "First"})
    client.post(BASE, json={"name": "beta"})

    assert names(client) == ["beta", "alpha"]
    assert names(client, sort="name") == ["alpha", "beta"]
    assert names(client, filter='name~"ALP"') == ["alpha"]
    assert names(client, filter='data.description:"First"') == ["alpha"]
    assert names(client, filter="description:null") == ["beta"]
    assert client.get(BASE, query_string={"filter": "secret:1"}).status_code == 400


def test_a_dash_lists_the_projects_of_every_workspace_in_use(client: FlaskClient, session: Session):
    make_project(session, make_workspace(session, "leaving", state=WorkspaceState.DELETING), "hidden")
    session.commit()
    client.post(BASE, json={"name": "alpha"})
    client.post(f"{WORKSPACES}/default/projects", json={"name": "beta"})

    assert names(client, "-", sort="workspace") == ["beta", "alpha"]
    assert names(client, "-", filter='workspace:"ml-team"') == ["alpha"]


@pytest.mark.parametrize("workspace", ["nope", "leaving"])
def test_a_workspace_that_is_not_there_has_no_projects(client: FlaskClient, session: Session, workspace: str):
    make_project(session, make_workspace(session, "leaving", state=WorkspaceState.DELETING), "alpha")
    session.commit()
    base = f"{WORKSPACES}/{workspace}/projects"

    answers = [
        client.get(base),
        client.post(base, json={"name": "beta"}),
        client.get(f"{base}/alpha"),
        client.put(f"{base}/alpha", json={}),
        client.delete(f"{base}/alpha"),
    ]

    assert [answer.status_code for answer in answers] == [404] * 5
    assert {answer.json["detail"] for answer in answers} == {f"Workspace '{workspace}' not found"}


def test_a_project_cannot_be_made_everywhere_at_once(client: FlaskClient):
    answer = client.post(f"{WORKSPACES}/-/projects", json={"name": "alpha"})

    assert (answer.status_code, answer.json) == (404, {"detail": "Workspace '-' not found"})


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
def test_a_missing_project_is_not_found(client: FlaskClient, method: str):
    answer = client.open(f"{BASE}/nope", method=method, json={})

    assert answer.status_code == 404
    assert answer.json == {"detail": "Project 'nope' not found in workspace 'ml-team'"}


def test_what_was_part_of_a_deleted_project_stays_and_is_part_of_none(client: FlaskClient, session: Session):
    ours = session.scalars(select(Workspace).where(Workspace.name == "ml-team")).one()
    theirs = session.scalars(select(Workspace).where(Workspace.name == "default")).one()
    for home in (ours, theirs):
        make_project(session, home, "alpha")
        for make in (make_job, make_config, make_deployment, make_fileset, make_entity):
            make(session, home, "in-alpha").project = "alpha"
            make(session, home, "in-beta").project = "beta"
    session.commit()

    answer = client.delete(f"{BASE}/alpha", content_type="application/json")

    assert answer.status_code == 200
    assert answer.json == {"message": "Project deleted successfully", "id": "ml-team/alpha"}
    assert client.get(f"{BASE}/alpha").status_code == 404
    session.expire_all()
    for model, nothing in {
        Job: None,
        DeploymentConfig: None,
        Deployment: None,
        Fileset: "",
        Entity: None,
    }.items():
        rows = session.execute(select(model.workspace_id, model.name, model.project))
        assert {(row.workspace_id, row.name): row.project for row in rows} == {
            (ours.id, "in-alpha"): nothing,
            (ours.id, "in-beta"): "beta",
            (theirs.id, "in-alpha"): "alpha",
            (theirs.id, "in-beta"): "beta",
        }, model


def test_an_entity_that_loses_its_project_is_a_new_version(client: FlaskClient):
    client.post(BASE, json={"name": "alpha"})
    entities = f"{WORKSPACES}/ml-team/entities/widget"
    client.post(entities, json={"name": "one", "project": "alpha", "data": {}})

    client.delete(f"{BASE}/alpha")

    one = client.get(f"{entities}/one").json
    assert (one["project"], one["db_version"]) == (None, 2)
