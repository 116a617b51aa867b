"""What a caller may read of the rows of a table, as lists take it."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Self

from sqlalchemy import ColumnElement, Select

from app.access.authorize import Question, always


@dataclass(frozen=True)
class Listed:
    """Rows that a caller may read. The statements are made once for all callers, who differ in the parameters."""

    rows: Select[*tuple[Any, ...]]
    """They select a model first, and have all conditions of access."""
    parameters: Mapping[str, Any]
    may_read: Question = always
    """Asks whether the caller may still read them; of many workspaces, each row's own conditions decide."""
    total: Select[int] | None = None
    """How many rows there are, under the same conditions, where the database keeps their number."""

    def where(self, *conditions: ColumnElement[bool], **parameters: Any) -> Self:
        """Those that meet the conditions, which are made once, with these `parameters`."""
        narrowed = _narrowed(self.rows, conditions)
        return replace(self, rows=narrowed, parameters={**self.parameters, **parameters})


@lru_cache(maxsize=256)
def _narrowed(
    rows: Select[*tuple[Any, ...]], conditions: tuple[ColumnElement[bool], ...]
) -> Select[*tuple[Any, ...]]:
    return rows.where(*conditions)
