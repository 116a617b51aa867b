"""Times as people write them: in UTC, or refused with the reason."""

from datetime import UTC, datetime, timedelta, timezone, tzinfo

import pytest

from app.times import parse_time

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "zone"),
    [
        ("2026-03-01T12:00:00Z", None),
        ("2026-03-01T07:00-05:00", None),
        ("2026-03-01T07:00-05:00", UTC),
        ("2026-03-01 12:00", UTC),
        ("2026-03-01T13:00", timezone(timedelta(hours=1))),
    ],
)
def test_a_time_is_that_of_utc(text: str, zone: tzinfo | None) -> None:
    time = parse_time(text, zone=zone)

    assert (time, time.tzinfo) == (NOON, UTC)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("yesterday", "not in ISO 8601"),
        ("", "not in ISO 8601"),
        ("2026-02-30T00:00:00Z", "not in ISO 8601"),
        ("2026-03-01T12:00", "no timezone"),
        ("0001-01-01T00:00:00+01:00", "before the year 1"),
        ("9999-12-31T23:59:59-01:00", "after 9999"),
    ],
)
def test_what_is_no_time_is_refused_with_the_reason(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse_time(text)
