"""The results of a job over HTTP: what its steps have left, and what else was declared to be one."""

from dataclasses import replace
from itertools import chain
from typing import Annotated, Literal
from urllib.parse import quote

from flask import Response
from pydantic import BaseModel, Field

from app import clock
from app import models as rows
from app.access.permissions import Permission
from app.api.jobs.archive import tar_gz
from app.clock import Timestamp
from app.db import session_scope
from app.errors import BadRequest, Busy, NotFound, Unprocessable, WrongState
from app.http.field_types import Name
from app.http.route import Body, Query, RequestContext, Routes
from app.services import job_results
from app.services.filesets import find_fileset
from app.services.jobs import find_job
from app.services.workspaces import readable_workspace, writable_workspace
from app.storage.blob_store import BlobStore, StoredFile
from app.storage.paths import checked_path
from app.storage.reading import Reading

routes = Routes("jobs")
RESULTS = "/apis/jobs/v2/workspaces/<workspace>/jobs/<name>/results"

_MOST_RESULTS = 1000  # They are part of the job's row.


class ResultCreate(Body):
    """A file or directory of a fileset that is a result of the job."""

    artifact_url: Annotated[str, Field(max_length=2000)] = Field(
        description="`workspace/fileset#path`; a workspace in which the caller may read filesets."
    )
    artifact_storage_type: Literal["fileset"]


class ResultQuery(Query):
    """The order of results."""

    sort: Literal["created_at", "-created_at", "updated_at", "-updated_at", "source", "-source"] = Field(
        "created_at", description="Field to sort by; a leading `-` sorts descending."
    )


class Result(BaseModel):
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


class ResultList(BaseModel):
    """What a job has produced."""

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

    Takes the place of an earlier result of the same name.
    """
    home = writable_workspace(call.session, call.actor, workspace)
    _find_artifact(call, home, body.artifact_url)
    job = find_job(call.session, home, name, lock=True)
    if len(job.results) >= _MOST_RESULTS and all(each["name"] != result for each in job.results):
        raise WrongState(f"Job '{name}' has {_MOST_RESULTS} results, the most there can be.")
    job_results.note(job, {result: job_results.kept(body.artifact_url, home.name)})
    job.updated_at, job.updated_by = clock.now(), call.actor.id
    return _shown(job, workspace, result)


@routes.add("GET", RESULTS, permission=Permission.JOBS_READ, returns=ResultList, raises=(NotFound,))
def list_results(call: RequestContext, workspace: str, name: str, query: ResultQuery) -> ResultList:
    """List the results of a job.

    Its steps make one of each file and directory that they leave in the directory `$WORKSPACES_RESULTS_DIR`.
    """
    job = _readable(call, workspace, name)
    found = [_shown(job, workspace, result["name"]) for result in job.results]
    by_change = query.sort.endswith("updated_at")
    found.sort(
        key=lambda result: result.updated_at if by_change else result.created_at,
        reverse=query.sort.startswith("-"),
    )
    return ResultList(data=found)


@routes.add("GET", f"{RESULTS}/<result>", permission=Permission.JOBS_READ, returns=Result, raises=(NotFound,))
def get_result(call: RequestContext, workspace: str, name: str, result: str) -> Result:
    """Get a result of a job."""
    return _shown(_readable(call, workspace, name), workspace, result)


@routes.add(
    "GET",
    f"{RESULTS}/<result>/download",
    permission=Permission.JOBS_READ,
    raises=(NotFound, Unprocessable, Busy),
    transaction=False,
    media_type="application/octet-stream",
)
def download_result(call: RequestContext, workspace: str, name: str, result: str) -> Response:
    """Download a result of a job.

    A directory comes as a gzipped tar archive.
    """
    with session_scope(call.context.sessions) as session:
        present = RequestContext(call.context, call.actor, session)
        home = readable_workspace(session, call.actor, workspace)
        job = find_job(session, home, name)
        url = _shown(job, workspace, result).artifact_url
        # What its steps have left is the job's; of all else that somebody has named in it that is yet to be seen.
        is_its_own = url.startswith(f"{home.name}/{job.fileset}#{job_results.FOLDER}/")
        fileset, path = _find_artifact(present, home, url, is_read=not is_its_own)
    try:
        return _sent(call.context.store, fileset, path, result)
    except FileNotFoundError:
        raise NotFound(f"The artifact '{url}' of result '{result}' is not there any more.") from None
    except OSError as error:
        raise Busy(f"The storage failed ({type(error).__name__}); try again.") from error


def _sent(store: BlobStore, fileset: rows.Fileset, path: str, name: str) -> Response:
    def read(file: StoredFile) -> Reading:
        return store.read(fileset.workspace_id, fileset.id, file.path)

    files = store.files(fileset.workspace_id, fileset.id, path)
    if [file.path for file in files] == [path]:
        reading = read(files[0])
        reading.begin()
        response = Response(reading, mimetype="application/octet-stream")
        response.content_length = reading.size
    elif files:
        name = f"{name}.tar.gz"
        top = path.rpartition("/")[2] or fileset.name
        archive = tar_gz(files, read, within=path, named=top)
        # The first piece now, so that a store that fails does so before anything is answered.
        response = Response(chain([next(archive)], archive), mimetype="application/x-tar")
        response.call_on_close(archive.close)
    else:
        raise FileNotFoundError(path)
    # A header is ASCII; those who know no better get a `?` for each other sign.
    names = {"filename": name.encode("ascii", "replace").decode()}
    if not name.isascii():
        names["filename*"] = f"UTF-8''{quote(name, safe='')}"
    response.headers.set("Content-Disposition", "attachment", **names)
    # Whatever a job has made is never a page of ours.
    response.headers["X-Content-Type-Options"] = "nosniff"
    return response


def _find_artifact(
    call: RequestContext, home: rows.Workspace, url: str, *, is_read: bool = False
) -> tuple[rows.Fileset, str]:
    """The fileset of an artifact, and the path in it. Raises Unprocessable, Forbidden and NotFound.

    For an artifact of another workspace, or one that `is_read`, the caller has to be one who may read files there.
    """
    place, _, path = url.partition("#")
    workspace, slash, name = place.partition("/")
    if not (workspace and slash and name and path):
        raise Unprocessable(f"'{url}' is no artifact; write workspace/fileset#path.")
    try:
        checked_path(path)
    except BadRequest as error:
        raise Unprocessable(f"'{url}' is no artifact. {error.message}") from None
    if is_read or workspace != home.name:
        is_in_scope = call.actor.principal.has_scope_for("files", "read")
        reader = replace(call.actor, permission=Permission.FILESETS_READ, is_in_scope=is_in_scope)
        home = readable_workspace(call.session, reader, workspace)
    return find_fileset(call.session, home, name), path


def _readable(call: RequestContext, workspace: str, name: str) -> rows.Job:
    return find_job(call.session, readable_workspace(call.session, call.actor, workspace), name)


def _shown(job: rows.Job, workspace: str, name: str) -> Result:
    for result in job.results:
        if result["name"] == name:
            address = RESULTS.replace("<workspace>", workspace).replace("<name>", job.name)
            return Result(
                job=str(job.id),
                workspace=workspace,
                project=job.project,
                download_url=f"{address}/{quote(name, safe='')}/download",
                **{**result, "artifact_url": job_results.shown(result["artifact_url"], workspace)},
            )
    raise NotFound(f"Result '{name}' for job '{job.name}' not found in workspace '{workspace}'.")
