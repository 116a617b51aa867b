"""Workspaces, and the way to delete one: what it holds, when and why, and its name typed as a consent."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated
from uuid import UUID

from flask import Response
from pydantic import Field
from sqlalchemy.orm import Session

from app.access.permissions import Permission
from app.cleanup import operations, preview, requests
from app.cleanup.preview import Preview
from app.config import Settings
from app.config.values import LONGEST_DURATION_S
from app.console.page import Fields, PageRequest, Pages
from app.errors import BadRequest
from app.http.field_types import Reason, ShortText
from app.models import BUILT_IN, Workspace
from app.services.listing import workspaces_of
from app.services.workspaces import readable_workspace
from app.storage.tree import told_to_clients

pages = Pages()
SHOWN = 50
_ONE = "/workspaces/<workspace>/delete"
_BACK = "/console/workspaces/{workspace}/delete"
_GRACES = (timedelta(), timedelta(hours=1), timedelta(days=1), timedelta(days=3), timedelta(days=7))


@dataclass(frozen=True)
class Doomed:
    """A workspace that may be deleted, and what that would destroy."""

    workspace: Workspace
    preview: Preview
    is_built_in: bool


class Asked(Fields):
    """What the names begin with, and behind which one the page begins."""

    prefix: ShortText = ""
    after: ShortText = ""


class Delete(Fields):
    """A request to delete, with the name as somebody has typed it."""

    id: UUID
    confirm: ShortText = ""
    grace_seconds: Annotated[int, Field(ge=0, le=LONGEST_DURATION_S)] = 0
    reason: Reason | None = None


class Protection(Fields):
    """Whether it is to be protected."""

    protected: bool


@pages.add("GET", "/workspaces", permission=Permission.WORKSPACES_READ)
def list_workspaces(call: PageRequest, query: Asked) -> Response:
    """The workspaces that the caller may read, by name."""
    found = call.read(lambda session: _page(session, call, query))
    more = len(found) > SHOWN
    return call.page("workspaces.html", workspaces=found[:SHOWN], asked=query, more=more, built_in=BUILT_IN)


@pages.add("GET", _ONE, permission=Permission.WORKSPACES_DELETE)
def ask_to_delete(call: PageRequest, workspace: str) -> Response:
    """What a deletion would destroy, and the form that asks for it."""

    def find(session: Session) -> Doomed:
        row = readable_workspace(session, call.actor, workspace)
        return Doomed(row, preview.preview(session, call.actor, workspace), workspace in BUILT_IN)

    doomed = call.read(find)
    return call.page("delete.html", doomed=doomed, graces=_choices(call.context.settings))


@pages.add(
    "GET", "/workspaces/<workspace>/size", permission=Permission.WORKSPACES_DELETE, waits_for_store=True
)
def show_size(call: PageRequest, workspace: str) -> Response:
    """How many bytes of files it has. A part of its own, because a store may take seconds to say it."""
    row = call.read(lambda session: readable_workspace(session, call.actor, workspace))
    try:
        size, is_complete = call.context.store.size_within(row.id, call.context.settings.item_timeout_seconds)
    except OSError as error:
        return call.live("size.html", size=None, is_complete=False, error=told_to_clients(error).message)
    return call.live("size.html", size=size, is_complete=is_complete, error="")


@pages.add("POST", _ONE, permission=Permission.WORKSPACES_DELETE, back=_BACK)
def delete_workspace(call: PageRequest, workspace: str, form: Delete) -> Response:
    """Delete the workspace that was shown, no other of its name."""
    if form.confirm != workspace:
        raise BadRequest(f"Nothing was deleted: type '{workspace}' to confirm, exactly as it is written.")
    asked = requests.DeletionRequest(
        workspace_id=form.id, grace=timedelta(seconds=form.grace_seconds), reason=form.reason
    )
    deletion_id = call.transact(
        lambda session: requests.request_deletion(session, call.context, call.actor, workspace, asked).id
    )
    return call.went(
        f"All access to {workspace} is revoked; it is being removed.", f"/console/deletions/{deletion_id}"
    )


@pages.add("POST", "/workspaces/<workspace>/protection", permission=Permission.WORKSPACES_DELETE, back=_BACK)
def protect_workspace(call: PageRequest, workspace: str, form: Protection) -> Response:
    """Protect the workspace against deletion, or take that away."""
    call.transact(
        lambda session: (
            operations.set_protection(session, call.actor, workspace, is_protected=form.protected).id
        )
    )
    text = "is protected against deletion" if form.protected else "is no longer protected"
    return call.went(f"{workspace} {text}.", _BACK.format(workspace=workspace))


def _page(session: Session, call: PageRequest, asked: Asked) -> list[Workspace]:
    """One more than is shown, if there is one."""
    readable = workspaces_of(call.actor)
    rows = readable.rows.where(Workspace.name > asked.after)
    if asked.prefix:
        # A range of the index of names, whatever the collation of the database is.
        rows = rows.where(Workspace.name.startswith(asked.prefix, autoescape=True))
    found = session.execute(rows.order_by(Workspace.name).limit(SHOWN + 1), readable.parameters)
    return [row for (row,) in found]


def _choices(settings: Settings) -> list[timedelta]:
    """The grace periods to choose from: the setting's, which none may be shorter than, and longer ones."""
    least = timedelta(seconds=settings.deletion_grace)
    return [least, *(one for one in _GRACES if one > least)]
