import re

import pytest
from flask.testing import FlaskClient
from sqlalchemy import delete
from sqlalchemy.orm import Session

from app.models import RoleBinding

BASE = "/apis/auth/v2/iam/role-bindings"
ANN = "ann@example.com"


@pytest.fixture(autouse=True)
def ml_team(client: FlaskClient, session: Session) -> None:
    session.execute(delete(RoleBinding))  # those of the first start are not what these tests count
    session.commit()
    client.post("/apis/entities/v2/workspaces", json={"name": "ml-team"})


def bind(client: FlaskClient, role: str = "Editor", principal: str = ANN, workspace: str = "ml-team"):
    return client.post(
        f"{BASE}?wait_role_propagation=true",
        json={"principal": principal, "role": role, "workspace": workspace},
        headers={"X-NMP-Principal-Id": "root"},
    )


def roles(client: FlaskClient, **query: str) -> list[str]:
    return [binding["role"] for binding in client.get(BASE, query_string=query).json["data"]]


def test_a_binding_is_shown_with_exactly_the_published_keys(client: FlaskClient):
    answer = bind(client)

    assert answer.status_code == 201
    made = answer.json
    assert list(made) == [
        "id",
        "name",
        "principal",
        "workspace",
        "role",
        "granted_by",
        "granted_at",
        "revoked_at",
    ]
    assert (made["principal"], made["role"], made["workspace"]) == (ANN, "Editor", "ml-team")
    assert (made["granted_by"], made["revoked_at"]) == ("root", None)
    assert made["granted_at"].endswith("Z")
    assert re.fullmatch("rb-[0-9a-f]{24}", made["name"])
    assert client.get(f"{BASE}/{made['name']}").json == made


def test_without_a_workspace_the_role_is_about_the_platform(client: FlaskClient):
    answer = client.post(BASE, json={"principal": ANN, "role": "PlatformAdmin"})

    assert (answer.status_code, answer.json["workspace"]) == (201, "system")


def test_a_binding_makes_a_member_and_a_member_has_bindings(client: FlaskClient):
    members = "/apis/entities/v2/workspaces/ml-team/members"
    bind(client, "Editor")
    client.post(members, json={"principal": ANN, "roles": ["Viewer"]})

    assert roles(client, sort="role") == ["Editor", "Viewer"]
    assert client.get(members).json["data"][0]["roles"] == ["Editor", "Viewer"]


def test_a_role_that_is_held_cannot_be_granted_again(client: FlaskClient):
    bind(client)

    answer = bind(client)

    assert answer.status_code == 409
    assert answer.json["detail"] == (
        "Active role binding already exists for this principal/workspace/role combination"
    )


def test_a_revoked_role_stays_on_record_and_can_be_granted_again(client: FlaskClient):
    made = bind(client).json
    one = f"{BASE}/{made['name']}"

    revoked = client.delete(f"{one}?wait_role_propagation=true", content_type="application/json")

    assert revoked.status_code == 200
    assert revoked.json == {"message": "Resource deleted successfully.", "id": made["name"]}
    assert client.get(one).json["revoked_at"].endswith("Z")
    assert client.get("/apis/entities/v2/workspaces/ml-team/members").json["data"] == []
    again = client.delete(one)
    assert (again.status_code, again.json["detail"]) == (409, "Role binding is already revoked")

    renewed = bind(client)

    assert renewed.status_code == 201
    assert (renewed.json["name"], renewed.json["id"]) == (made["name"], made["id"])
    assert renewed.json["revoked_at"] is None
    assert renewed.json["granted_at"] > made["granted_at"]


def test_the_last_admin_stays(client: FlaskClient):
    name = bind(client, "Admin").json["name"]

    assert client.delete(f"{BASE}/{name}").status_code == 409
    assert bind(client, "Admin", principal="bob").status_code == 201
    assert client.delete(f"{BASE}/{name}").status_code == 200


