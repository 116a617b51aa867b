"""Deployments and their configurations over HTTP."""

from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest
from flask.testing import FlaskClient
from sqlalchemy.orm import Session

from app import create_app
from app.context import Context
from app.lifecycle import DeploymentStatus, WorkspaceState
from app.models import Deployment, Workspace
from app.services.deployments import move
from tests.factories import make_config, make_deployment, make_workspace
from tests.support.publisher import RecordingPublisher

HOME = "/apis/models/v2/workspaces/ml-team"
CONFIGS = f"{HOME}/deployment-configs"
DEPLOYMENTS = f"{HOME}/deployments"
CONTENT = {"engine": "generic", "model_spec": {"model_name": "tiny"}, "executor_config": {"gpu": 0}}


@pytest.fixture(autouse=True)
def workspace(session: Session) -> Workspace:
    workspace = make_workspace(session, "ml-team")
    session.commit()
    return workspace


def post(client: FlaskClient, path: str, **body: Any) -> Any:
    response = client.post(path, json=body)
    assert response.status_code == 201, response.text
    return response.json


@pytest.fixture
def config(client: FlaskClient) -> Any:
    return post(client, CONFIGS, name="small", **CONTENT)


@pytest.fixture
def deployment(client: FlaskClient, config: Any) -> Any:
    return post(client, DEPLOYMENTS, name="chat", config=config["name"])


def answer(response: Any) -> tuple[int, Any]:
    return response.status_code, response.json


def test_a_new_config_is_shown_with_every_key_of_the_contract(client: FlaskClient, config: Any) -> None:
    assert config == client.get(f"{CONFIGS}/small").json == client.get(f"{CONFIGS}/small/versions/1").json
    assert config.keys() == {
        *("id", "name", "workspace", "project", "entity_version", "description", "engine", "model_spec"),
        *("executor_config", "model_entity_id", "created_at", "updated_at"),
    }
    assert (config["workspace"], config["entity_version"]) == ("ml-team", 1)
    assert (config["executor_config"]["disk_size"], config["model_spec"]["lora_enabled"]) == ("50Gi", False)
    assert config["created_at"].endswith("Z")


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": "Upper"},
        {"name": "x" * 64},
        {"engine": "steam"},
        {"executor_config": {}},
        {"executor_config": {"gpu": -1}},
        {"surplus": 1},
    ],
)
def test_a_malformed_config_is_refused_with_the_list_of_what_is_wrong(
    client: FlaskClient, wrong: dict[str, Any]
) -> None:
    response = client.post(CONFIGS, json={"name": "small", **CONTENT, **wrong})

    assert response.status_code == 422
    assert response.json["detail"][0]["loc"][0] == "body"


@pytest.mark.parametrize("name", ["A=B", ""])
def test_a_variable_that_no_system_can_pass_on_is_refused_by_its_name(client: FlaskClient, name: str) -> None:
    executor = {"gpu": 0, "additional_envs": {"GOOD": "1", name: "2"}}

    refused = client.post(CONFIGS, json={"name": "small", **CONTENT, "executor_config": executor})

    assert refused.status_code == 422
    found = [one["loc"][:4] for one in refused.json["detail"]]
    assert found == [["body", "executor_config", "additional_envs", name]]


def test_a_second_config_of_the_same_name_is_refused(client: FlaskClient, config: Any) -> None:
    again = client.post(CONFIGS, json={"name": config["name"], **CONTENT})

    detail = "Deployment config with workspace 'ml-team' and name 'small' already exists"
    assert answer(again) == (409, {"detail": detail})


def test_the_list_shows_the_newest_version_of_each_config(client: FlaskClient, config: Any) -> None:
    newer = post(client, f"{CONFIGS}/small", **CONTENT, description="second")
    post(client, CONFIGS, name="large", **CONTENT)

    listed = client.get(CONFIGS).json

    assert [(one["name"], one["entity_version"]) for one in listed["data"]] == [("small", 2), ("large", 1)]
    assert client.get(f"{CONFIGS}/small").json == newer
    assert client.get(f"{CONFIGS}/small/versions").json == [config, newer]
    assert client.get(f'{CONFIGS}?filter={{"description":"second"}}').json["data"] == [newer]


