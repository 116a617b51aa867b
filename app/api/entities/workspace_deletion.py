"""The deletion of a workspace over HTTP: its request, its preview, its stage and the protection against it."""

from datetime import timedelta
from typing import Literal, Self
from uuid import UUID

from flask import Response, jsonify, request
from pydantic import BaseModel, Field
from sqlalchemy import ColumnElement, and_, false, func, or_, select
from sqlalchemy.orm import Session

from app import models as rows
from app.access.authorize import Actor, is_authentic, is_platform_admin
from app.access.permissions import Permission
from app.access.principal import folded
from app.cleanup import operations, preview, requests
from app.clock import Timestamp
from app.config.values import LONGEST_DURATION_S
from app.errors import Busy, Conflict, NotFound
from app.http.field_types import Reason, Resource
from app.http.route import Body, Query, RequestContext, Routes
from app.lifecycle import DELETION_UNFINISHED, DeletionState, FailureClass
from app.storage.tree import told_to_clients

routes = Routes("workspaces")
_WORKSPACE = "/apis/entities/v2/workspaces/<workspace>"
_ERRORS_SHOWN, _MAX_ERROR_CHARS = 10, 300


class DeletionQuery(Query):
    """What a request to delete may say beside the name."""

    id: UUID | None = Field(
        None,
        description="The id of the workspace to delete. If another workspace has the name, the answer is 409; if "
        "the workspace is being deleted or is gone, it is that of the first request.",
    )
    grace_seconds: float = Field(
        0,
        ge=0,
        le=LONGEST_DURATION_S,
        description="Grace period in seconds, if it is longer than that of the settings.",
    )
    reason: Reason | None = Field(None, description="Kept with the deletion and in the audit log.")


class MarkedForDeletion(BaseModel):
    """Access is revoked; `deletion_id` names the deletion to follow."""

    message: str
    id: str
    deletion_id: UUID


class DeletionProtectionUpdate(Body):
    """A change of the protection against deletion."""

    protected: bool


class DeletionProtection(BaseModel):
    """Whether a workspace may be deleted."""

    id: str
    protected: bool


class DeletionPreview(Resource):
    """The contents that a DELETE would destroy now."""

    remaining: dict[str, int]
    at_least: list[str] = Field(description="`bytes`, if there are so many files that it is a lower bound.")
    bytes: int
    running_jobs: int
    running_deployments: int
    protected: bool


class WorkspaceDeletion(BaseModel):
    """How far the deletion of a workspace is: `pending` before its first slice."""

    name: str
    deletion_stage: Literal["pending", "deleting", "failed"]
    deletion_error: str | None = Field(
        description=f"What is still there, and why: `name: error; …`, of {_ERRORS_SHOWN} resources at most."
    )
    updated_at: Timestamp

    @classmethod
    def of(cls, session: Session, deletion: rows.Deletion) -> Self:
        """The stage of an unfinished deletion."""
        is_failed = deletion.state is DeletionState.FAILED
        stage = "failed" if is_failed else "deleting" if deletion.started_at else "pending"
        last_event = select(rows.DeletionEvent.at).where(rows.DeletionEvent.deletion_id == deletion.id)
        return cls(
            name=deletion.workspace_name,
            deletion_stage=stage,
            deletion_error=_errors(session, deletion) or deletion.reason,
            updated_at=session.scalars(last_event.order_by(rows.DeletionEvent.id.desc()).limit(1)).first()
            or deletion.requested_at,
        )


@routes.add(
    "DELETE",
    _WORKSPACE,
    permission=Permission.WORKSPACES_DELETE,
    returns=MarkedForDeletion,
    raises=(NotFound, Conflict, Busy),
)
def delete_workspace(call: RequestContext, workspace: str, query: DeletionQuery) -> Response:
    """Delete a workspace and everything in it.

    The answer comes as soon as all access is revoked; workers remove the contents in the background.
    The `Location` header is the address of the deletion. A request with an `x-stainless-retry-count` above 0 is
    answered with the deletion of that name that you requested within the last minute, if there is one.
    """
    asked = requests.DeletionRequest(
        workspace_id=query.id,
        grace=timedelta(seconds=query.grace_seconds),
        reason=query.reason,
        is_retry=(request.headers.get("x-stainless-retry-count", 0, type=int) or 0) > 0,
    )
    deletion = requests.request_deletion(call.session, call.context, call.actor, workspace, asked)
    marked = MarkedForDeletion(message="Workspace marked for deletion", id=workspace, deletion_id=deletion.id)
    response = jsonify(marked.model_dump(mode="json"))
    response.headers["Location"] = f"/apis/entities/v2/deletions/{deletion.id}"
    return response


