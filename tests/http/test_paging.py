from typing import Any
from uuid import UUID

import pytest
from pydantic import Field, ValidationError
from sqlalchemy import Select, select
from sqlalchemy.orm import Session
from werkzeug.datastructures import MultiDict

from app.filters.parse import parse_filter
from app.filters.sort import parse_sort
from app.http.paging import MAX_PAGE, ListQuery, Page, paginate
from tests.filters.gadgets import FIELDS, GADGETS, ROWS

TOTAL = len(ROWS)


def by_id() -> Select[Any]:
    return select(GADGETS.c.id).order_by(*parse_sort("id", FIELDS, "id"))


def page_of(session: Session, statement: Select[Any], *, page: int, page_size: int) -> Page[int]:
    def number(row_id: UUID) -> int:
        return row_id.int

    return paginate(session, statement, page=page, page_size=page_size, sort="id", filter=None, item=number)


def test_the_envelope_is_exactly_the_published_one(gadgets: Session):
    found = parse_filter(MultiDict({"filter": "weight:5"}).to_dict(flat=False))
    assert found
    statement = by_id().where(found.compile(FIELDS))

    page = paginate(gadgets, statement, page=1, page_size=2, sort="id", filter=found, item=str)

    matching = [row for row in ROWS if row["weight"] == 5]
    assert page.model_dump() == {
        "data": [str(row["id"]) for row in matching[:2]],
        "pagination": {
            "page": 1,
            "page_size": 2,
            "current_page_size": 2,
            "total_pages": -(-len(matching) // 2),
            "total_results": len(matching),
        },
        "sort": "id",
        "filter": {"weight": {"$eq": 5}},
    }


def test_following_the_pages_meets_every_row_once(gadgets: Session):
    first = page_of(gadgets, by_id(), page=1, page_size=5)
    rest = [
        page_of(gadgets, by_id(), page=number, page_size=5)
        for number in range(2, first.pagination.total_pages + 1)
    ]

    assert [index for page in (first, *rest) for index in page.data] == list(range(TOTAL))
    assert [page.pagination.current_page_size for page in (first, *rest)] == [5, 5, 5, 3]


@pytest.mark.parametrize("number", [TOTAL // 5 + 2, MAX_PAGE])
def test_a_page_beyond_the_end_is_empty(gadgets: Session, number: int):
    page = page_of(gadgets, by_id(), page=number, page_size=5)

    assert page.data == []
    assert page.pagination.model_dump() == {
        "page": number,
        "page_size": 5,
        "current_page_size": 0,
        "total_pages": 4,
        "total_results": TOTAL,
    }


def test_a_list_without_rows_has_no_pages(gadgets: Session):
    page = page_of(gadgets, by_id().where(GADGETS.c.name == "nothing"), page=1, page_size=5)

    assert (page.data, page.filter) == ([], None)
    assert (page.pagination.total_pages, page.pagination.total_results) == (0, 0)


def test_an_item_is_made_of_all_that_the_statement_selects(gadgets: Session):
    statement = select(GADGETS.c.id, GADGETS.c.name).order_by(GADGETS.c.id)

    page = paginate(
        gadgets,
        statement,
        page=1,
        page_size=1,
        sort="id",
        filter=None,
        item=lambda row_id, name: (row_id.int, name),
    )

    assert page.data == [(0, ROWS[0]["name"])]


class ShortListQuery(ListQuery):
    """A list with limits of its own."""

    page_size: int = Field(10, ge=1, le=100)
    sort: str = "name"


def test_a_list_may_have_its_own_limits():
    assert ListQuery().model_dump() == {"page": 1, "page_size": 100, "sort": "-created_at", "filter": None}
    assert ShortListQuery().model_dump() == {"page": 1, "page_size": 10, "sort": "name", "filter": None}
    with pytest.raises(ValidationError, match="less than or equal to 100"):
        ShortListQuery(page_size=101)


@pytest.mark.parametrize(
    "query",
    [{"page": 0}, {"page": -1}, {"page": MAX_PAGE + 1}, {"page": "x"}, {"page_size": 0}, {"page_size": 1001}],
)
def test_a_page_that_cannot_be_is_refused_by_the_query_model(query: dict[str, Any]):
    with pytest.raises(ValidationError):
        ListQuery.model_validate(query)
