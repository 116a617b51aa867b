"""The current time, and the format of times in answers."""

from datetime import UTC, datetime
from typing import Annotated

from pydantic import Field, PlainSerializer


def now() -> datetime:
    """The current time in UTC, timezone-aware."""
    return datetime.now(UTC)


def _format(value: datetime) -> str:
    return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


Timestamp = Annotated[
    datetime, PlainSerializer(_format, return_type=str), Field(json_schema_extra={"format": "date-time"})
]
"""A time in answers: UTC, ISO 8601 with microseconds and `Z`."""
