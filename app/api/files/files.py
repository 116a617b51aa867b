"""The files of a fileset over HTTP: bytes are streamed both ways, and never while a transaction is open."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain, islice
from urllib.parse import quote

from flask import Response, request
from pydantic import Field

from app import models as rows
from app.access.permissions import Permission
from app.db import session_scope
from app.errors import BadRequest, Busy, Conflict, Forbidden, NotFound, RangeNotSatisfiable, TooLarge, TooSlow
from app.http.field_types import Resource
from app.http.route import Query, RequestContext, Routes
from app.http.uploads import uploaded
from app.logs import get_logger
from app.services import filesets
from app.services.workspaces import readable_workspace
from app.storage.blob_store import StoredFile
from app.storage.paths import checked_path
from app.storage.reading import Reading

log = get_logger(__name__)

routes = Routes("files")
BASE = "/apis/files/v2/workspaces/<workspace>/filesets/<name>"

_FILES_AT_ONCE = 500
"""In one piece of a list: about 100 KB."""


class File(Resource):
    """A file of a fileset."""

    file_ref: str
    file_url: str
    path: str
    size: int
    cache_status: str | None = None


class FileList(Resource):
    """The files of a fileset."""

    data: list[File]


class FileQuery(Query):
    """Which files to list."""

    path: str = Field("", description="A file, or a directory whose files are listed with those below.")
    include_cache_status: bool = Field(
        default=False, description="Tell whether files are cached; none needs to be."
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

    All files of the fileset, or of a directory in it, however deep.
    """
    fileset = _readable(call, workspace, name)
    path = query.path.rstrip("/")
    found = call.context.store.each_file(fileset.workspace_id, fileset.id, checked_path(path) if path else "")
    with _store_failures(workspace, name, path):
        # The first now, so that a store that fails does so before anything is answered.
        found = chain(list(islice(found, 1)), found)
    status = "not_cacheable" if query.include_cache_status else None
    shown = (_show(workspace, name, file, status).model_dump_json(by_alias=True) for file in found)
    return Response(_pieces(shown), mimetype="application/json")


@routes.add(
    "PUT",
    f"{BASE}/-/<path:path>",
    permission=Permission.FILESETS_WRITE,
    returns=File,
    raises=(BadRequest, Forbidden, NotFound, TooSlow, Conflict, TooLarge, Busy),
    transaction=False,
    upload=True,
)
def upload_file(call: RequestContext, workspace: str, name: str, path: str) -> File:
    """Upload a file

    The body is the content, of any type; or a form with the content in its field `file`.
    It becomes visible when it has arrived whole, in the place of any file that had the path.
    """
    path, store = checked_path(path), call.context.store
    max_bytes = call.context.settings.max_upload_bytes
    with session_scope(call.context.sessions) as session:
        fileset = filesets.writable_fileset(session, call.actor, workspace, name)

    @contextmanager
    def still_there() -> Iterator[None]:
        """Hold the fileset, or say that it has gone: much can have happened while the bytes arrived."""
        with session_scope(call.context.sessions) as session:
            present = filesets.writable_fileset(session, call.actor, workspace, name)
            if present.id != fileset.id:
                raise NotFound(f"Fileset '{name}' was deleted while the file was uploaded")
            yield

    with _store_failures(workspace, name, path):
        chunks = uploaded(request, max_bytes=max_bytes, idle_s=call.context.settings.upload_idle_seconds)
        try:
            staged = store.stage(
                fileset.workspace_id, fileset.id, path, chunks, at_most=request.content_length
            )
            try:
                with still_there():
                    file = store.publish(staged)
            finally:
                store.discard(staged)
        except FileNotFoundError as error:
            with still_there():
                raise Busy("The upload was removed before it was complete; send it again.") from error
    return _show(workspace, name, file)


