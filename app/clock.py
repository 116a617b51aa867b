"""The one source of the present time, and its written form."""

from datetime import UTC, datetime
from typing import Annotated

from pydantic import Field, PlainSerializer


def now() -> datetime:
    """The present, aware, in UTC."""
    return datetime.now(UTC)


def _written(value: datetime) -> str:
    return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


Timestamp = Annotated[
    datetime, PlainSerializer(_written, return_type=str), Field(json_schema_extra={"format": "date-time"})
]
"""A time as clients read it: UTC, ISO 8601 with microseconds and `Z`."""
