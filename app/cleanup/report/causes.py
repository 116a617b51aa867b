"""What FAILED deletions have in common: an inbox for a person, however many there are."""

from functools import cache
from typing import Any

from pydantic import BaseModel, Field
from sqlalchemy import DateTime, Integer, Select, bindparam, func, literal_column, select, true
from sqlalchemy.orm import Session

from app.clock import Timestamp
from app.lifecycle import DeletionState, FailureClass
from app.models import Deletion, DeletionFailureCount
from app.models.deletion import is_in

MOST_GROUPS = 50
"""In one answer. Each is a decision for a person."""


class FailedCause(BaseModel):
    """What some FAILED deletions have in common. A deletion with several causes is in the group of each."""

    kind: str | None = Field(
        description="The kind of what fails. Null for deletions of which no failure is on record that is not skipped: "
        "`reason` alone says why they are FAILED, and is their cause."
    )
    error_class: FailureClass | None = Field(description="Null where `kind` is.")
    cause: str = Field(description="The text of the failures without ids and paths.")
    deletions: int
    resources: int = Field(description="Failures of this cause; a kind that fails as a whole counts as one.")
    oldest_failed_at: Timestamp | None = Field(
        description="Since when the deletion that failed the longest ago is FAILED."
    )


def failed_causes(
    session: Session, *, as_of: Timestamp | None = None, at_most: int = MOST_GROUPS
) -> list[FailedCause]:
    """The causes of FAILED deletions, or of those FAILED since `as_of`, that of the most deletions first.

    Every FAILED deletion is in a group, but there may be more groups than `at_most`. One statement, whose time grows
    with the FAILED deletions and their causes.
    """
    asked = {"seen_until": as_of, "at_most": at_most}
    rows = session.connection().execute(_grouped(is_of_a_look=as_of is not None), asked)
    return [FailedCause.model_validate(row, from_attributes=True) for row in rows]


@cache
def _grouped(*, is_of_a_look: bool) -> Select[*tuple[Any, ...]]:
    none = literal_column("0", Integer)
    failed = (
        select(
            Deletion.id,
            func.coalesce(Deletion.reason, "").label("reason"),
            Deletion.failed_at,
        )
        .where(is_in(DeletionState.FAILED))
        .offset(none)
        .subquery("failed")
    )
    count = DeletionFailureCount
    # OFFSET keeps PostgreSQL from joining with all counts: those of skipped failures stay for good.
    causes = (
        select(count.kind, count.error_class, count.cause, count.number)
        .where(count.deletion_id == failed.c.id, ~count.is_skipped, count.number > 0)
        .offset(none)
        .lateral("causes")
    )
    cause = func.coalesce(causes.c.cause, failed.c.reason)
    seen_until = bindparam("seen_until", type_=DateTime(timezone=True))
    is_seen = failed.c.failed_at <= seen_until if is_of_a_look else true()
    return (
        select(
            causes.c.kind,
            causes.c.error_class,
            cause.label("cause"),
            func.count().label("deletions"),
            func.coalesce(func.sum(causes.c.number), 0).label("resources"),
            func.min(failed.c.failed_at).label("oldest_failed_at"),
        )
        .select_from(failed)
        .outerjoin(causes, true())
        .where(is_seen)
        .group_by(causes.c.kind, causes.c.error_class, cause)
        .order_by(func.count().desc(), cause, causes.c.kind, causes.c.error_class)
        .limit(bindparam("at_most", type_=Integer))
    )
