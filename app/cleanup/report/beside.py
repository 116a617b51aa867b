"""What is read for a report beside the row of a deletion: what still runs, what fails, and the time.

It is one statement, which is made once: to make several anew for each request took longer than all that they do. The
rows of each deletion come as JSON, because to make an object of each took longer than to read it.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from itertools import chain
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    JSON,
    Boolean,
    ColumnElement,
    Integer,
    Select,
    TableValuedAlias,
    Uuid,
    any_,
    bindparam,
    column,
    func,
    literal_column,
    null,
    select,
    tuple_,
    union_all,
)
from sqlalchemy.dialects.postgresql import aggregate_order_by
from sqlalchemy.orm import Session

from app.clock import database_now
from app.models import Deletion, DeletionFailure, DeletionFailureCount, Deployment, Job

MOST_CAUSES = 10

_FAILURE = (
    "kind",
    "resource_id",
    "name",
    "error_class",
    "message",
    "attempts",
    "first_seen_at",
    "last_seen_at",
    "skipped_by",
    "skip_reason",
)

_IDS = bindparam("asked_ids", type_=ARRAY(Uuid))
_WORKSPACES = bindparam("asked_workspaces", type_=ARRAY(Uuid))


@dataclass(frozen=True)
class Beside:
    """What there is about one deletion in other rows than its own, at a time of the database."""

    now: datetime | None = None
    running_jobs: int = 0
    running_deployments: int = 0
    causes: Sequence[dict[str, Any]] = ()
    """What the open failures have in common, the most frequent first: the fields of a `Cause`."""
    failures: Sequence[dict[str, Any]] = ()
    """The fields of a `FailureReport` but its path."""


def read_beside(
    session: Session, deletions: Sequence[Deletion], *, living: set[UUID], most_failures: int
) -> dict[UUID, Beside]:
    """What is beside each of the deletions. In the workspaces of those that are not `living`, nothing runs."""
    asked = {
        "asked_ids": [one.id for one in deletions],
        "asked_workspaces": [one.workspace_id if one.id in living else None for one in deletions],
    }
    rows = session.connection().execute(_beside(most_failures), asked)
    return {
        row.id: Beside(row.now, row.jobs, row.deployments, row.causes or (), row.failures or ())
        for row in rows
    }


@cache
def _beside(most_failures: int) -> Select[*tuple[Any, ...]]:
    asked = _asked(_IDS, _WORKSPACES, id=Uuid, workspace_id=Uuid)
    # Of all workspaces, as many rows have a host as hosts can run.
    on_hosts = union_all(
        *(
            select(model.workspace_id, literal_column(is_job, Boolean).label("is_job")).where(
                model.host.is_not(None), model.workspace_id == any_(_WORKSPACES)
            )
            for model, is_job in ((Job, "true"), (Deployment, "false"))
        )
    ).subquery("on_hosts")
    jobs, deployments = (func.count().filter(is_its) for is_its in (on_hosts.c.is_job, ~on_hosts.c.is_job))
    running = (
        select(on_hosts.c.workspace_id, jobs.label("jobs"), deployments.label("deployments"))
        .group_by(on_hosts.c.workspace_id)
        .subquery("running")
    )
    return select(
        asked.c.id,
        database_now().label("now"),
        func.coalesce(running.c.jobs, 0).label("jobs"),
        func.coalesce(running.c.deployments, 0).label("deployments"),
        _causes(asked.c.id).label("causes"),
        (_failures(asked.c.id, most_failures) if most_failures else null()).label("failures"),
    ).select_from(asked.outerjoin(running, running.c.workspace_id == asked.c.workspace_id))


def _causes(deletion_id: ColumnElement[UUID]) -> ColumnElement[Any]:
    """The causes of the deletion as one JSON array. Their numbers are kept."""
    count = DeletionFailureCount
    some = (
        select(count.kind, count.error_class, count.cause, count.number)
        .where(count.deletion_id == deletion_id, ~count.is_skipped)
        .order_by(count.number.desc())
        .limit(literal_column(str(MOST_CAUSES), Integer))
        .correlate_except(count)
        .subquery("some")
    )
    fields = {
        "kind": some.c.kind,
        "error_class": some.c.error_class,
        "message": some.c.cause,
        "count": some.c.number,
    }
    ordered = aggregate_order_by(_object(fields), some.c.number.desc(), some.c.cause)
    return select(func.json_agg(ordered, type_=JSON)).scalar_subquery()


def _failures(deletion_id: ColumnElement[UUID], most: int) -> ColumnElement[Any]:
    """Up to `most` failures of the deletion as a JSON array: open ones, the longest known first, then skipped ones."""
    failure, limit = DeletionFailure, literal_column(str(most), Integer)
    is_open = failure.skipped_by.is_(None)
    oldest: ColumnElement[Any] = literal_column("'-infinity'::timestamptz")
    first: ColumnElement[Any] = literal_column("''")
    shown = (
        union_all(
            _first(deletion_id, is_open, {failure.first_seen_at: oldest, failure.resource_id: first}, limit),
            _first(deletion_id, ~is_open, {failure.kind: first, failure.resource_id: first}, limit),
        )
        .limit(limit)
        .subquery("shown")
    )
    one = _object({name: shown.c[name] for name in _FAILURE})
    return select(func.json_agg(one, type_=JSON)).scalar_subquery()


def _first(
    deletion_id: ColumnElement[UUID],
    which: ColumnElement[bool],
    order: Mapping[Any, ColumnElement[Any]],
    limit: ColumnElement[int],
) -> Select[*tuple[Any, ...]]:
    """The first of the failures in an order, which is that of an index; with the least value of each column."""
    failure = DeletionFailure
    place = tuple_(failure.deletion_id, *order)
    # Not only those of the deletion: PostgreSQL expects few of it, however many there are, and would sort them all. The
    # order of the index alone leads to so many from here on, so that it ends after them.
    following = (
        select(failure.deletion_id, *(getattr(failure, name) for name in _FAILURE))
        .where(which, place >= tuple_(deletion_id, *order.values()))
        .order_by(failure.deletion_id, *order)
        .limit(limit)
        .correlate_except(failure)
        .subquery()
    )
    its_own = select(*(following.c[name] for name in _FAILURE)).where(following.c.deletion_id == deletion_id)
    return its_own.correlate_except(following)


def _object(fields: Mapping[str, ColumnElement[Any]]) -> ColumnElement[Any]:
    pairs: Iterable[tuple[Any, Any]] = ((literal_column(f"'{name}'"), one) for name, one in fields.items())
    return func.json_build_object(*chain.from_iterable(pairs))


def _asked(*arrays: Any, **columns: Any) -> TableValuedAlias:
    """The deletions that are asked about, as a table."""
    named = (column(name, type_) for name, type_ in columns.items())
    return func.unnest(*arrays).table_valued(*named).render_derived(name="asked")
