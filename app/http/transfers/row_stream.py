"""JSON arrays of rows, of which only a few are in memory at once, however large their documents are."""

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextvars import copy_context
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import chain
from typing import Any

from flask import Response
from pydantic import BaseModel
from sqlalchemy import (
    ARRAY,
    BigInteger,
    Column,
    ColumnElement,
    Integer,
    Select,
    SQLColumnExpression,
    Subquery,
    Text,
    UnaryExpression,
    any_,
    bindparam,
    case,
    column,
    func,
    inspect,
    literal_column,
    null,
    select,
    tuple_,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import Session

from app.access.authorize import Question, always, still_holds
from app.access.listed import EveryWorkspace, like
from app.context import Context
from app.db import Base, read_scope
from app.http.transfers.row_text import RowText
from app.http.transfers.streaming import BrokenOff, RevocableStream
from app.logs import explain, get_logger

log = get_logger(__name__)

BATCH_BYTES = 256 * 1024
"""Bytes, as stored, of the rows that are read at once; PostgreSQL compresses documents, to a ninetieth at best."""

BATCH_ROWS = 1000
"""The most rows that are read at once."""


_LIMIT = bindparam("row_limit", type_=Integer)
_OFFSET = bindparam("row_offset", type_=BigInteger)


@dataclass(frozen=True)
class Items:
    """How rows are made their public forms: `made` of them, in the session that they come from."""

    made: Callable[[Session, Iterable[Any]], Iterable[BaseModel]]


def each(item: Callable[..., BaseModel]) -> Items:
    """`item`, called with what is selected of one row after another."""
    return Items(lambda _session, rows: (item(*row) for row in rows))


def resources(resource: type[BaseModel], model: type[Base], **others: SQLColumnExpression[Any]) -> RowText:
    """`resource`, whose fields are columns of `model` with the same names, or `others`, which win.

    No object is made of a row, which takes longer than all the rest.
    """
    columns = {name: getattr(model, name) for name in resource.model_fields if hasattr(model, name)}
    return RowText(resource, columns | others)


@dataclass(frozen=True)
class FirstRows:
    """What the first statements of a list have read."""

    number: int
    """Of all rows, those that are still to be read included."""
    texts: list[str]
    """The items of the first of them."""
    rest: list[list[Any]]
    """The keys of the others, in batches."""
    total: int | None
    """The number of rows without a limit, if it was asked for and is not plain from `number`."""
    last: tuple[Any, ...] | None = None
    """What the last of them is sorted by, if the stream has cursors and there is one."""


@dataclass(frozen=True, eq=False)
class RowStream:
    """An answer made of the rows of `statement`, in this order.

    The statement selects a model first, and has all conditions under which its reader may have a row, because each
    batch asks them anew. `total` knows how many rows it has. The parameters of all these are given when it is read, so
    that it is made once for all readers. Rows are found by the primary key; of `RowText` it has one column.
    """

    statement: Select[*tuple[Any, ...]]
    order: Sequence[UnaryExpression[Any]]
    items: Items | RowText
    total: Select[int] | None = None
    batch_rows: int = BATCH_ROWS
    everywhere: EveryWorkspace | None = None
    """Finds the keys, if the rows are those of many workspaces, each with an index of this order."""
    has_cursors: bool = False
    """Whether a page has to say what its last row is sorted by."""

    def first(
        self,
        session: Session,
        parameters: Mapping[str, Any],
        *,
        limit: int | None = None,
        offset: int = 0,
    ) -> FirstRows:
        """Read the keys of all rows, and as many rows as one batch may have."""
        which = {**parameters, "row_limit": limit, "row_offset": offset}
        has_keys = self.everywhere is not None or (offset and len(self._keys) == 1)
        statement = self._by_keys if has_keys else self._first_rows
        rows = session.connection().execute(statement, which).all()
        last = self._place(rows[-1]) if self.has_cursors and rows else None
        if isinstance(self.items, RowText):
            included = [row[4:] for row in rows if row.is_included]
            rest = batches([row[:2] for row in rows[len(included) :]], rows=self.batch_rows)
            total = rows[-1].total if rows else None
            return FirstRows(len(rows), self.items.texts(included), rest, total, last)
        width = len(self._keys)
        keys = [(row[0] if width == 1 else tuple(row[:width]), row.row_size) for row in rows]
        first, *rest = batches(keys, rows=self.batch_rows) or [[]]
        total = rows[-1].total if rows else None
        return FirstRows(len(rows), self._texts(session, parameters, first), rest, total, last)

    def answer(
        self,
        context: Context,
        first: FirstRows,
        parameters: Mapping[str, Any],
        may_read: Question = always,
        *,
        begin: str,
        end: Callable[[int], str],
    ) -> Response:
        """The rows as items of a JSON array, between `begin` and what `end` makes of their number.

        A row that was deleted since its key was read is missing. What does not fit into one batch is read while it is
        sent, in transactions of its own, which are not open while the client reads. Where the conditions of access
        concern all rows alike, `may_read` asks them again: a stream whose reader loses the right is cut, not completed.
        """
        if not first.rest:
            body = "".join([begin, ",".join(first.texts), end(len(first.texts)), "\n"])
            return Response(body, mimetype="application/json")
        # The request is over before they are read; their lines in the log have its id all the same.
        in_request = copy_context()
        following = (
            in_request.run(self._following, context, keys, parameters, may_read) for keys in first.rest
        )
        parts = _parts(chain([first.texts], following), begin, end)
        stream = RevocableStream(parts, lambda: still_holds(context.sessions, may_read()), close=parts.close)
        return Response(stream, mimetype="application/json")

    def _following(
        self, context: Context, keys: list[Any], parameters: Mapping[str, Any], may_read: Question
    ) -> list[str]:
        try:
            with read_scope(context.sessions) as session:
                texts = self._texts(session, parameters, keys)
                if len(texts) < len(keys) and not session.scalar(may_read()):
                    raise BrokenOff
        except (DBAPIError, PoolTimeout) as error:
            log.warning("list.broken_off", error=explain(error))
            raise BrokenOff from error
        return texts

    def _texts(self, session: Session, parameters: Mapping[str, Any], keys: list[Any]) -> list[str]:
        if not keys:
            return []
        by_column = [keys] if len(self._keys) == 1 else zip(*keys, strict=True)
        which = {**parameters, **{f"row_keys_{number}": list(one) for number, one in enumerate(by_column)}}
        if isinstance(self.items, RowText):
            return self.items.texts(session.connection().execute(self._batch, which).all())
        rows = session.execute(self._batch, which).yield_per(1)
        return [item.model_dump_json(by_alias=True) for item in self.items.made(session, rows)]

    # --- the statements -----------------------------------------------------------------------------------

    @cached_property
    def _first_rows(self) -> Select[*tuple[Any, ...]]:
        """The first rows."""
        return self._page(lambda selected: selected.limit(_LIMIT).offset(_OFFSET))

    @cached_property
    def _by_keys(self) -> Select[*tuple[Any, ...]]:
        """Those behind many others: an index alone has what these are sorted by, and their keys."""
        if self.everywhere is not None:
            keys = self.everywhere.keys(self.order, _LIMIT, _OFFSET)
        else:
            keys = self.statement.with_only_columns(self._only_key, maintain_column_froms=True)
            keys = keys.order_by(*self.order).limit(_LIMIT).offset(_OFFSET)
        page = func.array(keys.scalar_subquery(), type_=ARRAY(self._only_key.type))
        return self._page(lambda selected: selected.where(self._only_key == any_(page)))

    @cached_property
    def _batch(self) -> Select[*tuple[Any, ...]]:
        """The rows with certain keys."""
        arrays = [
            bindparam(f"row_keys_{number}", type_=ARRAY(one.type)) for number, one in enumerate(self._keys)
        ]
        if len(arrays) == 1:
            is_asked = self._only_key == any_(arrays[0])
        else:
            listed = func.unnest(*arrays).table_valued(*(column(one.key, one.type) for one in self._keys))
            is_asked = tuple_(*self._keys).in_(select(*listed.render_derived().c))
        among = self.statement.where(is_asked)
        if isinstance(self.items, RowText):
            selected = self.items.read(self.items.columns)
            among = among.with_only_columns(*selected, maintain_column_froms=True)
        return among.order_by(*self.order)

    def _page(self, narrowed: Callable[[Select[Any]], Select[Any]]) -> Select[*tuple[Any, ...]]:
        """The keys and sizes of some rows; of as many as one batch may have, all that makes an item."""
        size = _stored_bytes(self._model).label("row_size")
        sorted_by = [one.element.label(f"sort_{number}") for number, one in enumerate(self.order)]
        places = sorted_by if self.has_cursors else []
        if not isinstance(self.items, RowText):
            keys = self.statement.with_only_columns(*self._keys, size, *sorted_by, maintain_column_froms=True)
            return self._with_total(narrowed(keys).order_by(*self.order).subquery("page"))
        key = self._only_key.label("row_key")
        columns = self.items.columns
        selected = self.statement.with_only_columns(
            key, size, *sorted_by, *columns, maintain_column_froms=True
        )
        page = narrowed(selected).order_by(*self.order).subquery("page")
        window: Any = {
            "order_by": [like(one, page.c[by.name]) for one, by in zip(self.order, sorted_by, strict=True)],
            "rows": (None, 0),
        }
        # The first row in any case, however large it is.
        is_included = func.sum(page.c.row_size).over(**window) <= func.greatest(page.c.row_size, BATCH_BYTES)
        number = func.row_number().over(**window)
        row = select(page, is_included.label("is_included"), number.label("number")).subquery("row")
        total = (
            case((row.c.number == _LIMIT, self.total.scalar_subquery())) if self.total is not None else null()
        )
        return select(
            row.c.row_key,
            row.c.row_size,
            row.c.is_included,
            total.label("total"),
            *(
                case((row.c.is_included, one)) if isinstance(one.type, Text) else one
                for one in self.items.read([row.c[column.name] for column in columns])
            ),
            *(row.c[place.name] for place in places),
        ).order_by(row.c.number)

    def _with_total(self, page: Subquery) -> Select[*tuple[Any, ...]]:
        """A page of keys, and with the last one of a full page the number of all rows, if there is a way to know it."""
        order = [like(one, page.c[f"sort_{place}"]) for place, one in enumerate(self.order)]
        is_last = func.row_number().over(order_by=order) == _LIMIT
        total = case((is_last, self.total.scalar_subquery())) if self.total is not None else null()
        return select(*page.c, total.label("total")).order_by(*order)

    def _place(self, row: Any) -> tuple[Any, ...]:
        """What a row of a page is sorted by."""
        return tuple(getattr(row, f"sort_{number}") for number in range(len(self.order)))

    @cached_property
    def _model(self) -> Any:
        return self.statement.column_descriptions[0]["entity"]

    @cached_property
    def _keys(self) -> tuple[Column[Any], ...]:
        keys: tuple[Column[Any], ...] = inspect(self._model).primary_key
        return keys

    @property
    def _only_key(self) -> Column[Any]:
        (only,) = self._keys
        return only


def _parts(batches: Iterable[list[str]], begin: str, end: Callable[[int], str]) -> Generator[str]:
    yield begin
    number = 0
    for texts in batches:
        if texts:
            yield "," if number else ""
            yield ",".join(texts)
            number += len(texts)
            texts.clear()  # not kept while the next ones are read
    yield f"{end(number)}\n"


def batches(keys: Iterable[tuple[Any, int]], *, rows: int = BATCH_ROWS) -> list[list[Any]]:
    """The keys in batches of at most `BATCH_BYTES` and `rows`; a row that alone is larger has one to itself."""
    made: list[list[Any]] = []
    left = -1
    for key, size in keys:
        if size > left or len(made[-1]) == rows:
            made.append([])
            left = BATCH_BYTES
        made[-1].append(key)
        left -= size
    return made


@cache
def _stored_bytes(model: Any) -> ColumnElement[int]:
    """What a row has stored in its columns without a limit; that is known without reading them."""
    unlimited = [one for one in inspect(model).columns if isinstance(one.type, JSONB | Text)]
    sizes = [
        f"coalesce(pg_column_size({one}), 0)" if one.nullable else f"pg_column_size({one})"
        for one in unlimited
    ]
    # One element, and short: psycopg translates a long statement anew each time.
    return literal_column(" + ".join(sizes), Integer)
