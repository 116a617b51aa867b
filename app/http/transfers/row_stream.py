"""JSON arrays of rows, of which only a few are in memory at once, however large their documents are."""

from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import chain
from typing import Any

from flask import Response
from pydantic import BaseModel
from sqlalchemy import (
    ARRAY,
    ColumnElement,
    Integer,
    Select,
    SQLColumnExpression,
    Text,
    any_,
    column,
    func,
    inspect,
    literal,
    literal_column,
    select,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import Session
from sqlalchemy.sql.selectable import TableValuedAlias
from sqlalchemy.types import TypeEngine

from app.access.authorize import Question, always, still_holds
from app.context import Context
from app.db import Base, read_scope
from app.http.transfers.streaming import BrokenOff, RevocableStream
from app.logs import explain, get_logger

log = get_logger(__name__)

BATCH_BYTES = 256 * 1024
"""Bytes, as stored, of the rows that are read at once; PostgreSQL compresses documents, to a ninetieth at best."""

BATCH_ROWS = 1000
"""The most rows that are read at once."""


@dataclass(frozen=True)
class Items:
    """How rows are made their public forms: `made` of them, in the session that they come from.

    `columns` are selected in place of what the statement selects, which is a model. They can all be read at once if
    they have no documents, of which one takes many times the bytes of its text in memory.
    """

    made: Callable[[Session, Iterable[Any]], Iterable[BaseModel]]
    columns: tuple[ColumnElement[Any], ...] = ()
    have_documents: bool = True


def each(item: Callable[..., BaseModel]) -> Items:
    """`item`, called with what is selected of one row after another."""
    return Items(lambda _session, rows: (item(*row) for row in rows))


def resources(resource: type[BaseModel], model: type[Base], **others: SQLColumnExpression[Any]) -> Items:
    """`resource`, whose fields are columns of `model` with the same names, or `others`, which win.

    No object of the model is made, which takes longer than all the rest.
    """
    columns = {name: getattr(model, name) for name in resource.model_fields if hasattr(model, name)} | others

    def made(_session: Session, rows: Iterable[Any]) -> Iterator[BaseModel]:
        return (resource.model_validate(dict(zip(columns, row, strict=True))) for row in rows)

    labelled = tuple(column.label(name) for name, column in columns.items())
    return Items(made, labelled, have_documents=any(isinstance(one.type, JSONB) for one in labelled))


@dataclass(frozen=True)
class RowStream:
    """An answer made of the rows of `statement`, which is totally ordered and selects a model first.

    The statement has all conditions under which its reader may have a row, because each batch asks them anew. Where
    they concern all rows alike, `may_read` asks them again: a stream whose reader loses the right is cut, not
    completed. A model whose primary key has several columns needs a `key` that tells the rows of the statement apart.
    """

    statement: Select[*tuple[Any, ...]]
    items: Items
    may_read: Question = always
    batch_rows: int = BATCH_ROWS
    key: ColumnElement[Any] | None = None

    def keys(self, session: Session, *, limit: int | None = None, offset: int | None = None) -> list[Any]:
        """The keys of the rows, with what each has stored."""
        size, connection = _stored_bytes(self._model), session.connection()
        if offset and self.key is None:
            # An index alone has what the skipped rows are sorted by, and their keys; only then are rows read.
            keys = self.statement.with_only_columns(self._key, maintain_column_froms=True)
            page = _numbered(keys.limit(limit).offset(offset), self._key.type)
            query = select(self._key, size).join(page, page.c.key == self._key).order_by(page.c.place)
            return list(connection.execute(query).all())
        query = self.statement.with_only_columns(self._key, size, maintain_column_froms=True)
        return list(connection.execute(query.limit(limit).offset(offset)).all())

    def answer(
        self, session: Session, context: Context, keys: list[Any], *, begin: str, end: Callable[[int], str]
    ) -> Response:
        """The rows of `keys` as items of a JSON array, between `begin` and what `end` makes of their number.

        A row that was deleted since its key was read is missing. What does not fit into one batch is read while it is
        sent, in transactions of its own, which are not open while the client reads.
        """
        first, *rest = batches(keys, rows=self.batch_rows) or [[]]
        texts = self._texts(session, first)
        if not rest:
            body = "".join([begin, ",".join(texts), end(len(texts)), "\n"])
            return Response(body, mimetype="application/json")
        parts = self._parts(context, texts, rest, begin, end)
        stream = RevocableStream(
            parts, lambda: still_holds(context.sessions, self.may_read()), close=parts.close
        )
        return Response(stream, mimetype="application/json")

    def _parts(
        self, context: Context, first: list[str], rest: list[list[Any]], begin: str, end: Callable[[int], str]
    ) -> Generator[str]:
        yield begin
        number = 0
        for texts in chain([first], (self._next_texts(context, keys) for keys in rest)):
            if texts:
                yield "," if number else ""
                yield ",".join(texts)
                number += len(texts)
                texts.clear()  # not kept while the next ones are read
        yield f"{end(number)}\n"

    def _next_texts(self, context: Context, keys: list[Any]) -> list[str]:
        try:
            with read_scope(context.sessions) as session:
                texts = self._texts(session, keys)
                if len(texts) < len(keys) and not session.scalar(self.may_read()):
                    raise BrokenOff
        except (DBAPIError, PoolTimeout) as error:
            log.warning("list.broken_off", error=explain(error))
            raise BrokenOff from error
        return texts

    def _texts(self, session: Session, keys: list[Any]) -> list[str]:
        if not keys:
            return []
        among = self._key == any_(literal(keys, ARRAY(self._key.type)))
        items = self.items.made(session, self._rows(session, self.statement.where(among)))
        return [item.model_dump_json(by_alias=True) for item in items]

    def _rows(self, session: Session, statement: Select[*tuple[Any, ...]]) -> Iterable[Any]:
        if not self.items.columns:
            return session.execute(statement).yield_per(1)
        selected = statement.with_only_columns(*self.items.columns, maintain_column_froms=True)
        rows = session.connection().execute(selected)
        return rows if self.items.have_documents else rows.all()

    @cached_property
    def _model(self) -> Any:
        return self.statement.column_descriptions[0]["entity"]

    @cached_property
    def _key(self) -> ColumnElement[Any]:
        if self.key is not None:
            return self.key
        only: ColumnElement[Any]
        (only,) = inspect(self._model).primary_key
        return only


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


def _numbered(keys: Select[Any], kind: TypeEngine[Any]) -> TableValuedAlias:
    """The rows of an ordered statement of one column, with their places."""
    array = func.array(keys.scalar_subquery(), type_=ARRAY(kind))
    return func.unnest(array).table_valued(column("key", kind), with_ordinality="place").render_derived()


@cache
def _stored_bytes(model: Any) -> ColumnElement[int]:
    """What a row has stored in its columns without a limit; that is known without reading them."""
    unlimited = [one for one in inspect(model).columns if isinstance(one.type, JSONB | Text)]
    sizes = [f"coalesce(pg_column_size({one}), 0)" for one in unlimited]
    return literal_column(" + ".join(sizes), Integer)  # one element: each takes its time in every statement