@routes.add(
    "GET",
    f"{_WORKSPACE}/deletion-preview",
    permission=Permission.WORKSPACES_DELETE,
    returns=DeletionPreview,
    raises=(NotFound, Busy),
    transaction=False,
    waits_for_store=True,
)
def preview_deletion(call: RequestContext, workspace: str) -> DeletionPreview:
    """Say how many resources and bytes a deletion of the workspace would destroy."""
    found = call.read(lambda session: preview.preview(session, call.actor, workspace))
    try:
        # Without a connection: listing a large workspace takes long.
        within_s = call.context.settings.item_timeout_seconds
        size, is_complete = call.context.store.size_within(found.workspace_id, within_s)
    except OSError as error:
        raise told_to_clients(error) from error
    return DeletionPreview.from_row(found, bytes=size, at_least=[] if is_complete else ["bytes"])


@routes.add(
    "PUT",
    f"{_WORKSPACE}/deletion-protection",
    permission=Permission.WORKSPACES_DELETE,
    returns=DeletionProtection,
    raises=(NotFound,),
)
def protect_workspace(
    call: RequestContext, workspace: str, body: DeletionProtectionUpdate
) -> DeletionProtection:
    """Protect the workspace against deletion, or remove the protection."""
    row = operations.set_protection(call.session, call.actor, workspace, is_protected=body.protected)
    return DeletionProtection(id=workspace, protected=row.is_protected)


@routes.add(
    "GET",
    "/apis/entities/v2/workspace-deletions/<name>",
    permission=Permission.DELETIONS_READ,
    returns=WorkspaceDeletion,
    raises=(NotFound,),
)
def get_workspace_deletion(call: RequestContext, name: str) -> WorkspaceDeletion:
    """Get how far the deletion of a workspace is.

    For who has created the workspace, platform administrators and services. 404 for everybody else, and for all when it
    is done. If the name has been taken again, it is still the older workspace that is spoken of. The whole deletion is
    at `/apis/entities/v2/deletions`.
    """
    unfinished = rows.Deletion.state.in_(DELETION_UNFINISHED)
    query = (
        select(rows.Deletion)
        .join(rows.Workspace, rows.Workspace.id == rows.Deletion.workspace_id)
        .where(rows.Deletion.workspace_name == name, unfinished, _may_know(call.actor))
        .order_by(rows.Deletion.requested_at.desc())
        .limit(1)
    )
    deletion = call.session.scalars(query, call.actor.parameters).one_or_none()
    if deletion is None:
        raise NotFound(f"Workspace '{name}' not found")
    return WorkspaceDeletion.of(call.session, deletion)


def _may_know(actor: Actor) -> ColumnElement[bool]:
    """Whether the actor has created the `Workspace` of the surrounding query, or may see all deletions."""
    creator, email = rows.Workspace.created_by, folded(actor.principal.email)
    has_email = func.lower(creator.collate("C")) == email if "@" in email else false()
    is_creator = or_(creator == actor.id, has_email)
    return or_(is_platform_admin(actor.access), and_(is_authentic(actor.access), is_creator))


def _errors(session: Session, deletion: rows.Deletion) -> str:
    """What fails now, the longest known first; what is only waited for is no error."""
    failure = rows.DeletionFailure
    is_error = failure.error_class != FailureClass.WAITING
    found = session.execute(
        select(failure.name, func.left(failure.message, _MAX_ERROR_CHARS))
        .where(failure.deletion_id == deletion.id, failure.skipped_by.is_(None), is_error)
        .order_by(failure.first_seen_at, failure.resource_id)
        .limit(_ERRORS_SHOWN)
    )
    return "; ".join(f"{name}: {message}" for name, message in found)
