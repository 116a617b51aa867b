"""The number of entities that the database keeps is the number that a count would find, whoever changes them."""

from typing import Any
from uuid import UUID, uuid4

from flask.testing import FlaskClient
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, delete, func, select, text
from sqlalchemy.orm import Session

from app.context import Context
from app.db import session_scope
from app.models import Entity, ResourceCount, Workspace
from app.services.listing import fold_counts
from tests import factories
from tests.support.locks import has_to_wait, meanwhile
from tests.support.statements import counted

WORKSPACES = "/apis/entities/v2/workspaces"


def add(session: Session, workspace: Workspace, entity_type: str, number: int) -> list[UUID]:
    """Insert so many entities in one statement."""
    ids = [uuid4() for _ in range(number)]
    session.execute(
        text(
            "INSERT INTO entities (id, workspace_id, entity_type, name, db_version, created_at, created_by, "
            "updated_at, updated_by) SELECT id, :workspace, :type, id::text, 1, now(), '', now(), '' "
            "FROM unnest(CAST(:ids AS uuid[])) AS id"
        ),
        {"workspace": workspace.id, "type": entity_type, "ids": ids},
    )
    return ids


def kept(session: Session) -> dict[tuple[UUID, str], int]:
    """The sums of what is kept, as a list reads them."""
    rows = session.execute(
        select(ResourceCount.workspace_id, ResourceCount.entity_type, func.sum(ResourceCount.delta))
        .where(ResourceCount.kind == "entities")
        .group_by(ResourceCount.workspace_id, ResourceCount.entity_type)
    )
    return {(workspace, kind): int(number) for workspace, kind, number in rows if number}


def there(session: Session) -> dict[tuple[UUID, str], int]:
    """The numbers that a count finds."""
    rows = session.execute(
        select(Entity.workspace_id, Entity.entity_type, func.count()).group_by(
            Entity.workspace_id, Entity.entity_type
        )
    )
    return {(workspace, kind): number for workspace, kind, number in rows}


CHANGES = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.sampled_from("ab"), st.integers(0, 4)),
        st.tuples(st.just("remove"), st.sampled_from("ab"), st.integers(0, 4)),
        st.tuples(st.just("fold"), st.just(""), st.just(0)),
    ),
    max_size=12,
)


@settings(max_examples=25, deadline=None)
@given(changes=CHANGES)
def test_they_agree_after_any_changes(engine: Engine, changes: list[tuple[str, str, int]]) -> None:
    with Session(engine) as session:
        by_name = {name: factories.make_workspace(session, f"w-{uuid4()}") for name in "ab"}
        for what, name, number in changes:
            workspace = by_name[name or "a"]
            if what == "add":
                add(session, workspace, "thing", number)
            elif what == "remove":
                some = select(Entity.id).where(Entity.workspace_id == workspace.id).limit(number)
                session.execute(delete(Entity).where(Entity.id.in_(some)))
            else:
                fold_counts(session)

        assert kept(session) == there(session)


def test_what_is_rolled_back_is_not_counted(session: Session) -> None:
    workspace = factories.make_workspace(session)
    with session.begin_nested() as undone:
        add(session, workspace, "thing", 3)
        undone.rollback()

    assert kept(session) == {}


def test_folding_leaves_one_row_for_each_type_and_none_for_what_is_gone(session: Session) -> None:
    ours, gone = factories.make_workspace(session), factories.make_workspace(session, "gone")
    for _ in range(3):
        add(session, ours, "thing", 2)
        add(session, ours, "other", 1)
        fold_counts(session)
    add(session, gone, "thing", 5)
    session.execute(delete(Entity).where(Entity.workspace_id == gone.id))

    fold_counts(session)

    columns = (ResourceCount.workspace_id, ResourceCount.entity_type, ResourceCount.delta)
    rows = session.execute(select(*columns).where(ResourceCount.kind == "entities"))
    assert sorted(rows.all()) == sorted([(ours.id, "thing", 6), (ours.id, "other", 3)])


def test_two_that_fold_at_once_lose_nothing(session: Session, context: Context, database: Engine) -> None:
    workspace = factories.make_workspace(session)
    add(session, workspace, "thing", 2)
    session.commit()
    fold_counts(session)  # what follows adds to a row that two want to replace
    session.commit()
    add(session, workspace, "thing", 3)
    session.commit()
    fold_counts(session)
    with session_scope(context.sessions) as other:
        add(other, workspace, "thing", 4)

    def fold() -> None:
        with session_scope(context.sessions) as second:
            fold_counts(second)

    with meanwhile(fold) as folding:
        assert has_to_wait(database, folding)
        session.commit()
    folding.result()

    assert kept(session) == {(workspace.id, "thing"): 9}
    session.rollback()
    fold_counts(session)
    assert kept(session) == {(workspace.id, "thing"): 9}


def listed(client: FlaskClient, workspace: str, **query: Any) -> Any:
    answer = client.get(f"{WORKSPACES}/{workspace}/entities/thing", query_string={"page_size": 2} | query)
    return answer.json["pagination"]["total_results"]


def test_the_total_of_a_list_is_kept_and_not_counted(
    session: Session, client: FlaskClient, context: Context
) -> None:
    for name, number in (("ours", 3), ("theirs", 4)):
        workspace = factories.make_workspace(session, name)
        add(session, workspace, "thing", number)
        add(session, workspace, "other", 7)
    session.commit()

    with counted(context.sessions.kw["bind"]) as sent:
        assert [listed(client, name) for name in ("ours", "theirs", "-")] == [3, 4, 7]

    assert [one.text for one in sent if "count(" in one.text] == []
    assert listed(client, "ours", filter='name~"-"') == 3
