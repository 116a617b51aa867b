import re
from uuid import UUID

import pytest
from flask.testing import FlaskClient
from sqlalchemy.orm import Session

from app.lifecycle import WorkspaceState
from tests.factories import make_workspace

BASE = "/apis/entities/v2/workspaces"
MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")


def names(client: FlaskClient, **query: str) -> list[str]:
    return [workspace["name"] for workspace in client.get(BASE, query_string=query).json["data"]]


def test_a_workspace_is_shown_with_exactly_the_published_keys(client: FlaskClient):
    answer = client.post(
        f"{BASE}?wait_role_propagation=true",
        json={"name": "ml-team", "description": "Models"},
        headers={"X-NMP-Principal-Id": "ann"},
    )

    assert answer.status_code == 201
    made = answer.json
    assert list(made) == ["id", "name", "description", "created_at", "created_by", "updated_at", "updated_by"]
    assert UUID(made["id"]).version == 7
    assert (made["name"], made["description"]) == ("ml-team", "Models")
    assert (made["created_by"], made["updated_by"]) == ("ann", "ann")
    assert MOMENT.fullmatch(made["created_at"])
    assert MOMENT.fullmatch(made["updated_at"])
    assert client.get(f"{BASE}/ml-team").json == made


def test_without_a_principal_nobody_in_particular_made_it(client: FlaskClient):
    assert client.post(BASE, json={"name": "ml-team"}).json["created_by"] == ""
    assert client.get(f"{BASE}/default").json["created_by"] is None


@pytest.mark.parametrize("name", ["my-model", "llama-3.2-3b", "test-config-v1", "ab", "a" * 63, "a@b.c+d_e"])
def test_a_name_within_the_rule_is_accepted(client: FlaskClient, name: str):
    assert client.post(BASE, json={"name": name}).status_code == 201
    assert client.get(f"{BASE}/{name}").json["name"] == name


@pytest.mark.parametrize(
    "name",
    ["a", "a" * 64, "Ab", "1ab", "-ab", "a--b", "ab-", "a b", "a/b", "ab\n", "äb", "", "-", None, 5, ["ab"]],
)
def test_a_name_outside_the_rule_is_refused(client: FlaskClient, name: object):
    answer = client.post(BASE, json={"name": name})

    assert answer.status_code == 422
    assert answer.json["detail"][0]["loc"] == ["body", "name"]
    assert names(client, sort="name") == ["default", "system"]


def test_the_refusal_of_a_name_says_the_whole_rule(client: FlaskClient):
    [error] = client.post(BASE, json={"name": "a--b"}).json["detail"]

    for part in ("2 to 63", "lowercase", "@ . + _", "two hyphens", "does not end with a hyphen"):
        assert part in error["msg"]


@pytest.mark.parametrize(
    "body", [{}, {"name": "ab", "descripton": "typo"}, {"name": "ab", "description": 5}, [], "ab", None]
)
def test_a_body_that_does_not_fit_is_refused(client: FlaskClient, body: object):
    assert client.post(BASE, json=body).status_code == 422


def test_a_taken_name_is_a_conflict_that_must_not_be_retried(client: FlaskClient):
    client.post(BASE, json={"name": "ml-team"})

    answer = client.post(BASE, json={"name": "ml-team"})

    assert (answer.status_code, answer.json) == (409, {"detail": "Workspace 'ml-team' already exists"})
    assert answer.headers["x-should-retry"] == "false"


@pytest.mark.parametrize("state", [WorkspaceState.DELETING, WorkspaceState.FAILED])
def test_a_workspace_that_is_being_deleted_is_gone_and_its_name_is_free(
    client: FlaskClient, session: Session, state: WorkspaceState
):
    old = make_workspace(session, "ml-team", state=state)
    session.commit()

    assert client.get(f"{BASE}/ml-team").status_code == 404
    assert client.put(f"{BASE}/ml-team", json={"description": "x"}).status_code == 404
    assert "ml-team" not in names(client)
    assert client.post(BASE, json={"name": "ml-team"}).status_code == 201
    assert client.get(f"{BASE}/ml-team").json["id"] != str(old.id)
    assert names(client).count("ml-team") == 1


