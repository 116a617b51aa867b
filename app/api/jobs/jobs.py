"""Jobs of a workspace over HTTP."""

from typing import Annotated, Any, ClassVar
from uuid import UUID

from flask import Response
from pydantic import Field, RootModel

from app import models as rows
from app.access.permissions import Permission
from app.api.jobs.spec import OutputLocation, PlatformSpec, Profile, profiles
from app.clock import Timestamp
from app.dispatch import job_message, notify_after_commit
from app.errors import (
    BadRequest,
    Busy,
    NameTaken,
    NotFound,
    SecretsMissing,
    TooLarge,
    Unprocessable,
    WrongState,
)
from app.filters.ast import EQUALITY, RANGES
from app.filters.fields import Fields
from app.health.capacity import with_reason
from app.http.field_types import Description, Name, Resource, ShortText
from app.http.paging import ListQuery, Page, list_page
from app.http.route import Body, RequestContext, Routes
from app.http.transfers.row_stream import resources
from app.lifecycle import JOB_TERMINAL, JobMove, JobStatus
from app.services import job_removal, jobs
from app.services.listing import rows_in

routes = Routes("jobs")
BASE = "/apis/jobs/v2/workspaces/<workspace>/jobs"
ONE = f"{BASE}/<name>"

FIELDS = Fields(
    key=rows.Job.id,
    columns={
        "workspace": rows.Workspace.name,
        "project": rows.Job.project,
        "name": rows.Job.name,
        "created_at": rows.Job.created_at,
        "updated_at": rows.Job.updated_at,
        "status": rows.Job.status,
        "source": rows.Job.source,
    },
    indexed={"name": RANGES, "created_at": RANGES, "project": EQUALITY},
)


class JobCreate(Body):
    """A job to create."""

    may_be_repeated: ClassVar[bool] = False  # variables have values, and `secrets` are sent by mistake

    name: Name | None = Field(None, description="Made from `source` by default.")
    description: Description | None = None
    project: ShortText | None = None
    source: ShortText
    spec: dict[str, Any]
    platform_spec: PlatformSpec
    ownership: dict[str, Any] | None = None
    custom_fields: dict[str, Any] | None = None
    output_location: OutputLocation | None = Field(
        None,
        description="Name of a fileset of the workspace for the results, which go to its folder `jobs/<job>`.",
    )


class StatusDetailsUpdate(RootModel[dict[str, Any]]):
    """Keys to merge into the status details."""


class ProfileList(RootModel[list[Profile]]):
    """All execution profiles."""


class JobQuery(ListQuery):
    """A page of jobs."""

    page_size: int = Field(10, ge=1, le=1000, description="Items per page.")


class Job(Resource):
    """A job."""

    id: UUID
    attempt_id: UUID
    name: str
    workspace: str
    project: str | None
    description: str | None
    source: str
    spec: dict[str, Any]
    platform_spec: dict[str, Any]
    fileset: str
    status: JobStatus
    status_details: dict[str, Any]
    error_details: dict[str, Any] | None
    created_at: Timestamp
    updated_at: Timestamp
    ownership: dict[str, Any] | None
    custom_fields: dict[str, Any] | None
    output_location: str | None


_OMITTED_IF_NULL = Field(exclude_if=lambda value: value is None)


class JobListItem(Job):
    """A job in a list; fields that are null are omitted."""

    project: Annotated[str | None, _OMITTED_IF_NULL]
    description: Annotated[str | None, _OMITTED_IF_NULL]
    error_details: Annotated[dict[str, Any] | None, _OMITTED_IF_NULL]
    ownership: Annotated[dict[str, Any] | None, _OMITTED_IF_NULL]
    custom_fields: Annotated[dict[str, Any] | None, _OMITTED_IF_NULL]
    output_location: Annotated[str | None, _OMITTED_IF_NULL]


ITEMS = resources(JobListItem, rows.Job, workspace=rows.Workspace.name)


@routes.add(
    "POST",
    BASE,
    permission=Permission.JOBS_WRITE,
    status=201,
    returns=Job,
    raises=(NotFound, NameTaken, SecretsMissing, Unprocessable),
)
def create_job(call: RequestContext, workspace: str, body: JobCreate) -> Job:
    """Create a job.

    Its steps run one after another on a host of the runtime. The fileset `job-fileset-<job>` receives its results; it
    is created and deleted with the job. With an `output_location` the results go there, and stay when the job goes.
    A variable with `from_secret` gets the value that the secret has when its step starts; who creates or reruns the
    job must be an Editor in the workspace of the secret.
    """
    body.platform_spec.check_references(call.context.settings)
    job = jobs.create_job(
        call.session,
        call.actor,
        workspace,
        name=body.name,
        source=body.source,
        project=body.project,
        description=body.description,
        spec=body.spec,
        platform_spec=body.platform_spec.model_dump(mode="json", exclude_none=True),
        ownership=body.ownership,
        custom_fields=body.custom_fields,
        output_location=body.output_location,
    )
    _notify(call, job)
    return Job.from_row(job, workspace)