@pytest.mark.usefixtures("deployment")
def test_a_config_is_deleted_only_once_no_deployment_needs_it(client: FlaskClient) -> None:
    refused = client.delete(f"{CONFIGS}/small")
    client.delete(f"{DEPLOYMENTS}/chat")
    deleted = client.delete(f"{CONFIGS}/small", content_type="application/json")

    assert answer(refused) == (
        409,
        {
            "detail": "Cannot delete ModelDeploymentConfig 'ml-team/small' because 1 ModelDeployment(s) still "
            "reference it and are not in DELETED status. Delete the dependent deployments first."
        },
    )
    assert (deleted.status_code, deleted.data) == (204, b"")
    assert answer(client.get(f"{CONFIGS}/small")) == (
        404,
        {"detail": "Deployment config 'ml-team/small' not found"},
    )


@pytest.mark.usefixtures("deployment")
def test_a_version_of_a_config_that_no_deployment_uses_can_be_deleted_alone(client: FlaskClient) -> None:
    post(client, f"{CONFIGS}/small", **CONTENT)

    assert client.delete(f"{CONFIGS}/small/versions/1").status_code == 409
    assert client.delete(f"{CONFIGS}/small/versions/2").status_code == 204
    assert [one["entity_version"] for one in client.get(f"{CONFIGS}/small/versions").json] == [1]


def test_a_new_deployment_is_shown_with_every_key_of_the_contract(
    client: FlaskClient, deployment: Any, publisher: RecordingPublisher
) -> None:
    assert deployment == client.get(f"{DEPLOYMENTS}/chat").json
    [entry] = deployment.pop("status_history")
    assert entry["timestamp"].endswith("Z")
    assert (entry["status"], entry["status_message"]) == ("CREATED", "Deployment created")
    assert {key: deployment[key] for key in deployment if key not in ("id", "created_at", "updated_at")} == {
        "name": "chat",
        "workspace": "ml-team",
        "project": None,
        "entity_version": 1,
        "config": "small",
        "config_version": 1,
        "status": "CREATED",
        "status_message": "Deployment created",
        "model_provider_id": None,
        "auth_context": None,
    }
    assert [(message.task, message.facts["deployment_id"]) for message in publisher.published] == [
        ("workspace.deployment.run", deployment["id"])
    ]


@pytest.mark.parametrize(
    ("wanted", "which"),
    [
        ({"config": "nope"}, "'ml-team/nope'"),
        ({"config": "small", "config_version": 7}, "'ml-team/small' version '7'"),
    ],
)
@pytest.mark.usefixtures("config")
def test_a_deployment_of_a_missing_config_is_refused(
    client: FlaskClient, wanted: dict[str, Any], which: str
) -> None:
    response = client.post(DEPLOYMENTS, json={"name": "chat", **wanted})

    assert answer(response) == (400, {"detail": f"Deployment config {which} not found"})
    assert client.get(DEPLOYMENTS).json["data"] == []


@pytest.mark.usefixtures("deployment")
def test_a_second_deployment_of_the_same_name_is_refused(client: FlaskClient) -> None:
    again = client.post(DEPLOYMENTS, json={"name": "chat", "config": "small"})

    detail = "Deployment with workspace 'ml-team' and name 'chat' already exists"
    assert answer(again) == (409, {"detail": detail})


def test_lists_show_the_newest_version_unless_all_are_wanted(client: FlaskClient, deployment: Any) -> None:
    newer = post(client, f"{DEPLOYMENTS}/chat", config="small")

    assert (newer["entity_version"], newer["status"]) == (2, "PENDING")
    assert client.get(DEPLOYMENTS).json["data"] == [newer]
    assert client.get(f"{DEPLOYMENTS}?all_versions=true&sort=created_at").json["data"] == [deployment, newer]
    assert client.get(f"{DEPLOYMENTS}/chat/versions").json == [deployment, newer]
    assert client.get(f"{DEPLOYMENTS}/nope/versions").json == []
    assert client.get(f"{DEPLOYMENTS}/chat/versions/1").json == deployment
    assert client.get(f"{DEPLOYMENTS}/chat/versions/one").status_code == 400
    assert client.get(f"{DEPLOYMENTS}/chat/versions/3").status_code == 404


