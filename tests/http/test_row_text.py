"""The text of an item that is made column by column is that of the resource itself."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from enum import Enum
from typing import Annotated, Any, Literal, get_args, get_origin
from uuid import UUID

import pytest
from pydantic import BaseModel, ValidationError
from sqlalchemy import literal, select, text
from sqlalchemy.dialects.postgresql import JSONB

from app.api.auth import audit_log, role_bindings
from app.api.entities import deletion_records, entities, projects, workspaces
from app.api.files import filesets
from app.api.jobs import jobs
from app.api.models import deployment_configs, deployments
from app.context import Context
from app.db import session_scope
from app.http.transfers.row_stream import resources
from app.http.transfers.row_text import RowText
from app.models import Workspace

LISTS: dict[str, tuple[RowText, type[BaseModel]]] = {
    "audit records": (audit_log.ITEMS, audit_log.AuditRecord),
    "role bindings": (role_bindings.ITEMS, role_bindings.RoleBinding),
    "deletion events": (deletion_records.EVENTS, deletion_records.DeletionEvent),
    "entities": (entities.ITEMS, entities.Entity),
    "projects": (projects.ITEMS, projects.Project),
    "workspaces": (workspaces.ITEMS, workspaces.Workspace),
    "filesets": (filesets.ITEMS, filesets.Fileset),
    "jobs": (jobs.ITEMS, jobs.JobListItem),
    "configs": (deployment_configs.ITEMS, deployment_configs.DeploymentConfig),
    "deployments": (deployments.ITEMS, deployments.Deployment),
}
TEXTS = ['"\\/\b\f\n\r\t\x01\x1f\x7f', "é漢\u2028\u2029𝄞\ufeff", "%s %% {0} null", "", "</script>"]
TIMES = [
    datetime(1, 1, 1, tzinfo=UTC),
    datetime(999, 12, 31, 23, 59, 59, 999999, UTC),
    datetime(2024, 2, 29, 12, 0, 0, 1, timezone(timedelta(hours=-9, minutes=-30))),
    datetime(2026, 6, 1, 1, 2, 3, 120000, UTC),
    datetime(9999, 12, 31, 23, 59, 59, 999999, UTC),
]
NUMBERS = [0, 1, -1, 2**31 - 1, -(2**31)]
DOCUMENTS: list[dict[str, Any]] = [
    {},
    {"é\n": ["𝄞", None, True, {"": []}], "b": 1, "a": 2},
    {"floats": [0.1, 1e22, 1.5e300, -2.5e-7, 1.0, 5e-324]},
    {"integers": [2**31, 2**63, -(2**70), 0]},
    {"text": TEXTS},
]


def values(annotation: Any, number: int) -> Any:
    """A value of a field, unusual as far as its type allows; null in every other row where it may be."""
    options = get_args(annotation)
    if get_origin(annotation) is Annotated:
        return values(options[0], number)
    if type(None) in options:
        is_model = isinstance(options[0], type) and issubclass(options[0], BaseModel)
        return values(options[0], number) if number % 2 and not is_model else None
    if annotation == dict[str, Any]:
        return DOCUMENTS[number % len(DOCUMENTS)]
    if get_origin(annotation) is Literal:
        return options[number % len(options)]
    if get_origin(annotation) is list:
        return [values(options[0], number)]
    if issubclass(annotation, Enum):
        return list(annotation)[number % len(annotation)].value
    if issubclass(annotation, BaseModel):
        return json.loads(json.dumps(example(annotation, number), default=str))  # as it is stored
    known = {str: TEXTS, datetime: TIMES, int: NUMBERS, UUID: [UUID(int=0), UUID(int=2**128 - 1)]}[annotation]
    return known[number % len(known)]


def example(resource: type[BaseModel], number: int) -> dict[str, Any]:
    return {
        name: values(field.annotation, number + place)
        for place, (name, field) in enumerate(resource.model_fields.items())
        if field.is_required() or field.annotation is not type(None)
    }


def made(
    items: RowText, resource: type[BaseModel], rows: list[dict[str, Any]], context: Context
) -> list[str]:
    """The texts of rows with these values, as PostgreSQL returns them."""
    selected = []
    for row in rows:
        stored = [
            literal(row[name], column.type)
            for name, column in zip(columns_of(resource), items.columns, strict=True)
        ]
        selected.append(select(*items.read(stored)))
    with session_scope(context.sessions) as session:
        session.execute(text("SET LOCAL TIME ZONE 'Asia/Kathmandu'"))
        return items.texts([session.execute(one).one() for one in selected])


def columns_of(resource: type[BaseModel]) -> Iterator[str]:
    return (name for name, field in resource.model_fields.items() if field.annotation is not type(None))


@pytest.mark.parametrize("name", LISTS)
def test_an_item_is_the_text_of_its_resource(name: str, context: Context) -> None:
    items, resource = LISTS[name]
    rows = [example(resource, number) for number in range(20)]
    expected = [resource.model_validate(row).model_dump_json(by_alias=True) for row in rows]

    found = made(items, resource, rows, context)

    # PostgreSQL sets a space in documents, and may spell a number in another way.
    assert [json.loads(one) for one in found] == [json.loads(one) for one in expected]
    bare = [one for one in map(without_documents, rows) if one]
    if bare:
        assert made(items, resource, bare, context) == [
            resource.model_validate(row).model_dump_json(by_alias=True) for row in bare
        ]


def without_documents(row: dict[str, Any]) -> dict[str, Any]:
    return {
        name: {} if isinstance(value, dict) and name not in {"storage"} else value
        for name, value in row.items()
    }


@pytest.mark.parametrize("name", LISTS)
def test_no_document_is_parsed_when_it_is_read(name: str) -> None:
    """As objects, those of a batch would take many times their bytes."""
    items, _ = LISTS[name]
    assert not [one for one in items.read(items.columns) if isinstance(one.type, JSONB)]


def test_no_rows_have_no_texts() -> None:
    assert workspaces.ITEMS.texts([]) == []


def test_a_column_that_may_be_null_is_validated_for_a_field_that_may_not() -> None:
    class Strict(BaseModel):
        description: str

    items = resources(Strict, Workspace)
    assert items.texts([("text",)]) == ['{"description":"text"}']
    with pytest.raises(ValidationError):
        items.texts([(None,)])
