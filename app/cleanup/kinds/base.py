"""What a kind of resource must be able to do to be deleted."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy.orm import Session

from app.context import Context
from app.lifecycle import FailureClass
from app.storage.tree import StoreMisconfigured


@dataclass(frozen=True)
class Deleted:
    """Nothing of the resource is left but its row, which the engine removes."""

    displaced: str | None = None
    """What stood in the place of its directory in the store, and was removed as such."""


@dataclass(frozen=True)
class Pending:
    """It was asked to stop and has not yet. Not an error, so it is returned: raising would undo the asking."""

    why: str


@dataclass(frozen=True)
class InProgress:
    """A part of it was deleted, and the rest takes longer than the item time-out. It is tried again, at no cost.

    Only for a part that is certainly deleted: each InProgress counts as progress, without a limit.
    """

    what: str


class InvalidReference(Exception):
    """The resource refers to something that cannot exist; no retry will help."""


@dataclass(frozen=True)
class ResourceKind:
    """A kind whose resources are deleted one by one, because something outside the database must go first.

    `delete` runs outside any transaction, at most for the item time-out, and yields before with InProgress; it
    must be idempotent, act by id, treat what is already missing as Deleted, and raise for anything else.
    """

    name: str
    model: type[Any]
    delete: Callable[[Context, Any], Deleted | Pending | InProgress]
    is_parallel: bool = False
    """Whether it gains from several calls of `delete` at the same time, because each waits for something outside."""


@dataclass(frozen=True)
class Chunk:
    """Rows that were removed together."""

    removed: int
    cursor: UUID | None
    """The id of the last one, None if there was none."""


DeleteChunk = Callable[[Session, UUID, int, UUID | None], Chunk]
"""`(session, workspace_id, limit, cursor)`: see `RowsKind`."""


@dataclass(frozen=True)
class RowsKind:
    """A kind that is only rows.

    `delete_chunk(session, workspace_id, limit, cursor)` removes up to `limit` of them, behind the cursor of the chunk
    before: a search from the start would pass over all that is gone, as long as anybody can see it.
    """

    name: str
    model: type[Any]
    delete_chunk: DeleteChunk


Kind = ResourceKind | RowsKind


def classify(error: BaseException) -> FailureClass:
    """Whether `error` may go away by itself. Anything unknown may."""
    permanent = (PermissionError, StoreMisconfigured, InvalidReference)
    return FailureClass.PERMANENT if isinstance(error, permanent) else FailureClass.TRANSIENT
