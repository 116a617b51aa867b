"""A list to filter, sort and page through: a temporary table with a field of every kind."""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Boolean, Column, DateTime, Integer, MetaData, Select, Table, Text, Uuid, insert, select
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Session, registry
from werkzeug.datastructures import MultiDict

from app.filters.fields import Fields
from app.filters.parse import parse_filter
from app.lifecycle import JobStatus
from app.models.columns import state_column

GADGETS = Table(
    "gadgets",
    MetaData(),
    Column("id", Uuid, primary_key=True),
    Column("name", Text),
    Column("project", Text),
    Column("weight", Integer),
    Column("status", state_column(JobStatus)),
    Column("is_sold", Boolean),
    Column("made_at", DateTime(timezone=True)),
    Column("data", JSONB),
    prefixes=["TEMPORARY"],
)


class Gadget:
    """A row of the list."""

    id: UUID
    name: str | None


registry().map_imperatively(Gadget, GADGETS)

COLUMNS = ("id", "name", "project", "weight", "status", "is_sold", "made_at")
FIELDS = Fields(
    key=GADGETS.c.id,
    columns={
        **{name: GADGETS.c[name] for name in COLUMNS},
        # A field need not be a column.
        "is_stray": GADGETS.c.project.is_(None),
    },
    data=GADGETS.c.data,
)

NAMES = ["drill", "Drill", "dr%ll", "d_ill", "dxill", "back\\slash", 'quo"te', "a,b", "", "null", "5", "it's"]
PROJECTS = [None, "p", "q"]
WEIGHTS = [None, 0, 5, -7, 2**31 - 1]
TIMES = [None, datetime(2026, 1, 31, tzinfo=UTC), datetime(2026, 1, 31, 9, 30, 0, 1, tzinfo=UTC)]
VALUES = [5, 5.0, 5.5, -1, "5", "5.0", "x", "X%", True, False, None, "true", [5, "x"], {"deep": 7}, ""]


def _gadget(index: int) -> dict[str, Any]:
    status = list(JobStatus)[index % 4]
    is_sold = (None, True, False)[index % 3]
    # The last ones have no data at all; cycles of different lengths make the rows differ in many ways.
    data = {"v": VALUES[index]} if index < len(VALUES) else {}
    return {
        "id": UUID(int=index),
        "name": NAMES[index % len(NAMES)],
        "project": PROJECTS[index % 3],
        "weight": WEIGHTS[index % 5],
        "status": status,
        "is_sold": is_sold,
        "is_stray": PROJECTS[index % 3] is None,
        "made_at": TIMES[(index // 2) % 3],
        "data": data,
    }


ROWS = [_gadget(index) for index in range(len(VALUES) + 3)]


def create_gadgets(session: Session) -> None:
    """The table with its rows, for as long as the session's transaction lives."""
    GADGETS.create(session.connection())
    stored = [{key: value for key, value in row.items() if key in GADGETS.c} for row in ROWS]
    session.execute(insert(GADGETS), stored)


def ids_of(*args: tuple[str, str]) -> Select[tuple[UUID]]:
    """The query that a filter in a query string stands for."""
    found = parse_filter(MultiDict(args).to_dict(flat=False))
    assert found
    return select(GADGETS.c.id).where(found.compile(FIELDS))


def found_by(session: Session, text: str) -> list[dict[str, Any]]:
    """The rows that PostgreSQL finds for a filter."""
    return [ROWS[row_id.int] for row_id in session.scalars(ids_of(("filter", text)))]


@pytest.fixture
def gadgets(session: Session) -> Session:
    """A session that sees the table of gadgets."""
    create_gadgets(session)
    return session
