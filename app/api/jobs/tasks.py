"""The tasks of a step over HTTP: `main`, its process, and the tasks that a client reports."""

from typing import Annotated, Any, Self
from uuid import UUID

from pydantic import BaseModel, Field

from app import models as rows
from app.access.permissions import Permission
from app.clock import Timestamp
from app.errors import NotFound, TooLarge, WrongState
from app.http.field_types import Name, Resource
from app.http.route import Body, RequestContext, Routes
from app.lifecycle import JobStatus
from app.services import job_steps
from app.services.jobs import note_report, readable_job, writable_job

routes = Routes("jobs")
TASKS = "/apis/jobs/v2/workspaces/<workspace>/jobs/<name>/steps/<step>/tasks"


class TaskUpdate(Body):
    """A status to report for a task; missing keys keep their values."""

    status: JobStatus = JobStatus.PENDING
    status_details: dict[str, Any] | None = Field(
        None, description="Replaces the status details of the task; merged into those of the job."
    )
    error_details: dict[str, Any] | None = None
    error_stack: Annotated[str, Field(max_length=100_000)] | None = None


class Task(Resource):
    """A task of a step."""

    id: UUID
    entity_id: UUID
    name: str
    workspace: str
    parent: UUID
    step_id: UUID
    project: str | None
    status: JobStatus
    status_details: dict[str, Any]
    error_details: dict[str, Any] | None
    error_stack: str | None
    created_at: Timestamp
    created_by: str
    updated_at: Timestamp
    updated_by: str
    db_version: int = Field(1, description="Grows by one with each change.")

    @classmethod
    def from_entry(cls, job: rows.Job, workspace: str, step: job_steps.Entry, task: job_steps.Entry) -> Self:
        """The task behind an entry of a step, itself one of `job.steps`."""
        ids = {"entity_id": task["id"], "parent": step["id"], "step_id": step["id"]}
        return cls.from_row(job, workspace, **ids, **task)


class TaskList(BaseModel):
    """The tasks of a step."""

    data: list[Task]


@routes.add("GET", TASKS, permission=Permission.JOBS_READ, returns=TaskList, raises=(NotFound,))
def list_tasks(call: RequestContext, workspace: str, name: str, step: str) -> TaskList:
    """List the tasks of a step.

    Its process is the task `main`.
    """
    job = readable_job(call.session, call.actor, workspace, name)
    entry = job_steps.find_step(job, step)
    return TaskList(data=[Task.from_entry(job, workspace, entry, task) for task in entry.get("tasks", [])])


@routes.add("GET", f"{TASKS}/<task>", permission=Permission.JOBS_READ, returns=Task, raises=(NotFound,))
def get_task(call: RequestContext, workspace: str, name: str, step: str, task: str) -> Task:
    """Get a task of a step."""
    job = readable_job(call.session, call.actor, workspace, name)
    return Task.from_entry(
        job, workspace, job_steps.find_step(job, step), job_steps.find_task(job, step, task)
    )


@routes.add(
    "PUT",
    f"{TASKS}/<task>",
    permission=Permission.JOBS_REPORT,
    returns=Task,
    raises=(NotFound, WrongState, TooLarge),
)
def report_task(
    call: RequestContext, workspace: str, name: str, step: str, *, task: Name, body: TaskUpdate
) -> Task:
    """Report the status of a task of a step.

    A new name creates a task.
    """
    job = writable_job(call.session, call.actor, workspace, name)
    reported = job_steps.report_task(
        job,
        step,
        task,
        by=call.actor.id,
        status=body.status,
        status_details=body.status_details,
        error_details=body.error_details,
        error_stack=body.error_stack,
    )
    note_report(call.session, call.actor, job, max_bytes=call.context.settings.max_body_bytes)
    return Task.from_entry(job, workspace, job_steps.find_step(job, step), reported)
