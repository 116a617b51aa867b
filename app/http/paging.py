"""Pages: the query parameters and the envelope of every list."""

from collections.abc import Callable, Iterator, Mapping
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
from app.errors import BadRequest, Busy
from app.filters.ast import MAX_COMPARISONS, MAX_LENGTH
from app.filters.fields import Fields
from app.filters.parse import Filter, parse_filter
from app.filters.served import is_ordered_by_index, what_is_slow
from app.filters.sort import parse_sort
from app.http.keyset import After, behind, cursor_of
from app.http.route import Query, RequestContext
from app.http.transfers.row_stream import BATCH_ROWS, FirstRows, Items, RowStream
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


class KeysetQuery(ListQuery):
    """The same of a list that grows for ever, which has pages by key beside the numbered ones."""

    after: After = None


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


class KeysetPage(BaseModel, Generic[T]):
    """One page of a list that grows for ever. `after` leads to the items behind it, also to those that come later."""

    data: list[T]
    pagination: Pagination | None = Field(description="Null in an answer to `after`: nothing is counted.")
    after: str | None = Field(description="Null if a numbered page has no items.")
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
    has_cursors = isinstance(query, KeysetQuery)
    sortable = sort_fields or fields
    order = _order(sortable, query.sort, type(query).model_fields["sort"].default)
    with naming_what_is_slow(sortable, asked, sort=query.sort):
        if asked:
            rows = filtered(found.rows, fields, asked)
            stream = RowStream(rows, order, items, batch_rows=batch_rows, has_cursors=has_cursors)
        else:
            is_indexed = is_ordered_by_index(sortable, query.sort)
            everywhere = found.everywhere if is_indexed else None
            stream = _unfiltered(
                found.rows,
                order,
                items,
                total=found.total,
                everywhere=everywhere,
                batch_rows=batch_rows,
                has_cursors=has_cursors,
            )
        return paginate(
            call,
            stream,
            found,
            page=query.page,
            page_size=query.page_size,
            envelope=partial(envelope, sort=query.sort, filter=asked.canonical() if asked else None),
            after=query.after if isinstance(query, KeysetQuery) else None,
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
    has_cursors: bool,
) -> RowStream:
    """Kept, because its statements take longer to be made than to be executed."""
    total = counting(rows) if total is None else total
    return RowStream(rows, order, items, total, batch_rows, everywhere, has_cursors)


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
    after: str | None = None,
) -> Response:
    """One page of `rows`, which are those that were found, or some; `envelope` makes all of the answer but the rows.

    With `after`, the page behind that cursor. Raises BadRequest if it is none, or is given beside a `page`.
    """
    parameters, skipped = found.parameters, (page - 1) * page_size
    if after is not None:
        if skipped:
            raise BadRequest("after goes without page: it says by itself where the page begins.")
        rows, parameters = behind(rows, after, parameters)
    first = rows.first(call.session, parameters, limit=page_size, offset=skipped)
    if not first.number:
        # An access key that is not in force finds nothing, which must not look like a list of none.
        require_authentic(call.session, call.actor)
    total = (
        _total(call, rows, first, parameters, page_size=page_size, skipped=skipped) if after is None else None
    )
    place = {"after": cursor_of(first.last) if first.last else after} if rows.has_cursors else {}

    def end(number: int) -> str:
        counted = None if total is None else Pagination.of(page, page_size, number=number, total=total)
        rest = envelope(data=[], pagination=counted, **place).model_dump_json(exclude={"data"})
        return f"],{rest[1:]}"

    return rows.answer(call.context, first, parameters, found.may_read, begin='{"data":[', end=end)


def _total(
    call: RequestContext,
    rows: RowStream,
    first: FirstRows,
    parameters: Mapping[str, Any],
    *,
    page_size: int,
    skipped: int,
) -> int:
    """The number of all rows; of a page that is not full it is plain."""
    if first.number < page_size and (first.number or not skipped):
        return skipped + first.number
    if first.total is not None:
        return first.total
    query = counting(rows.statement) if rows.total is None else rows.total
    return call.session.connection().scalar(query, parameters) or 0


def counting(statement: Select[*tuple[Any, ...]]) -> Select[int]:
    """Counts the rows of a statement that does not group them."""
    return statement.order_by(None).with_only_columns(func.count(), maintain_column_froms=True)
