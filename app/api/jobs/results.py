"""The results of a job over HTTP: the files that its steps have left, and declared artifacts."""

from typing import Annotated, Literal, Self
from urllib.parse import quote

from flask import Response
from pydantic import BaseModel, Field

from app import models as rows
from app.access.permissions import Permission
from app.clock import Timestamp
from app.errors import (
    BadRequest,
    Busy,
    NotFound,
    PreconditionFailed,
    RangeNotSatisfiable,
    Unprocessable,
    WrongState,
)
from app.http.field_types import Name, Resource
from app.http.route import Body, Query, RequestContext, Routes
from app.http.transfers.downloads import file_response
from app.http.transfers.streaming import RevocableStream
from app.services import job_results
from app.services.jobs import readable_job
from app.services.workspaces import may_still_read
from app.storage.reading import Reading

routes = Routes("jobs")
RESULTS = "/apis/jobs/v2/workspaces/<workspace>/jobs/<name>/results"


class ResultCreate(Body):
    """An artifact, a file or directory of a fileset, to declare as a result."""

    artifact_url: Annotated[str, Field(max_length=2000)] = Field(
        description="`workspace/fileset#path`, in a workspace whose filesets the caller may read."
    )
    artifact_storage_type: Literal["fileset"]


class ResultQuery(Query):
    """The order of results."""

    sort: Literal["created_at", "-created_at", "updated_at", "-updated_at", "source", "-source"] = Field(
        "created_at", description="Field to sort by; a leading `-` sorts descending."
    )


class Result(Resource):
    """A result of a job."""

    name: str
    job: str
    workspace: str
    project: str | None
    artifact_url: str
    artifact_storage_type: str
    download_url: str
    created_at: Timestamp
    updated_at: Timestamp

    @classmethod
    def from_job(cls, job: rows.Job, workspace: str, name: str) -> Self:
        """The result of that name. Raises NotFound."""
        address = RESULTS.replace("<workspace>", workspace).replace("<name>", job.name)
        return cls.from_row(
            job,
            workspace,
            job=str(job.id),
            download_url=f"{address}/{quote(name, safe='')}/download",
            **job_results.find_result(job, name, workspace),
        )


class ResultList(BaseModel):
    """The results of a job."""

    data: list[Result]


@routes.add(
    "POST",
    f"{RESULTS}/<result>",
    permission=Permission.JOBS_REPORT,
    status=201,
    returns=Result,
    raises=(NotFound, WrongState, Unprocessable),
)
def declare_result(
    call: RequestContext, workspace: str, name: str, result: Name, body: ResultCreate
) -> Result:
    """Declare a result of a job.

    It replaces an earlier result of the same name.
    """
    job = job_results.declare(call.session, call.actor, workspace, name, result, url=body.artifact_url)
    return Result.from_job(job, workspace, result)


@routes.add("GET", RESULTS, permission=Permission.JOBS_READ, returns=ResultList, raises=(NotFound,))
def list_results(call: RequestContext, workspace: str, name: str, query: ResultQuery) -> ResultList:
    """List the results of a job.

    Each file and directory that a step leaves in `$WORKSPACES_RESULTS_DIR` is a result.
    """
    job = readable_job(call.session, call.actor, workspace, name)
    found = [Result.from_job(job, workspace, result["name"]) for result in job.results]
    by_change = query.sort.endswith("updated_at")
    found.sort(
        key=lambda result: result.updated_at if by_change else result.created_at,
        reverse=query.sort.startswith("-"),
    )
    return ResultList(data=found)


@routes.add("GET", f"{RESULTS}/<result>", permission=Permission.JOBS_READ, returns=Result, raises=(NotFound,))
def get_result(call: RequestContext, workspace: str, name: str, result: str) -> Result:
    """Get a result of a job."""
    return Result.from_job(readable_job(call.session, call.actor, workspace, name), workspace, result)


@routes.add(
    "GET",
    f"{RESULTS}/<result>/download",
    permission=Permission.JOBS_READ,
    raises=(BadRequest, NotFound, PreconditionFailed, RangeNotSatisfiable, Unprocessable, Busy),
    transaction=False,
    media_type="application/octet-stream",
)
def download_result(call: RequestContext, workspace: str, name: str, result: str) -> Response:
    """Download a result of a job.

    A file is sent as a download of it from its fileset is, with its ETag and in parts. A directory is sent as a gzipped
    tar archive.
    """
    download = job_results.open_download(call.context, call.actor, workspace, name, result)

    def is_permitted() -> bool:
        return may_still_read(call.context, call.actor, download.workspace_id)

    if isinstance(download.content, Reading):
        errors = job_results.artifact_errors(download.artifact, result)
        response = file_response(download.content, is_permitted=is_permitted, store_errors=errors)
    else:
        stream = RevocableStream(download.content, is_permitted, close=download.close)
        response = Response(stream, mimetype="application/x-tar")
    # A header is ASCII; `filename` has a `?` for every other character, `filename*` has them all.
    names = {"filename": download.name.encode("ascii", "replace").decode()}
    if not download.name.isascii():
        names["filename*"] = f"UTF-8''{quote(download.name, safe='')}"
    response.headers.set("Content-Disposition", "attachment", **names)
    # A browser must never take the output of a job for one of our pages.
    response.headers["X-Content-Type-Options"] = "nosniff"
    return response