def test_a_deployment_that_no_host_has_is_deleted_without_waiting_for_one(
    client: FlaskClient, deployment: Any, publisher: RecordingPublisher
) -> None:
    publisher.published.clear()

    assert answer(client.delete(f"{DEPLOYMENTS}/{deployment['name']}")) == (202, None)

    assert client.get(f"{DEPLOYMENTS}/chat").json["status"] == "DELETED"
    assert publisher.published == []
    assert client.delete(f"{DEPLOYMENTS}/chat").status_code == 204
    assert client.get(f"{DEPLOYMENTS}/chat").status_code == 404


def test_a_deleted_deployment_goes_in_two_steps(
    client: FlaskClient, session: Session, deployment: Any, publisher: RecordingPublisher
) -> None:
    newer = post(client, f"{DEPLOYMENTS}/chat", config="small")
    versions = [session.get_one(Deployment, UUID(one["id"])) for one in (deployment, newer)]
    for version in versions:
        version.host = "somewhere"
    session.commit()
    publisher.published.clear()

    first = client.delete(f"{DEPLOYMENTS}/chat", content_type="application/json")
    assert answer(first) == (202, None)
    shown = client.get(f"{DEPLOYMENTS}/chat").json
    assert (shown["status"], shown["status_message"]) == ("DELETING", "Deployment deletion requested")
    assert [message.facts["deployment_id"] for message in publisher.published] == [
        deployment["id"],
        newer["id"],
    ]

    for version in versions:
        assert client.delete(f"{DEPLOYMENTS}/chat").status_code == 202
        # What its host does when it has seen that nothing of it runs.
        session.refresh(version)
        move(session, version, DeploymentStatus.DELETED, "Deployment deleted")
        version.host = None
        session.commit()
    assert client.get(f"{DEPLOYMENTS}/chat").json["status"] == "DELETED"
    assert client.delete(f"{DEPLOYMENTS}/chat").status_code == 204
    assert answer(client.delete(f"{DEPLOYMENTS}/chat")) == (
        404,
        {"detail": "Deployment 'ml-team/chat' not found"},
    )


@pytest.mark.usefixtures("deployment")
def test_one_version_can_be_deleted_and_the_name_stays_taken(client: FlaskClient) -> None:
    newer = post(client, f"{DEPLOYMENTS}/chat", config="small")

    assert client.delete(f"{DEPLOYMENTS}/chat/versions/1").status_code == 202
    assert client.delete(f"{DEPLOYMENTS}/chat/versions/1").status_code == 204

    assert client.get(f"{DEPLOYMENTS}/chat/versions").json == [newer]
    assert client.post(DEPLOYMENTS, json={"name": "chat", "config": "small"}).status_code == 409


@pytest.mark.usefixtures("deployment")
def test_no_new_version_is_made_of_a_deployment_that_is_being_deleted(client: FlaskClient) -> None:
    client.delete(f"{DEPLOYMENTS}/chat")

    assert client.post(f"{DEPLOYMENTS}/chat", json={"config": "small"}).status_code == 409
    assert len(client.get(f"{DEPLOYMENTS}/chat/versions").json) == 1


@pytest.mark.usefixtures("deployment")
def test_the_status_of_a_version_can_be_reported(client: FlaskClient) -> None:
    newer = post(client, f"{DEPLOYMENTS}/chat", config="small")

    report = {"status": "READY", "status_message": "up", "model_provider_id": "ml-team/chat"}
    response = client.post(f"{DEPLOYMENTS}/chat/status?version=1", json=report)

    assert response.status_code == 200
    assert {key: response.json[key] for key in report} == report
    assert [entry["status"] for entry in response.json["status_history"]] == ["CREATED", "READY"]
    assert client.get(f"{DEPLOYMENTS}/chat").json == newer


@pytest.mark.usefixtures("deployment")
def test_once_deleting_only_deleted_can_be_reported(client: FlaskClient) -> None:
    client.post(f"{DEPLOYMENTS}/chat/status", json={"status": "DELETING"})

    refused = client.post(f"{DEPLOYMENTS}/chat/status", json={"status": "READY"})

    detail = "Deployment is marked for deletion (DELETING). Only transition to DELETED is allowed."
    assert answer(refused) == (409, {"detail": detail})
    assert client.post(f"{DEPLOYMENTS}/chat/status", json={"status": "DELETED"}).status_code == 200


