"""Lists show and count only the rows that their reader can read."""

import time

import pytest
from flask.testing import FlaskClient
from psycopg._queries import MAX_CACHED_STATEMENT_LENGTH
from sqlalchemy import select, update
from sqlalchemy.orm import Session

from app.api.application import all_routes
from app.cleanup.report import feed
from app.context import Context
from app.lifecycle import WorkspaceState
from app.models import DeletionEvent, Workspace
from tests import factories
from tests.access.world import make_world
from tests.support.deadlines import DEADLINE_S
from tests.support.people import OPERATOR, announced
from tests.support.statements import counted

W = "/apis/entities/v2/workspaces"
OF_ALL = [
    f"{W}/-/projects",
    f"{W}/-/entities/widget",
    "/apis/files/v2/workspaces/-/filesets",
    "/apis/jobs/v2/workspaces/-/jobs",
    "/apis/jobs/v2/workspaces/-/jobs/-/steps",
    "/apis/models/v2/workspaces/-/deployments",
    "/apis/models/v2/workspaces/-/deployment-configs",
]
FEED = "/apis/entities/v2/deletion-events"
ANN, BOB, NOBODY = announced("ann"), announced("bob", groups=["crew"]), announced("nobody")
ADMIN = announced("the-operator", email=OPERATOR)


@pytest.fixture(autouse=True)
def worlds(session: Session, context: Context) -> None:
    """Three workspaces with the same things in them: of ann, of the crew, and of somebody else."""
    for name, member in (("anns", "ann"), ("crews", "crew"), ("others", "somebody-else")):
        world = make_world(session, name)
        factories.make_binding(session, world.workspace, member, "Viewer")
    session.commit()


def seen(client: FlaskClient, path: str, headers: dict[str, str]) -> set[str]:
    page, short = (
        client.get(path, query_string={"page_size": size}, headers=headers).json for size in (100, 1)
    )
    assert page["pagination"]["total_results"] == len(page["data"]) == page["pagination"]["current_page_size"]
    # The total of a page that is full comes from elsewhere.
    assert short["pagination"]["total_results"] == len(page["data"])
    return {one["workspace"] for one in page["data"]}


def test_every_list_over_all_workspaces_is_tried_here() -> None:
    paged = {
        route.rule.replace("<workspace>", "-").replace("<entity_type>", "widget").replace("<name>", "-")
        for route in all_routes()
        if route.method == "GET" and "<workspace>" in route.rule and "Page[" in str(route.returns)
    }

    entities = {f"{W}/-/entities/widget"}  # its page has counts, and so a name of its own
    assert paged | entities == set(OF_ALL), "a list that takes `-` for all workspaces: add it above"


@pytest.mark.parametrize("path", OF_ALL)
def test_a_list_over_all_workspaces_has_only_those_of_its_reader(client: FlaskClient, path: str) -> None:
    assert seen(client, path, ANN) == {"anns"}
    assert seen(client, path, BOB) == {"crews"}
    assert seen(client, path, NOBODY) == set()
    assert seen(client, path, ADMIN) == {"anns", "crews", "others"}


@pytest.mark.parametrize("path", OF_ALL)
def test_a_list_of_a_workspace_of_somebody_else_is_refused(client: FlaskClient, path: str) -> None:
    assert client.get(path.replace("/-/", "/anns/", 1), headers=ANN).status_code == 200
    assert client.get(path.replace("/-/", "/others/", 1), headers=ANN).status_code == 403


def test_pages_and_filters_count_only_what_their_reader_may_see(client: FlaskClient) -> None:
    page = client.get(f"{W}?page_size=1&filter[name][$like]=s", headers=ANN).json

    # `system` by the role that everybody has there, and her own.
    assert page["pagination"]["total_results"] == 2
    assert page["pagination"]["total_pages"] == 2


def test_not_even_an_administrator_reaches_a_workspace_that_is_being_deleted(
    client: FlaskClient, session: Session
) -> None:
    session.execute(update(Workspace).where(Workspace.name == "others").values(state=WorkspaceState.DELETING))
    session.commit()

    assert client.get(f"{W}/others", headers=ADMIN).status_code == 404
    for path in OF_ALL:
        assert seen(client, path, ADMIN) == {"anns", "crews"}
        assert client.get(path.replace("/-/", "/others/", 1), headers=ADMIN).status_code == 404


