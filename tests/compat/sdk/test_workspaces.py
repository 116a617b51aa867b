"""Workspaces, members, projects and role bindings through the SDK; pages, filters and errors along the way."""

import uuid
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from nemo_platform import (
    BadRequestError,
    ConflictError,
    NeMoPlatform,
    NotFoundError,
    UnprocessableEntityError,
)


def fresh_name() -> str:
    return f"sdk-{uuid.uuid4().hex[:12]}"


def test_every_field_of_a_workspace_arrives(client: NeMoPlatform) -> None:
    created = client.with_options(default_headers={"X-NMP-Principal-Id": "ann"}).workspaces.create(
        name=fresh_name(), description="ours"
    )

    assert client.workspaces.retrieve(created.name) == created
    assert (created.description, created.created_by, created.updated_by) == ("ours", "ann", "ann")
    assert str(uuid.UUID(created.id)) == created.id
    assert created.created_at.tzinfo is not None
    assert abs(datetime.now(UTC) - created.created_at) < timedelta(minutes=5)


def test_a_name_that_is_taken_is_refused_once_and_not_retried(
    client: NeMoPlatform, requests: list[httpx.Request]
) -> None:
    with pytest.raises(ConflictError, match=f"Workspace '{client.workspace}' already exists") as refused:
        client.workspaces.create(name=client.workspace)

    assert refused.value.response.headers["x-should-retry"] == "false"
    assert len(requests) == 1


def test_exist_ok_returns_the_workspace_that_exists(
    client: NeMoPlatform, requests: list[httpx.Request]
) -> None:
    name = fresh_name()
    created = client.workspaces.create(name=name, description="first", exist_ok=True)
    requests.clear()

    again = client.workspaces.create(name=name, description="second", exist_ok=True)

    assert again == created
    assert [request.method for request in requests] == ["POST", "GET"]


def test_an_update_changes_the_description_and_nothing_else(client: NeMoPlatform) -> None:
    created = client.workspaces.create(name=fresh_name(), description="first")

    assert client.workspaces.update(created.name).description == "first"
    updated = client.workspaces.update(created.name, description="second")

    assert updated.description == "second"
    assert updated.updated_at > created.updated_at
    assert (updated.id, updated.name, updated.created_at) == (created.id, created.name, created.created_at)


def test_a_delete_tells_where_to_follow_it_and_frees_the_name_at_once(client: NeMoPlatform) -> None:
    old = client.workspaces.create(name=fresh_name())

    deleted = client.workspaces.with_raw_response.delete(old.name)
    with pytest.raises(NotFoundError, match=f"Workspace '{old.name}' not found"):
        client.workspaces.retrieve(old.name)
    new = client.workspaces.create(name=old.name)

    body = deleted.parse()
    assert body.id == old.name
    assert body.message
    assert deleted.headers["location"] == f"/apis/entities/v2/deletions/{body.deletion_id}"
    assert new.id != old.id


def test_what_was_never_there_cannot_be_deleted(client: NeMoPlatform) -> None:
    with pytest.raises(NotFoundError):
        client.workspaces.delete(fresh_name())


@pytest.mark.parametrize("name", ["default", "system"])
def test_built_in_workspaces_cannot_be_deleted(client: NeMoPlatform, name: str) -> None:
    with pytest.raises(ConflictError):
        client.workspaces.delete(name)

    assert client.workspaces.retrieve(name).name == name


@pytest.mark.parametrize("name", ["", "a", "A-b", "1ab", "ab-", "a--b", "ab\n", "a" * 64, "a b", "ä-b"])
def test_a_bad_name_is_unprocessable_and_the_field_is_named(client: NeMoPlatform, name: str) -> None:
    with pytest.raises(UnprocessableEntityError) as refused:
        client.workspaces.create(name=name)

    assert refused.value.body["detail"][0]["loc"] == ["body", "name"]


