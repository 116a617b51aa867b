"""From a sort parameter to the SQL of ORDER BY."""

from typing import Any

from sqlalchemy import ColumnElement

from app.errors import BadRequest
from app.filters.ast import is_storable
from app.filters.fields import Fields


class BadSort(BadRequest):
    """The list cannot be sorted like that."""


def parse_sort(raw: str | None, fields: Fields, default: str) -> list[ColumnElement[Any]]:
    """ORDER BY for `name` or `-name` (descending), ties broken by the key. Raises BadSort."""
    wanted = raw or default
    field = fields.find(wanted.removeprefix("-")) if is_storable(wanted) else None
    if field is None:
        raise BadSort(
            f"Cannot sort by {wanted!r}. Valid fields, descending with a leading '-': {fields.names()}."
        )
    # The key turns round with the field: one index serves both directions.
    by = (field.sortable(), fields.tiebreak())
    return [column.desc() if wanted.startswith("-") else column.asc() for column in by]