def test_a_role_that_was_bound_in_system_before_it_could_not_be_lets_nobody_write_there(
    client: FlaskClient, session: Session
) -> None:
    system = session.scalars(select(Workspace).where(Workspace.name == "system")).one()
    for role in ("Editor", "Admin"):
        factories.make_binding(session, system, f"an-{role}", role)
    session.commit()

    for role in ("Editor", "Admin"):
        old = announced(f"an-{role}")
        assert client.get(f"{W}/system", headers=old).status_code == 200
        assert client.post(f"{W}/system/projects", json={"name": "alpha"}, headers=old).status_code == 403
        assert client.put(f"{W}/system", json={"description": "x"}, headers=old).status_code == 403
        body = {"principal": "x", "roles": ["Viewer"]}
        assert client.post(f"{W}/system/members", json=body, headers=old).status_code == 403


def test_deletions_are_seen_by_those_who_asked_for_them_and_by_administrators(
    client: FlaskClient, session: Session
) -> None:
    for who, name in ((ANN, "of-ann"), (BOB, "of-bob")):
        assert client.post(W, json={"name": name}, headers=who).status_code == 201
        assert client.delete(f"{W}/{name}", headers=who).status_code == 200

    def listed(headers: dict[str, str], **query: str) -> tuple[set[str], int]:
        page = client.get("/apis/entities/v2/deletions", query_string=query, headers=headers).json
        return {one["workspace_name"] for one in page["data"]}, page["pagination"]["total_results"]

    assert listed(ANN) == ({"of-ann"}, 1)
    assert listed(BOB, state="DELETING") == ({"of-bob"}, 1)
    assert listed(NOBODY) == (set(), 0)
    everything, total = listed(ADMIN)
    assert {"of-ann", "of-bob"} <= everything
    assert total > 2  # those that the worlds came with


def test_a_token_that_is_not_for_deletions_shows_none(client: FlaskClient) -> None:
    client.post(W, json={"name": "of-ann"}, headers=ANN)
    address = client.delete(f"{W}/of-ann", headers=ANN).headers["Location"]

    for path in (
        address,
        f"{address}/events",
        f"{address}/failures",
        "/apis/entities/v2/deletions",
        FEED,
    ):
        assert client.get(path, headers=ANN).status_code == 200
        assert client.get(path, headers={**ANN, "X-NMP-Scopes": "jobs:read"}).status_code == 403


def test_the_feed_has_the_events_of_deletions_that_its_reader_requested(
    client: FlaskClient, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed, "LOOKED_THROUGH", 2)
    for who, name in ((ANN, "of-ann"), (BOB, "of-bob"), (ANN, "more-of-ann")):
        assert client.post(W, json={"name": name}, headers=who).status_code == 201
        assert client.delete(f"{W}/{name}", headers=who).status_code == 200
    newest = session.scalars(select(DeletionEvent.id).order_by(DeletionEvent.id.desc()).limit(1)).one()

    def read(headers: dict[str, str], limit: int = 1) -> list[str]:
        """The workspaces of the events that are shown, to the newest one, which other transactions hold up."""
        names: list[str] = []
        after, deadline = "0.0", time.monotonic() + DEADLINE_S
        while not after.endswith(f".{newest}"):
            assert time.monotonic() < deadline
            found = client.get(FEED, query_string={"after": after, "limit": limit}, headers=headers).json
            names += [one["workspace_name"] for one in found["data"]]
            after = found["after"]
        return names

    assert read(ANN) == read(ANN, limit=9) == ["of-ann", "more-of-ann"]
    assert read(BOB) == ["of-bob"]
    assert read(NOBODY) == []
    assert read(ADMIN) == ["of-ann", "of-bob", "more-of-ann"]


@pytest.mark.parametrize("path", [W, f"{W}/anns/entities/widget", f"{W}/anns/projects"])
def test_the_statements_of_a_list_are_short_enough_to_be_translated_once(
    client: FlaskClient, context: Context, path: str
) -> None:
    with counted(context.sessions.kw["bind"]) as sent:
        assert client.get(path, headers=ANN).status_code == 200

    longest = max(len(one.text) for one in sent)
    assert longest <= MAX_CACHED_STATEMENT_LENGTH, "psycopg keeps no translation of it"
