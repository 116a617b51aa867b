"""The tasks of a step over HTTP: the one that its process is, and whatever else is reported."""

from typing import Annotated, Any
from uuid import UUID

from pydantic import BaseModel, Field

from app import models as rows
from app.access.permissions import Permission
from app.clock import Timestamp, now
from app.errors import NotFound
from app.http.field_types import Name
from app.http.route import Body, RequestContext, Routes
from app.lifecycle import JobStatus
from app.services import job_steps
from app.services.jobs import find_job
from app.services.workspaces import readable_workspace, writable_workspace

routes = Routes("jobs")
TASKS = "/apis/jobs/v2/workspaces/<workspace>/jobs/<name>/steps/<step>/tasks"


class TaskUpdate(Body):
    """How far a task is; what is left out stays as it is."""

    status: JobStatus = JobStatus.PENDING
    status_details: dict[str, Any] | None = Field(
        None, description="Replaces those of the task, and is merged into those of the job."
    )
    error_details: dict[str, Any] | None = None
    error_stack: Annotated[str, Field(max_length=100_000)] | None = None


class Task(BaseModel):
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
    updated_at: Timestamp


class TaskList(BaseModel):
    """The tasks of a step."""

    data: list[Task]


@routes.add("GET", TASKS, permission=Permission.JOBS_READ, returns=TaskList, raises=(NotFound,))
def list_tasks(call: RequestContext, workspace: str, name: str, step: str) -> TaskList:
    """List the tasks of a step.

    Its process is the task `main`.
    """
    job = _readable(call, workspace, name)
    entry = job_steps.find_step(job, step)
    return TaskList(data=[_task(job, workspace, entry, task) for task in entry.get("tasks", [])])


@routes.add("GET", f"{TASKS}/<task>", permission=Permission.JOBS_READ, returns=Task, raises=(NotFound,))
def get_task(call: RequestContext, workspace: str, name: str, step: str, task: str) -> Task:
    """Get a task of a step."""
    job = _readable(call, workspace, name)
    return _task(job, workspace, job_steps.find_step(job, step), job_steps.find_task(job, step, task))


@routes.add("PUT", f"{TASKS}/<task>", permission=Permission.JOBS_REPORT, returns=Task, raises=(NotFound,))
def report_task(
    call: RequestContext, workspace: str, name: str, step: str, *, task: Name, body: TaskUpdate
) -> Task:
    """Report how far a task of a step is.

    A task that is not there is made.
    """
    home = writable_workspace(call.session, call.actor, workspace)
    job = find_job(call.session, home, name, lock=True)
    reported = job_steps.report_task(
        job,
        step,
        task,
        status=body.status,
        status_details=body.status_details,
        error_details=body.error_details,
        error_stack=body.error_stack,
    )
    job.updated_at, job.updated_by = now(), call.actor.id
    return _task(job, workspace, job_steps.find_step(job, step), reported)


def _readable(call: RequestContext, workspace: str, name: str) -> rows.Job:
    return find_job(call.session, readable_workspace(call.session, call.actor, workspace), name)


def _task(job: rows.Job, workspace: str, step: job_steps.Entry, task: job_steps.Entry) -> Task:
    return Task(
        workspace=workspace,
        project=job.project,
        entity_id=task["id"],
        parent=step["id"],
        step_id=step["id"],
        **task,
    )
