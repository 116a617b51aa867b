"""The two clocks of the product, and the format of times in answers.

`database_now()` is the clock of leases, due times and heartbeats: many hosts write and compare them, and only the
database's time is the same for all. `now()` is this process's clock, for what people read. Deadlines inside a process
use `time.monotonic()`.
"""

from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import Field, PlainSerializer
from sqlalchemy import ColumnElement, DateTime, Float, Interval, SQLColumnExpression, Text, extract, func


def now() -> datetime:
    """The current time of this process in UTC, timezone-aware. Never written to a lease, nor compared with one."""
    return datetime.now(UTC)


def database_now() -> ColumnElement[datetime]:
    """SQL: the time at which the database received the statement that contains it.

    Not `now()` of SQL, at which the transaction began: it may have waited for a lock since. Not `clock_timestamp()`,
    which no index can be searched with.
    """
    return func.statement_timestamp(type_=DateTime(timezone=True))


def seconds_from_now(seconds: float | ColumnElement[float]) -> ColumnElement[datetime]:
    """SQL: the database's time in so many seconds; a negative number is in the past."""
    return database_now() + func.make_interval(0, 0, 0, 0, 0, 0, seconds, type_=Interval)


def seconds_since(time: SQLColumnExpression[datetime | None]) -> ColumnElement[float]:
    """SQL: how many seconds ago a time was, by the database's clock; null if there is none."""
    return extract("epoch", database_now() - time).cast(Float)


def _format(value: datetime) -> str:
    # Not strftime, which takes three times as long and writes years before 1000 with fewer digits.
    return value.astimezone(UTC).isoformat(timespec="microseconds")[:26] + "Z"


Timestamp = Annotated[
    datetime, PlainSerializer(_format, return_type=str), Field(json_schema_extra={"format": "date-time"})
]
"""A time in answers: UTC, ISO 8601 with microseconds and `Z`."""


def as_timestamp(time: ColumnElement[Any]) -> ColumnElement[str]:
    """SQL: the text of a `Timestamp`, or null."""
    in_utc = func.timezone("UTC", time, type_=DateTime())
    return func.to_char(in_utc, 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"', type_=Text)
