import json
import re
from typing import Any
from uuid import uuid4

import pytest
from flask.testing import FlaskClient
from sqlalchemy.orm import Session

from app.lifecycle import WorkspaceState
from tests.factories import make_entity, make_workspace

WORKSPACES = "/apis/entities/v2/workspaces"
BASE = f"{WORKSPACES}/ml-team/entities/widget"
BY_ID = "/apis/entities/v2/entities"


@pytest.fixture(autouse=True)
def ml_team(client: FlaskClient) -> None:
    client.post(WORKSPACES, json={"name": "ml-team"})


def make(client: FlaskClient, name: str | None = None, base: str = BASE, **body: Any) -> dict[str, Any]:
    answer = client.post(base, json={"name": name, "data": {}} | body)
    assert answer.status_code == 201, answer.json
    return answer.json


def names(client: FlaskClient, base: str = BASE, **query: str) -> list[str]:
    return [entity["name"] for entity in client.get(base, query_string=query).json["data"]]


def test_an_entity_is_shown_with_exactly_the_published_keys(client: FlaskClient):
    data = {"a": [1, 2.5, None, True], "b": {"c": "ä"}}

    answer = client.post(BASE, json={"name": "one", "data": data}, headers={"X-NMP-Principal-Id": "ann"})

    assert answer.status_code == 201
    assert set(answer.json) == {
        "entity_type",
        "id",
        "workspace",
        "parent",
        "project",
        "name",
        "data",
        "created_at",
        "created_by",
        "updated_at",
        "updated_by",
        "db_version",
    }
    assert answer.json["data"] == data
    assert (answer.json["entity_type"], answer.json["workspace"]) == ("widget", "ml-team")
    assert (answer.json["parent"], answer.json["project"], answer.json["db_version"]) == (None, None, 1)
    assert (answer.json["created_by"], answer.json["updated_by"]) == ("ann", "ann")
    assert client.get(f"{BASE}/one").json == answer.json
    assert client.get(f"{BY_ID}/{answer.json['id']}").json == answer.json


@pytest.mark.parametrize(
    ("entity_type", "pattern"),
    [
        ("widget", r"widget-[a-z0-9]{5}"),
        ("My_Type", r"my-type-[a-z0-9]{5}"),
        ("42", r"entity-[a-z0-9]{5}"),
        ("a--b-", r"a-b-[a-z0-9]{5}"),
        ("t" * 80, r"t{50}-[a-z0-9]{5}"),
    ],
)
def test_an_entity_without_a_name_gets_one_from_its_type(client: FlaskClient, entity_type: str, pattern: str):
    base = f"{WORKSPACES}/ml-team/entities/{entity_type}"
    made = make(client, base=base)

    assert re.fullmatch(pattern, made["name"])
    assert make(client, made["name"], base=f"{WORKSPACES}/default/entities/other")["name"] == made["name"]
    assert make(client, base=base)["name"] != made["name"]


@pytest.mark.parametrize(
    "number", ["1e+16", "1e+22", "-1.5e+300", "12345678901234567", "1.0", "1e-07", "0.1"]
)
def test_a_number_comes_back_as_what_it_was(client: FlaskClient, number: str):
    text = '\\" 1e+22'
    body = f'{{"name": "thing", "data": {{"number": [{number}], "text": "{text}"}}}}'

    made = client.post(BASE, data=body, content_type="application/json")
    found = client.get(f"{BASE}/thing")

    assert made.status_code == 201
    assert found.json["data"] == made.json["data"] == {"number": [json.loads(number)], "text": '" 1e+22'}
    assert type(found.json["data"]["number"][0]) is type(json.loads(number))


def test_names_are_unique_per_workspace_type_and_parent(client: FlaskClient):
    parent, other = make(client, "parent"), make(client, "other")
    make(client, "one")
    make(client, "one", parent=parent["id"])
    make(client, "one", parent=other["id"])
    make(client, "one", base=f"{WORKSPACES}/ml-team/entities/Widget")
    make(client, "one", base=f"{WORKSPACES}/default/entities/widget")

    for clash in ({}, {"parent": parent["id"]}):
        answer = client.post(BASE, json={"name": "one", "data": {}} | clash)

        assert answer.status_code == 409
        assert answer.json == {
            "detail": "Entity 'one' of type 'widget' already exists in workspace 'ml-team'."
        }


def test_a_child_is_addressed_through_its_parent(client: FlaskClient):
    parent = make(client, "parent")
    child = make(client, "child", parent=parent["id"], data={"v": 1})
    one = f"{BASE}/child"
    under = f"{one}?parent={parent['id']}"

    assert client.get(one).json == {"detail": "Entity not found"}
    assert client.get(under).json == child
    assert client.get(f"{BASE}/parent?parent={parent['id']}").status_code == 404
    assert client.put(one, json={"data": {}}).status_code == 404
    assert client.put(under, json={"data": {"v": 2}}).json["data"] == {"v": 2}
    assert client.delete(one).status_code == 404
    assert client.delete(under).status_code == 200
    assert names(client) == ["parent"]


