"""Times as people write them."""

from datetime import UTC, datetime, tzinfo


def parse_time(text: str, *, zone: tzinfo | None = None) -> datetime:
    """The time in UTC that a text in ISO 8601 means. Raises ValueError with the reason if it means none.

    A text without an offset means the time of `zone`; without one it is refused.
    """
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError("it is not in ISO 8601") from None
    if time.tzinfo is None and zone is None:
        raise ValueError("it has no timezone")
    try:
        return (time if time.tzinfo else time.replace(tzinfo=zone)).astimezone(UTC)
    except OverflowError:
        raise ValueError("it is before the year 1 or after 9999 in UTC") from None
