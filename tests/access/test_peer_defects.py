"""Defects of the product whose API this is, tried on ours; the name of each test describes the defect."""

import pytest
from flask.testing import FlaskClient
from sqlalchemy.orm import Session

from app.access.roles import Role
from app.context import Context
from app.services.workspaces import seed
from tests.support.people import OPERATOR, announced

W = "/apis/entities/v2/workspaces"
BINDINGS = "/apis/auth/v2/iam/role-bindings"
ALICE, BOB, MALLORY = announced("alice"), announced("bob"), announced("mallory")
ADMIN = announced("the-operator", email=OPERATOR)


@pytest.fixture
def st_1(client: FlaskClient) -> str:
    """A workspace of alice's."""
    assert client.post(W, json={"name": "st-1"}, headers=ALICE).status_code == 201
    return f"{W}/st-1"


def add(client: FlaskClient, workspace: str, principal: str, *roles: str, by: dict[str, str] = ALICE) -> int:
    body = {"principal": principal, "roles": list(roles)}
    return client.post(f"{workspace}/members", json=body, headers=by).status_code


def test_w4_the_peer_leaves_old_members_in_control_of_a_name_that_somebody_else_has_taken(
    client: FlaskClient, st_1: str
) -> None:
    add(client, st_1, "eve", "Editor")
    deletion = client.delete(st_1, headers=ALICE).json["deletion_id"]
    made = client.post(W, json={"name": "st-1"}, headers=BOB)

    assert made.status_code == 201
    for former in (ALICE, announced("eve")):
        assert client.get(st_1, headers=former).status_code == 403
        assert client.put(st_1, json={"description": "x"}, headers=former).status_code == 403
        assert client.get(f"{st_1}/members", headers=former).status_code == 403
        assert add(client, st_1, "evil", "Admin", by=former) == 403
        assert client.get(W, headers=former).json["data"] == _built_in(client)
    # What alice may still do is to follow her own deletion, and asking for it again is not asking for bob's.
    again = client.delete(st_1, headers=ALICE)
    assert (again.status_code, again.json["deletion_id"]) == (200, deletion)
    assert client.delete(st_1, headers=announced("eve")).status_code == 403
    assert client.get(st_1, headers=BOB).json == made.json
    assert client.get(f"{st_1}/members", headers=BOB).json["data"][0]["roles"] == ["Admin"]


def _built_in(client: FlaskClient) -> list[dict[str, str]]:
    return client.get(W, headers=announced("nobody-special")).json["data"]


def test_w5_the_peer_lets_anybody_delete_the_default_workspace_and_take_it_over(client: FlaskClient) -> None:
    default = f"{W}/default"

    assert client.put(default, json={"description": "mine"}, headers=MALLORY).status_code == 403
    assert client.delete(default, headers=MALLORY).status_code == 403
    assert client.delete(f"{W}/system", headers=MALLORY).status_code == 403
    assert client.post(W, json={"name": "default"}, headers=MALLORY).status_code == 409
    # Not even an administrator can; and everybody goes on writing there.
    refused = client.delete(default, headers=ADMIN)
    assert (refused.status_code, "built in" in refused.json["detail"]) == (409, True)
    assert client.post(f"{default}/projects", json={"name": "alpha"}, headers=MALLORY).status_code == 201


def test_w6_the_peer_lets_an_editor_delete_the_workspace_and_no_viewer_list_its_members(
    client: FlaskClient, st_1: str
) -> None:
    for role in ("Viewer", "Editor"):
        add(client, st_1, role, role)
        member = announced(role)
        assert client.delete(st_1, headers=member).status_code == 403
        assert client.put(st_1, json={"description": "x"}, headers=member).status_code == 403
        assert client.get(f"{st_1}/members", headers=member).status_code == 200

    error = client.delete(st_1, headers=announced("Editor")).json["detail"]
    assert error == "Forbidden: workspaces:delete in workspace 'st-1' needs Admin; you are Editor."
    assert client.get(st_1, headers=ALICE).status_code == 200


@pytest.mark.parametrize("claimed", ["service:entities", "service:x", "alice", OPERATOR])
def test_w7_the_peer_believes_identity_headers_from_anybody(
    client: FlaskClient, st_1: str, claimed: str
) -> None:
    for secret in ({}, {"X-Workspaces-Gateway-Secret": "guessed"}):
        headers = secret | {"X-NMP-Principal-Id": claimed, "X-NMP-Principal-Email": OPERATOR}
        for path in (W, st_1, BINDINGS, f"{W}/-/projects"):
            assert client.get(path, headers=headers).status_code == 401
        assert client.delete(st_1, headers=headers).status_code == 401

    # From the gateway it is another matter.
    assert client.get(st_1, headers=announced("service:x")).status_code == 200


@pytest.mark.parametrize("name", ["st-1\n", "st-1 ", "st-1\r", "\nst-1", "st-1\x0b"])
def test_w17_the_peer_accepts_a_name_with_a_newline_as_another_name(
    client: FlaskClient, st_1: str, name: str
) -> None:
    refused = client.post(W, json={"name": name}, headers=MALLORY)

    assert refused.status_code == 422
    assert refused.json["detail"][0]["loc"] == ["body", "name"]