@pytest.mark.parametrize(
    "parent", ["01890000-0000-7000-8000-000000000000", "model-8zbxizoZR5itTQfCbCJtJ7", "", "x" * 200]
)
def test_a_parent_that_is_not_there_has_no_children(client: FlaskClient, parent: str):
    """However its id is written: those of other servers have another form."""
    make(client, "child", parent=make(client, "parent")["id"])

    for method, body in (("GET", None), ("PUT", {"data": {}}), ("DELETE", None)):
        answer = client.open(f"{BASE}/child", method=method, query_string={"parent": parent}, json=body)
        assert answer.status_code == 404, method
    assert names(client) == ["child", "parent"]


def test_a_parent_must_be_in_the_same_workspace(client: FlaskClient):
    elsewhere = make(client, "parent", base=f"{WORKSPACES}/default/entities/widget")["id"]

    for parent in (elsewhere, str(uuid4())):
        answer = client.post(BASE, json={"name": "child", "data": {}, "parent": parent})

        assert answer.status_code == 422
        assert answer.json == {
            "detail": f"Parent entity '{parent}' not found or not in accessible workspaces"
        }
    assert client.post(BASE, json={"data": {}, "parent": "nonsense"}).status_code == 422
    assert names(client) == []


def test_a_project_must_exist_in_the_same_workspace(client: FlaskClient):
    client.post(f"{WORKSPACES}/default/projects", json={"name": "alpha"})
    make(client, "one")
    refusal = "Project 'alpha' does not exist in workspace 'ml-team'. Please create the project first."

    for answer in (
        client.post(BASE, json={"name": "two", "data": {}, "project": "alpha"}),
        client.put(f"{BASE}/one", json={"data": {}, "project": "alpha"}),
    ):
        assert (answer.status_code, answer.json) == (422, {"detail": refusal})
    client.post(f"{WORKSPACES}/ml-team/projects", json={"name": "alpha"})
    assert make(client, "two", project="alpha")["project"] == "alpha"


def test_an_update_replaces_the_data_and_keeps_what_is_not_given(client: FlaskClient):
    client.post(f"{WORKSPACES}/ml-team/projects", json={"name": "alpha"})
    made = make(client, "one", project="alpha", data={"a": 1, "b": 2})

    answer = client.put(
        f"{BASE}/one",
        json={"data": {"b": 3}, "project": None, "new_name": "uno"},
        headers={"X-NMP-Principal-Id": "bob"},
    )

    assert answer.status_code == 200
    changed = answer.json
    assert (changed["id"], changed["name"], changed["data"]) == (made["id"], "uno", {"b": 3})
    assert (changed["project"], changed["db_version"], changed["updated_by"]) == ("alpha", 2, "bob")
    assert changed["updated_at"] > made["updated_at"]
    assert (changed["created_at"], changed["created_by"]) == (made["created_at"], made["created_by"])
    assert client.get(f"{BASE}/one").status_code == 404
    assert client.get(f"{BASE}/uno").json == changed


def test_a_taken_name_refuses_the_whole_update(client: FlaskClient):
    one = make(client, "one")
    make(client, "two")

    answer = client.put(f"{BASE}/one", json={"data": {"x": 1}, "new_name": "two"})

    assert (answer.status_code, answer.json) == (409, {"detail": "A conflicting entity already exists."})
    assert client.get(f"{BASE}/one").json == one


def test_a_stale_version_neither_updates_nor_deletes(client: FlaskClient):
    make(client, "one")
    fresh = client.put(f"{BASE}/one", json={"data": {"v": 2}, "expected_db_version": 1}).json

    for answer in (
        client.put(f"{BASE}/one", json={"data": {}, "expected_db_version": 1}),
        client.delete(f"{BASE}/one?expected_db_version=1"),
    ):
        assert answer.status_code == 409
        assert answer.json["detail"] == (
            "Entity 'one' of type 'widget' in workspace 'ml-team' was modified by another request. "
            "Expected version 1, but current version is 2. Please refetch and retry."
        )
    assert client.get(f"{BASE}/one").json == fresh
    assert client.delete(f"{BASE}/one?expected_db_version=2").status_code == 200


def test_a_delete_takes_the_whole_tree_and_nothing_else(client: FlaskClient):
    root, neighbour = make(client, "root"), make(client, "neighbour")
    parent = root
    for level in range(5):
        make(client, "leaf", parent=parent["id"])
        parent = make(client, f"level-{level}", parent=parent["id"])
    child = make(client, "leaf", parent=neighbour["id"])

    answer = client.delete(f"{BASE}/root", content_type="application/json")

    assert answer.status_code == 200
    assert answer.json == {"message": "Resource deleted successfully.", "id": "ml-team/widget/root"}
    assert client.get(BASE, query_string={"sort": "created_at"}).json["data"] == [neighbour, child]


@pytest.mark.parametrize(("method", "detail"), [
    ("GET", "Entity not found"),
    ("PUT", "Entity 'nope' of type 'widget' not found in workspace 'ml-team'"),
    ("DELETE", "Entity 'nope' of type 'widget' not found in workspace 'ml-team'"),
])  # fmt: skip
def test_a_missing_entity_is_not_found(client: FlaskClient, method: str, detail: str):
    answer = client.open(f"{BASE}/nope", method=method, json={"data": {}})

    assert (answer.status_code, answer.json) == (404, {"detail": detail})


