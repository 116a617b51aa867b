"""The log of a fileset over HTTP: lines in the OpenTelemetry protocol, and pages of them."""

import zlib
from typing import Annotated

from flask import request
from pydantic import BaseModel, Field

from app.access.permissions import Permission
from app.api.log_pages import MOST_LINES, LogPage, require_one_window
from app.errors import BadRequest, Busy, Forbidden, NotFound, TooLarge, TooSlow
from app.http.field_types import Description, ShortText
from app.http.route import Body, Query, RequestContext, Routes
from app.http.validation import raw_body
from app.services.logs.pages import InvalidCursor, page_of
from app.services.reports import log_lines
from app.services.reports.otlp import read_lines

routes = Routes("files")
LOGS = "/apis/files/v2/workspaces/<workspace>/filesets/<name>/otlp/v1/logs"

_MOST_REASONS = 5
_DEFAULT_LINES = 100


class LogFolderQuery(Query):
    """Where lines belong."""

    artifact_base_path: str = Field("", description="A folder of the fileset, such as `jobs/<job>`.")


class PartialSuccess(BaseModel):
    """Records that were not stored, and why."""

    rejected: int = Field(serialization_alias="rejectedLogRecords")
    message: str = Field(serialization_alias="errorMessage")


class StoredLogs(BaseModel):
    """The answer to a request to store logs: null if all records were stored."""

    partial_success: PartialSuccess | None = Field(None, serialization_alias="partialSuccess")


Count = Annotated[int, Field(gt=0, le=MOST_LINES)]


class LogQueryRequest(Body):
    """A page of the log of a fileset, and its filters. A null is as if not there."""

    filters: dict[str, str] | None = Field(
        None,
        description=f"Values that lines must have: of {', '.join(f'`{key}`' for key in log_lines.FILTERS)}.",
    )
    limit: Count | None = Field(
        None,
        description=f"Lines per page, {_DEFAULT_LINES} by default. A page ends earlier at 1 MiB of text.",
    )
    page_cursor: ShortText | None = Field(None, description="`next_page` or `prev_page` of another page.")
    tail: Count | None = Field(None, description="Instead of a page, so many of the newest lines.")
    artifact_base_path: Description | None = Field(
        None, description="The folder of the fileset whose log it is; its root by default."
    )


@routes.add(
    "POST",
    LOGS,
    permission=Permission.FILESETS_WRITE,
    returns=StoredLogs,
    raises=(BadRequest, Forbidden, NotFound, TooSlow, TooLarge, Busy),
    receives=("application/json", "application/x-protobuf"),
    transaction=False,
)
def store_logs(call: RequestContext, workspace: str, name: str, query: LogFolderQuery) -> StoredLogs:
    """Store log records

    An `ExportLogsServiceRequest` of the OpenTelemetry protocol, as JSON or as protobuf, plain or gzipped. The
    attributes `job`, `job_attempt`, `job_step` and `job_task` of each resource say what has printed its records. A
    record without them, with a text of more than 64 KiB, or beyond the first 10,000 is not stored; `partialSuccess`
    says how many, and why. In the fileset or the folder of a job, the lines of that job are in its log as well; a
    fileset that goes with a job takes no others at its root. The log goes with the fileset.
    """
    is_protobuf = "protobuf" in request.mimetype
    lines = list(read_lines(_body(call.context.settings.max_body_bytes), is_protobuf=is_protobuf))
    rejected = call.transact(
        lambda session: log_lines.append(
            session, call.actor, workspace, name, lines, base_path=query.artifact_base_path
        )
    )
    if not rejected:
        return StoredLogs()
    reasons = list(dict.fromkeys(rejected))[:_MOST_REASONS]
    message = f"{len(rejected)} of {len(lines)} log records were not stored: {'; '.join(reasons)}."
    return StoredLogs(partial_success=PartialSuccess(rejected=len(rejected), message=message))


@routes.add(
    "POST",
    f"{LOGS}/query",
    permission=Permission.FILESETS_READ,
    returns=LogPage,
    raises=(BadRequest, NotFound),
    reads=True,
)
def query_logs(call: RequestContext, workspace: str, name: str, body: LogQueryRequest) -> LogPage:
    """Read the log of a fileset

    Its lines, those of one folder, in the order in which they were stored. The root of a fileset that goes with a job
    has the log of that job, of its current attempt unless `job_attempt` names another.
    """
    require_one_window(tail=body.tail, is_limited=body.limit is not None, cursor=body.page_cursor)
    lines, job = log_lines.matching_lines(
        call.session,
        call.actor,
        workspace,
        name,
        filters=body.filters or {},
        base_path=body.artifact_base_path or "",
    )
    limit = body.limit or _DEFAULT_LINES
    try:
        page = page_of(call.session, lines, limit=limit, cursor=body.page_cursor, tail=body.tail)
    except InvalidCursor:
        raise BadRequest(
            "Invalid page cursor: pass the next_page or prev_page of another page as it is."
        ) from None
    return LogPage.of(page, job=job)


def _body(max_bytes: int) -> bytes:
    """The body, unpacked. Raises TooLarge, also for a packed one that is larger than it seems, and BadRequest."""
    raw = raw_body(max_bytes)
    encoding = request.headers.get("Content-Encoding", "identity").lower()
    if encoding == "identity":
        return raw
    if encoding != "gzip":
        raise BadRequest(
            f"Content-Encoding '{encoding[:50]}' is not understood; send the body plain or gzipped."
        )
    unpacking = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
    try:
        unpacked = unpacking.decompress(raw, max_bytes + 1)
    except zlib.error:
        raise BadRequest("The body is not gzipped, as its Content-Encoding says.") from None
    if len(unpacked) > max_bytes:
        raise TooLarge(f"The unpacked body is larger than {max_bytes} bytes, the most that is accepted.")
    if not unpacking.eof:
        raise BadRequest("The gzipped body broke off.")
    if unpacking.unused_data:
        raise BadRequest("The gzipped body goes on behind its end; send it as one member.")
    return unpacked
