"""What is still there and why: one row per resource that could not be deleted."""

import re
from collections import Counter
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    BindParameter,
    ColumnElement,
    Select,
    String,
    Uuid,
    and_,
    cast,
    delete,
    exists,
    func,
    not_,
    or_,
    select,
    true,
    tuple_,
    update,
)
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from app.clock import database_now
from app.lifecycle import FailureClass
from app.models import Deletion, DeletionFailure, DeletionFailureCount

WHOLE_KIND = "*"
"""`resource_id` of a failure that is not about one resource."""

STORE = "store"
"""The kind of a failure of the final check of the store, when every kind is empty."""

DELETION_LOG = "deletion_log"
"""The kind of a failure to record a finished deletion outside the database. It cannot be skipped."""

_ANY = true()

_SPECIFIC = re.compile(r"'[^']*/[^']*'|\([^()]*/[^()]*\)|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}[^\s')]*")
"""What tells the message about one resource from that about another: paths and ids."""


def upsert(
    session: Session,
    deletion_id: UUID,
    kind: str,
    *,
    resource_id: UUID | None,
    name: str,
    error_class: FailureClass,
    message: str,
) -> None:
    """Keep why a resource stays for now; None is the kind as a whole."""
    seen = insert(DeletionFailure).values(
        deletion_id=deletion_id,
        kind=kind,
        resource_id=_key(resource_id),
        name=name,
        error_class=error_class,
        message=message,
        cause=_SPECIFIC.sub("…", message),
        # Asking again whether a resource has stopped is no attempt.
        attempts=0 if error_class is FailureClass.WAITING else 1,
        first_seen_at=database_now(),
        last_seen_at=database_now(),
    )
    session.execute(
        seen.on_conflict_do_update(
            index_elements=["deletion_id", "kind", "resource_id"],
            set_={
                "error_class": seen.excluded.error_class,
                "message": seen.excluded.message,
                "cause": seen.excluded.cause,
                "last_seen_at": seen.excluded.last_seen_at,
                "attempts": DeletionFailure.attempts + seen.excluded.attempts,
            },
        )
    )


def forget(session: Session, deletion_id: UUID, kind: str, resource_id: UUID | None) -> None:
    """Remove the failure of a resource that is deleted."""
    session.execute(
        delete(DeletionFailure).where(
            _open(deletion_id, kind), DeletionFailure.resource_id == _key(resource_id)
        )
    )


def forget_kind(session: Session, deletion_id: UUID, kind: str) -> None:
    """Remove the failures of an emptied kind, except skipped ones."""
    session.execute(delete(DeletionFailure).where(_open(deletion_id, kind)))


def forget_unseen(session: Session, deletion_id: UUID, kind: str, *, since: datetime | None) -> None:
    """Remove the failures of a kind that a whole pass has not seen again: what they were about is over."""
    session.execute(
        delete(DeletionFailure).where(_open(deletion_id, kind), not_(_seen(since))),
        execution_options={"synchronize_session": False},
    )


def forget_all(session: Session, deletion_id: UUID) -> None:
    """Remove the failures of a deletion that has done all, except skipped ones."""
    session.execute(
        delete(DeletionFailure).where(
            DeletionFailure.deletion_id == deletion_id, DeletionFailure.skipped_by.is_(None)
        ),
        execution_options={"synchronize_session": False},
    )


def forget_whole_kinds(session: Session, deletion_id: UUID, which: ColumnElement[bool] = _ANY) -> int:
    """Remove the failures of kinds as a whole, or `which` of them, that the next pass judges anew; how many."""
    removed = session.execute(
        delete(DeletionFailure)
        .where(
            DeletionFailure.deletion_id == deletion_id,
            DeletionFailure.resource_id == WHOLE_KIND,
            DeletionFailure.kind != STORE,
            DeletionFailure.skipped_by.is_(None),
            which,
        )
        .returning(DeletionFailure.kind),
        execution_options={"synchronize_session": False},
    )
    return len(removed.all())


def open_by_class(
    session: Session, deletion_id: UUID, kind: str, *, since: datetime | None
) -> Counter[FailureClass]:
    """How many resources of a kind were seen to be still there `since` that time, by failure class."""
    rows = session.execute(
        select(DeletionFailure.error_class, func.count())
        .where(_open(deletion_id, kind), _seen(since))
        .group_by(DeletionFailure.error_class)
    )
    return Counter({error_class: number for error_class, number in rows})  # noqa: C416 -- a Row is no pair to mypy


def worst(session: Session, deletion_id: UUID, kind: str, *, since: datetime | None) -> str:
    """One line about the failure since that time that an operator should see first, and how many more there are."""
    failure = session.scalars(
        select(DeletionFailure)
        .where(_open(deletion_id, kind), _seen(since))
        .order_by(
            # permanent, then transient, then waiting; the longest known first
            DeletionFailure.error_class != FailureClass.PERMANENT,
            DeletionFailure.error_class == FailureClass.WAITING,
            DeletionFailure.first_seen_at,
            DeletionFailure.resource_id,
        )
        .limit(1)
    ).one_or_none()
    if failure is None:
        return kind
    others = open_by_class(session, deletion_id, kind, since=since).total() - 1
    more = f", and {others} more" if others else ""
    return f"{kind}/{failure.name}: {failure.message} ({failure.error_class.value}){more}"


def skip(
    session: Session, deletion_id: UUID, kind: str, resource_id: str, *, actor: str, reason: str
) -> str | None:
    """Mark one failing resource as retained for good. Its name, or None if no such failure can be skipped."""
    return session.scalar(
        update(DeletionFailure)
        .where(
            _is_skippable(deletion_id),
            DeletionFailure.kind == kind,
            DeletionFailure.resource_id == resource_id,
        )
        .values(skipped_by=actor, skip_reason=reason)
        .returning(DeletionFailure.name),
        execution_options={"synchronize_session": False},
    )


