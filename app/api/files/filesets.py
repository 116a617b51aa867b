"""Filesets over HTTP."""

from typing import Any, Literal

from pydantic import Field
from sqlalchemy import literal

from app import clock
from app import models as rows
from app.access.permissions import Permission
from app.api.files.fileset_metadata import FilesetMetadata
from app.clock import Timestamp
from app.db import session_scope
from app.errors import BadRequest, Busy, Forbidden, NameTaken, NotFound
from app.filters.fields import Fields
from app.http.field_types import Name, Resource, ShortText
from app.http.paging import ListQuery, Page, list_page
from app.http.route import Body, RequestContext, Routes
from app.services import filesets
from app.services.listing import rows_in
from app.services.workspaces import readable_workspace, writable_workspace

routes = Routes("filesets")
BASE = "/apis/files/v2/workspaces/<workspace>/filesets"

FIELDS = Fields(
    key=rows.Fileset.id,
    columns={
        "name": rows.Fileset.name,
        "workspace": rows.Workspace.name,
        "description": rows.Fileset.description,
        "project": rows.Fileset.project,
        "purpose": rows.Fileset.purpose,
        "storage_type": literal("local"),
        "created_at": rows.Fileset.created_at,
        "updated_at": rows.Fileset.updated_at,
    },
)

Purpose = Literal["generic", "dataset", "model"]


class FilesetCreate(Body):
    """A fileset to make."""

    name: Name
    description: ShortText | None = None
    project: ShortText | None = None
    purpose: Purpose = "generic"
    metadata: FilesetMetadata | None = None
    custom_fields: dict[str, Any] = Field(default_factory=dict)
    storage: dict[str, Any] | None = Field(
        None, description="Must be left out: bytes are kept by the platform."
    )
    cache: bool = Field(default=False, description="Has no effect: there is no external storage to cache.")


class FilesetUpdate(Body):
    """What to replace; keys left out stay as they are, and null resets a key to its default."""

    description: ShortText | None = None
    project: ShortText | None = None
    purpose: Purpose | None = None
    metadata: FilesetMetadata | None = None
    custom_fields: dict[str, Any] | None = None


class Storage(Resource):
    """Where the bytes are, in the platform's own terms: no path of a server.

    `local` also in a bucket: the contract's `s3` would have to name it, and that is nobody's business.
    """

    type: Literal["local"] = "local"
    path: str
    read_chunk_size: int = 1024 * 1024
    write_buffer_size: int = 16 * 1024 * 1024


class Fileset(Resource):
    """A named set of files."""

    id: str
    name: str
    workspace: str
    description: str
    purpose: Purpose
    storage: Storage
    metadata: FilesetMetadata
    custom_fields: dict[str, Any]
    project: str
    created_at: Timestamp
    updated_at: Timestamp


def show(fileset: rows.Fileset, workspace: str) -> Fileset:
    """The public form of a fileset."""
    return Fileset.model_validate(
        {
            "id": str(fileset.id),
            "workspace": workspace,
            "storage": {"path": f"{workspace}/{fileset.name}"},
            "metadata": fileset.details or {},
            **{
                key: getattr(fileset, key)
                for key in (
                    "name",
                    "description",
                    "purpose",
                    "custom_fields",
                    "project",
                    "created_at",
                    "updated_at",
                )
            },
        }
    )


class FilesetQuery(ListQuery):
    """Paging, sorting and filtering of filesets."""

    page_size: int = Field(10, ge=1, le=100, description="Items per page.")


@routes.add(
    "POST",
    BASE,
    permission=Permission.FILESETS_WRITE,
    returns=Fileset,
    raises=(BadRequest, NotFound, NameTaken),
)
def create_fileset(call: RequestContext, workspace: str, body: FilesetCreate) -> Fileset:
    """Create a fileset

    Its files are uploaded afterwards, one by one.
    """
    if body.storage is not None:
        raise BadRequest(
            f"Creating filesets with {body.storage.get('type', 'a given')} storage is not allowed. "
            "Omit storage to use the default backend."
        )
    fileset = filesets.create_fileset(
        call.session,
        call.actor,
        writable_workspace(call.session, call.actor, workspace),
        name=body.name,
        description=body.description or "",
        project=body.project or "",
        purpose=body.purpose,
        details=_stored(body.metadata),
        custom_fields=body.custom_fields,
    )
    return show(fileset, workspace)


@routes.add(
    "GET",
    BASE,
    permission=Permission.FILESETS_READ,
    returns=Page[Fileset],
    raises=(BadRequest, NotFound),
)
def list_filesets(call: RequestContext, workspace: str, query: FilesetQuery) -> Page[Fileset]:
    """List filesets

    Workspace `-` lists those of all workspaces.
    """
    statement = rows_in(call.session, call.actor, workspace, rows.Fileset)
    return list_page(call, query, statement, FIELDS, item=show)


@routes.add("GET", f"{BASE}/<name>", permission=Permission.FILESETS_READ, returns=Fileset, raises=(NotFound,))
def get_fileset(call: RequestContext, workspace: str, name: str) -> Fileset:
    """Get a fileset"""
    home = readable_workspace(call.session, call.actor, workspace)
    return show(filesets.find_fileset(call.session, home, name), workspace)


@routes.add(
    "PATCH", f"{BASE}/<name>", permission=Permission.FILESETS_WRITE, returns=Fileset, raises=(NotFound,)
)
def update_fileset(call: RequestContext, workspace: str, name: str, body: FilesetUpdate) -> Fileset:
    """Update a fileset

    Keys given are replaced as a whole.
    """
    home = writable_workspace(call.session, call.actor, workspace)
    # FOR UPDATE: a DELETE that is under way decides whether there is still something to change.
    fileset = filesets.find_fileset(call.session, home, name, lock="update")
    values = {
        "description": body.description or "",
        "project": body.project or "",
        "purpose": body.purpose or "generic",
        "metadata": _stored(body.metadata),
        "custom_fields": filesets.permitted_fields(
            call.actor, body.custom_fields or {}, before=fileset.custom_fields
        ),
    }
    for key in body.model_fields_set:
        setattr(fileset, "details" if key == "metadata" else key, values[key])
    if call.session.is_modified(fileset):
        fileset.updated_at, fileset.updated_by = clock.now(), call.actor.id
    return show(fileset, workspace)


@routes.add(
    "DELETE",
    f"{BASE}/<name>",
    permission=Permission.FILESETS_WRITE,
    returns=Fileset,
    raises=(Forbidden, NotFound, Busy),
    transaction=False,
)
def delete_fileset(call: RequestContext, workspace: str, name: str) -> Fileset:
    """Delete a fileset and all its files

    Answers the fileset as it was. If the storage fails, or the files are too many for one request, it answers
    503 and the fileset stays, so that the same request can be repeated and goes on.
    """
    context = call.context
    emptied = filesets.empty_fileset(context, call.actor, workspace=workspace, name=name)
    with session_scope(context.sessions) as session:
        fileset = filesets.delete_fileset(
            session, call.actor, context.store, workspace=workspace, name=name, emptied=emptied
        )
        return show(fileset, workspace)


def _stored(metadata: FilesetMetadata | None) -> dict[str, Any] | None:
    return metadata.model_dump(by_alias=True, exclude_unset=True) if metadata else None
