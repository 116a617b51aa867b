"""An index of documents finds every document whose value is equal: containment leaves none of them out."""

from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st
from sqlalchemy import literal, select
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Session

from app.filters.containment import MOST, containing, values_of
from app.filters.fields import DataField
from tests.filters.filter_cases import shared_table

KEYS = ["a", "ä", 'q"', "0", "-1", " 1", "+0", "1a", ""]
SCALARS = st.sampled_from(
    [
        5,
        5.0,
        -0.0,
        1e22,
        2**70,
        0.1,
        True,
        False,
        None,
        "",
        "5",
        "5.0",
        "true",
        "null",
        "x",
        "ä",
        'q"',
        "[x",
        "{}",
    ]
)
DOCUMENTS: st.SearchStrategy[Any] = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=3),
    max_leaves=8,
)


@shared_table
@given(
    document=st.dictionaries(st.sampled_from(KEYS), DOCUMENTS, max_size=3),
    path=st.lists(st.sampled_from(KEYS), min_size=1, max_size=3),
    other=SCALARS,
)
@example(document={"a": [["x", 5]]}, path=["a", "-1", "+0"], other="x")
@example(document={"a": {"0": 1e22}}, path=["a", "0"], other=1e22)
@example(document={"a": "5"}, path=["a"], other=5)
@example(document={"a": 5.0}, path=["a"], other="5.0")
def test_what_is_equal_is_contained(session: Session, document: Any, path: list[str], other: Any) -> None:
    field = DataField(literal(document, JSONB), path)
    stored, text = session.execute(select(field._json(), field.as_text())).one()
    candidates = [other, text, stored]

    for value in (one for one in candidates if isinstance(one, str | int | float)):
        without = DataField(literal(document, JSONB), path)
        object.__setattr__(without, "_documents", lambda _: None)
        # Null is as false here: no row is found.
        found, expected = (bool(session.scalar(select(one.equals_any([value])))) for one in (field, without))
        assert found == expected, value


def test_the_number_of_conditions_is_bounded() -> None:
    texts = [f'"{number}"' for number in range(MOST + 1)]

    assert containing(["a"], texts) is None
    assert len(containing(["a"], texts[1:]) or []) == MOST
    assert containing(["0"] * 20, ['"x"']) is None


def test_a_text_stands_for_every_value_that_has_it() -> None:
    assert values_of("x") == ['"x"']
    assert values_of("5.0") == ['"5.0"', "5.0"]
    assert values_of("true") == ['"true"', "true"]
    assert values_of("null") == ['"null"']  # a stored null has no text
    assert values_of("1e5") == ['"1e5"']  # PostgreSQL shows no exponents
    assert values_of("007") == ['"007"']
    assert values_of("[red") == ['"[red"']
    assert values_of('["red"]') is None
    assert values_of(f"[{'1' * 5000}]") is None