def test_bindings_are_listed_oldest_first_ten_at_a_time(client: FlaskClient):
    for role in ("Viewer", "Editor", "Admin"):
        bind(client, role)

    page = client.get(BASE).json

    assert [binding["role"] for binding in page["data"]] == ["Viewer", "Editor", "Admin"]
    assert (page["sort"], page["pagination"]["page_size"]) == ("created_at", 10)


def test_bindings_are_filtered_by_activity_workspace_and_the_rest(client: FlaskClient):
    gone = bind(client, "Viewer").json
    client.delete(f"{BASE}/{gone['name']}")
    bind(client, "Editor")
    bind(client, "Admin", principal="bob", workspace="default")

    assert roles(client) == ["Viewer", "Editor", "Admin"]
    assert roles(client, **{"filter[is_active]": "true"}) == ["Editor", "Admin"]
    assert roles(client, filter='{"is_active": false}') == ["Viewer"]
    assert roles(client, **{"filter[workspace]": "default"}) == ["Admin"]
    assert roles(client, sort="workspace") == ["Admin", "Viewer", "Editor"]
    assert roles(client, **{"filter[granted_at][gte]": gone["granted_at"], "filter[principal]": "bob"}) == [
        "Admin"
    ]
    assert client.get(f"{BASE}?filter[password]=x").status_code == 400


def test_the_administrator_has_another_name_in_helix(client: FlaskClient):
    members = "/apis/entities/v2/workspaces/system/members"

    assert bind(client, "HelixAdmin", workspace="system").json["role"] == "PlatformAdmin"
    assert bind(client, "PlatformAdmin", workspace="system").status_code == 409
    assert client.put(f"{members}/bob", json={"roles": ["HelixAdmin"]}).json["roles"] == ["PlatformAdmin"]

    bind(client, "Viewer")
    for role in ("HelixAdmin", "PlatformAdmin"):
        assert roles(client, **{"filter[role]": role}) == ["PlatformAdmin"] * 2
        assert roles(client, filter=f'{{"role": {{"$nin": ["{role}"]}}}}') == ["Viewer"]
    assert client.post(members, json={"principal": "eve", "roles": ["SolarAdmin"]}).status_code == 422


def test_bindings_of_a_workspace_that_is_being_deleted_are_gone(client: FlaskClient):
    old = bind(client).json

    client.delete("/apis/entities/v2/workspaces/ml-team")

    assert roles(client) == []
    assert client.get(f"{BASE}/{old['name']}").status_code == 404
    assert client.delete(f"{BASE}/{old['name']}").status_code == 404


def test_a_successor_of_the_same_name_has_bindings_of_its_own(client: FlaskClient):
    old = bind(client).json
    client.delete("/apis/entities/v2/workspaces/ml-team")
    client.post("/apis/entities/v2/workspaces", json={"name": "ml-team"})

    new = bind(client).json

    assert new["name"] != old["name"]
    assert client.get(f"{BASE}/{new['name']}").json == new


@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_a_missing_binding_is_not_found(client: FlaskClient, method: str):
    assert client.open(f"{BASE}/rb-nope", method=method).status_code == 404


@pytest.mark.parametrize("workspace", ["nope", "-"])
def test_a_role_cannot_be_held_in_a_missing_workspace(client: FlaskClient, workspace: str):
    answer = bind(client, workspace=workspace)

    assert answer.status_code == 422
    assert answer.json["detail"] == (
        f"Workspace '{workspace}' does not exist. Please create the workspace first."
    )


@pytest.mark.parametrize(
    "body",
    [
        {"principal": ANN, "role": "Bogus", "workspace": "ml-team"},
        {"principal": ANN, "role": "PlatformAdmin", "workspace": "ml-team"},
        {"principal": "", "role": "Viewer", "workspace": "ml-team"},
        {"principal": "a" * 321, "role": "Viewer", "workspace": "ml-team"},
        {"principal": ANN},
    ],
)
def test_what_is_no_role_or_no_principal_is_refused(client: FlaskClient, body: object):
    assert client.post(BASE, json=body).status_code == 422
    assert roles(client) == []
