"""What is told of the errors that keep a resource from going."""

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from app.logs import explain


@pytest.mark.parametrize(
    ("statement", "told"),
    [
        ("SELECT secret FROM nowhere", 'ProgrammingError: 42P01 relation "nowhere" does not exist'),
        ("SELECT 'hunter2'::int", "DataError: 22P02 InvalidTextRepresentation"),
    ],
)
def test_what_is_told_of_a_database_error_quotes_neither_statements_nor_values(
    session: Session, statement: str, told: str
) -> None:
    with pytest.raises(DBAPIError) as raised:
        session.execute(text(statement))

    assert explain(raised.value) == told


def test_what_is_told_of_any_other_error_is_its_class_and_one_line() -> None:
    assert explain(OSError("the disk\n  is full")) == "OSError: the disk is full"
    assert explain(TimeoutError()) == "TimeoutError"
