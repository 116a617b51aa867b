"""The status of a job and its steps over HTTP."""

from typing import Any, Self
from uuid import UUID

from flask import Response
from pydantic import BaseModel, Field
from sqlalchemy import bindparam

from app import models as rows
from app.access.permissions import Permission
from app.clock import Timestamp
from app.errors import BadRequest, NotFound, TooLarge, WrongState
from app.filters.fields import Fields
from app.health.capacity import with_reason
from app.http.field_types import Resource
from app.http.paging import ListQuery, Page, list_page
from app.http.route import Body, RequestContext, Routes
from app.http.transfers.row_stream import each
from app.lifecycle import JobStatus
from app.services import job_steps
from app.services.jobs import note_report, readable_job, writable_job
from app.services.listing import EVERYWHERE, rows_in
from app.services.reports.steps import report_and_follow

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
"""A list of steps is filtered and sorted by fields of their jobs."""


class TaskStatus(BaseModel):
    """The status of a task."""

    id: UUID
    name: str
    status: JobStatus
    status_details: dict[str, Any]
    error_details: dict[str, Any]
    error_stack: str | None
    created_at: Timestamp
    updated_at: Timestamp


class StepStatus(BaseModel):
    """The status of a step, with its tasks."""

    id: UUID
    name: str
    status: JobStatus
    status_details: dict[str, Any]
    error_details: dict[str, Any]
    tasks: list[TaskStatus]
    created_at: Timestamp
    updated_at: Timestamp


class Progress(Resource):
    """The status of a job, with its steps."""

    id: UUID
    name: str
    status: JobStatus
    status_details: dict[str, Any]
    error_details: dict[str, Any]
    created_at: Timestamp
    updated_at: Timestamp
    steps: list[StepStatus]


class Step(Resource):
    """A step whose turn has come, with the fields of its job that it needs."""

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
    artifact_base_path: str | None = Field(
        description="The folder of the fileset for everything that the job leaves; null if that is all its own."
    )
    created_at: Timestamp
    created_by: str
    updated_at: Timestamp
    updated_by: str
    db_version: int = Field(1, description="Grows by one with each change.")

    @classmethod
    def from_entry(cls, job: rows.Job, workspace: str, entry: job_steps.Entry) -> Self:
        """The step behind an entry of `job.steps`."""
        spec = job_steps.spec_of(job, entry["name"])
        return cls.from_row(
            job,
            workspace,
            entity_id=entry["id"],
            job=job.name,
            parent=job.attempt_id,
            config=spec.get("config") or {},
            step_spec=spec,
            auth_context=None,
            **entry,
        )


_IS_NAMED = rows.Job.name == bindparam("job")
_CURRENT = each(lambda job, workspace: Step.from_entry(job, workspace, job_steps.first_steps(job)[-1]))


class StepStatusUpdate(Body):
    """A status to report for a step; missing keys keep their values."""

    status: JobStatus
    status_details: dict[str, Any] | None = None
    error_details: dict[str, Any] | None = None


class StepQuery(ListQuery):
    """A page of steps."""

    page_size: int = Field(25, ge=1, le=1000, description="Items per page.")
    sort: str = Field("created_at", description="Field to sort by; a leading `-` sorts descending.")


@routes.add("GET", f"{ONE}/status", permission=Permission.JOBS_READ, returns=Progress, raises=(NotFound,))
def get_status(call: RequestContext, workspace: str, name: str) -> Progress:
    """Get the status of a job, and of its steps whose turn has come.

    While the job waits for a host, `waiting_for` in its status details says what keeps it.
    """
    job = readable_job(call.session, call.actor, workspace, name)
    steps = [_status(step) for step in job_steps.first_steps(job)]
    details = with_reason(call.session, call.context.settings, job)
    return Progress.from_row(job, status_details=details, error_details=job.error_details or {}, steps=steps)


@routes.add(
    "GET", f"{ONE}/steps", permission=Permission.JOBS_READ, returns=Page[Step], raises=(BadRequest, NotFound)
)
def list_steps(call: RequestContext, workspace: str, name: str, query: StepQuery) -> Response:
    """List the current steps of jobs.

    Steps run one after another, so each job has one current step. The name `-` means all jobs, workspace `-` all
    workspaces.
    """
    found = rows_in(call.session, call.actor, workspace, rows.Job)
    if name != EVERYWHERE:
        found = found.where(_IS_NAMED, job=name)
    return list_page(call, query, found, STEP_FIELDS, items=_CURRENT)


@routes.add("GET", f"{ONE}/steps/<step>", permission=Permission.JOBS_READ, returns=Step, raises=(NotFound,))
def get_step(call: RequestContext, workspace: str, name: str, step: str) -> Step:
    """Get a step whose turn has come."""
    job = readable_job(call.session, call.actor, workspace, name)
    return Step.from_entry(job, workspace, job_steps.find_step(job, step))


@routes.add(
    "PATCH",
    f"{ONE}/steps/<step>/status",
    permission=Permission.JOBS_REPORT,
    returns=Step,
    raises=(NotFound, WrongState, TooLarge),
)
def report_step(call: RequestContext, workspace: str, name: str, step: str, body: StepStatusUpdate) -> Step:
    """Report the status of a step.

    The status of a job that a host of the runtime has follows its processes. That of any other follows the report of
    its current step: the client runs the job then, and no host takes it up. A completed step begins the next one, and
    the last one completes the job.
    """
    job = writable_job(call.session, call.actor, workspace, name)
    report_and_follow(
        call.session,
        call.actor,
        job,
        step,
        body.status,
        status_details=body.status_details,
        error_details=body.error_details,
    )
    note_report(call.session, call.actor, job, max_bytes=call.context.settings.max_body_bytes)
    return Step.from_entry(job, workspace, job_steps.find_step(job, step))


def _status(step: job_steps.Entry) -> StepStatus:
    tasks = [{**task, "error_details": task["error_details"] or {}} for task in step.get("tasks", [])]
    return StepStatus.model_validate({**step, "error_details": step["error_details"] or {}, "tasks": tasks})
