"""Pages: the query parameters and the envelope of every list."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache, partial
from typing import Any, Generic, Self, TypeVar

from flask import Response, request
from psycopg.errors import QueryCanceled
from pydantic import BaseModel, Field
from sqlalchemy import Select, UnaryExpression, func
from sqlalchemy.exc import OperationalError

from app.access.authorize import require_authentic
from app.access.listed import EveryWorkspace, Listed
from app.errors import Busy
from app.filters.ast import MAX_COMPARISONS, MAX_LENGTH
from app.filters.fields import Fields
from app.filters.parse import Filter, parse_filter
from app.filters.served import is_ordered_by_index, what_is_slow
from app.filters.sort import parse_sort
from app.http.route import Query, RequestContext
from app.http.transfers.row_stream import BATCH_ROWS, Items, RowStream
from app.http.transfers.row_text import RowText
from app.logs import explain, get_logger

log = get_logger(__name__)

MAX_PAGE = 2**31 - 1
"""The last page number: its product with any page size fits PostgreSQL's OFFSET."""

T = TypeVar("T")


class ListQuery(Query):
    """Paging, sorting and filtering of a list. A list with other limits overrides `page_size` or `sort`."""

    page: int = Field(
        1, ge=1, le=MAX_PAGE, description="Page number, from 1. A page beyond the end is empty."
    )
    page_size: int = Field(100, ge=1, le=1000, description="Items per page.")
    sort: str = Field("-created_at", description="Field to sort by; a leading `-` sorts descending.")
    filter: str | None = Field(
        None,
        description=(
            'JSON: `{"name": {"$like": "a"}, "status": ["x", "y"]}`; '
            'or text: `name~"a" AND status IN ["x", "y"]`; '
            "or keys in brackets: `filter[name][$like]=a&filter[status]=x,y`. "
            "Operators: `$eq $like $lt $lte $gt $gte $in $nin $exists $and $or $not`. "
            f"At most {MAX_COMPARISONS} comparisons and {MAX_LENGTH} characters; `$in` is one comparison."
        ),
    )


class Pagination(BaseModel):
    """The position of a page in its list. A list without results has no pages."""

    page: int
    page_size: int
    current_page_size: int
    total_pages: int
    total_results: int

    @classmethod
    def of(cls, page: int, page_size: int, *, number: int, total: int) -> Self:
        """That of a page with `number` rows, of a list with `total`."""
        return cls(
            page=page,
            page_size=page_size,
            current_page_size=number,
            total_pages=-(-total // page_size),
            total_results=total,
        )


class Page(BaseModel, Generic[T]):
    """One page of a list, with its sort and filter."""

    data: list[T]
    pagination: Pagination
    sort: str
    filter: dict[str, Any] | None


def requested_filter() -> Filter | None:
    """The filter of the current request, which may be called a search, or None. Raises BadFilter."""
    return parse_filter(request.args.to_dict(flat=False), alias="search")


def filtered(
    rows: Select[*tuple[Any, ...]], fields: Fields, given: Filter | None
) -> Select[*tuple[Any, ...]]:
    """The rows that the filter, if there is one, lets through. Raises BadFilter."""
    return rows.where(given.compile(fields)) if given else rows


def list_page(
    call: RequestContext,
    query: ListQuery,
    found: Listed,
    fields: Fields,
    *,
    items: Items | RowText,
    sort_fields: Fields | None = None,
    batch_rows: int = BATCH_ROWS,
    envelope: Callable[..., BaseModel] = Page[Any],
) -> Response:
    """One page of the rows that were found, filtered and sorted as the request asks.

    Filters use `fields`; sorts use `sort_fields` if given, else `fields`. `items` and `batch_rows` are those of
    `RowStream`. Raises BadFilter, BadSort, and Busy, which names the fields, if that takes longer than a statement may.
    """
    asked = requested_filter()
    sortable = sort_fields or fields
    order = _order(sortable, query.sort, type(query).model_fields["sort"].default)
    with naming_what_is_slow(sortable, asked, sort=query.sort):
        if asked:
            stream = RowStream(filtered(found.rows, fields, asked), order, items, batch_rows=batch_rows)
        else:
            is_indexed = is_ordered_by_index(sortable, query.sort)
            everywhere = found.everywhere if is_indexed else None
            stream = _unfiltered(
                found.rows, order, items, total=found.total, everywhere=everywhere, batch_rows=batch_rows
            )
        return paginate(
            call,
            stream,
            found,
            page=query.page,
            page_size=query.page_size,
            envelope=partial(envelope, sort=query.sort, filter=asked.canonical() if asked else None),
        )


@lru_cache(maxsize=256)
def _order(fields: Fields, sort: str, default: str) -> tuple[UnaryExpression[Any], ...]:
    return tuple(parse_sort(sort, fields, default))


@lru_cache(maxsize=256)
def _unfiltered(
    rows: Select[*tuple[Any, ...]],
    order: tuple[UnaryExpression[Any], ...],
    items: Items | RowText,
    *,
    total: Select[int] | None,
    everywhere: EveryWorkspace | None,
    batch_rows: int,
) -> RowStream:
    """Kept, because its statements take longer to be made than to be executed."""
    total = counting(rows) if total is None else total
    return RowStream(rows, order, items, total, batch_rows, everywhere=everywhere)


@contextmanager
def naming_what_is_slow(
    fields: Fields, found: Filter | None, *, sort: str, count_by: str = ""
) -> Iterator[None]:
    """Raise Busy for a statement of the block that takes too long; it names what no index serves."""
    try:
        yield
    except OperationalError as error:
        if not isinstance(error.orig, QueryCanceled):
            raise
        log.warning("list.took_too_long", path=request.path, error=explain(error))
        slow = what_is_slow(found.root if found else None, fields, sort=sort, count_by=count_by)
        why = f"no index serves {', '.join(slow)}" if slow else "too many rows are read for it"
        raise Busy(
            f"The list takes too long: {why}. Narrow it by a filter{fields.served_by_indexes()}."
        ) from error


def paginate(
    call: RequestContext,
    rows: RowStream,
    found: Listed,
    *,
    page: int,
    page_size: int,
    envelope: Callable[..., BaseModel],
) -> Response:
    """One page of `rows`, which are those that were found, or some; `envelope` makes all of the answer but the rows."""
    skipped = (page - 1) * page_size
    first = rows.first(call.session, found.parameters, limit=page_size, offset=skipped)
    if not first.number:
        # An access key that is not in force finds nothing, which must not look like a list of none.
        require_authentic(call.session, call.actor)
    total = first.total
    if first.number < page_size and (first.number or not skipped):
        total = skipped + first.number
    elif total is None:
        query = counting(rows.statement) if rows.total is None else rows.total
        total = call.session.connection().scalar(query, found.parameters) or 0

    def end(number: int) -> str:
        pagination = Pagination.of(page, page_size, number=number, total=total)
        rest = envelope(data=[], pagination=pagination).model_dump_json(exclude={"data"})
        return f"],{rest[1:]}"

    return rows.answer(call.context, first, found.parameters, found.may_read, begin='{"data":[', end=end)


def counting(statement: Select[*tuple[Any, ...]]) -> Select[int]:
    """Counts the rows of a statement that does not group them."""
    return statement.order_by(None).with_only_columns(func.count(), maintain_column_froms=True)
