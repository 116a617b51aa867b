import errno
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from sqlalchemy import update
from sqlalchemy.orm import Session

from app.context import Context
from app.lifecycle import WorkspaceState
from app.models import Fileset, Workspace
from app.storage.disk import Disk
from tests.factories import make_fileset, make_workspace
from tests.support.hasty_store import HastyStore

FILESETS = "/apis/files/v2/workspaces/ml-team/filesets"
SERVICE = {"X-NMP-Principal-Id": "service:models"}


@pytest.fixture(autouse=True)
def workspace(session: Session) -> Workspace:
    workspace = make_workspace(session, "ml-team")
    session.commit()
    return workspace


def create(client: FlaskClient, name: str = "data", **body: Any) -> Any:
    response = client.post(FILESETS, json={"name": name, **body})
    assert response.status_code == 200, response.text
    return response.json


def test_a_new_fileset_is_shown_with_every_key_of_the_contract(client: FlaskClient) -> None:
    shown = create(client, description="rows", project="alpha", purpose="dataset", custom_fields={"a": [1]})

    assert shown == client.get(f"{FILESETS}/data").json
    assert {key: shown[key] for key in shown if key not in ("id", "created_at", "updated_at")} == {
        "name": "data",
        "workspace": "ml-team",
        "description": "rows",
        "purpose": "dataset",
        "storage": {
            "type": "local",
            "path": "ml-team/data",
            "read_chunk_size": 1048576,
            "write_buffer_size": 16777216,
        },
        "metadata": {"dataset": None, "model": None, "environment": None},
        "custom_fields": {"a": [1]},
        "project": "alpha",
    }
    assert shown["created_at"].endswith("Z")


def test_a_second_fileset_of_the_same_name_is_refused(client: FlaskClient) -> None:
    create(client)

    response = client.post(FILESETS, json={"name": "data"})

    assert (response.status_code, response.json) == (409, {"detail": "Fileset 'ml-team/data' already exists"})
    assert response.headers["x-should-retry"] == "false"


@pytest.mark.parametrize("name", ["Data", "a", "a--b", "a\n", "a/b", "x" * 64])
def test_names_outside_the_rule_are_refused(client: FlaskClient, name: str) -> None:
    assert client.post(FILESETS, json={"name": name}).status_code == 422


def test_a_missing_workspace_is_not_found_and_leaves_nothing(client: FlaskClient, context: Context) -> None:
    response = client.post("/apis/files/v2/workspaces/nope/filesets", json={"name": "data"})

    assert (response.status_code, response.json) == (404, {"detail": "Workspace 'nope' not found"})
    assert context.store.workspace_ids() == set()


def test_storage_cannot_be_chosen(client: FlaskClient) -> None:
    response = client.post(FILESETS, json={"name": "data", "storage": {"type": "local", "path": "/etc"}})

    assert response.status_code == 400
    assert response.json["detail"].startswith("Creating filesets with local storage is not allowed.")


def test_metadata_is_kept_as_it_was_given(client: FlaskClient) -> None:
    metadata = {"dataset": {"schema": "row", "schema_defs": {"row": {"type": "object"}}}}

    shown = create(client, metadata=metadata)

    assert shown["metadata"]["dataset"] == {
        "schema": "row",
        "schema_defs": {"row": {"type": "object"}},
        "schemas_by_path": {},
    }


def test_an_environment_has_metadata_of_its_own(client: FlaskClient) -> None:
    metadata = {"environment": {"format": "gym", "name": "maze", "config_paths": ["a.yaml"]}}

    shown = create(client, purpose="environment", metadata=metadata)

    unknown = {"adapter_agent": None, "hub_id": None, "vf_env_id": None}
    assert shown["purpose"] == "environment"
    assert shown["metadata"]["environment"] == metadata["environment"] | unknown
    assert client.get(f'{FILESETS}?filter=purpose:"environment"').json["data"] == [shown]


def test_metadata_of_two_purposes_are_refused_and_shown_where_they_are(
    client: FlaskClient, session: Session
) -> None:
    create(client)
    both = {"dataset": {}, "model": {}}

    for response in (
        client.post(FILESETS, json={"name": "other", "metadata": both}),
        client.patch(f"{FILESETS}/data", json={"metadata": both}),
    ):
        assert response.status_code == 422
        assert "at most one typed key" in response.json["detail"][0]["msg"]
    session.execute(update(Fileset).values(details=both))
    session.commit()

    assert client.get(f"{FILESETS}/data").json["metadata"]["model"] == {"tool_calling": None}
    assert client.get(FILESETS).json["data"][0]["metadata"]["model"] == {"tool_calling": None}


def test_a_fileset_has_no_revision_to_refresh(client: FlaskClient) -> None:
    create(client)

    known, unknown = [client.post(f"{FILESETS}/{name}/refresh") for name in ("data", "none")]

    assert (known.status_code, known.json) == (
        409,
        {"detail": "Fileset 'ml-team/data' does not track a revision that can be refreshed"},
    )
    assert unknown.status_code == 404


