"""The files of a fileset over HTTP. Bytes are streamed in both directions."""

from collections.abc import Generator, Iterator
from itertools import islice
from typing import Self
from urllib.parse import quote

from flask import Response, request
from pydantic import BaseModel, Field

from app.access.permissions import Permission
from app.errors import (
    BadRequest,
    Busy,
    Conflict,
    Forbidden,
    NotFound,
    PreconditionFailed,
    RangeNotSatisfiable,
    StorageFull,
    TooLarge,
    TooSlow,
)
from app.http.route import Query, RequestContext, Routes
from app.http.transfers.conditions import Conditions
from app.http.transfers.downloads import file_response
from app.http.transfers.streaming import RevocableStream
from app.http.transfers.uploads import uploaded
from app.services import files
from app.services.workspaces import may_still_read
from app.storage.blob_store import StoredFile

routes = Routes("files")
BASE = "/apis/files/v2/workspaces/<workspace>/filesets/<name>"

_FILES_AT_ONCE = 500
"""Files in one chunk of a list: about 100 KB."""


class File(BaseModel):
    """A file of a fileset."""

    file_ref: str
    file_url: str
    path: str
    size: int
    cache_status: str | None = None

    @classmethod
    def from_stored(
        cls, file: StoredFile, workspace: str, fileset: str, cache_status: str | None = None
    ) -> Self:
        """The public form of a stored file."""
        return cls(
            file_ref=f"{workspace}/{fileset}#{file.path}",
            file_url=f"/apis/files/v2/workspaces/{workspace}/filesets/{fileset}/-/{quote(file.path)}",
            path=file.path,
            size=file.size,
            cache_status=cache_status,
        )


class FileList(BaseModel):
    """The files of a fileset."""

    data: list[File]


class FileQuery(Query):
    """The files to list."""

    path: str = Field("", description="A file, or a directory to list recursively.")
    include_cache_status: bool = Field(
        default=False, description="No effect: the status is included, and the platform caches no file."
    )


@routes.add(
    "GET",
    f"{BASE}/files",
    permission=Permission.FILESETS_READ,
    returns=FileList,
    raises=(BadRequest, NotFound, Busy),
    transaction=False,
    streams=True,
)
def list_files(call: RequestContext, workspace: str, name: str, query: FileQuery) -> Response:
    """List files

    All files of the fileset, or of a directory and its subdirectories.
    """
    path = query.path.rstrip("/")
    workspace_id, found = files.list_files(call.context, call.actor, workspace, name, path)
    documents = (
        File.from_stored(file, workspace, name, "not_cacheable").model_dump_json(by_alias=True)
        for file in found
    )
    text = _joined(documents)
    stream = RevocableStream(
        text, lambda: may_still_read(call.context, call.actor, workspace_id), close=text.close
    )
    return Response(stream, mimetype="application/json")


@routes.add(
    "PUT",
    f"{BASE}/-/<path:path>",
    permission=Permission.FILESETS_WRITE,
    returns=File,
    raises=(
        BadRequest,
        Forbidden,
        NotFound,
        TooSlow,
        Conflict,
        PreconditionFailed,
        TooLarge,
        StorageFull,
        Busy,
    ),
    transaction=False,
    upload=True,
)
def upload_file(call: RequestContext, workspace: str, name: str, path: str) -> File:
    """Upload a file

    The body is the content, of any type, or a form with the content in its field `file`.
    The file becomes visible when all of it has arrived, and replaces any file of the same path. With
    `If-None-Match: *` it replaces none, and with `If-Match: <ETag>` only that one: otherwise 412.

    A path is refused that would lead out of the fileset or of a client's directory, or mislead a reader: one with
    `.`, `..` or nothing between slashes, with control characters or marks for the direction of text, or on Windows with
    a backslash or a drive at its start or `..` beside a backslash.
    """
    if "Content-Range" in request.headers:
        raise BadRequest("A part of a file cannot be stored: send the whole file, without Content-Range.")
    settings, conditions = call.context.settings, Conditions.of_request()

    def receive() -> Iterator[bytes]:
        return uploaded(request, max_bytes=settings.max_upload_bytes, idle_s=settings.upload_idle_seconds)

    file = files.put_file(
        call.context,
        call.actor,
        workspace,
        name,
        path,
        receive=receive,
        at_most=request.content_length,
        require=conditions.require if conditions else None,
    )
    return File.from_stored(file, workspace, name)


@routes.add(
    "GET",
    f"{BASE}/-/<path:path>",
    permission=Permission.FILESETS_READ,
    raises=(BadRequest, NotFound, PreconditionFailed, RangeNotSatisfiable, Busy),
    transaction=False,
    media_type="application/octet-stream",
)
def download_file(call: RequestContext, workspace: str, name: str, path: str) -> Response:
    """Download a file

    `Range: bytes=a-b`, `a-` or `-n` requests one part: 206. `If-Range: <ETag>` limits that to an unchanged file.
    `If-None-Match: <ETag>` answers 304 for an unchanged file, `If-Match: <ETag>` 412 for a changed one. HEAD answers
    the headers of the whole file.
    """
    reading = files.open_file(call.context, call.actor, workspace, name, path)
    return file_response(
        reading,
        is_permitted=lambda: may_still_read(call.context, call.actor, reading.workspace_id),
        store_errors=files.store_errors(workspace, name, path),
    )


@routes.add(
    "DELETE",
    f"{BASE}/-/<path:path>",
    permission=Permission.FILESETS_WRITE,
    returns=File,
    raises=(BadRequest, Forbidden, NotFound, PreconditionFailed, Busy),
    transaction=False,
    waits_for_store=True,
)
def delete_file(call: RequestContext, workspace: str, name: str, path: str) -> File:
    """Delete a file

    The answer is the file as it was. With `If-Match: <ETag>` only that one is deleted: otherwise 412.
    """
    conditions = Conditions.of_request()
    file = files.delete_file(
        call.context, call.actor, workspace, name, path, require=conditions.require if conditions else None
    )
    return File.from_stored(file, workspace, name)


def _joined(documents: Iterator[str]) -> Generator[str]:
    """A FileList in chunks of text; one FileList object would take a hundred times the memory of its text."""
    yield '{"data":['
    separator = ""
    while batch := list(islice(documents, _FILES_AT_ONCE)):
        yield separator + ",".join(batch)
        separator = ","
    yield "]}\n"
