"""Jobs of a workspace over HTTP."""

from typing import Annotated, Any
from uuid import UUID

from pydantic import Field, RootModel

from app import clock
from app import models as rows
from app.access.permissions import Permission
from app.api.jobs.spec import PlatformSpec, Profile, profiles
from app.clock import Timestamp
from app.db import session_scope
from app.dispatch import job_message, notify_after_commit
from app.errors import BadRequest, NameTaken, NotFound, WrongState
from app.filters.fields import Fields
from app.http.field_types import Description, Name, Resource, ShortText
from app.http.paging import ListQuery, Page, list_page
from app.http.route import Body, RequestContext, Routes
from app.lifecycle import JOB_TERMINAL, JobMove, JobStatus
from app.logs import get_logger
from app.services import jobs
from app.services.job_removal import remove_ended
from app.services.listing import rows_in
from app.services.workspaces import readable_workspace, writable_workspace
from app.storage.purge import BytesRemain

log = get_logger(__name__)

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
)


class JobCreate(Body):
    """What to run."""

    name: Name | None = Field(None, description="Made from `source` when it is left out.")
    description: Description | None = None
    project: ShortText | None = None
    source: ShortText
    spec: dict[str, Any]
    platform_spec: PlatformSpec
    ownership: dict[str, Any] | None = None
    custom_fields: dict[str, Any] | None = None


class StatusDetailsUpdate(RootModel[dict[str, Any]]):
    """Any keys; they are merged into those that are there."""


class ProfileList(RootModel[list[Profile]]):
    """Every execution profile."""


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


_LEFT_OUT_IF_NULL = Field(exclude_if=lambda value: value is None)


class JobListItem(Job):
    """A job in a list, where fields that are null are left out."""

    project: Annotated[str | None, _LEFT_OUT_IF_NULL]
    description: Annotated[str | None, _LEFT_OUT_IF_NULL]
    error_details: Annotated[dict[str, Any] | None, _LEFT_OUT_IF_NULL]
    ownership: Annotated[dict[str, Any] | None, _LEFT_OUT_IF_NULL]
    custom_fields: Annotated[dict[str, Any] | None, _LEFT_OUT_IF_NULL]