def test_iterating_a_list_follows_its_pages(client: NeMoPlatform, requests: list[httpx.Request]) -> None:
    wanted = [f"project-{number}" for number in range(7)]
    for name in wanted:
        client.projects.create(name=name)
    requests.clear()

    pages = client.projects.list(page_size=3, sort="name")
    first = [project.name for project in pages.data]
    everything = [project.name for project in pages]

    assert first == wanted[:3]
    assert everything == wanted
    assert len(requests) == 3
    assert pages.pagination.to_dict() == {
        "page": 1, "page_size": 3, "current_page_size": 3, "total_pages": 3, "total_results": 7,
    }  # fmt: skip


def test_a_page_beyond_the_end_is_empty(client: NeMoPlatform) -> None:
    assert client.projects.list(page=99).data == []


@pytest.mark.parametrize(
    "wanted",
    [
        'name:"project-b"',
        'name~"JECT-B"',
        '{"name": {"$eq": "project-b"}}',
        '{"name": {"$in": ["project-b", "other"]}}',
        {"name": "project-b"},
        {"name": {"$like": "ject-b"}},
        {"name": {"$in": ["project-b", "other"]}},
        {"name": {"$gt": "project-a", "$lt": "project-c"}},
    ],
    ids=repr,
)
def test_a_filter_means_the_same_as_text_as_json_and_as_a_dict(
    client: NeMoPlatform, wanted: str | dict
) -> None:
    for letter in "abc":
        client.projects.create(name=f"project-{letter}")

    assert [project.name for project in client.projects.list(filter=wanted)] == ["project-b"]


def test_an_unknown_filter_field_is_refused_by_name(client: NeMoPlatform) -> None:
    with pytest.raises(BadRequestError, match="nonsense"):
        client.workspaces.list(filter={"nonsense": "x"})


def test_projects_live_and_die(client: NeMoPlatform) -> None:
    created = client.projects.create(name="apollo", description="moon")
    assert client.projects.create(name="apollo", exist_ok=True) == created
    assert client.projects.update("apollo", description="mars").description == "mars"

    deleted = client.projects.delete("apollo")

    assert deleted.id == f"{client.workspace}/apollo"
    with pytest.raises(NotFoundError):
        client.projects.retrieve("apollo")


@pytest.mark.parametrize("principal", ["ann@example.com", "group/research", "*"])
def test_members_come_and_go(client: NeMoPlatform, principal: str) -> None:
    members = client.workspaces.members

    added = members.create(principal=principal, roles=["Viewer"], wait_role_propagation=False)
    assert (added.principal, added.roles) == (principal, ["Viewer"])
    assert added.granted_at is not None
    assert [one.roles for one in members.list().data if one.principal == principal] == [["Viewer"]]

    replaced = members.update(principal, roles=["Editor", "Viewer"])
    assert sorted(replaced.roles) == ["Editor", "Viewer"]

    removed = members.delete(principal)
    assert removed.id == principal
    assert principal not in [one.principal for one in members.list().data]


def test_a_role_that_does_not_exist_is_refused(client: NeMoPlatform) -> None:
    with pytest.raises(UnprocessableEntityError):
        client.workspaces.members.create(principal="ann", roles=["Emperor"])


def test_a_role_binding_can_be_granted_revoked_and_granted_again(client: NeMoPlatform) -> None:
    bindings = client.iam.role_bindings
    grant = {"principal": f"bob-{client.workspace}", "role": "Viewer", "workspace": client.workspace}

    created = bindings.create(**grant)
    assert created.revoked_at is None
    assert bindings.retrieve(created.name).id == created.id
    with pytest.raises(ConflictError):
        bindings.create(**grant)

    bindings.delete(created.name)
    since_yesterday = {"gte": datetime.now(UTC) - timedelta(days=1)}
    mine = {"principal": grant["principal"], "granted_at": since_yesterday}
    assert [one.name for one in bindings.list(filter={**mine, "is_active": False})] == [created.name]
    assert bindings.list(filter={**mine, "is_active": True}).data == []

    assert bindings.create(**grant).revoked_at is None
