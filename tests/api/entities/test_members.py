import pytest
from flask.testing import FlaskClient
from sqlalchemy.orm import Session

from app.lifecycle import WorkspaceState
from tests.factories import make_workspace

BASE = "/apis/entities/v2/workspaces/ml-team/members"
ANN = "ann@example.com"


@pytest.fixture(autouse=True)
def ml_team(client: FlaskClient) -> None:
    client.post("/apis/entities/v2/workspaces", json={"name": "ml-team"})


def add(client: FlaskClient, principal: str, *roles: str, workspace: str = "ml-team"):
    return client.post(
        f"/apis/entities/v2/workspaces/{workspace}/members?wait_role_propagation=false",
        json={"principal": principal, "roles": roles},
        headers={"X-NMP-Principal-Id": "root"},
    )


def roles_of(client: FlaskClient) -> dict[str, list[str]]:
    return {member["principal"]: member["roles"] for member in client.get(BASE).json["data"]}


def test_a_member_is_shown_with_exactly_the_published_keys(client: FlaskClient):
    answer = add(client, ANN, "Viewer", "Editor")

    assert answer.status_code == 201
    assert list(answer.json) == ["principal", "roles", "granted_at", "granted_by"]
    assert answer.json | {"granted_at": "…"} == {
        "principal": ANN,
        "roles": ["Viewer", "Editor"],
        "granted_at": "…",
        "granted_by": "root",
    }
    listed = client.get(BASE).json
    assert listed["data"] == [answer.json]
    assert listed["pagination"]["total_results"] == 1


def test_members_come_in_pages(client: FlaskClient):
    for i in range(5):
        add(client, f"user-{i}", "Viewer", "Editor")

    page = client.get(f"{BASE}?page_size=2&page=2").json

    assert [(one["principal"], one["roles"]) for one in page["data"]] == [
        ("user-2", ["Viewer", "Editor"]),
        ("user-1", ["Viewer", "Editor"]),
    ]
    assert (page["pagination"]["total_results"], page["pagination"]["total_pages"]) == (5, 3)


def test_a_member_is_an_editor_unless_said_otherwise(client: FlaskClient):
    answer = client.post(BASE, json={"principal": ANN})

    assert (answer.status_code, answer.json["roles"]) == (201, ["Editor"])
    assert answer.json["granted_by"] == "system"


def test_a_new_workspace_has_no_members_while_authentication_is_off(client: FlaskClient):
    assert client.get(BASE).json["data"] == []


def test_members_are_listed_newest_grant_first(client: FlaskClient):
    for principal in ("first", "second"):
        add(client, principal, "Viewer")
    add(client, "first", "Editor")

    assert list(roles_of(client)) == ["first", "second"]


def test_adding_only_adds_and_answers_the_roles_that_are_held(client: FlaskClient):
    first = add(client, ANN, "Viewer").json

    again = add(client, ANN, "Editor", "Viewer", "Editor").json

    assert again["roles"] == ["Viewer", "Editor"]
    assert again["granted_at"] == first["granted_at"]
    assert roles_of(client) == {ANN: ["Viewer", "Editor"]}


def test_replacing_revokes_the_rest_and_adds_the_new(client: FlaskClient):
    add(client, ANN, "Viewer", "Editor")
    add(client, "bob", "Viewer")

    answer = client.put(f"{BASE}/{ANN}?wait_role_propagation=true", json={"roles": ["JobRunner", "Editor"]})

    assert (answer.status_code, set(answer.json["roles"])) == (200, {"JobRunner", "Editor"})
    assert {who: set(roles) for who, roles in roles_of(client).items()} == {
        ANN: {"JobRunner", "Editor"},
        "bob": {"Viewer"},
    }


@pytest.mark.parametrize("principal", ["new@example.com", "*", "group:a/b", "group a"])
def test_replacing_the_roles_of_a_stranger_makes_a_member(client: FlaskClient, principal: str):
    answer = client.put(f"{BASE}/{principal}", json={"roles": ["Viewer"]})

    assert (answer.status_code, answer.json["principal"]) == (200, principal)
    assert roles_of(client) == {principal: ["Viewer"]}


def test_a_removed_member_can_be_added_again(client: FlaskClient):
    add(client, ANN, "Viewer", "Editor")

    answer = client.delete(f"{BASE}/{ANN}")

    assert answer.status_code == 200
    assert answer.json == {"message": "Member removed from workspace 'ml-team'", "id": ANN}
    assert roles_of(client) == {}
    assert client.delete(f"{BASE}/{ANN}").status_code == 404
    assert add(client, ANN, "Editor").json["roles"] == ["Editor"]
    assert roles_of(client) == {ANN: ["Editor"]}


def test_who_is_no_member_cannot_be_removed(client: FlaskClient):
    answer = client.delete(f"{BASE}/nobody")

    assert answer.status_code == 404
    assert answer.json == {"detail": "Member 'nobody' not found in workspace 'ml-team'"}


