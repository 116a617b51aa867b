"""Who may read the values of secrets, and in whose name a job may use them."""

from typing import Any

import pytest
from flask.testing import FlaskClient
from sqlalchemy.orm import Session

from app.lifecycle import JobStatus
from app.models import Workspace
from tests.factories import make_binding, make_job, make_secret, make_workspace
from tests.support.people import OPERATOR, announced

SERVICE, ANN = announced("service:jobs"), announced("ann", email="ann@example.com")
ADMIN = announced("the-operator", email=OPERATOR)
JOBS = "/apis/jobs/v2/workspaces/mine/jobs"


@pytest.fixture(autouse=True)
def workspaces(session: Session) -> dict[str, Workspace]:
    """`mine`, of which Ann is an Editor, and `theirs`; both have a secret `token`."""
    made = {name: make_workspace(session, name) for name in ("mine", "theirs")}
    for workspace in made.values():
        make_secret(session, workspace, "token", f"the value in {workspace.name}")
    make_binding(session, made["mine"], "ann@example.com", "Editor")
    session.commit()
    return made


def access(client: FlaskClient, headers: dict[str, str], workspace: str = "mine", name: str = "token") -> Any:
    path = f"/apis/secrets/v2/workspaces/{workspace}/secrets/{name}/access"
    answer = client.get(path, headers=headers)
    return answer.status_code, answer.json.get("value", answer.json.get("detail"))


def on_behalf_of(principal: str) -> dict[str, str]:
    return SERVICE | {"X-NMP-Principal-On-Behalf-Of": principal}


def test_a_service_reads_values_and_an_administrator_does_not(client: FlaskClient) -> None:
    assert access(client, SERVICE) == (200, "the value in mine")
    assert access(client, SERVICE, name="nope") == (404, "Secret mine/nope not found")
    assert access(client, SERVICE, workspace="nope") == (404, "Workspace 'nope' not found")
    for headers in (ADMIN, ANN):
        assert access(client, headers) == (403, "Forbidden")
        assert access(client, headers, workspace="nope") == (403, "Forbidden")


def test_a_service_that_acts_for_a_user_reads_what_that_user_may_know_of(client: FlaskClient) -> None:
    ann = on_behalf_of("ann@example.com")

    assert access(client, ann) == (200, "the value in mine")
    assert access(client, ann, workspace="theirs") == (403, "Forbidden")
    assert access(client, on_behalf_of("eve")) == (403, "Forbidden")


def body(*references: str, name: str = "train") -> dict[str, Any]:
    step = {
        "name": "main",
        "executor": {"provider": "subprocess", "command": ["true"]},
        "environment": [
            {"name": f"V{number}", "from_secret": {"name": reference}}
            for number, reference in enumerate(references)
        ],
    }
    return {"name": name, "source": "tests", "spec": {}, "platform_spec": {"steps": [step]}}


REFUSAL = (
    "Unable to create job because one or more referenced secrets were not found or are not accessible. Verify each "
    "platform_spec secret reference uses the expected workspace/name and that you have access"
)


def test_a_job_uses_secrets_of_its_own_workspace(client: FlaskClient) -> None:
    answer = client.post(JOBS, json=body("token", "mine/token"), headers=ANN)

    assert answer.status_code == 201, answer.text
    [step] = answer.json["platform_spec"]["steps"]
    assert step["environment"][0] == {"name": "V0", "from_secret": {"name": "token"}}
    assert "ann@example.com" not in answer.text


@pytest.mark.parametrize(
    ("reference", "named"),
    [
        ("nope", "mine/nope"),
        ("theirs/token", "theirs/token"),
        ("theirs/nope", "theirs/nope"),
        ("nowhere/token", "nowhere/token"),
        ("", "mine/"),
        ("a/b/c", "a/b/c"),
    ],
)
def test_a_job_that_names_a_secret_which_is_missing_or_not_the_callers_is_refused(
    client: FlaskClient, reference: str, named: str
) -> None:
    refused = client.post(JOBS, json=body("token", reference), headers=ANN)

    assert (refused.status_code, refused.json) == (409, {"detail": f"{REFUSAL}: {named}."})
    assert client.get(JOBS, headers=ANN).json["data"] == []


@pytest.mark.parametrize(("role", "status"), [("Viewer", 409), ("Editor", 201)])
def test_who_could_replace_a_secret_may_use_it_and_who_may_only_see_it_may_not(
    client: FlaskClient, session: Session, workspaces: dict[str, Workspace], role: str, status: int
) -> None:
    """A job can print the value, which a Viewer of its workspace must not get."""
    make_binding(session, workspaces["theirs"], "ann@example.com", role)
    session.commit()

    assert client.post(JOBS, json=body("theirs/token"), headers=ANN).status_code == status


def test_a_token_that_is_narrowed_to_jobs_uses_no_secrets(client: FlaskClient) -> None:
    narrowed = ANN | {"X-NMP-Scopes": "jobs:write"}

    assert client.post(JOBS, json=body(), headers=narrowed).status_code == 201
    assert client.post(JOBS, json=body("token", name="train-2"), headers=narrowed).status_code == 409
    wider = ANN | {"X-NMP-Scopes": "jobs:write secrets:read"}
    assert client.post(JOBS, json=body("token", name="train-2"), headers=wider).status_code == 201


def test_a_job_is_run_again_only_by_who_may_use_its_secrets(
    client: FlaskClient, session: Session, workspaces: dict[str, Workspace]
) -> None:
    spec = body("theirs/token")["platform_spec"]
    make_job(session, workspaces["mine"], status=JobStatus.COMPLETED, platform_spec=spec)
    make_binding(session, workspaces["mine"], "bob", "Editor")
    make_binding(session, workspaces["theirs"], "bob", "Editor")
    session.commit()

    refused = client.post(f"{JOBS}/train/rerun", headers=ANN)

    assert refused.status_code == 409
    assert refused.json["detail"] == f"{REFUSAL.replace('create', 'rerun')}: theirs/token."
    assert client.get(f"{JOBS}/train", headers=ANN).json["status"] == "completed"
    assert client.post(f"{JOBS}/train/rerun", headers=announced("bob")).status_code == 200


def test_a_step_has_a_hundred_variables_from_secrets_at_most(client: FlaskClient) -> None:
    assert client.post(JOBS, json=body(*["token"] * 100), headers=ANN).status_code == 201
    refused = client.post(JOBS, json=body(*["token"] * 101, name="train-2"), headers=ANN)
    assert refused.status_code == 422
    assert "more than 100 variables from secrets" in refused.text
