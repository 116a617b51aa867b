"""The sort parameter of every list, and its SQL."""

from typing import Any

from sqlalchemy import UnaryExpression

from app.errors import BadRequest
from app.filters.ast import is_storable
from app.filters.fields import Fields


class BadSort(BadRequest):
    """The sort is invalid."""


def parse_sort(raw: str | None, fields: Fields, default: str) -> list[UnaryExpression[Any]]:
    """ORDER BY for `name` or `-name` (descending), ties broken by the key. Raises BadSort."""
    sort = raw or default
    field = fields.find(sort.removeprefix("-")) if is_storable(sort) else None
    if field is None:
        raise BadSort(
            f"Cannot sort by {sort!r}. Valid fields, descending with a leading '-': {fields.names()}."
        )
    # The key is sorted in the direction of the field, so that one index serves both directions.
    by = (field.sortable(), fields.tiebreak())
    return [column.desc() if sort.startswith("-") else column.asc() for column in by]
