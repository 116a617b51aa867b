"""How far a job is, over HTTP: its status and its steps."""

from typing import Any
from uuid import UUID

from pydantic import BaseModel, Field
from sqlalchemy import true

from app import models as rows
from app.access.permissions import Permission
from app.clock import Timestamp, now
from app.errors import BadRequest, NotFound, WrongState
from app.filters.fields import Fields
from app.http.paging import ListQuery, Page, list_page
from app.http.route import Body, RequestContext, Routes
from app.lifecycle import JobStatus
from app.services import job_steps
from app.services.jobs import find_job
from app.services.listing import rows_in
from app.services.workspaces import readable_workspace, writable_workspace

routes = Routes("jobs")
ONE = "/apis/jobs/v2/workspaces/<workspace>/jobs/<name>"

STEP_FIELDS = Fields(
    key=rows.Job.id,
    columns={
        "job": rows.Job.name,
        "source": rows.Job.source,
        "status": rows.Job.status,
        "created_at": rows.Job.created_at,
        "updated_at": rows.Job.updated_at,
    },
)
"""In a list, what is asked of a step is asked of its job."""


class TaskStatus(BaseModel):
    """How far a task of a step is."""

    id: UUID
    name: str
    status: JobStatus
    status_details: dict[str, Any]
    error_details: dict[str, Any]
    error_stack: str | None
    created_at: Timestamp
    updated_at: Timestamp


class StepStatus(BaseModel):
    """How far a step is."""

    id: UUID
    name: str
    status: JobStatus
    status_details: dict[str, Any]
    error_details: dict[str, Any]
    tasks: list[TaskStatus]
    created_at: Timestamp
    updated_at: Timestamp


class Progress(BaseModel):
    """How far a job is."""

    id: UUID
    name: str
    status: JobStatus
    status_details: dict[str, Any]
    error_details: dict[str, Any]
    created_at: Timestamp
    updated_at: Timestamp
    steps: list[StepStatus]


class Step(BaseModel):
    """A step whose turn has come, with what it needs to know of its job."""

    id: UUID
    entity_id: UUID
    job: str
    attempt_id: UUID
    parent: UUID
    fileset: str
    workspace: str
    project: str | None
    name: str
    config: dict[str, Any]
    step_spec: dict[str, Any]
    status: JobStatus
    status_details: dict[str, Any]
    error_details: dict[str, Any] | None
    auth_context: dict[str, Any] | None
    created_at: Timestamp
    updated_at: Timestamp


class StepStatusUpdate(Body):
    """How far a step is; what is left out stays as it is."""

    status: JobStatus
    status_details: dict[str, Any] | None = None
    error_details: dict[str, Any] | None = None


class StepQuery(ListQuery):
    """A page of steps."""

    page_size: int = Field(25, ge=1, le=1000, description="Items per page.")
    sort: str = Field("created_at", description="Field to sort by; a leading `-` sorts descending.")


@routes.add("GET", f"{ONE}/status", permission=Permission.JOBS_READ, returns=Progress, raises=(NotFound,))
def get_status(call: RequestContext, workspace: str, name: str) -> Progress:
    """Get the status of a job, and of its steps whose turn has come."""
    job = find_job(call.session, readable_workspace(call.session, call.actor, workspace), name)
    return Progress(
        id=job.id,
        name=job.name,
        status=job.status,
        status_details=job.status_details,
        error_details=job.error_details or {},
        created_at=job.created_at,
        updated_at=job.updated_at,
        steps=[_status(step) for step in job_steps.first_steps(job)],
    )


@routes.add(
    "GET", f"{ONE}/steps", permission=Permission.JOBS_READ, returns=Page[Step], raises=(BadRequest, NotFound)
)
def list_steps(call: RequestContext, workspace: str, name: str, query: StepQuery) -> Page[Step]:
    """List the steps that are at work, of one job, or of all for the name `-`.

    Steps run one after another: it is the one whose turn came last. Workspace `-` means all.
    """
    statement = rows_in(call.session, call.actor, workspace, rows.Job).where(
        true() if name == "-" else rows.Job.name == name
    )
    return list_page(
        call,
        query,
        statement,
        STEP_FIELDS,
        item=lambda job, home: _step(job, home, job_steps.first_steps(job)[-1]),
    )


@routes.add("GET", f"{ONE}/steps/<step>", permission=Permission.JOBS_READ, returns=Step, raises=(NotFound,))
def get_step(call: RequestContext, workspace: str, name: str, step: str) -> Step:
    """Get a step whose turn has come."""
    job = find_job(call.session, readable_workspace(call.session, call.actor, workspace), name)
    return _step(job, workspace, job_steps.find_step(job, step))


@routes.add(
    "PATCH",
    f"{ONE}/steps/<step>/status",
    permission=Permission.JOBS_REPORT,
    returns=Step,
    raises=(NotFound, WrongState),
)
def report_step(call: RequestContext, workspace: str, name: str, step: str, body: StepStatusUpdate) -> Step:
    """Report how far a step is.

    The status of the job itself follows its processes, not what is reported.
    """
    home = writable_workspace(call.session, call.actor, workspace)
    job = find_job(call.session, home, name, lock=True)
    reported = job_steps.report_step(
        job, step, body.status, status_details=body.status_details, error_details=body.error_details
    )
    job.updated_at, job.updated_by = now(), call.actor.id
    return _step(job, workspace, reported)


def _status(step: job_steps.Entry) -> StepStatus:
    tasks = [{**task, "error_details": task["error_details"] or {}} for task in step.get("tasks", [])]
    return StepStatus.model_validate({**step, "error_details": step["error_details"] or {}, "tasks": tasks})


def _step(job: rows.Job, workspace: str, step: job_steps.Entry) -> Step:
    spec = job_steps.spec_of(job, step["name"])
    return Step(
        entity_id=step["id"],
        job=job.name,
        attempt_id=job.attempt_id,
        parent=job.attempt_id,
        fileset=job.fileset,
        workspace=workspace,
        project=job.project,
        config=spec.get("config") or {},
        step_spec=spec,
        auth_context=None,
        **{key: value for key, value in step.items() if key != "tasks"},
    )