@pytest.mark.parametrize("name", ["nope", "-", "%20", "Default"])
def test_a_missing_workspace_is_not_found(client: FlaskClient, name: str):
    answer = client.get(f"{BASE}/{name}")

    assert answer.status_code == 404
    assert answer.json == {"detail": f"Workspace '{name.replace('%20', ' ')}' not found"}


def test_the_newest_workspace_is_listed_first(client: FlaskClient):
    for name in ("first", "second"):
        client.post(BASE, json={"name": name})

    page = client.get(BASE).json

    assert [workspace["name"] for workspace in page["data"]][:2] == ["second", "first"]
    assert (page["sort"], page["filter"]) == ("-created_at", None)
    assert page["pagination"] == {
        "page": 1,
        "page_size": 100,
        "current_page_size": 4,
        "total_pages": 1,
        "total_results": 4,
    }


def test_workspaces_are_filtered_by_their_columns(client: FlaskClient):
    client.post(BASE, json={"name": "ml-team", "description": "50%_off"})

    assert names(client, filter='name:"ml-team"') == ["ml-team"]
    assert names(client, filter='{"description": {"$like": "%_"}}') == ["ml-team"]
    assert names(client, search='name~"team"') == ["ml-team"]
    assert names(client, **{"filter[name][$in]": "ml-team,system", "sort": "-name"}) == ["system", "ml-team"]


@pytest.mark.parametrize(
    "query", ["filter[state]=ACTIVE", "filter[deletion_stage]=pending", "sort=state", "filter=data.x:1"]
)
def test_what_is_not_public_can_be_neither_filtered_nor_sorted_by(client: FlaskClient, query: str):
    answer = client.get(f"{BASE}?{query}")

    assert answer.status_code == 400
    assert "description" in answer.json["detail"]


@pytest.mark.parametrize("query", ["page=0", "page_size=0", "page_size=1001", "page=x"])
def test_a_page_outside_the_limits_is_refused(client: FlaskClient, query: str):
    assert client.get(f"{BASE}?{query}").status_code == 422


def test_null_clears_a_description_and_an_absent_key_keeps_it(client: FlaskClient):
    made = client.post(BASE, json={"name": "ml-team", "description": "Models"}).json

    assert client.put(f"{BASE}/ml-team", json={}).json == made
    changed = client.put(f"{BASE}/ml-team", json={"description": None}, headers={"X-NMP-Principal-Id": "bob"})

    assert changed.status_code == 200
    assert (changed.json["description"], changed.json["updated_by"]) == (None, "bob")
    assert changed.json["updated_at"] > made["updated_at"]
    assert changed.json["created_at"] == made["created_at"]


def test_an_update_that_changes_nothing_leaves_no_trace(client: FlaskClient):
    made = client.post(BASE, json={"name": "ml-team", "description": "Models"}).json

    answer = client.put(
        f"{BASE}/ml-team", json={"description": "Models"}, headers={"X-NMP-Principal-Id": "bob"}
    )

    assert answer.json == made


def test_a_workspace_cannot_be_renamed(client: FlaskClient):
    assert client.put(f"{BASE}/default", json={"name": "other"}).status_code == 422
    assert client.put(f"{BASE}/nope", json={}).status_code == 404


@pytest.mark.parametrize("method", ["PATCH", "POST"])
def test_other_methods_are_not_allowed(client: FlaskClient, method: str):
    answer = client.open(f"{BASE}/default", method=method, json={})

    assert (answer.status_code, answer.json) == (405, {"detail": "Method Not Allowed"})
    assert {"GET", "PUT"} <= set(answer.headers["Allow"].split(", "))
