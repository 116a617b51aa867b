"""What a caller with an access key may do: what its holder may at that moment, as long as the key is in force."""

from secrets import token_hex
from typing import Any

import pytest
from flask.testing import FlaskClient
from sqlalchemy import Engine, func, select, update
from sqlalchemy.orm import Session

from app.access.permissions import OPEN
from app.access.roles import Role
from app.clock import database_now, now, seconds_from_now
from app.context import Context
from app.models import AccessKey, Project, Workspace
from app.services.workspaces import queue_for_change
from tests import factories
from tests.access.keys import ANN, BEN, KEYS, OPERATING, keys_of, made, shown
from tests.access.test_matrix import ROUTES, ROWS, ask
from tests.access.world import World, everything
from tests.support.locks import has_to_wait, meanwhile
from tests.support.people import announced
from tests.support.statements import counted

W = "/apis/entities/v2/workspaces"
AUTHENTICATE = "/apis/auth/authenticate"
REFUSED = "Invalid or expired token: its access key is revoked, suspended or expired"
ENDS: dict[str, dict[str, Any]] = {
    "revoked": {"revoked_at": database_now()},
    "suspended": {"suspended_at": database_now()},
    "expired": {"expires_at": seconds_from_now(-1)},
}


def end(session: Session, key: dict[str, Any], how: str) -> None:
    session.execute(update(AccessKey).where(AccessKey.jti == key["jti"]).values(ENDS[how]))
    session.commit()


def test_a_key_acts_as_who_has_made_it(client: FlaskClient) -> None:
    client.post(W, json={"name": "bens"}, headers=BEN)
    key = shown(made(client))

    created = client.post(W, json={"name": "anns"}, headers=key)

    assert (created.status_code, created.json["created_by"]) == (201, "ann")
    members = client.get(f"{W}/anns/members", headers=key).json["data"]
    assert [(one["principal"], one["roles"]) for one in members] == [("ann@example.com", ["Admin"])]
    assert client.get(f"{W}/bens", headers=key).status_code == 403
    names = {one["name"] for one in client.get(W, headers=key).json["data"]}
    assert names == {"anns", "default", "system"}


def test_its_rights_are_those_that_its_holder_has_at_that_moment(client: FlaskClient) -> None:
    client.post(W, json={"name": "bens"}, headers=BEN)
    key, members = shown(made(client)), f"{W}/bens/members"
    project = {"json": {"name": "alpha"}, "headers": key}

    assert client.get(f"{W}/bens", headers=key).status_code == 403
    client.post(members, json={"principal": "ann", "roles": ["Viewer"]}, headers=BEN)
    assert client.get(f"{W}/bens", headers=key).status_code == 200
    assert client.post(f"{W}/bens/projects", **project).status_code == 403
    client.put(f"{members}/ann", json={"roles": ["Editor"]}, headers=BEN)
    assert client.post(f"{W}/bens/projects", **project).status_code == 201
    client.delete(f"{members}/ann", headers=BEN)
    assert client.get(f"{W}/bens", headers=key).status_code == 403


def test_it_has_no_roles_of_groups_which_its_holder_may_have_left(client: FlaskClient) -> None:
    client.post(W, json={"name": "bens"}, headers=BEN)
    client.post(f"{W}/bens/members", json={"principal": "crew", "roles": ["Viewer"]}, headers=BEN)
    in_the_crew = announced("ann", groups=["crew"])

    assert client.get(f"{W}/bens", headers=in_the_crew).status_code == 200
    assert client.get(f"{W}/bens", headers=shown(made(client, in_the_crew))).status_code == 403


def test_it_is_no_administrator_but_by_a_role(client: FlaskClient, session: Session) -> None:
    control, key = "/apis/entities/v2/cleanup-control", shown(made(client, OPERATING))

    assert client.get(control, headers=OPERATING).status_code == 200
    assert client.get(control, headers=key).status_code == 403
    system = session.scalars(select(Workspace).where(Workspace.name == "system")).one()
    factories.make_binding(session, system, "the-operator", Role.PLATFORM_ADMIN)
    session.commit()
    assert client.get(control, headers=key).status_code == 200


@pytest.mark.parametrize("name", [name for name, route in ROUTES.items() if route.permission not in OPEN])
def test_every_route_refuses_a_key_that_is_not_in_force(
    client: FlaskClient, world: World, session: Session, name: str
) -> None:
    """Of an administrator, to whom all of them are open; a list of none would not be a refusal."""
    token = keys_of(client).sign(world.parameters["jti"], "the-boss", "", issued_at=now(), expires_at=None)
    key = factories.make_access_key(session, world.parameters["jti"], "the-boss")
    system = session.scalars(select(Workspace).where(Workspace.name == "system")).one()
    factories.make_binding(session, system, "the-boss", Role.PLATFORM_ADMIN)
    session.commit()
    end(session, {"jti": key.jti}, "revoked")
    before = everything(session)

    answer = ask(client, ROUTES[name], ROWS[name], world, "boss", headers=shown({"token": token}))

    assert (answer.status_code, answer.json) == (401, {"detail": REFUSED})
    assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert everything(session) == before