def test_what_the_runtime_supervises_it_reports_itself(
    client: FlaskClient, session: Session, deployment: dict
) -> None:
    row = session.get_one(Deployment, UUID(deployment["id"]))
    row.host = "somewhere"
    session.commit()
    client.delete(f"{DEPLOYMENTS}/chat")

    refused = client.post(f"{DEPLOYMENTS}/chat/status", json={"status": "DELETED"})

    assert refused.status_code == 409
    assert "supervised by the runtime on 'somewhere'" in refused.json["detail"]
    assert client.delete(f"{DEPLOYMENTS}/chat").status_code == 202
    assert client.get(f"{DEPLOYMENTS}/chat").json["status"] == "DELETING"


def test_where_nothing_can_serve_them_none_are_made(context: Context, deployment: dict) -> None:
    settings = context.settings.model_copy(update={"deployment_runtime": "none"})
    client = create_app(replace(context, settings=settings)).test_client()
    refusal = (422, {"detail": "Deployments are not enabled because the backend runtime is set to 'none'"})

    assert answer(client.post(DEPLOYMENTS, json={"name": "more", "config": "small"})) == refusal
    assert answer(client.post(f"{DEPLOYMENTS}/chat", json={"config": "small"})) == refusal
    assert client.delete(f"{DEPLOYMENTS}/chat").status_code == 202


def test_where_processes_are_kept_off_the_answer_names_the_setting(
    context: Context, deployment: dict
) -> None:
    settings = context.settings.model_copy(update={"subprocess_provider": "off"})
    client = create_app(replace(context, settings=settings)).test_client()

    refused = client.post(f"{DEPLOYMENTS}/{deployment['name']}", json={"config": "small"})

    assert refused.status_code == 422
    assert "WORKSPACES_SUBPROCESS_PROVIDER is 'off'" in refused.json["detail"]


@pytest.mark.usefixtures("deployment")
def test_a_deployment_that_nothing_executes_serves_no_models(client: FlaskClient) -> None:
    assert client.get(f"{DEPLOYMENTS}/chat/models").json == {
        "workspace": "ml-team",
        "name": "chat",
        "models": [],
    }


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/deployments", None),
        ("POST", "/deployments", {"name": "new", "config": "small"}),
        ("GET", "/deployments/chat", None),
        ("POST", "/deployments/chat", {"config": "small"}),
        ("DELETE", "/deployments/chat", None),
        ("GET", "/deployments/chat/versions", None),
        ("POST", "/deployments/chat/status", {"status": "READY"}),
        ("GET", "/deployment-configs", None),
        ("POST", "/deployment-configs", {"name": "new", **CONTENT}),
        ("GET", "/deployment-configs/small", None),
        ("POST", "/deployment-configs/small", CONTENT),
        ("DELETE", "/deployment-configs/small", None),
    ],
)
def test_nothing_of_a_workspace_that_is_being_deleted_can_be_reached(
    client: FlaskClient, session: Session, workspace: Workspace, method: str, path: str, body: Any
) -> None:
    make_config(session, workspace)
    deployment = make_deployment(session, workspace, status=DeploymentStatus.READY)
    workspace.state = WorkspaceState.DELETING
    session.commit()

    response = client.open(HOME + path, method=method, json=body)

    assert answer(response) == (404, {"detail": "Workspace 'ml-team' not found"})
    session.refresh(deployment)
    assert deployment.status is DeploymentStatus.READY


def test_a_dash_lists_the_deployments_of_all_active_workspaces(
    client: FlaskClient, session: Session, workspace: Workspace
) -> None:
    make_deployment(session, workspace, "here")
    make_deployment(session, make_workspace(session, "other"), "there")
    make_deployment(session, make_workspace(session, "going", state=WorkspaceState.DELETING), "gone")
    session.commit()

    listed = client.get("/apis/models/v2/workspaces/-/deployments?sort=name").json["data"]

    assert [(one["workspace"], one["name"]) for one in listed] == [("ml-team", "here"), ("other", "there")]
