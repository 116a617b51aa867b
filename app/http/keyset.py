"""Pages by key, of lists that grow for ever: one begins behind a cursor, and costs as much wherever that is."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Annotated, Any
from uuid import UUID

from pydantic import Field
from sqlalchemy import DateTime, Uuid, bindparam, tuple_
from sqlalchemy.sql.operators import desc_op
from sqlalchemy.types import TypeEngine

from app.errors import BadRequest
from app.http.transfers.row_stream import RowStream

After = Annotated[
    str | None,
    Field(
        description="`after` of an earlier answer with the same sort and filter: the page begins behind its last item, "
        "and nothing is counted. Empty: the first page, not counted. Goes without `page`."
    ),
]

_TIME = "%Y-%m-%dT%H:%M:%S.%fZ"


def behind(rows: RowStream, after: str, parameters: Mapping[str, Any]) -> tuple[RowStream, Mapping[str, Any]]:
    """The rows behind a cursor, which is empty at the beginning, uncounted, and their parameters. Raises BadRequest."""
    if not after:
        return replace(rows, total=None), parameters
    columns = [one.element for one in rows.order]
    given = dict(
        zip((f"after_{number}" for number in range(len(columns))), _parsed(rows, after), strict=True)
    )
    place = tuple_(*(bindparam(name, type_=one.type) for name, one in zip(given, columns, strict=True)))
    # The key is sorted in the direction of the field.
    is_descending = rows.order[0].modifier is desc_op
    is_behind = tuple_(*columns) < place if is_descending else tuple_(*columns) > place
    return replace(rows, statement=rows.statement.where(is_behind), total=None), {**parameters, **given}


def cursor_of(place: Sequence[Any]) -> str:
    """The cursor behind the row that is sorted by these values, which are times, UUIDs and integers."""
    return "_".join(
        f"{one.astimezone(UTC):{_TIME}}" if isinstance(one, datetime) else str(one) for one in place
    )


def _parsed(rows: RowStream, after: str) -> list[Any]:
    try:
        texts = zip(after.split("_"), rows.order, strict=True)
        return [_value(text, one.element.type) for text, one in texts]
    except ValueError:
        raise BadRequest(
            f"after={after[:80]!r} is no cursor of this list: pass `after` of an earlier answer as it is."
        ) from None


def _value(text: str, type_: TypeEngine[Any]) -> Any:
    match type_:
        case DateTime():
            return datetime.strptime(text, _TIME).replace(tzinfo=UTC)
        case Uuid():
            return UUID(text)
    number = int(text[:20])
    if not 0 <= number < 2**63:
        raise ValueError(text)
    return number
