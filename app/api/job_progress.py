"""How far a job is, over HTTP: its status, steps, log and results."""

from typing import Any
from uuid import UUID, uuid5

from flask import request
from pydantic import BaseModel, Field
from sqlalchemy import true

from app.access.permissions import Permission
from app.api.endpoint import Call, Query, Routes
from app.api.filters import Fields, parse_filter, parse_sort
from app.api.paging import ListQuery, Page, paginate
from app.api.scoped import rows_in
from app.api.shapes import Moment
from app.errors import BadRequest, NotFound, Unprocessable
from app.lifecycle import JobStatus
from app.models import Job
from app.services.jobs import find_job
from app.services.workspaces import readable_workspace

routes = Routes("jobs")
ONE = "/apis/jobs/v2/workspaces/<workspace>/jobs/<name>"

STEP_FIELDS = Fields(
    key=Job.id,
    columns={
        "job": Job.name,
        "source": Job.source,
        "status": Job.status,
        "created_at": Job.created_at,
        "updated_at": Job.updated_at,
    },
)
"""A step takes all of this from its job."""


class StepStatus(BaseModel):
    """How far a step is. Tasks belong to executors, of which this release has none."""

    id: UUID
    name: str
    status: JobStatus
    status_details: dict[str, Any]
    error_details: dict[str, Any]
    tasks: list[dict[str, Any]]
    created_at: Moment
    updated_at: Moment


class Progress(BaseModel):
    """How far a job is."""

    id: UUID
    name: str
    status: JobStatus
    status_details: dict[str, Any]
    error_details: dict[str, Any]
    created_at: Moment
    updated_at: Moment
    steps: list[StepStatus]


class Step(BaseModel):
    """A step whose turn has come, with what it needs to know of its job."""

    id: UUID
    job: str
    attempt_id: UUID
    fileset: str
    workspace: str
    name: str
    step_spec: dict[str, Any]
    status: JobStatus
    status_details: dict[str, Any]
    error_details: dict[str, Any] | None
    auth_context: dict[str, Any] | None
    created_at: Moment
    updated_at: Moment


class StepQuery(ListQuery):
    """A page of steps."""

    page_size: int = Field(25, ge=1, le=1000, description="Items per page.")
    sort: str = Field("created_at", description="Field to sort by; a leading `-` sorts descending.")


class LogQuery(Query):
    """A stretch of a log."""

    limit: int = Field(100, gt=0, le=10_000, description="Lines per page.")
    page_cursor: str | None = Field(None, description="`next_page` of the page before.")


class LogPage(BaseModel):
    """Lines of a log. Nothing has run, so there are none."""

    data: list[dict[str, Any]]
    total: int
    next_page: str | None
    prev_page: str | None


class Results(BaseModel):
    """What a job has produced. Nothing has run, so there is nothing."""

    data: list[dict[str, Any]]


@routes.add("GET", f"{ONE}/status", permission=Permission.JOBS_READ, returns=Progress, raises=(NotFound,))
def get_status(call: Call, workspace: str, name: str) -> Progress:
    """Get the status of a job and of its steps."""
    job = _job(call, workspace, name)
    shared: dict[str, Any] = {
        "status": job.status,
        "error_details": job.error_details or {},
        "created_at": job.created_at,
        "updated_at": job.updated_at,
    }
    step_name = _first_step(job)["name"]
    step = StepStatus(id=_step_id(job), name=step_name, status_details={}, tasks=[], **shared)
    return Progress(id=job.id, name=job.name, status_details=job.status_details, steps=[step], **shared)


@routes.add(
    "GET", f"{ONE}/steps", permission=Permission.JOBS_READ, returns=Page[Step], raises=(BadRequest, NotFound)
)
def list_steps(call: Call, workspace: str, name: str, query: StepQuery) -> Page[Step]:
    """List the steps whose turn has come, of one job, or of all for the name `-`.

    Steps run one after another; until the first has ended it is the only one. Workspace `-` means all.
    """
    wanted = parse_filter(request.args)
    statement = (
        rows_in(call.session, call.actor, workspace, Job)
        .where(true() if name == "-" else Job.name == name)
        .where(wanted.compile(STEP_FIELDS) if wanted else true())
        .order_by(*parse_sort(query.sort, STEP_FIELDS, "created_at"))
    )
    return paginate(
        call.session,
        statement,
        page=query.page,
        page_size=query.page_size,
        sort=query.sort,
        filter=wanted,
        item=_step,
    )


@routes.add("GET", f"{ONE}/logs", permission=Permission.JOBS_READ, returns=LogPage, raises=(NotFound,))
def get_logs(call: Call, workspace: str, name: str, query: LogQuery) -> LogPage:
    """Read the log of a job."""
    _job(call, workspace, name)
    if query.page_cursor is not None:
        # No log fills a page, so no cursor was ever given out.
        raise Unprocessable("Invalid page cursor")
    return LogPage(data=[], total=0, next_page=None, prev_page=None)


@routes.add("GET", f"{ONE}/results", permission=Permission.JOBS_READ, returns=Results, raises=(NotFound,))
def list_results(call: Call, workspace: str, name: str) -> Results:
    """List the results of a job."""
    _job(call, workspace, name)
    return Results(data=[])


def _job(call: Call, workspace: str, name: str) -> Job:
    return find_job(call.session, readable_workspace(call.session, call.actor, workspace), name)


def _first_step(job: Job) -> dict[str, Any]:
    step: dict[str, Any] = job.platform_spec["steps"][0]
    return step


def _step_id(job: Job) -> UUID:
    # Derived, because no row keeps it: the same step of the same attempt has the same id.
    return uuid5(job.attempt_id, _first_step(job)["name"])


def _step(job: Job, workspace: str) -> Step:
    spec = _first_step(job)
    return Step(
        id=_step_id(job),
        job=job.name,
        attempt_id=job.attempt_id,
        fileset=job.fileset,
        workspace=workspace,
        name=spec["name"],
        step_spec=spec,
        status=job.status,
        status_details={},
        error_details=job.error_details,
        auth_context=None,
        created_at=job.created_at,
        updated_at=job.updated_at,
    )
