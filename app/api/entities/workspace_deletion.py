"""The deletion of a workspace over HTTP: its request, its preview and the protection against it."""

from datetime import timedelta
from uuid import UUID

from flask import Response, jsonify, request
from pydantic import BaseModel, Field

from app.access.permissions import Permission
from app.cleanup import operations, preview, requests
from app.errors import Busy, Conflict, NotFound
from app.http.field_types import Reason, Resource
from app.http.route import Body, Query, RequestContext, Routes
from app.storage.tree import told_to_clients

routes = Routes("workspaces")
_WORKSPACE = "/apis/entities/v2/workspaces/<workspace>"
_LONGEST_GRACE_S = 10 * 365 * 86400


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
        le=_LONGEST_GRACE_S,
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