@pytest.mark.parametrize(
    "metadata",
    [
        {"dataset": {"schema": "missing"}},
        {"other": {}},
        {"model": {"x": 1}},
        {"environment": {"format": "gym"}},
    ],
)
def test_metadata_that_clients_could_not_read_is_refused(
    client: FlaskClient, metadata: dict[str, Any]
) -> None:
    assert client.post(FILESETS, json={"name": "data", "metadata": metadata}).status_code == 422


def test_filesets_are_listed_by_page_filter_and_sort(client: FlaskClient) -> None:
    for number in range(12):
        create(client, f"fs-{number:02}", purpose="model" if number % 2 else "generic")

    first = client.get(FILESETS).json
    models = client.get(f'{FILESETS}?filter=purpose:"model"&sort=name&page_size=4&page=2').json

    assert [item["name"] for item in first["data"]] == [f"fs-{number:02}" for number in range(11, 1, -1)]
    assert first["pagination"] == {
        "page": 1,
        "page_size": 10,
        "current_page_size": 10,
        "total_pages": 2,
        "total_results": 12,
    }
    assert [item["name"] for item in models["data"]] == ["fs-09", "fs-11"]


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("filter=nonsense:1", 400),
        ("sort=nonsense", 400),
        ("page_size=101", 422),
        ("filter[storage_type]=local", 200),
    ],
)
def test_a_list_names_what_it_cannot_do(client: FlaskClient, query: str, status: int) -> None:
    create(client)

    assert client.get(f"{FILESETS}?{query}").status_code == status


def test_the_dash_lists_the_filesets_of_all_active_workspaces(client: FlaskClient, session: Session) -> None:
    create(client)
    make_fileset(session, make_workspace(session, "other"), "theirs")
    make_fileset(session, make_workspace(session, "leaving", state=WorkspaceState.DELETING), "hidden")
    session.commit()

    data = client.get("/apis/files/v2/workspaces/-/filesets?sort=name").json["data"]

    assert [(item["workspace"], item["name"]) for item in data] == [("ml-team", "data"), ("other", "theirs")]


def test_only_the_given_keys_are_replaced(client: FlaskClient) -> None:
    before = create(client, description="old", project="alpha", custom_fields={"a": 1})

    after = client.patch(f"{FILESETS}/data", json={"description": None, "custom_fields": {"b": 2}}).json

    changed = {key for key in after if after[key] != before[key]}
    assert changed == {"description", "custom_fields", "updated_at"}
    assert (after["description"], after["custom_fields"]) == ("", {"b": 2})


def test_an_update_that_changes_nothing_is_no_update(client: FlaskClient) -> None:
    before = create(client, description="same", custom_fields={"a": 1})

    assert (
        client.patch(f"{FILESETS}/data", json={"description": "same", "custom_fields": {"a": 1}}).json
        == before
    )


def test_a_deleted_fileset_is_shown_a_last_time_and_leaves_no_bytes(
    client: FlaskClient, context: Context, workspace: Workspace, session: Session
) -> None:
    shown = create(client)
    client.put(f"{FILESETS}/data/-/a/b.txt", data=b"bytes")
    create(client, "neighbour")
    client.put(f"{FILESETS}/neighbour/-/c", data=b"stays")

    response = client.delete(f"{FILESETS}/data", content_type="application/json")

    assert (response.status_code, response.json) == (200, shown)
    assert client.get(f"{FILESETS}/data").json == {
        "detail": "Fileset 'data' not found in workspace 'ml-team'"
    }
    assert client.delete(f"{FILESETS}/data").status_code == 404
    assert context.store.size(workspace.id) == len(b"stays")
    assert [row.name for row in session.query(Fileset)] == ["neighbour"]


ENTITIES = "/apis/entities/v2/workspaces/{}/entities/{}"


@pytest.mark.parametrize("reference", ["data", "fileset://data", "ml-team/data", "fileset://ml-team/data"])
def test_a_fileset_that_a_model_uses_is_kept_with_its_files(client: FlaskClient, reference: str) -> None:
    create(client)
    client.put(f"{FILESETS}/data/-/weights", data=b"bytes")
    for entity_type, name in (
        ("model", "llama"),
        ("adapter", "lora"),
        ("adapter", "other"),
        ("recipe", "soup"),
    ):
        body = {"name": name, "data": {"fileset": reference}}
        assert client.post(ENTITIES.format("ml-team", entity_type), json=body).status_code == 201

    refused = client.delete(f"{FILESETS}/data")

    assert (refused.status_code, refused.json) == (
        409,
        {
            "detail": "Cannot delete fileset 'ml-team/data' because 1 model entity reference(s) and 2 adapter entity "
            "reference(s) still use it. Relink or delete the dependent entities first."
        },
    )
    assert client.get(f"{FILESETS}/data/-/weights").data == b"bytes"
    for entity_type, name in (("model", "llama"), ("adapter", "lora"), ("adapter", "other")):
        client.delete(f"{ENTITIES.format('ml-team', entity_type)}/{name}")
    assert client.delete(f"{FILESETS}/data").status_code == 200


