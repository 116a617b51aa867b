from functools import partial
from typing import Any

import pytest
from flask import Response
from pydantic import BaseModel, Field, ValidationError
from sqlalchemy import Select, select
from sqlalchemy.orm import Session
from werkzeug.datastructures import MultiDict

from app.access.listed import Listed
from app.context import Context
from app.filters.parse import parse_filter
from app.filters.sort import parse_sort
from app.http.paging import MAX_PAGE, ListQuery, Page, paginate
from app.http.route import RequestContext
from app.http.transfers.row_stream import RowStream, each
from tests.filters.gadgets import FIELDS, ROWS, Gadget
from tests.support.actors import trusted

TOTAL = len(ROWS)


class Shown(BaseModel):
    """The public form of a gadget."""

    index: int
    name: str | None

    @classmethod
    def of(cls, gadget: Gadget, name: str | None = None) -> "Shown":
        return cls(index=gadget.id.int, name=name)


ORDER = tuple(parse_sort("id", FIELDS, "id"))


def gadgets_of(statement: Select[Any]) -> tuple[RowStream, Listed]:
    """A statement as a list has it: as rows of an order, and as what its reader may read."""
    return RowStream(statement, ORDER, each(Shown.of)), Listed(statement, {})


@pytest.fixture
def call(context: Context, gadgets: Session) -> RequestContext:
    return RequestContext(context, trusted("ann"), gadgets)


def respond(call: RequestContext, statement: Select[Any], *, page: int, page_size: int) -> Response:
    return paginate(
        call,
        *gadgets_of(statement),
        page=page,
        page_size=page_size,
        envelope=partial(Page, sort="id", filter=None),
    )


def page_of(call: RequestContext, statement: Select[Any], *, page: int, page_size: int) -> Any:
    return respond(call, statement, page=page, page_size=page_size).json


def test_the_envelope_is_exactly_the_published_one(call: RequestContext):
    found = parse_filter(MultiDict({"filter": "weight:5"}).to_dict(flat=False))
    assert found
    rows = gadgets_of(select(Gadget).where(found.compile(FIELDS)))

    answer = paginate(
        call, *rows, page=1, page_size=2, envelope=partial(Page, sort="id", filter=found.canonical())
    )

    matching = [index for index, row in enumerate(ROWS) if row["weight"] == 5]
    items = ",".join(f'{{"index":{index},"name":null}}' for index in matching[:2])
    pages, total = -(-len(matching) // 2), len(matching)
    assert answer.get_data(as_text=True) == (
        f'{{"data":[{items}],"pagination":{{"page":1,"page_size":2,"current_page_size":2,'
        f'"total_pages":{pages},"total_results":{total}}},"sort":"id","filter":{{"weight":{{"$eq":5}}}}}}\n'
    )
    assert answer.content_type == "application/json"
    assert answer.content_length == len(answer.data)


def test_following_the_pages_meets_every_row_once(call: RequestContext):
    first = page_of(call, select(Gadget), page=1, page_size=5)
    rest = [
        page_of(call, select(Gadget), page=number, page_size=5)
        for number in range(2, first["pagination"]["total_pages"] + 1)
    ]

    assert [one["index"] for page in (first, *rest) for one in page["data"]] == list(range(TOTAL))
    assert [page["pagination"]["current_page_size"] for page in (first, *rest)] == [5, 5, 5, 3]
    assert {page["pagination"]["total_results"] for page in (first, *rest)} == {TOTAL}


@pytest.mark.parametrize("page_size", [TOTAL - 1, TOTAL, TOTAL + 1])
def test_the_total_is_right_whether_or_not_it_has_to_be_counted(call: RequestContext, page_size: int):
    """A page that is not full is the last one, and says how many there are."""
    page = page_of(call, select(Gadget), page=1, page_size=page_size)

    assert page["pagination"]["total_results"] == TOTAL


@pytest.mark.parametrize("number", [TOTAL // 5 + 2, MAX_PAGE])
def test_a_page_beyond_the_end_is_empty(call: RequestContext, number: int):
    page = page_of(call, select(Gadget), page=number, page_size=5)

    assert page["data"] == []
    assert page["pagination"] == {
        "page": number,
        "page_size": 5,
        "current_page_size": 0,
        "total_pages": 4,
        "total_results": TOTAL,
    }


def test_a_list_without_rows_has_no_pages(call: RequestContext):
    page = page_of(call, select(Gadget).where(Gadget.name == "nothing"), page=1, page_size=5)

    assert (page["data"], page["filter"]) == ([], None)
    assert (page["pagination"]["total_pages"], page["pagination"]["total_results"]) == (0, 0)


def test_an_item_is_made_of_all_that_the_statement_selects(call: RequestContext):
    page = page_of(call, select(Gadget).add_columns(Gadget.name), page=1, page_size=1)

    assert page["data"] == [{"index": 0, "name": ROWS[0]["name"]}]


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