def can_skip_any(session: Session, deletion_id: UUID, which: ColumnElement[bool] = _ANY) -> bool:
    """Whether any resource fails that could be retained, or any of `which`."""
    return session.scalars(select(exists().where(_is_skippable(deletion_id), which))).one()


def skip_chunk(
    session: Session,
    deletion_id: UUID,
    *,
    actor: str,
    reason: str,
    limit: int,
    which: ColumnElement[bool] = _ANY,
) -> Counter[str]:
    """Mark up to `limit` failing resources, or `which` of them, as retained for good; how many of each kind.

    None is left if it is empty.
    """
    key = DeletionFailure.deletion_id, DeletionFailure.kind, DeletionFailure.resource_id
    some = select(*key).where(_is_skippable(deletion_id), which).limit(limit)
    skipped = (
        update(DeletionFailure)
        .where(tuple_(*key).in_(some))
        .values(skipped_by=actor, skip_reason=reason)
        .returning(DeletionFailure.kind)
        .execution_options(synchronize_session=False)
        .cte("skipped")
    )
    rows = session.execute(select(skipped.c.kind, func.count()).group_by(skipped.c.kind))
    return Counter({kind: number for kind, number in rows})  # noqa: C416 -- a Row is no pair to mypy


def retained(session: Session, deletion_id: UUID, kind: str) -> set[UUID]:
    """Ids of the resources of a kind that an administrator chose to leave behind."""
    return set(
        session.scalars(
            select(cast(DeletionFailure.resource_id, Uuid)).where(
                _skipped(deletion_id), DeletionFailure.kind == kind
            )
        )
    )


def retained_kinds(session: Session, deletion_id: UUID) -> set[str]:
    """The kinds of which an administrator chose to leave something behind; STORE if it need not be checked."""
    return set(session.scalars(select(DeletionFailure.kind).where(_skipped(deletion_id)).distinct()))


def kept_total(deletion_id: UUID | BindParameter[UUID], **chosen: str | BindParameter[Any]) -> Select[int]:
    """SQL: how many failures a deletion has, skipped ones included; `chosen` are a kind, an error class, or both."""
    total = func.coalesce(func.sum(DeletionFailureCount.number), 0, type_=BigInteger)
    return select(total).filter_by(deletion_id=deletion_id, **chosen)


def has_open(error_class: FailureClass | BindParameter[FailureClass]) -> ColumnElement[bool]:
    """SQL: whether the `Deletion` of the surrounding query has a failure of that class that is not skipped."""
    count = DeletionFailureCount
    return exists().where(
        count.deletion_id == Deletion.id,
        count.error_class == error_class,
        ~count.is_skipped,
        count.number > 0,
    )


def alike(
    *, kind: str | None = None, error_class: FailureClass | None = None, cause: str | None = None
) -> ColumnElement[bool]:
    """SQL: whether a failure is of that kind, class and cause, as the kept counts tell them apart; None is any."""
    of_cause = func.coalesce(DeletionFailure.cause, DeletionFailure.message) == cause
    return and_(
        DeletionFailure.kind == kind if kind is not None else true(),
        DeletionFailure.error_class == error_class if error_class is not None else true(),
        of_cause if cause is not None else true(),
    )


def is_retained(
    deletion_id: UUID | BindParameter[UUID], kind: str, resource_id: ColumnElement[UUID]
) -> ColumnElement[bool]:
    """SQL: whether an administrator chose to leave that resource of a kind behind."""
    # OFFSET keeps PostgreSQL from making a join of it. Before the table is analysed it takes a join of all rows with
    # all failures for the cheapest; one look into the primary key for each row it is, whatever it believes.
    return (
        select(DeletionFailure.kind)
        .where(
            _skipped(deletion_id),
            DeletionFailure.kind == kind,
            DeletionFailure.resource_id == cast(resource_id, String),
        )
        .offset(0)
        .exists()
    )


def retained_anywhere(session: Session, kind: str) -> set[UUID]:
    """Ids of all resources of a kind that administrators ever chose to leave behind."""
    skipped = [DeletionFailure.kind == kind, DeletionFailure.skipped_by.is_not(None)]
    return {UUID(one) for one in session.scalars(select(DeletionFailure.resource_id).where(*skipped))}


def _skipped(deletion_id: UUID | BindParameter[UUID]) -> ColumnElement[bool]:
    return and_(DeletionFailure.deletion_id == deletion_id, DeletionFailure.skipped_by.is_not(None))


def _is_skippable(deletion_id: UUID) -> ColumnElement[bool]:
    """A failure of a kind as a whole names no resource that could be retained.

    That of the store can be skipped: then the store is not checked again.
    """
    return and_(
        DeletionFailure.deletion_id == deletion_id,
        DeletionFailure.skipped_by.is_(None),
        or_(DeletionFailure.resource_id != WHOLE_KIND, DeletionFailure.kind == STORE),
    )


def _open(deletion_id: UUID, kind: str) -> ColumnElement[bool]:
    return and_(
        DeletionFailure.deletion_id == deletion_id,
        DeletionFailure.kind == kind,
        DeletionFailure.skipped_by.is_(None),
    )


def _seen(since: datetime | None) -> ColumnElement[bool]:
    return DeletionFailure.last_seen_at >= since if since else true()


def _key(resource_id: Any) -> str:
    return WHOLE_KIND if resource_id is None else str(resource_id)
