"""Filesets over HTTP."""

from typing import Any, Literal, Self

from flask import Response
from pydantic import BaseModel, Field
from sqlalchemy import Text, cast, func, literal
from sqlalchemy.dialects.postgresql import JSONB

from app import models as rows
from app.access.permissions import Permission
from app.api.files.fileset_metadata import FilesetMetadata, NewMetadata
from app.clock import Timestamp
from app.errors import BadRequest, Busy, Conflict, Forbidden, NameTaken, NotFound, WrongState
from app.filters.ast import RANGES
from app.filters.fields import Fields
from app.http.field_types import Name, Resource, ShortText
from app.http.paging import ListQuery, Page, list_page
from app.http.route import Body, RequestContext, Routes
from app.http.transfers.row_stream import resources
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
    indexed={"name": RANGES, "created_at": RANGES},
)

Purpose = Literal["generic", "dataset", "model", "environment"]


class FilesetCreate(Body):
    """A fileset to create."""

    name: Name
    description: ShortText | None = None
    project: ShortText | None = None
    purpose: Purpose = "generic"
    metadata: NewMetadata = None
    custom_fields: dict[str, Any] = Field(default_factory=dict)
    storage: dict[str, Any] | None = Field(None, description="Must be null: the platform stores all bytes.")
    cache: bool = Field(default=False, description="No effect: there is no external storage to cache.")


class FilesetUpdate(Body):
    """Keys to replace. A missing key keeps its value; null resets it to its default."""

    description: ShortText | None = None
    project: ShortText | None = None
    purpose: Purpose | None = None
    metadata: NewMetadata = None
    custom_fields: dict[str, Any] | None = None


class Storage(BaseModel):
    """The place of the bytes, without any path of a server.

    The type is `local` for a bucket too, because `s3` would have to name the bucket.
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

    @classmethod
    def from_row(cls, row: rows.Fileset, workspace_name: str | None = None, **values: Any) -> Self:
        """As `Resource.from_row`; the column behind `metadata` is `details`."""
        storage = Storage(path=f"{workspace_name}/{row.name}")
        metadata = row.details or {}
        return super().from_row(
            row, workspace_name, id=str(row.id), storage=storage, metadata=metadata, **values
        )


ITEMS = resources(
    Fileset,
    rows.Fileset,
    id=cast(rows.Fileset.id, Text),
    workspace=rows.Workspace.name,
    storage=func.jsonb_build_object("path", rows.Workspace.name + "/" + rows.Fileset.name, type_=JSONB),
    metadata=func.coalesce(rows.Fileset.details, cast({}, JSONB)),
)


class FilesetQuery(ListQuery):
    """A page of filesets."""

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

    Its files are uploaded one by one.
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
    return Fileset.from_row(fileset, workspace)


@routes.add(
    "GET",
    BASE,
    permission=Permission.FILESETS_READ,
    returns=Page[Fileset],
    raises=(BadRequest, NotFound),
)
def list_filesets(call: RequestContext, workspace: str, query: FilesetQuery) -> Response:
    """List filesets

    Workspace `-` means all workspaces.
    """
    found = rows_in(call.session, call.actor, workspace, rows.Fileset)
    return list_page(call, query, found, FIELDS, items=ITEMS)


@routes.add("GET", f"{BASE}/<name>", permission=Permission.FILESETS_READ, returns=Fileset, raises=(NotFound,))
def get_fileset(call: RequestContext, workspace: str, name: str) -> Fileset:
    """Get a fileset"""
    workspace_row = readable_workspace(call.session, call.actor, workspace)
    return Fileset.from_row(filesets.find_fileset(call.session, workspace_row, name), workspace)


@routes.add(
    "PATCH", f"{BASE}/<name>", permission=Permission.FILESETS_WRITE, returns=Fileset, raises=(NotFound,)
)
def update_fileset(call: RequestContext, workspace: str, name: str, body: FilesetUpdate) -> Fileset:
    """Update a fileset

    A given key is replaced as a whole.
    """
    values: dict[str, Any] = {
        "description": body.description or "",
        "project": body.project or "",
        "purpose": body.purpose or "generic",
        "details": _stored(body.metadata),
        "custom_fields": body.custom_fields or {},
    }
    columns = {"details" if key == "metadata" else key for key in body.model_fields_set}
    changes = {column: values[column] for column in columns}
    fileset = filesets.update_fileset(call.session, call.actor, workspace, name, changes)
    return Fileset.from_row(fileset, workspace)


@routes.add(
    "DELETE",
    f"{BASE}/<name>",
    permission=Permission.FILESETS_WRITE,
    returns=Fileset,
    raises=(Conflict, Forbidden, NotFound, WrongState, Busy),
    transaction=False,
    waits_for_store=True,
)
def delete_fileset(call: RequestContext, workspace: str, name: str) -> Fileset:
    """Delete a fileset and all its files

    The answer is 409 while entities of the type `model` or `adapter` that you may read have it as `fileset` in their
    data (its name, `workspace/name`, or either behind `fileset://`), or a job that has not ended has it as its
    `output_location`. Else it is the fileset as it was. If the storage fails, or the files are too many for one
    request, it is 503 and the fileset stays; repeat the request to continue.
    """
    fileset = filesets.empty_and_delete_fileset(call.context, call.actor, workspace=workspace, name=name)
    return Fileset.from_row(fileset, workspace)


@routes.add(
    "POST",
    f"{BASE}/<name>/refresh",
    permission=Permission.FILESETS_WRITE,
    returns=Fileset,
    raises=(NotFound, WrongState),
)
def refresh_fileset(call: RequestContext, workspace: str, name: str) -> Fileset:
    """Fetch the newest revision of an external source

    No fileset has one: the platform stores all bytes. The answer is 409.
    """
    fileset = filesets.find_fileset(
        call.session, writable_workspace(call.session, call.actor, workspace), name
    )
    raise WrongState(f"Fileset '{workspace}/{fileset.name}' does not track a revision that can be refreshed")


def _stored(metadata: FilesetMetadata | None) -> dict[str, Any] | None:
    return metadata.model_dump(by_alias=True, exclude_unset=True) if metadata else None
