"""What a caller may read of the rows of a table, as lists take it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Self

from sqlalchemy import BindParameter, ColumnElement, Select, UnaryExpression, select, true
from sqlalchemy.sql.operators import desc_op

from app.access.authorize import Actor, Question, always, permitted_platform_wide
from app.models import Workspace


@dataclass(frozen=True, eq=False)
class EveryWorkspace:
    """Rows of a model in many workspaces, by the conditions on either."""

    model: Any
    of_workspaces: tuple[ColumnElement[bool], ...]
    of_rows: tuple[ColumnElement[bool], ...] = ()

    def keys(
        self, order: Sequence[UnaryExpression[Any]], limit: BindParameter[int], offset: BindParameter[int]
    ) -> Select[Any]:
        """The keys of a page: of each workspace, its first rows by the index of that order, and of those the first."""
        sorted_by = [one.element.label(f"sort_{number}") for number, one in enumerate(order)]
        first = (
            select(self.model.id, *sorted_by)
            .where(self.model.workspace_id == Workspace.id, *self.of_rows)
            .order_by(*order)
            .limit(limit + offset)
            .correlate(Workspace)
            .lateral("first")
        )
        keys = select(first.c.id).select_from(Workspace).join(first, true()).where(*self.of_workspaces)
        by = [like(one, first.c[column.name]) for one, column in zip(order, sorted_by, strict=True)]
        return keys.order_by(*by).limit(limit).offset(offset)


def like(order: UnaryExpression[Any], column: ColumnElement[Any]) -> UnaryExpression[Any]:
    """A column of a subquery, sorted as an element of ORDER BY is."""
    return column.desc() if order.modifier is desc_op else column.asc()


@dataclass(frozen=True)
class Listed:
    """Rows that a caller may read. The statements are made once for all callers, who differ in the parameters."""

    rows: Select[*tuple[Any, ...]]
    """They select a model first, and have all conditions of access."""
    parameters: Mapping[str, Any]
    may_read: Question = always
    """Asks whether the caller may still read them; of many workspaces, each row's own conditions decide."""
    total: Select[int] | None = None
    """How many rows there are, where that is known in another way than by counting them under these conditions."""
    everywhere: EveryWorkspace | None = None
    """The same rows, if they are those of many workspaces."""

    @classmethod
    def for_administrators(cls, actor: Actor, statement: Select[*tuple[Any, ...]]) -> Self:
        """All that the statement selects, for those who may read it platform-wide; nothing for others."""
        is_permitted = permitted_platform_wide(actor.access)
        return cls(
            statement.where(is_permitted),
            actor.parameters,
            lambda: select(is_permitted).params(actor.parameters),
        )

    def where(self, *conditions: ColumnElement[bool], **parameters: Any) -> Self:
        """Those that meet conditions on the model, which are made once, with these `parameters`."""
        rows, total, everywhere = _narrowed(self.rows, self.total, self.everywhere, conditions)
        parameters = {**self.parameters, **parameters}
        return replace(self, rows=rows, total=total, everywhere=everywhere, parameters=parameters)


@lru_cache(maxsize=256)
def _narrowed(
    rows: Select[*tuple[Any, ...]],
    total: Select[int] | None,
    everywhere: EveryWorkspace | None,
    conditions: tuple[ColumnElement[bool], ...],
) -> tuple[Select[*tuple[Any, ...]], Select[int] | None, EveryWorkspace | None]:
    return (
        rows.where(*conditions),
        total.where(*conditions) if total is not None else None,
        replace(everywhere, of_rows=(*everywhere.of_rows, *conditions)) if everywhere else None,
    )