def test_a_model_of_another_workspace_uses_a_fileset_by_its_full_name_alone(
    client: FlaskClient, session: Session
) -> None:
    make_workspace(session, "other")
    session.commit()
    create(client, "data")
    create(client, "more")
    for name, reference in (("one", "data"), ("two", "ml-team/more"), ("three", "other/data")):
        client.post(ENTITIES.format("other", "model"), json={"name": name, "data": {"fileset": reference}})

    assert client.delete(f"{FILESETS}/data").status_code == 200
    assert client.delete(f"{FILESETS}/more").status_code == 409


def test_a_fileset_of_a_deleted_name_starts_empty(client: FlaskClient) -> None:
    create(client)
    client.put(f"{FILESETS}/data/-/secret", data=b"old")
    client.delete(f"{FILESETS}/data")
    create(client)

    assert client.get(f"{FILESETS}/data/files").json == {"data": []}
    assert client.get(f"{FILESETS}/data/-/secret").status_code == 404


def test_nothing_answers_while_the_workspace_is_being_deleted(
    client: FlaskClient, session: Session, workspace: Workspace
) -> None:
    create(client)
    client.put(f"{FILESETS}/data/-/a", data=b"x")
    workspace.state = WorkspaceState.DELETING
    session.commit()

    answers = [
        client.get(FILESETS),
        client.post(FILESETS, json={"name": "late"}),
        client.get(f"{FILESETS}/data"),
        client.patch(f"{FILESETS}/data", json={"description": "late"}),
        client.delete(f"{FILESETS}/data"),
        client.get(f"{FILESETS}/data/files"),
        client.get(f"{FILESETS}/data/-/a"),
        client.put(f"{FILESETS}/data/-/a", data=b"late"),
        client.delete(f"{FILESETS}/data/-/a"),
    ]

    assert {(answer.status_code, answer.json["detail"]) for answer in answers} == {
        (404, "Workspace 'ml-team' not found")
    }


def test_no_answer_names_a_path_of_the_server(client: FlaskClient, context: Context) -> None:
    texts = [
        str(create(client)),
        client.put(f"{FILESETS}/data/-/a/b", data=b"x").text,
        client.put(f"{FILESETS}/data/-/a", data=b"x").text,
        client.get(f"{FILESETS}/data/-/a").text,
        client.get(f"{FILESETS}/data/-/nope").text,
        client.get(f"{FILESETS}/data/files").text,
        client.delete(f"{FILESETS}/data/-/a").text,
    ]

    assert [text for text in texts if str(context.settings.data_dir) in text] == []


def test_users_cannot_change_the_files_of_a_service_nor_mark_theirs_as_such(client: FlaskClient) -> None:
    mine = create(client, custom_fields={"service_source": "me", "a": 1})
    body = {"name": "theirs", "custom_fields": {"service_source": "models"}}
    client.post(FILESETS, json=body, headers=SERVICE)
    client.put(f"{FILESETS}/theirs/-/a", data=b"x", headers=SERVICE)

    refused = [
        client.put(f"{FILESETS}/theirs/-/a", data=b"y"),
        client.delete(f"{FILESETS}/theirs/-/a"),
        client.delete(f"{FILESETS}/theirs"),
    ]
    marked = client.patch(f"{FILESETS}/theirs", json={"custom_fields": {"b": 2}}).json

    assert mine["custom_fields"] == {"a": 1}
    assert [answer.status_code for answer in refused] == [403, 403, 403]
    assert client.get(f"{FILESETS}/theirs/-/a").data == b"x"
    assert marked["custom_fields"] == {"b": 2, "service_source": "models"}
    assert client.delete(f"{FILESETS}/theirs", headers=SERVICE).status_code == 200


def test_a_fileset_with_too_many_files_for_one_request_goes_on_with_the_next(
    client: FlaskClient, workspace: Workspace, context: Context
) -> None:
    create(client)
    for path in ("a", "b", "c"):
        assert client.put(f"{FILESETS}/data/-/{path}", data=b"x").status_code == 200
    HastyStore.in_place_of_that_of(context)

    answers = []
    while not answers or answers[-1].status_code == 503:
        answers.append(client.delete(f"{FILESETS}/data"))

    assert answers[-1].status_code == 200
    assert len(answers) > 3
    assert "1 of its files have been removed" in answers[0].json["detail"]
    assert context.store.size(workspace.id) == 0


def test_a_store_that_fails_keeps_the_fileset_for_another_try(
    client: FlaskClient, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    create(client)
    client.put(f"{FILESETS}/data/-/a", data=b"bytes")

    def fail(disk: Disk, path: str) -> None:
        raise OSError(errno.EIO, "Input/output error", path)

    monkeypatch.setattr(Disk, "rm_file", fail)

    response = client.delete(f"{FILESETS}/data")

    assert response.status_code == 503
    assert str(tmp_path) not in response.text
    assert client.get(f"{FILESETS}/data").status_code == 200

    monkeypatch.undo()
    assert client.delete(f"{FILESETS}/data").status_code == 200
