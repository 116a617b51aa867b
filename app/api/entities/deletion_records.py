"""What a deletion has recorded, over HTTP: its events and its failures."""

from functools import cache, lru_cache, partial
from typing import Any

from flask import Response
from pydantic import Field
from sqlalchemy import BindParameter, ColumnElement, Select, Uuid, bindparam, exists, select

from app import models as rows
from app.access.authorize import Actor
from app.access.listed import Listed
from app.access.permissions import Permission
from app.cleanup import failures, requests
from app.cleanup.report import FailureReport
from app.clock import Timestamp
from app.errors import BadRequest, NotFound
from app.http.field_types import Resource
from app.http.keyset import After
from app.http.paging import MAX_PAGE, KeysetPage, Page, paginate
from app.http.route import Query, RequestContext, Routes
from app.http.transfers.row_stream import RowStream, each, resources
from app.lifecycle import FailureClass

routes = Routes("deletions")
_DELETION = "/apis/entities/v2/deletions/<deletion_id>"


class DeletionEvent(Resource):
    """One line of a deletion's history."""

    at: Timestamp
    actor: str
    event: str
    detail: dict[str, Any]


EVENTS = resources(DeletionEvent, rows.DeletionEvent)

_ASKED_DELETION = bindparam("asked_deletion", type_=Uuid)
_EVENTS = select(rows.DeletionEvent).where(rows.DeletionEvent.deletion_id == _ASKED_DELETION)


class PageQuery(Query):
    """Paging of what belongs to a deletion."""

    page: int = Field(1, ge=1, le=MAX_PAGE)
    page_size: int = Field(100, ge=1, le=1000)


class EventsQuery(PageQuery):
    """Paging of a deletion's events."""

    after: After = None


class FailuresQuery(PageQuery):
    """Paging and choice of a deletion's failures."""

    kind: str | None = Field(None, max_length=256, description="Only failures of this kind.")
    error_class: FailureClass | None = Field(None, description="Only failures of this class.")


@routes.add(
    "GET",
    f"{_DELETION}/events",
    permission=Permission.DELETIONS_READ,
    returns=KeysetPage[DeletionEvent],
    raises=(BadRequest, NotFound),
)
def list_deletion_events(call: RequestContext, deletion_id: str, query: EventsQuery) -> Response:
    """List the events of a deletion, oldest first. Events never change."""
    deletion = requests.find_deletion(call.session, call.actor, deletion_id)
    found = _about(call.actor, deletion, _EVENTS)
    return paginate(
        call,
        _event_stream(found.rows),
        found,
        page=query.page,
        page_size=query.page_size,
        envelope=partial(KeysetPage, sort="at", filter=None),
        after=query.after,
    )


@routes.add(
    "GET",
    f"{_DELETION}/failures",
    permission=Permission.DELETIONS_READ,
    returns=Page[FailureReport],
    raises=(NotFound,),
)
def list_deletion_failures(call: RequestContext, deletion_id: str, query: FailuresQuery) -> Response:
    """List the failures of a deletion, skipped ones included, by kind and resource id."""
    deletion = requests.find_deletion(call.session, call.actor, deletion_id)
    chosen = {name: value for name in ("kind", "error_class") if (value := getattr(query, name))}
    found = _about(call.actor, deletion, _failures(frozenset(chosen)), **chosen)
    return paginate(
        call,
        _failure_stream(found.rows, frozenset(chosen)),
        found,
        page=query.page,
        page_size=query.page_size,
        envelope=partial(Page, sort="kind", filter=None),
    )


def _about(
    actor: Actor, deletion: rows.Deletion, statement: Select[*tuple[Any, ...]], **asked: Any
) -> Listed:
    """Rows about a deletion, as long as the actor may read about it; `asked` are other parameters."""
    may_read = _may_read(requests.may_follow(actor))
    given = {f"asked_{name}": value for name, value in asked.items()}
    parameters = {**actor.parameters, "asked_deletion": deletion.id, **given}
    return Listed(statement, parameters, lambda: select(may_read).params(parameters)).where(may_read)


@cache
def _may_read(which: ColumnElement[bool]) -> ColumnElement[bool]:
    return exists().where(rows.Deletion.id == _ASKED_DELETION, which)


@lru_cache(maxsize=64)
def _event_stream(found: Select[*tuple[Any, ...]]) -> RowStream:
    return RowStream(found, (rows.DeletionEvent.id.asc(),), EVENTS, has_cursors=True)


@cache
def _failures(given: frozenset[str]) -> Select[*tuple[Any, ...]]:
    """The failures of a deletion, each with the name of the workspace."""
    failure, deletion = rows.DeletionFailure, rows.Deletion
    statement = select(failure, deletion.workspace_name).join(deletion, deletion.id == failure.deletion_id)
    return statement.where(failure.deletion_id == _ASKED_DELETION).filter_by(**_parameters(given))


@lru_cache(maxsize=64)
def _failure_stream(found: Select[*tuple[Any, ...]], given: frozenset[str]) -> RowStream:
    failure = rows.DeletionFailure
    return RowStream(
        found,
        (failure.kind.asc(), failure.resource_id.asc()),
        each(FailureReport.of),
        failures.kept_total(_ASKED_DELETION, **_parameters(given)),
    )


def _parameters(given: frozenset[str]) -> dict[str, BindParameter[Any]]:
    """The parameters in the place of values of the columns of failures that a request has given."""
    columns = rows.DeletionFailure.__table__.columns
    return {name: bindparam(f"asked_{name}", type_=columns[name].type) for name in given}