def test_the_last_admin_stays(client: FlaskClient):
    add(client, ANN, "Admin", "Editor")

    replaced = client.put(f"{BASE}/{ANN}", json={"roles": ["Editor"]})
    removed = client.delete(f"{BASE}/{ANN}")

    assert (replaced.status_code, removed.status_code) == (409, 409)
    assert replaced.json["detail"] == (
        f"Cannot remove Admin role from '{ANN}'. This is the last Admin for workspace 'ml-team'. "
        "Add another Admin before removing this one."
    )
    assert removed.json["detail"] == (
        f"Cannot remove member '{ANN}'. This is the last Admin for workspace 'ml-team'. "
        "Add another Admin before removing this member."
    )
    assert {*roles_of(client)[ANN]} == {"Admin", "Editor"}


def test_an_admin_may_go_once_there_is_another(client: FlaskClient):
    add(client, ANN, "Admin")
    add(client, "bob", "Admin")

    assert client.put(f"{BASE}/{ANN}", json={"roles": ["Admin", "Viewer"]}).status_code == 200
    assert client.delete(f"{BASE}/{ANN}").status_code == 200
    assert client.put(f"{BASE}/bob", json={"roles": ["Viewer"]}).status_code == 409


def test_admins_of_other_workspaces_do_not_count(client: FlaskClient):
    add(client, ANN, "Admin")
    add(client, "bob", "Admin", workspace="default")

    assert client.delete(f"{BASE}/{ANN}").status_code == 409


@pytest.mark.parametrize(
    "body",
    [
        {"principal": ANN, "roles": ["Bogus"]},
        {"principal": ANN, "roles": ["admin"]},
        {"principal": ANN, "roles": []},
        {"principal": ANN, "roles": "Admin"},
        {"principal": "", "roles": ["Viewer"]},
        {"principal": "  ", "roles": ["Viewer"]},
        {"principal": "a" * 321, "roles": ["Viewer"]},
        # Look-alikes of a member whom nobody could ever prove to be; the last Admin might become one.
        {"principal": "bob\n", "roles": ["Admin"]},
        {"principal": " bob", "roles": ["Admin"]},
        {"principal": "b\u200bob", "roles": ["Admin"]},
        {"principal": "\x1b[31mbob", "roles": ["Admin"]},
        {"principal": None, "roles": ["Viewer"]},
        {"principal": ANN, "role": "Viewer"},
        {"roles": ["Viewer"]},
    ],
)
def test_what_is_no_role_or_no_principal_is_refused(client: FlaskClient, body: object):
    assert client.post(BASE, json=body).status_code == 422
    assert roles_of(client) == {}


@pytest.mark.parametrize(
    ("principal", "roles"), [(ANN, []), (ANN, ["Bogus"]), ("a" * 321, ["Viewer"]), ("%20", ["Viewer"])]
)
def test_roles_cannot_be_replaced_by_nothing_or_for_nobody(
    client: FlaskClient, principal: str, roles: list[str]
):
    add(client, ANN, "Viewer")

    assert client.put(f"{BASE}/{principal}", json={"roles": roles}).status_code == 422
    assert roles_of(client) == {ANN: ["Viewer"]}


@pytest.mark.parametrize("role", ["WorkspaceCreator", "PlatformAdmin"])
def test_platform_roles_are_held_in_system_alone(client: FlaskClient, role: str):
    elsewhere = add(client, ANN, "Viewer", role)

    assert elsewhere.status_code == 422
    assert elsewhere.json["detail"] == f"Role '{role}' can only be granted in workspace 'system'"
    assert client.put(f"{BASE}/{ANN}", json={"roles": [role]}).status_code == 422
    assert roles_of(client) == {}
    assert add(client, ANN, role, workspace="system").json["roles"] == [role]


@pytest.mark.parametrize("workspace", ["nope", "-", "leaving"])
def test_a_workspace_that_is_not_there_has_no_members(client: FlaskClient, session: Session, workspace: str):
    make_workspace(session, "leaving", state=WorkspaceState.DELETING)
    session.commit()
    base = f"/apis/entities/v2/workspaces/{workspace}/members"

    answers = [
        client.get(base),
        client.post(base, json={"principal": ANN}),
        client.put(f"{base}/{ANN}", json={"roles": ["Viewer"]}),
        client.delete(f"{base}/{ANN}"),
    ]

    assert [answer.status_code for answer in answers] == [404] * 4
    assert {answer.json["detail"] for answer in answers} == {f"Workspace '{workspace}' not found"}


def test_a_successor_does_not_inherit_members(client: FlaskClient):
    add(client, ANN, "Admin")

    client.delete("/apis/entities/v2/workspaces/ml-team")
    client.post("/apis/entities/v2/workspaces", json={"name": "ml-team"})

    assert roles_of(client) == {}
    assert add(client, ANN, "Viewer").json["roles"] == ["Viewer"]


def test_one_member_alone_cannot_be_read(client: FlaskClient):
    assert client.get(f"{BASE}/{ANN}").status_code == 405
