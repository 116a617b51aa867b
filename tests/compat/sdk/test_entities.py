"""Generic entities through the SDK: trees, versions, filters on their data."""

import pytest
from nemo_platform import ConflictError, NeMoPlatform, NotFoundError, UnprocessableEntityError


def test_every_field_of_an_entity_arrives(client: NeMoPlatform) -> None:
    client.projects.create(name="apollo")
    data = {"text": "ü", "number": 1.5, "nothing": None, "list": [1, {"deep": True}]}

    created = client.entities.create("Recipe", name="soup", data=data, project="apollo")

    assert client.entities.get_entity_by_name("soup", entity_type="Recipe") == created
    assert client.entities.get_entity_by_id(created.id) == created
    assert (created.workspace, created.entity_type, created.name) == (client.workspace, "Recipe", "soup")
    assert (created.data, created.project, created.parent, created.db_version) == (data, "apollo", None, 1)


def test_an_entity_without_a_name_is_given_one(client: NeMoPlatform) -> None:
    assert client.entities.create("recipe", data={}).name.startswith("recipe-")


def test_children_are_found_through_their_parent_and_go_with_it(client: NeMoPlatform) -> None:
    parent = client.entities.create("recipe", name="soup", data={})
    other = client.entities.create("recipe", name="stew", data={})
    child = client.entities.create("step", name="boil", data={"of": "soup"}, parent=parent.id)
    cousin = client.entities.create("step", name="boil", data={"of": "stew"}, parent=other.id)

    def boil(of: str) -> object:
        return client.entities.get_entity_by_name("boil", entity_type="step", parent=of)

    assert child.parent == parent.id
    assert boil(of=parent.id) == child
    with pytest.raises(NotFoundError):
        client.entities.get_entity_by_name("boil", entity_type="step")

    deleted = client.entities.delete_entity_by_name("soup", entity_type="recipe")

    assert deleted.id == f"{client.workspace}/recipe/soup"
    with pytest.raises(NotFoundError):
        client.entities.get_entity_by_id(child.id)
    assert boil(of=other.id) == cousin


def test_a_stale_version_cannot_overwrite_a_newer_one(client: NeMoPlatform) -> None:
    client.entities.create("recipe", name="soup", data={"salt": 1})

    def season(salt: int, version: int) -> object:
        return client.entities.update_entity_by_name(
            "soup", entity_type="recipe", data={"salt": salt}, expected_db_version=version
        )

    assert season(salt=2, version=1).db_version == 2
    with pytest.raises(ConflictError, match="Expected version 1, but current version is 2"):
        season(salt=3, version=1)

    assert client.entities.get_entity_by_name("soup", entity_type="recipe").data == {"salt": 2}


def test_an_entity_can_be_renamed_but_not_onto_another(client: NeMoPlatform) -> None:
    soup = client.entities.create("recipe", name="soup", data={})
    client.entities.create("recipe", name="stew", data={})

    def rename(new_name: str) -> object:
        return client.entities.update_entity_by_name("soup", entity_type="recipe", data={}, new_name=new_name)

    with pytest.raises(ConflictError):
        rename("stew")
    assert rename("broth").id == soup.id
    with pytest.raises(NotFoundError):
        client.entities.get_entity_by_name("soup", entity_type="recipe")


def test_what_an_entity_refers_to_must_exist(client: NeMoPlatform) -> None:
    with pytest.raises(UnprocessableEntityError, match="Project 'nowhere' does not exist"):
        client.entities.create("recipe", data={}, project="nowhere")
    with pytest.raises(UnprocessableEntityError, match="Parent entity"):
        client.entities.create("recipe", data={}, parent="00000000-0000-7000-8000-000000000000")

    assert client.entities.list("recipe").data == []


def test_a_name_is_unique_per_type(client: NeMoPlatform) -> None:
    client.entities.create("recipe", name="soup", data={})

    with pytest.raises(ConflictError, match="already exists"):
        client.entities.create("recipe", name="soup", data={})
    assert client.entities.create("menu", name="soup", data={}).entity_type == "menu"


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ("data.salt > 1", ["b", "c"]),
        ('data.salt >= 1 AND -data.kind:"soup"', ["b"]),
        ('{"$or": [{"data.salt": {"$eq": 1}}, {"data.salt": {"$eq": 3}}]}', ["a", "c"]),
        ({"data.kind": "soup"}, ["a", "c"]),
        ({"name": {"$in": ["dish-a", "dish-b"]}}, ["a", "b"]),
    ],
    ids=repr,
)
def test_entities_are_filtered_and_sorted_by_their_data(
    client: NeMoPlatform, wanted: str | dict, found: list[str]
) -> None:
    for letter, salt, kind in [("c", 3, "soup"), ("a", 1, "soup"), ("b", 2, "stew")]:
        client.entities.create("dish", name=f"dish-{letter}", data={"salt": salt, "kind": kind})

    names = [one.name for one in client.entities.list("dish", filter=wanted, sort="data.salt")]

    assert names == [f"dish-{letter}" for letter in found]


def test_a_list_counts_by_a_field_over_all_its_pages(client: NeMoPlatform) -> None:
    for kind in ["soup", "stew", "soup"]:
        client.entities.create("dish", data={"kind": kind})

    page = client.entities.with_raw_response.list("dish", count_by="data.kind", page_size=1)

    assert page.http_response.json()["group_counts"] == {"soup": 2, "stew": 1}
