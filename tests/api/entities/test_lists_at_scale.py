"""Lists of a workspace with many rows: each statement finds its rows by an index."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from flask.testing import FlaskClient
from sqlalchemy import Engine, text
from sqlalchemy.orm import Session

from app.api.entities.entities import FIELDS
from app.api.files import filesets
from app.api.jobs import jobs
from app.context import Context
from app.filters.ast import RANGES, Operator
from bench.contents import BEGAN_MS, ENTITIES, TYPE
from tests import factories
from tests.support.statements import compact, nodes, noted

WORKSPACES = "/apis/entities/v2/workspaces"
LIST = f"{WORKSPACES}/ml-team/entities/{TYPE}"
MANY = 20_000
"""Enough that PostgreSQL passes over all rows only where no index helps."""

PARENT = UUID(int=5)
EARLY, LATE = "2024-01-01T00:00:00.2Z", "2024-01-01T00:00:19.8Z"
INDEX = {
    "name": {"ix_entities_name", "uq_entities_name"},
    "created_at": {"ix_entities_created_at"},
    "updated_at": {"ix_entities_updated_at"},
    "id": {"pk_entities", "uq_entities_workspace_id_id"},
    "parent": {"ix_entities_parent", "uq_entities_name"},
    "project": {"ix_entities_project"},
    "data.owner": {"ix_entities_data"},
    "data.tags.0": {"ix_entities_data"},
}
"""The indexes that may find the rows with a value of a field."""
VALUES = {
    "name": "d-1234",
    "created_at": EARLY,
    "updated_at": EARLY,
    "id": str(PARENT),
    "parent": str(PARENT),
    "project": "apollo",
    "data.owner": "o-7",
    "data.tags.0": "red",
}
"""A value of each field that few rows have."""


def filters() -> Iterator[tuple[str, dict[str, Any], set[str]]]:
    """Every filter of one comparison that an index serves, by name, with the indexes that may."""
    for field, value in VALUES.items():
        for operator in FIELDS.indexed["data" if field.startswith("data.") else field]:
            given: Any = [value, value] if operator is Operator.IN else value
            if operator in {Operator.GT, Operator.GTE}:
                given = "d-999" if field == "name" else LATE
            elif operator in {Operator.LT, Operator.LTE}:
                given = "d-1009" if field == "name" else EARLY
            indexes = {"ix_entities_part_of_name"} if operator is Operator.LIKE else INDEX[field]
            yield f"{field} {operator}", {field: {operator.value: given}}, indexes


FILTERS = list(filters())


@pytest.fixture
def many(session: Session, database: Engine) -> None:
    """Many entities, some of them with a project, a parent or tags; and as many of another workspace."""
    for name in ("ml-team", "neighbour"):
        workspace = factories.make_workspace(session, name)
        values = {"workspace": workspace.id, "began": BEGAN_MS, "first": 0, "last": MANY - 1}
        session.connection().exec_driver_sql(ENTITIES, values)
        parent = {"id": PARENT, "workspace": workspace.id}
        if name == "ml-team":
            session.execute(
                text("UPDATE entities SET id = :id WHERE name = 'd-0' AND workspace_id = :workspace"), parent
            )
        for changed in ("project = 'apollo'", 'data = data || \'{"tags": ["red"]}\'', "parent_id = :id"):
            session.execute(
                text(f"UPDATE entities SET {changed} WHERE name LIKE 'd-_77' AND workspace_id = :workspace")
                if name == "ml-team"
                else text("SELECT :id, :workspace"),
                parent,
            )
    session.commit()
    compact(database, "entities")


def plans(
    context: Context,
    client: FlaskClient,
    path: str = LIST,
    table: str = "entities",
    *,
    explain: str = "FORMAT JSON",
    **query: Any,
) -> list[list[dict[str, Any]]]:
    """The nodes of the plan of each statement that such a list sends."""
    with noted(context.sessions.kw["bind"]) as every:
        answer = client.get(path, query_string=query)
    assert answer.status_code == 200, answer.json
    sent = [one for one in every if f"FROM {table}" in one[0] or f"JOIN {table}" in one[0]]
    with context.sessions.kw["bind"].connect() as connection:
        made = [
            connection.exec_driver_sql(f"EXPLAIN ({explain}) {one}", values).scalar() for one, values in sent
        ]
    return [list(nodes(plan[0]["Plan"])) for plan in made]


def indexes_of(plan: list[dict[str, Any]]) -> set[str]:
    return {node["Index Name"] for node in plan if "Index Name" in node}


def reads_all(plan: list[dict[str, Any]], table: str = "entities") -> bool:
    return any(node["Node Type"] == "Seq Scan" and node["Relation Name"] == table for node in plan)


def test_every_served_list_finds_its_rows_by_its_index(
    many: None, context: Context, client: FlaskClient
) -> None:
    # One test of all, because to fill the table takes longer than what follows.
    wrong = {}
    for name, criteria, expected in FILTERS:
        asked = {"filter": json.dumps(criteria), "page_size": 1000}
        # Of a page beyond the end the keys are looked for, and the total is counted.
        page, *_ = plans(context, client, **asked)
        beyond, total = plans(context, client, **asked, page=2)
        for plan in (page, beyond, total):
            if reads_all(plan) or not indexes_of(plan) & expected:
                wrong[name] = sorted(indexes_of(plan)) or "all rows"
    for field in (field for field, operators in FIELDS.indexed.items() if operators >= RANGES):
        for sort in (field, f"-{field}"):
            for page in (1, 150):
                plan, *_ = plans(context, client, sort=sort, page=page)
                kinds = {
                    node["Node Type"] for node in plan if node.get("Index Name") == f"ix_entities_{field}"
                }
                if kinds != ({"Index Only Scan"} if page > 1 else {"Index Scan"}):
                    wrong[f"sort={sort}, page {page}"] = sorted(indexes_of(plan)) or "all rows"

    assert wrong == {}, "These statements do not use the index that is made for them."


def test_a_filter_by_children_looks_for_those_of_each_row_by_an_index(
    many: None, session: Session, context: Context, client: FlaskClient
) -> None:
    session.execute(
        text("UPDATE entities SET entity_type = CASE WHEN parent_id IS NULL THEN 'model' ELSE 'adapter' END")
    )
    session.commit()
    compact(context.sessions.kw["bind"], "entities")
    models = f"{WORKSPACES}/ml-team/entities/model"
    asked = [
        {"$exists": True},
        {"name": "d-177"},
        {"data.owner": {"$like": "o-"}},
        {"$not": {"$exists": True}},
    ]

    for criteria in asked:
        given = {"filter": json.dumps({"adapters": criteria}), "page_size": 2}
        for plan in plans(context, client, models, **given):
            assert not reads_all(plan), criteria
            assert indexes_of(plan) & {"uq_entities_name", "ix_entities_parent", "ix_entities_name"}, criteria


EVERYWHERE = f"{WORKSPACES}/-/entities/{TYPE}"


def test_a_list_of_all_workspaces_reads_a_page_of_each_by_its_index(
    many: None, context: Context, client: FlaskClient
) -> None:
    wrong, page_size, workspaces = {}, 50, 4
    for field in (field for field, operators in FIELDS.indexed.items() if operators >= RANGES):
        for sort, page in ((field, 1), (f"-{field}", 3)):
            asked = {"sort": sort, "page": page, "page_size": page_size}
            plan, *_ = plans(context, client, EVERYWHERE, explain="ANALYZE, FORMAT JSON", **asked)
            read = [node for node in plan if node.get("Relation Name") == "entities"]
            rows = sum(node["Actual Rows"] * node["Actual Loops"] for node in read)
            if f"ix_entities_{field}" not in indexes_of(plan) or rows > page_size * (page * workspaces + 1):
                wrong[f"sort={sort}, page {page}"] = (rows, sorted(indexes_of(plan)))
            # With a filter, even one that all rows meet, they are looked for in another way.
            met = client.get(
                EVERYWHERE, query_string=asked | {"filter": json.dumps({"db_version": {"$gte": 0}})}
            )
            assert client.get(EVERYWHERE, query_string=asked).json["data"] == met.json["data"]

    assert wrong == {}, "These statements read more than a page of each workspace."


OTHERS = {
    "jobs": ("/apis/jobs/v2/workspaces/ml-team/jobs", jobs.FIELDS),
    "filesets": ("/apis/files/v2/workspaces/ml-team/filesets", filesets.FIELDS),
}
"""Other lists that may be long: their paths and fields."""


@pytest.fixture
def many_others(session: Session, database: Engine) -> None:
    """Many jobs and filesets of two workspaces."""
    for name in ("ml-team", "neighbour"):
        workspace = factories.make_workspace(session, name)
        stamps = "(now() - i * interval '1 s'), '', now(), ''"
        for statement in (
            "INSERT INTO jobs (id, workspace_id, name, attempt_id, source, fileset, status, project, "
            "created_at, created_by, updated_at, updated_by) SELECT gen_random_uuid(), :workspace, 'd-' || i, "
            f"gen_random_uuid(), 'tests', 'f', 'completed', CASE WHEN i % 1000 = 0 THEN 'apollo' END, {stamps}",
            "INSERT INTO filesets (id, workspace_id, name, description, project, purpose, "
            "created_at, created_by, updated_at, updated_by) SELECT gen_random_uuid(), :workspace, 'd-' || i, "
            f"'', '', 'generic', {stamps}",
        ):
            session.execute(
                text(f"{statement} FROM generate_series(1, :many) AS i"),
                {"workspace": workspace.id, "many": MANY},
            )
    session.commit()
    compact(database, "jobs", "filesets")


def test_jobs_and_filesets_are_found_by_their_indexes(
    many_others: None, context: Context, client: FlaskClient
) -> None:
    now = datetime.now(UTC)
    values = {"name": "d-1234", "project": "apollo", "created_at": (now - timedelta(minutes=1)).isoformat()}
    wrong = {}
    for table, (path, fields) in OTHERS.items():
        for field, operators in fields.indexed.items():
            index = {"name": "uq_{}_name"}.get(field, f"ix_{{}}_{field}").format(table)
            asked: list[dict[str, Any]] = []
            if operators >= RANGES:
                asked += [{"sort": field}, {"sort": f"-{field}", "page": 50}]
            operator = "$gt" if field == "created_at" else "$eq"
            asked.append({"filter": json.dumps({field: {operator: values[field]}}), "page_size": 100})
            for query in asked:
                plan, *_ = plans(context, client, path, table, **query)
                if reads_all(plan, table) or index not in indexes_of(plan):
                    wrong[f"{table} {query}"] = sorted(indexes_of(plan)) or "all rows"

    assert wrong == {}, "These statements do not use the index that is made for them."
