"""Deletions over HTTP: reports, retries, skips and restores."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import cache, partial
from typing import Annotated, Any, Literal

from flask import Response
from pydantic import AwareDatetime, Field
from sqlalchemy import BindParameter, ColumnElement, DateTime, Select, Text, bindparam, select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import Session
from sqlalchemy.types import TypeEngine

from app import models as rows
from app.access.authorize import ACTOR_ID, require_platform_wide, still_authentic
from app.access.listed import Listed
from app.access.permissions import Permission
from app.cleanup import failures, ledger, operations, requests
from app.cleanup.bulk import is_alike
from app.cleanup.report import FAILURES_LISTED, DeletionReport, outline, report
from app.db import read
from app.errors import BadRequest, Conflict, Forbidden, NotFound, WrongState
from app.filters.fields import Fields
from app.http.field_types import Name, Reason, ShortText
from app.http.paging import KeysetPage, KeysetQuery, list_page
from app.http.route import Body, Query, RequestContext, Routes
from app.http.transfers.row_stream import Items
from app.lifecycle import DeletionState, FailureClass
from app.logs import explain, get_logger
from app.models.deletion import is_in

log = get_logger(__name__)

routes = Routes("deletions")
_DELETIONS = "/apis/entities/v2/deletions"
_DELETION = f"{_DELETIONS}/<deletion_id>"

_REPORTS_AT_ONCE = 100
"""Each has up to a hundred failures."""


_ASKED: dict[str, TypeEngine[Any]] = {
    "kind": Text(),
    "error_class": rows.DeletionFailure.error_class.type,
    "cause": Text(),
    "as_of": DateTime(timezone=True),
}
"""What a list can be narrowed by, as parameters of its statement."""


class SkipRequest(Body):
    """One resource to give up. It is retained, and the deletion records it."""

    kind: ShortText
    resource_id: ShortText
    reason: Reason


class ForceRequest(Body):
    """The reason to give up every resource that fails now."""

    reason: Reason


class RestoreRequest(Body):
    """The name of the restored workspace; its old name by default."""

    name: Name | None = None


AsOf = Annotated[
    AwareDatetime | None,
    Field(description="Only what was FAILED at this time already, and has not been anything else since."),
]


class OperateQuery(Query):
    """When the operator looked at the deletion."""

    as_of: AsOf = None


class DeletionsQuery(KeysetQuery):
    """Filters and paging of the list of deletions."""

    sort: str = Field("-requested_at", description="`requested_at` or `-requested_at`.")
    state: DeletionState | None = Field(None, description="Only deletions in this state.")
    scope: Literal["own", "all"] | None = Field(
        None,
        description="`own`: those that you requested. `all`: those of everybody, which is refused to all but "
        "platform administrators. By default as many as you may see.",
    )
    error_class: FailureClass | None = Field(
        None, description="Only deletions with a failure of this class that is not skipped."
    )
    kind: ShortText | None = Field(None, description="Only FAILED deletions with a failure of this kind.")
    cause: str | None = Field(
        None,
        max_length=2000,
        description="Only FAILED deletions of this cause, as `deletion-causes` says it.",
    )
    as_of: AsOf = None


FIELDS = Fields(
    key=rows.Deletion.id,
    columns={
        "requested_at": rows.Deletion.requested_at,
        "state": rows.Deletion.state,
        "workspace_name": rows.Deletion.workspace_name,
        "workspace_id": rows.Deletion.workspace_id,
        "requested_by": rows.Deletion.requested_by,
    },
)

SORT_FIELDS = Fields(key=rows.Deletion.id, columns={"requested_at": rows.Deletion.requested_at})


@routes.add(
    "GET",
    _DELETIONS,
    permission=Permission.DELETIONS_READ,
    returns=KeysetPage[DeletionReport],
    raises=(BadRequest, Forbidden),
)
def list_deletions(call: RequestContext, query: DeletionsQuery) -> Response:
    """List the deletions that you requested, newest first; platform administrators see all deletions.

    Who asks for all of them with `scope=all` gets all or a 403, never a list that is empty for want of a right.
    `as_of`, `kind` and `cause` go with `state=FAILED` alone.
    """
    is_failed = query.state is DeletionState.FAILED
    if query.as_of and not is_failed:
        raise BadRequest("as_of goes with state=FAILED: it is about the time at which they failed.")
    if (query.kind is not None or query.cause is not None) and not is_failed:
        raise BadRequest("kind and cause go with state=FAILED: they say for what a deletion is FAILED.")
    if query.scope == "all":
        require_platform_wide(call.session, replace(call.actor, permission=Permission.DELETIONS_OPERATE))
    asked = {name: value for name in _ASKED if (value := getattr(query, name)) is not None}
    which = requests.may_follow(call.actor)
    found = _of_deletions(which, query.state, is_own=query.scope == "own", given=frozenset(asked))
    parameters = {**call.actor.parameters, **_named(asked)}
    return list_page(
        call,
        query,
        Listed(found, parameters, partial(still_authentic, call.actor)),
        FIELDS,
        items=_REPORTS,
        sort_fields=SORT_FIELDS,
        batch_rows=_REPORTS_AT_ONCE,
        envelope=KeysetPage[Any],
    )


def _reports(session: Session, found: Iterable[Any]) -> list[DeletionReport]:
    return report(session, [deletion for (deletion,) in found], most_failures=FAILURES_LISTED)


_REPORTS = Items(_reports)


@cache
def _of_deletions(
    which: ColumnElement[bool], state: DeletionState | None, *, is_own: bool, given: frozenset[str]
) -> Select[rows.Deletion]:
    """The deletions under the conditions that are `given`, whose values are parameters: made once for each choice."""
    asked = _parameters(given)
    statement = select(rows.Deletion).where(which)
    if is_own:
        statement = statement.where(rows.Deletion.requested_by == ACTOR_ID)
    if state:
        statement = statement.where(is_in(state))
    if state is DeletionState.FAILED:
        alike = {name: asked.get(name) for name in ("kind", "error_class", "cause")}
        statement = statement.where(is_alike(**alike))
    elif "error_class" in asked:
        statement = statement.where(failures.has_open(asked["error_class"]))
    if "as_of" in asked:
        statement = statement.where(ledger.had_failed(asked["as_of"]))
    return statement


@routes.add(
    "GET", _DELETION, permission=Permission.DELETIONS_READ, returns=DeletionReport, raises=(NotFound,)
)
def get_deletion(call: RequestContext, deletion_id: str) -> DeletionReport:
    """Get a deletion: its state, progress, failures and expected end."""
    return report(call.session, [requests.find_deletion(call.session, call.actor, deletion_id)])[0]


@routes.add(
    "POST",
    f"{_DELETION}/retry",
    permission=Permission.DELETIONS_OPERATE,
    returns=DeletionReport,
    raises=(NotFound, WrongState),
    transaction=False,
)
def retry_deletion(call: RequestContext, deletion_id: str, query: OperateQuery) -> DeletionReport:
    """Retry a FAILED deletion now."""
    return _operate(
        call,
        deletion_id,
        lambda session, deletion: operations.retry(
            session, call.context, call.actor, deletion, as_of=query.as_of
        ),
    )


@routes.add(
    "POST",
    f"{_DELETION}/skip",
    permission=Permission.DELETIONS_OPERATE,
    returns=DeletionReport,
    raises=(NotFound, WrongState),
    transaction=False,
)
def skip_resource(
    call: RequestContext, deletion_id: str, body: SkipRequest, query: OperateQuery
) -> DeletionReport:
    """Give up one failing resource of a FAILED deletion and continue with the rest.

    Its row goes; its processes or bytes are retained. The deletion records its name, the actor and the reason.
    """
    return _operate(
        call,
        deletion_id,
        lambda session, deletion: operations.skip(
            session,
            call.context,
            call.actor,
            deletion,
            kind=body.kind,
            resource_id=body.resource_id,
            reason=body.reason,
            as_of=query.as_of,
        ),
    )


@routes.add(
    "POST",
    f"{_DELETION}/force",
    permission=Permission.DELETIONS_OPERATE,
    returns=DeletionReport,
    raises=(NotFound, WrongState),
    transaction=False,
)
def force_deletion(
    call: RequestContext, deletion_id: str, body: ForceRequest, query: OperateQuery
) -> DeletionReport:
    """Give up every resource of a FAILED deletion that fails now and continue with the rest.

    The next slice marks them as skipped, and records how many of each kind.
    """
    return _operate(
        call,
        deletion_id,
        lambda session, deletion: operations.force(
            session, call.context, call.actor, deletion, reason=body.reason, as_of=query.as_of
        ),
    )


@routes.add(
    "POST",
    f"{_DELETION}/restore",
    permission=Permission.DELETIONS_RESTORE,
    returns=DeletionReport,
    raises=(NotFound, Conflict),
    transaction=False,
)
def restore_workspace(call: RequestContext, deletion_id: str, body: RestoreRequest | None) -> DeletionReport:
    """Cancel a deletion before destruction has begun. The workspace and its members are as before.

    Another name than its own needs the permission to create workspaces.
    """
    name = body.name if body else None
    return _operate(
        call,
        deletion_id,
        lambda session, deletion: operations.restore(session, call.context, call.actor, deletion, name=name),
    )


def _operate(
    call: RequestContext, deletion_id: str, act: Callable[[Session, rows.Deletion], Any]
) -> DeletionReport:
    """Commit what an operator does, and only then describe it: no count may undo it or turn it into an error."""

    def work(session: Session) -> rows.Deletion:
        deletion = requests.find_deletion(session, call.actor, deletion_id)
        act(session, deletion)
        return deletion

    deletion = call.transact(work)
    try:
        return read(call.context.sessions, lambda session: report(session, [deletion])[0])
    except (DBAPIError, PoolTimeout) as error:
        log.warning("deletion.not_described", deletion_id=deletion_id, error=explain(error))
        return outline(deletion)


def _parameters(given: frozenset[str]) -> dict[str, BindParameter[Any]]:
    """The parameters in the place of values that a request has given."""
    return {name: bindparam(f"asked_{name}", type_=_ASKED[name]) for name in given}


def _named(values: Mapping[str, Any]) -> dict[str, Any]:
    return {f"asked_{name}": value for name, value in values.items()}
