"""Pages: the query parameters and the envelope of every list."""

from collections.abc import Callable
from typing import Any, Generic, TypeVar

from flask import request
from pydantic import BaseModel, Field
from sqlalchemy import Select, func, select
from sqlalchemy.orm import Session

from app.filters.fields import Fields
from app.filters.parse import Filter, parse_filter
from app.filters.sort import parse_sort
from app.http.route import Query, RequestContext

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
            "Operators: `$eq $like $lt $lte $gt $gte $in $nin $exists $and $or $not`."
        ),
    )


class Pagination(BaseModel):
    """The position of a page in its list. A list without results has no pages."""

    page: int
    page_size: int
    current_page_size: int
    total_pages: int
    total_results: int


class Page(BaseModel, Generic[T]):
    """One page of a list, with its sort and filter."""

    data: list[T]
    pagination: Pagination
    sort: str
    filter: dict[str, Any] | None


def requested_filter(*, alias: str | None = None) -> Filter | None:
    """The filter of the current request, or None. Raises BadFilter."""
    return parse_filter(request.args.to_dict(flat=False), alias=alias)


def filtered(
    rows: Select[*tuple[Any, ...]], fields: Fields, given: Filter | None
) -> Select[*tuple[Any, ...]]:
    """The rows that the filter, if there is one, lets through. Raises BadFilter."""
    return rows.where(given.compile(fields)) if given else rows


def list_page(
    call: RequestContext,
    query: ListQuery,
    rows: Select[*tuple[Any, ...]],
    fields: Fields,
    *,
    item: Callable[..., T],
    sort_fields: Fields | None = None,
    alias: str | None = None,
) -> Page[T]:
    """One page of `rows`, filtered and sorted as the request asks.

    Filters use `fields`; sorts use `sort_fields` if given, else `fields`. `item` and `alias` are those of `paginate`
    and `parse_filter`. Raises BadFilter and BadSort.
    """
    found = requested_filter(alias=alias)
    default = type(query).model_fields["sort"].default
    return paginate(
        call.session,
        filtered(rows, fields, found).order_by(*parse_sort(query.sort, sort_fields or fields, default)),
        page=query.page,
        page_size=query.page_size,
        sort=query.sort,
        filter=found,
        item=item,
    )


def paginate(
    session: Session,
    statement: Select[*tuple[Any, ...]],
    *,
    page: int,
    page_size: int,
    sort: str,
    filter: Filter | None,  # noqa: A002 -- the name in the envelope
    item: Callable[..., T],
) -> Page[T]:
    """Read one page of `statement`, which is already filtered and totally ordered.

    `item` builds the public form of a row from the selected columns. The answer repeats `sort` and `filter`.
    """
    total = session.scalar(select(func.count()).select_from(statement.order_by(None).subquery())) or 0
    rows = session.execute(statement.limit(page_size).offset((page - 1) * page_size))
    data = [item(*row) for row in rows]
    return Page(
        data=data,
        pagination=Pagination(
            page=page,
            page_size=page_size,
            current_page_size=len(data),
            total_pages=-(-total // page_size),
            total_results=total,
        ),
        sort=sort,
        filter=filter.canonical() if filter else None,
    )