@routes.add(
    "POST",
    BASE,
    permission=Permission.JOBS_WRITE,
    status=201,
    returns=Job,
    raises=(NotFound, NameTaken),
)
def create_job(call: RequestContext, workspace: str, body: JobCreate) -> Job:
    """Create a job.

    Its steps run one after another on a host of the runtime. A fileset `job-fileset-<job>` is created with it and
    goes with it; it gets the results.
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
    )
    _notify(call, job)
    return _shown(job, workspace)


@routes.add(
    "GET", BASE, permission=Permission.JOBS_READ, returns=Page[JobListItem], raises=(BadRequest, NotFound)
)
def list_jobs(call: RequestContext, workspace: str, query: JobQuery) -> Page[JobListItem]:
    """List jobs.

    Workspace `-` means all workspaces.
    """
    statement = rows_in(call.session, call.actor, workspace, rows.Job)
    return list_page(
        call, query, statement, FIELDS, item=lambda job, home: JobListItem.model_validate(_facts(job, home))
    )


@routes.add("GET", ONE, permission=Permission.JOBS_READ, returns=Job, raises=(NotFound,))
def get_job(call: RequestContext, workspace: str, name: str) -> Job:
    """Get a job."""
    home = readable_workspace(call.session, call.actor, workspace)
    return _shown(jobs.find_job(call.session, home, name), workspace)


@routes.add("POST", f"{ONE}/cancel", permission=Permission.JOBS_WRITE, returns=Job, raises=(NotFound,))
def cancel_job(call: RequestContext, workspace: str, name: str) -> Job:
    """Cancel a job.

    One of which nothing runs is `cancelled` at once; otherwise it is `cancelling` until the runtime has seen all
    of its processes end. A job that has ended stays as it is.
    """
    return _move(call, workspace, name, JobMove.CANCEL)


@routes.add("POST", f"{ONE}/pause", permission=Permission.JOBS_WRITE, returns=Job, raises=(NotFound,))
def pause_job(call: RequestContext, workspace: str, name: str) -> Job:
    """Pause a job that waits or runs; any other stays as it is."""
    return _move(call, workspace, name, JobMove.PAUSE)


@routes.add("POST", f"{ONE}/resume", permission=Permission.JOBS_WRITE, returns=Job, raises=(NotFound,))
def resume_job(call: RequestContext, workspace: str, name: str) -> Job:
    """Resume a paused job; any other stays as it is."""
    return _move(call, workspace, name, JobMove.RESUME)


@routes.add(
    "POST",
    f"{ONE}/rerun",
    permission=Permission.JOBS_WRITE,
    returns=Job,
    raises=(NotFound, WrongState),
)
def rerun_job(call: RequestContext, workspace: str, name: str) -> Job:
    """Run a job again.

    A new attempt of a job that has ended, from its first step. The log of earlier attempts can still be read, and
    results stay until others take their names.
    """
    job = jobs.rerun(call.session, call.actor, workspace, name)
    _notify(call, job)
    return _shown(job, workspace)


@routes.add(
    "DELETE", ONE, permission=Permission.JOBS_WRITE, status=204, raises=(NotFound,), transaction=False
)
def delete_job(call: RequestContext, workspace: str, name: str) -> None:
    """Delete a job with its fileset.

    A job that has not ended is cancelled first, and goes when the runtime has seen it end; meanwhile it is
    `cancelling` and keeps its name. One with very many files goes when the last of them has gone.
    """
    with session_scope(call.context.sessions) as session:
        job = jobs.request_deletion(session, call.actor, workspace, name)
    message = job_message(job.id, job.workspace_id, job.name, job.host)
    if not jobs.has_ended(job):
        call.context.publisher.publish(message)
        return
    try:
        if not remove_ended(call.context, job.id):
            call.context.publisher.publish(message)
    except (OSError, BytesRemain) as error:
        # The deletion is on record; the runtime tries again until the store answers.
        log.warning("job.removal_postponed", job_id=job.id, error=str(error))
        call.context.publisher.publish(message)


@routes.add("PATCH", f"{ONE}/status-details", permission=Permission.JOBS_REPORT, raises=(NotFound,))
def update_status_details(call: RequestContext, workspace: str, name: str, body: StatusDetailsUpdate) -> None:
    """Merge keys into the status details of a job."""
    home = writable_workspace(call.session, call.actor, workspace)
    job = jobs.find_job(call.session, home, name, lock=True)
    job.status_details = {**job.status_details, **body.root}
    job.updated_at, job.updated_by = clock.now(), call.actor.id


@routes.add(
    "GET", "/apis/jobs/v2/execution-profiles", permission=Permission.PROFILES_READ, returns=ProfileList
)
def list_execution_profiles(call: RequestContext) -> ProfileList:
    """List what the steps of a job may name as their executor."""
    return ProfileList(profiles(call.context.settings))


def _move(call: RequestContext, workspace: str, name: str, asked: JobMove) -> Job:
    job = jobs.request_move(call.session, call.actor, workspace, name, asked)
    if job.status not in JOB_TERMINAL:
        _notify(call, job)
    return _shown(job, workspace)


def _notify(call: RequestContext, job: rows.Job) -> None:
    message = job_message(job.id, job.workspace_id, job.name, job.host)
    notify_after_commit(call.session, call.context.publisher, message)


def _shown(job: rows.Job, workspace: str) -> Job:
    return Job.model_validate(_facts(job, workspace))


def _facts(job: rows.Job, workspace: str) -> dict[str, Any]:
    columns = Job.model_fields.keys() - {"workspace"}
    return {"workspace": workspace, **{column: getattr(job, column) for column in columns}}