@routes.add(
    "GET",
    f"{BASE}/-/<path:path>",
    permission=Permission.FILESETS_READ,
    raises=(BadRequest, NotFound, RangeNotSatisfiable, Busy),
    transaction=False,
    media_type="application/octet-stream",
)
def download_file(call: RequestContext, workspace: str, name: str, path: str) -> Response:
    """Download a file

    With `Range: bytes=a-b`, `a-` or `-n` only that part, as a 206, and with `If-Range: <ETag>` only if the file is
    still the same. With `If-None-Match: <ETag>` the same file is not sent again, but a 304. HEAD answers the headers
    of the whole file.
    """
    fileset = _readable(call, workspace, name)
    with _store_failures(workspace, name, path):
        reading = call.context.store.read(fileset.workspace_id, fileset.id, checked_path(path))
    if reading.etag and request.if_none_match.contains_weak(reading.etag):
        reading.close()
        unchanged = Response(status=304)
        unchanged.set_etag(reading.etag)
        return unchanged
    try:
        span = _requested_span(reading)
    except RangeNotSatisfiable:
        reading.close()
        raise
    start, stop = span or (0, reading.size)
    reading.limit(start, stop)
    if request.method == "GET":
        with _store_failures(workspace, name, path):
            reading.begin()
    response = Response(reading, 206 if span else 200, mimetype="application/octet-stream")
    response.content_length = stop - start
    response.headers["Accept-Ranges"] = "bytes"
    if reading.etag:
        response.set_etag(reading.etag)
    # Whatever a user stored is never a page of ours.
    response.headers["X-Content-Type-Options"] = "nosniff"
    if span:
        response.headers["Content-Range"] = f"bytes {start}-{stop - 1}/{reading.size}"
    return response


@routes.add(
    "DELETE",
    f"{BASE}/-/<path:path>",
    permission=Permission.FILESETS_WRITE,
    returns=File,
    raises=(BadRequest, Forbidden, NotFound, Busy),
    transaction=False,
)
def delete_file(call: RequestContext, workspace: str, name: str, path: str) -> File:
    """Delete a file

    Answers the file as it was.
    """
    with session_scope(call.context.sessions) as session:
        fileset = filesets.writable_fileset(session, call.actor, workspace, name)
    # Nothing is held any more: by its id it is the right one, and one file less is no harm to a deletion.
    with _store_failures(workspace, name, path):
        file = call.context.store.remove(fileset.workspace_id, fileset.id, checked_path(path))
    return _show(workspace, name, file)


def _readable(call: RequestContext, workspace: str, name: str) -> rows.Fileset:
    with session_scope(call.context.sessions) as session:
        return filesets.find_fileset(session, readable_workspace(session, call.actor, workspace), name)


def _pieces(shown: Iterator[str]) -> Iterator[str]:
    """A FileList as it is written, piece by piece: as one it would take a hundred times the memory of its files."""
    yield '{"data":['
    separator = ""
    while some := list(islice(shown, _FILES_AT_ONCE)):
        yield separator + ",".join(some)
        separator = ","
    yield "]}\n"


def _show(workspace: str, name: str, file: StoredFile, cache_status: str | None = None) -> File:
    return File(
        file_ref=f"{workspace}/{name}#{file.path}",
        file_url=f"/apis/files/v2/workspaces/{workspace}/filesets/{name}/-/{quote(file.path)}",
        path=file.path,
        size=file.size,
        cache_status=cache_status,
    )


def _requested_span(reading: Reading) -> tuple[int, int] | None:
    """First byte and the one after the last that the Range header asks for; None for the whole file."""
    header, size = request.headers.get("Range"), reading.size
    if header is None or request.method != "GET":
        return None
    # Of another file than the one that the client has a part of, the whole is the right answer.
    if "If-Range" in request.headers and not (reading.etag and request.if_range.etag == reading.etag):
        return None
    wanted = request.range
    if (
        wanted
        and wanted.units == "bytes"
        and len(wanted.ranges) == 1
        and -size > (wanted.ranges[0][0])
        and size
    ):
        return 0, size  # the last n bytes of a file that has fewer are all of it
    span = wanted.range_for_length(size) if wanted else None
    if span is None or span[0] is None or span[1] is None:
        raise RangeNotSatisfiable(
            f"Invalid range: {header}. The file has {size} bytes; ask for one part of them.",
            size=size,
            etag=reading.etag,
        )
    return span[0], span[1]


@contextmanager
def _store_failures(workspace: str, name: str, path: str) -> Iterator[None]:
    """Answer what the store raises in the terms of the API: no path of the server is anyone's business."""
    try:
        yield
    except FileNotFoundError:
        raise NotFound(f"File '{path}' not found in fileset '{workspace}/{name}'") from None
    except (IsADirectoryError, NotADirectoryError):
        raise Conflict(
            f"'{path}' cannot be stored in fileset '{workspace}/{name}': a file and a directory cannot share "
            "a path. Delete the one that is there, or choose another path."
        ) from None
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise BadRequest("The path is too long for this storage; choose a shorter one.") from None
        if error.errno == errno.EFBIG:
            raise TooLarge(
                "The file is too large for this storage: without a Content-Length it may have 77 GiB, with it 618."
            ) from None
        log.warning("store.failed", fileset=f"{workspace}/{name}", exc_info=error)
        raise Busy(f"The storage failed ({type(error).__name__}); try again.") from error