@routes.add(
    "GET", BASE, permission=Permission.JOBS_READ, returns=Page[JobListItem], raises=(BadRequest, NotFound)
)
def list_jobs(call: RequestContext, workspace: str, query: JobQuery) -> Response:
    """List jobs.

    Workspace `-` means all workspaces.
    """
    found = rows_in(call.session, call.actor, workspace, rows.Job)
    return list_page(call, query, found, FIELDS, items=ITEMS)


@routes.add("GET", ONE, permission=Permission.JOBS_READ, returns=Job, raises=(NotFound,))
def get_job(call: RequestContext, workspace: str, name: str) -> Job:
    """Get a job.

    While it waits for a host, `waiting_for` in its status details says what keeps it.
    """
    job = jobs.readable_job(call.session, call.actor, workspace, name)
    details = with_reason(call.session, call.context.settings, job)
    return Job.from_row(job, workspace, status_details=details)


@routes.add("POST", f"{ONE}/cancel", permission=Permission.JOBS_WRITE, returns=Job, raises=(NotFound,))
def cancel_job(call: RequestContext, workspace: str, name: str) -> Job:
    """Cancel a job.

    A job with no running process is `cancelled` immediately; otherwise it stays `cancelling` until all its processes
    have exited. A job that has ended does not change.
    """
    return _move(call, workspace, name, JobMove.CANCEL)


@routes.add("POST", f"{ONE}/pause", permission=Permission.JOBS_WRITE, returns=Job, raises=(NotFound,))
def pause_job(call: RequestContext, workspace: str, name: str) -> Job:
    """Pause a job that waits or runs. Any other job does not change."""
    return _move(call, workspace, name, JobMove.PAUSE)


@routes.add("POST", f"{ONE}/resume", permission=Permission.JOBS_WRITE, returns=Job, raises=(NotFound,))
def resume_job(call: RequestContext, workspace: str, name: str) -> Job:
    """Resume a paused job. Any other job does not change."""
    return _move(call, workspace, name, JobMove.RESUME)


@routes.add(
    "POST",
    f"{ONE}/rerun",
    permission=Permission.JOBS_WRITE,
    returns=Job,
    raises=(NotFound, WrongState, SecretsMissing),
)
def rerun_job(call: RequestContext, workspace: str, name: str) -> Job:
    """Run a job again.

    A new attempt of an ended job begins with its first step. The logs of earlier attempts stay readable, and a result
    stays until another one of its name replaces it.
    """
    job = jobs.rerun(call.session, call.actor, workspace, name)
    _notify(call, job)
    return Job.from_row(job, workspace)


@routes.add(
    "DELETE",
    ONE,
    permission=Permission.JOBS_WRITE,
    status=204,
    raises=(NotFound, Busy),
    transaction=False,
    waits_for_store=True,
)
def delete_job(call: RequestContext, workspace: str, name: str) -> None:
    """Delete a job with its fileset, or from the `output_location` in which its results stay.

    A job that has not ended is cancelled first and deleted when the runtime has seen it end; until then it is
    `cancelling` and keeps its name. A job with very many files is deleted after the last of them.
    """
    job_removal.delete_job(call.context, call.actor, workspace, name)


@routes.add("PATCH", f"{ONE}/status-details", permission=Permission.JOBS_REPORT, raises=(NotFound, TooLarge))
def update_status_details(call: RequestContext, workspace: str, name: str, body: StatusDetailsUpdate) -> None:
    """Merge keys into the status details of a job.

    All of them together can have as many bytes as one body.
    """
    job = jobs.writable_job(call.session, call.actor, workspace, name)
    job.status_details = {**job.status_details, **body.root}
    jobs.note_report(call.session, call.actor, job, max_bytes=call.context.settings.max_body_bytes)


@routes.add(
    "GET", "/apis/jobs/v2/execution-profiles", permission=Permission.PROFILES_READ, returns=ProfileList
)
def list_execution_profiles(call: RequestContext) -> ProfileList:
    """List the execution profiles that the steps of a job can name."""
    return ProfileList(profiles(call.context.settings))


def _move(call: RequestContext, workspace: str, name: str, asked: JobMove) -> Job:
    job = jobs.request_move(call.session, call.actor, workspace, name, asked)
    if job.status not in JOB_TERMINAL:
        _notify(call, job)
    return Job.from_row(job, workspace)


def _notify(call: RequestContext, job: rows.Job) -> None:
    message = job_message(job.id, job.workspace_id, job.name, job.host)
    notify_after_commit(call.session, call.context.publisher, message)