def test_the_peer_lets_strangers_keep_a_fileset_from_being_deleted(client: FlaskClient, st_1: str) -> None:
    filesets = "/apis/files/v2/workspaces/st-1/filesets"
    assert client.post(filesets, json={"name": "data"}, headers=ALICE).status_code == 200
    assert client.post(W, json={"name": "theirs"}, headers=MALLORY).status_code == 201
    body = {"name": "llama", "data": {"fileset": "st-1/data"}}
    made = client.post(f"{W}/theirs/entities/model", json=body, headers=announced("service:models"))
    assert made.status_code == 201

    # Who may read both workspaces is told; who may not learns nothing of the other.
    refused = client.delete(f"{filesets}/data", headers=ADMIN)
    assert (refused.status_code, "1 model entity reference(s)" in refused.json["detail"]) == (409, True)
    assert client.delete(f"{filesets}/data", headers=ALICE).status_code == 200


class TestW21:
    """The peer finds role bindings in `default` alone, never grants a revoked one again, and keeps admins out."""

    def test_a_binding_is_addressed_by_its_name_in_any_workspace_by_who_administers_it(
        self, client: FlaskClient, st_1: str
    ) -> None:
        grant = {"principal": "eve", "role": "Editor", "workspace": "st-1"}
        made = client.post(BINDINGS, json=grant, headers=ALICE)
        one = f"{BINDINGS}/{made.json['name']}"

        assert made.status_code == 201
        for permitted in (ALICE, ADMIN):
            assert client.get(one, headers=permitted).json == made.json
        for may_not in (BOB, announced("eve")):
            assert client.get(one, headers=may_not).status_code == 403
            assert client.delete(one, headers=may_not).status_code == 403
        assert client.delete(one, headers=ALICE).status_code == 200
        assert client.post(BINDINGS, json=grant, headers=ALICE).status_code == 201

    def test_an_administrator_sees_the_bindings_of_what_it_administers(
        self, client: FlaskClient, st_1: str
    ) -> None:
        client.post(W, json={"name": "bobs"}, headers=BOB)

        def workspaces(headers: dict[str, str], **query: str) -> set[str]:
            page = client.get(BINDINGS, query_string=query, headers=headers).json
            assert page["pagination"]["total_results"] == len(page["data"])
            return {binding["workspace"] for binding in page["data"]}

        assert workspaces(ALICE) == {"st-1"}
        assert workspaces(BOB) == {"bobs"}
        assert workspaces(MALLORY) == set()
        assert workspaces(ADMIN) == {"st-1", "bobs", "default", "system"}
        assert workspaces(ADMIN, **{"filter[is_active]": "false"}) == set()

    def test_nobody_becomes_a_platform_administrator_by_a_binding_of_their_own(
        self, client: FlaskClient, st_1: str
    ) -> None:
        for workspace in ("st-1", "system", "default"):
            grant = {"principal": "alice", "role": "PlatformAdmin", "workspace": workspace}
            assert client.post(BINDINGS, json=grant, headers=ALICE).status_code in {403, 422}

        assert client.get("/apis/entities/v2/cleanup-control", headers=ALICE).status_code == 403


class TestW22:
    """The peer takes any text for a role, anybody for a member, and answers what was asked, not what is."""

    @pytest.mark.parametrize(
        "roles", [["Bogus"], ["PlatformAdmin"], ["WorkspaceCreator"], [], [""], ["admin"]]
    )
    def test_what_is_no_role_here_is_refused(self, client: FlaskClient, st_1: str, roles: list[str]) -> None:
        assert add(client, st_1, "eve", *roles) == 422
        answer = client.put(f"{st_1}/members/alice", json={"roles": roles}, headers=ALICE)
        assert answer.status_code == 422
        assert client.get(st_1, headers=ALICE).status_code == 200

    def test_nobody_is_no_member(self, client: FlaskClient, st_1: str) -> None:
        assert add(client, st_1, "", "Viewer") == 422
        assert add(client, st_1, "  ", "Viewer") == 422

    def test_the_answer_has_the_current_roles(self, client: FlaskClient, st_1: str) -> None:
        first = client.post(f"{st_1}/members", json={"principal": "eve", "roles": ["Viewer"]}, headers=ALICE)

        second = client.post(f"{st_1}/members", json={"principal": "eve", "roles": ["Editor"]}, headers=ALICE)

        assert second.json["roles"] == ["Viewer", "Editor"]
        assert second.json["granted_at"] == first.json["granted_at"]
        assert client.get(f"{st_1}/members", headers=ALICE).json["data"][0] == second.json


def test_the_first_members_of_the_built_in_workspaces_are_made_once(
    client: FlaskClient, context: Context, session: Session
) -> None:
    """The peer restores them never, or at each run of a job of its own."""
    removed = client.delete(f"{W}/default/members/*", headers=ADMIN)
    assert removed.status_code == 200, removed.text
    demoted = client.put(f"{W}/system/members/*", json={"roles": ["Viewer"]}, headers=ADMIN)
    assert demoted.status_code == 200, demoted.text

    seed(session)  # as every start of the product does
    session.commit()

    assert client.get(f"{W}/default", headers=MALLORY).status_code == 403
    assert client.post(W, json={"name": "another"}, headers=MALLORY).status_code == 403
    assert client.get(f"{W}/system", headers=MALLORY).status_code == 200


@pytest.mark.parametrize("role", [Role.EDITOR, Role.ADMIN, Role.JOB_RUNNER])
def test_nobody_but_a_platform_administrator_can_be_let_write_to_system(
    client: FlaskClient, role: Role
) -> None:
    refused = add(client, f"{W}/system", "mallory", role, by=ADMIN)

    assert refused == 422
    assert client.post(f"{W}/system/projects", json={"name": "alpha"}, headers=MALLORY).status_code == 403
    assert client.post(f"{W}/system/projects", json={"name": "alpha"}, headers=ADMIN).status_code == 201