@pytest.mark.parametrize(
    "path", [f"{W}/-/projects", "/apis/models/v2/workspaces/-/deployments/chat/versions"]
)
def test_so_do_the_lists_of_all_workspaces(client: FlaskClient, session: Session, path: str) -> None:
    key = made(client)
    assert client.get(path, headers=shown(key)).status_code == 200

    end(session, key, "revoked")

    assert client.get(path, headers=shown(key)).status_code == 401


@pytest.mark.parametrize("how", ENDS)
def test_authenticate_knows_who_a_key_is_as_long_as_it_is_in_force(
    client: FlaskClient, session: Session, how: str
) -> None:
    key = made(client)

    assert client.get(AUTHENTICATE, headers=shown(key)).json == {
        "principal": "ann",
        "email": "ann@example.com",
        "groups": [],
        "scopes": [],
        "jti": key["jti"],
        "token_kind": "access_key",
        "on_behalf_of": None,
        "on_behalf_of_email": None,
        "on_behalf_of_groups": [],
    }
    end(session, key, how)
    answer = client.get(AUTHENTICATE, headers=shown(key))
    assert (answer.status_code, answer.json) == (401, {"detail": "Invalid bearer token"})


def test_an_unsuspended_key_is_accepted_again(client: FlaskClient) -> None:
    key = made(client)
    for action, expected in (("suspend", 401), ("unsuspend", 200)):
        client.post(f"{KEYS}/{key['jti']}/{action}", headers=ANN)
        assert client.get(W, headers=shown(key)).status_code == expected


def test_a_key_is_asked_about_in_the_statements_that_ask_about_the_role(
    client: FlaskClient, database: Engine, context: Context
) -> None:
    client.post(W, json={"name": "anns"}, headers=ANN)
    key, engine = shown(made(client)), context.sessions.kw["bind"]

    for path in (W, f"{W}/anns", f"{W}/anns/projects"):
        with counted(engine) as by_name:
            client.get(path, headers=ANN)
        with counted(engine) as by_key:
            client.get(path, headers=key)
        found_nothing = path.endswith("projects")
        assert len(by_key) == len(by_name) + found_nothing
        assert "access_keys" in by_key[0].text
        assert "access_keys" not in by_name[0].text


def test_a_write_that_waited_sees_that_its_key_was_revoked_meanwhile(
    client: FlaskClient, database: Engine, session: Session
) -> None:
    client.post(W, json={"name": "anns"}, headers=ANN)
    key, workspace = made(client), session.scalars(select(Workspace).where(Workspace.name == "anns")).one()
    session.rollback()
    queue_for_change(session, workspace.id)
    with meanwhile(
        lambda: client.post(f"{W}/anns/projects", json={"name": "alpha"}, headers=shown(key))
    ) as write:
        assert has_to_wait(database, write)
        with Session(database) as other:
            end(other, key, "revoked")
        session.rollback()

    assert write.result().status_code == 401
    assert session.scalar(select(func.count()).select_from(Project)) == 0


def test_a_list_of_all_workspaces_is_cut_when_its_key_is_revoked_meanwhile(
    client: FlaskClient, session: Session
) -> None:
    workspace = factories.make_workspace(session)
    factories.make_binding(session, workspace, "ann", Role.VIEWER)
    for number in range(3):
        factories.make_entity(session, workspace, f"thing-{number}").data = {"text": token_hex(400_000)}
    session.commit()
    key = made(client)

    answer = client.get(f"{W}/-/entities/widget", headers=shown(key))
    assert (answer.status_code, answer.is_streamed) == (200, True)
    end(session, key, "revoked")

    with pytest.raises(ConnectionResetError):
        answer.get_data()


def test_a_key_has_no_access_to_a_workspace_that_has_the_name_of_one_that_was_deleted(
    client: FlaskClient,
) -> None:
    """No key is bound to a workspace: its holder's role there is, by the workspace's id."""
    client.post(W, json={"name": "bens"}, headers=BEN)
    client.post(f"{W}/bens/members", json={"principal": "ann", "roles": ["Admin"]}, headers=BEN)
    key = shown(made(client))
    assert client.get(f"{W}/bens", headers=key).status_code == 200

    assert client.delete(f"{W}/bens", headers=BEN).status_code == 200
    assert client.get(f"{W}/bens", headers=key).status_code == 403
    assert client.post(W, json={"name": "bens"}, headers=BEN).status_code == 201

    assert client.get(f"{W}/bens", headers=key).status_code == 403
