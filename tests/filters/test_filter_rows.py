from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from sqlalchemy import select, update
from sqlalchemy.orm import Session

from app.filters.ast import Node, Not
from app.filters.parse import Filter
from app.filters.sort import BadSort, parse_sort
from tests.filters.filter_cases import holds, is_number, nodes, shared_table
from tests.filters.gadgets import FIELDS, GADGETS, ROWS, VALUES, found_by, ids_of


def names_found_by(session: Session, text: str) -> set[str]:
    return {row["name"] for row in found_by(session, text)}


def test_percent_and_underscore_are_literal_in_like(gadgets: Session):
    assert names_found_by(gadgets, 'name~"%"') == {"dr%ll"}
    assert names_found_by(gadgets, 'name~"_"') == {"d_ill"}
    assert names_found_by(gadgets, 'name~"\\\\"') == {"back\\slash"}
    assert names_found_by(gadgets, 'name~"DRI"') == {"drill", "Drill"}


def test_a_time_without_a_zone_is_utc_and_a_date_is_its_midnight(gadgets: Session):
    def ids(value: str) -> set[UUID]:
        return set(gadgets.scalars(ids_of(("filter[made_at][$eq]", value))))

    at_midnight = {row["id"] for row in ROWS if row["made_at"] == datetime(2026, 1, 31, tzinfo=UTC)}
    assert ids("2026-01-31") == at_midnight
    assert ids("2026-01-31T00:00:00") == at_midnight
    assert ids("2026-01-31T02:00:00+02:00") == at_midnight
    assert ids("2026-01-31T00:00:00Z") == at_midnight
    assert ids("2026-01-31t00:00:00z") == at_midnight
    assert ids("2026-01-30T23:59:60Z") == at_midnight
    assert ids("2026-01-30T23:59:60.5Z") == set()
    assert ids("2026-01-31T00:00:00+02:00") == set()


def test_a_number_in_a_document_is_compared_only_with_numbers(gadgets: Session):
    def values(text: str) -> list[Any]:
        return [row["data"]["v"] for row in found_by(gadgets, text)]

    assert sorted(values("data.v>=5")) == [5, 5.0, 5.5]
    # Equality is generous: a version kept as text is found by the number it shows.
    assert {repr(value) for value in values("data.v:5")} == {"5", "5.0", "'5'"}
    assert {repr(value) for value in values('data.v:"5"')} == {"5", "'5'"}


@shared_table
@given(node=nodes)
def test_postgresql_finds_the_rows_for_which_the_filter_holds(gadgets: Session, node: Node):
    found = gadgets.scalars(select(GADGETS.c.id).where(Filter(node).compile(FIELDS)))

    assert set(found) == {row["id"] for row in ROWS if holds(node, row)}


@shared_table
@given(node=nodes)
def test_every_row_matches_either_a_filter_or_its_negation(gadgets: Session, node: Node):
    both = [
        set(gadgets.scalars(select(GADGETS.c.id).where(Filter(one).compile(FIELDS))))
        for one in (node, Not(node))
    ]

    assert both[0] | both[1] == {row["id"] for row in ROWS}
    assert not both[0] & both[1]


def sorted_ids(session: Session, sort: str | None) -> list[int]:
    statement = select(GADGETS.c.id).order_by(*parse_sort(sort, FIELDS, "-weight"))
    return [one.int for one in session.scalars(statement)]


def test_rows_that_sort_alike_come_in_the_order_of_their_ids(gadgets: Session):
    ascending = sorted_ids(gadgets, "weight")

    assert ascending == sorted(
        ascending, key=lambda index: (ROWS[index]["weight"] is None, ROWS[index]["weight"] or 0, index)
    )
    assert sorted_ids(gadgets, "-weight") == ascending[::-1]


def test_a_list_has_a_default_sort(gadgets: Session):
    assert sorted_ids(gadgets, None) == sorted_ids(gadgets, "") == sorted_ids(gadgets, "-weight")


def test_numbers_in_documents_sort_as_numbers(gadgets: Session):
    ids = sorted_ids(gadgets, "data.v")
    numbers = [VALUES[index] for index in ids if index < len(VALUES) and is_number(VALUES[index])]

    assert numbers == [-1, 5, 5.0, 5.5]
    # A stored null sorts like a missing key: both at the end.
    without = {index for index, row in enumerate(ROWS) if row["data"].get("v") is None}
    assert set(ids[-len(without) :]) == without


@pytest.mark.parametrize("sort", ["bogus", "-", "--name", "name,weight", "data", "data.", "na\0me", "\ud800"])
def test_an_unknown_sort_is_refused_with_the_valid_ones(sort: str):
    with pytest.raises(BadSort, match=r"Valid fields.*: id, name, project, .*data\.<path>") as refused:
        parse_sort(sort, FIELDS, "name")

    assert refused.value.status == 400
    refused.value.message.encode()


def test_like_folds_the_case_of_every_script(gadgets: Session):
    gadgets.execute(update(GADGETS).values(name="ÉTÉ"))

    assert len(gadgets.scalars(ids_of(("filter", 'name~"été"'))).all()) == len(ROWS)