@pytest.mark.parametrize("entity_id", ["nonsense", "-", "8f54262b-ab7f-47f3-b6f2-fb3dc4fa7ed9"])
def test_an_id_that_is_none_is_not_found(client: FlaskClient, entity_id: str):
    assert client.get(f"{BY_ID}/{entity_id}").status_code == 404


@pytest.mark.parametrize(
    "body",
    [
        {"name": "one"},
        {"name": "one", "data": None},
        {"name": "one", "data": []},
        {"name": "One", "data": {}},
        {"name": "one\n", "data": {}},
        {"name": "one", "data": {}, "extra": 1},
    ],
)
def test_a_body_that_does_not_fit_is_refused(client: FlaskClient, body: object):
    assert client.post(BASE, json=body).status_code == 422
    assert names(client) == []


@pytest.mark.parametrize("workspace", ["nope", "leaving"])
def test_a_workspace_that_is_not_there_has_no_entities(client: FlaskClient, session: Session, workspace: str):
    hidden = make_entity(session, make_workspace(session, "leaving", state=WorkspaceState.DELETING), "one")
    session.commit()
    base = f"{WORKSPACES}/{workspace}/entities/widget"

    answers = [
        client.get(base),
        client.post(base, json={"name": "two", "data": {}}),
        client.get(f"{base}/one"),
        client.put(f"{base}/one", json={"data": {}}),
        client.delete(f"{base}/one"),
    ]

    assert [answer.status_code for answer in answers] == [404] * 5
    assert {answer.json["detail"] for answer in answers} == {f"Workspace '{workspace}' not found"}
    assert client.get(f"{BY_ID}/{hidden.id}").status_code == 404


def test_a_dash_lists_the_entities_of_every_workspace_in_use(client: FlaskClient, session: Session):
    make_entity(session, make_workspace(session, "leaving", state=WorkspaceState.DELETING), "hidden")
    session.commit()
    make(client, "ours")
    make(client, "theirs", base=f"{WORKSPACES}/default/entities/widget")
    everywhere = f"{WORKSPACES}/-/entities/widget"

    assert names(client, everywhere, sort="workspace") == ["theirs", "ours"]
    assert client.get(f"{everywhere}/ours").status_code == 404
    assert client.post(everywhere, json={"data": {}}).status_code == 404


def test_entities_are_filtered_and_sorted_by_columns_and_data(client: FlaskClient):
    parent = make(client, "one", data={"size": 9, "tag": "x"})
    make(client, "two", data={"size": 10, "tag": "y"})
    make(client, "three", data={"deep": {"er": "z"}}, parent=parent["id"])
    make(client, "other", base=f"{WORKSPACES}/ml-team/entities/gadget")

    assert names(client) == ["three", "two", "one"]
    assert names(client, filter="data.size>9") == ["two"]
    assert names(client, filter='data.deep.er:"z"') == ["three"]
    assert names(client, search='name~"O" -name:"one"') == ["two"]
    assert names(client, **{"filter[parent]": parent["id"]}) == ["three"]
    assert names(client, filter="parent:null", sort="data.size") == ["one", "two"]
    for query in ("filter=nope:1", "sort=nope", "filter[parent]=x", "filter[db_version]=x"):
        assert client.get(f"{BASE}?{query}").status_code == 400


def test_entities_are_counted_by_a_text_field_over_all_pages(client: FlaskClient):
    for number, tag in enumerate(["x", "y", "x", 5, None, ["x"]]):
        make(client, f"entity-{number}", data={"tag": tag})
    make(client, "bare")

    page = client.get(BASE, query_string={"count_by": "data.tag", "page_size": 1}).json
    filtered = client.get(BASE, query_string={"count_by": "data.tag", "filter": 'data.tag:"y"'}).json

    assert page["group_counts"] == {"x": 2, "y": 1}
    assert page["pagination"]["total_results"] == 7
    assert filtered["group_counts"] == {"y": 1}
    assert client.get(BASE).json["group_counts"] is None


@pytest.mark.parametrize("field", ["name", "data", "data.", "data.a.b", "tag"])
def test_what_is_no_direct_data_field_cannot_be_counted_by(client: FlaskClient, field: str):
    answer = client.get(BASE, query_string={"count_by": field})

    assert answer.status_code == 400
    assert answer.json == {"detail": f"Field '{field}' is not a direct string data field"}


def test_an_answer_has_at_most_a_thousand_groups(client: FlaskClient, session: Session):
    workspace = make_workspace(session, "crowded")
    for number in range(1001):
        make_entity(session, workspace, f"entity-{number}").data = {"tag": f"tag-{number}"}
    make_entity(session, workspace, "twin").data = {"tag": "tag-1000"}
    session.commit()

    answer = client.get(f"{WORKSPACES}/crowded/entities/widget?count_by=data.tag&page_size=1")

    assert len(answer.json["group_counts"]) == 1000
    assert answer.json["group_counts"]["tag-1000"] == 2
