"""The log of a job over HTTP, in pages that stay where they are while it grows."""

from typing import Literal
from uuid import UUID

from pydantic import BaseModel, Field
from sqlalchemy import Select, func, or_, select
from sqlalchemy.orm import Session

from app import models as rows
from app.access.permissions import Permission
from app.clock import Timestamp
from app.errors import NotFound, Unprocessable
from app.http.route import Query, RequestContext, Routes
from app.services.job_steps import step_id
from app.services.jobs import find_job
from app.services.workspaces import readable_workspace

routes = Routes("jobs")

Side = Literal["after", "before"]


class LogQuery(Query):
    """A stretch of a log."""

    limit: int = Field(100, gt=0, le=10_000, description="Lines per page.")
    page_cursor: str | None = Field(None, description="`next_page` or `prev_page` of another page.")
    attempt_id: str | None = Field(None, description="An attempt of the job, instead of the present one.")
    step_id: str | None = Field(None, description="Only the lines of the step of that name or id.")
    task_id: str | None = Field(None, description="Only the lines of the task of that name.")


class LogLine(BaseModel):
    """A line of a log."""

    timestamp: Timestamp
    job: str
    job_step: str
    job_task: str
    message: str


class LogPage(BaseModel):
    """Lines of a log, the oldest first. `next_page` is null where the log ends at present."""

    data: list[LogLine]
    total: int
    next_page: str | None
    prev_page: str | None


@routes.add(
    "GET",
    "/apis/jobs/v2/workspaces/<workspace>/jobs/<name>/logs",
    permission=Permission.JOBS_READ,
    returns=LogPage,
    raises=(NotFound, Unprocessable),
)
def get_logs(call: RequestContext, workspace: str, name: str, query: LogQuery) -> LogPage:
    """Read the log of a job.

    What its processes print is in it within a second, also while they run: ask for the last page again to follow.
    """
    job = find_job(call.session, readable_workspace(call.session, call.actor, workspace), name)
    side, line_id = _read_cursor(query.page_cursor)
    wanted = _lines(job, query)
    lines = _page(call.session, wanted, side, line_id, query.limit)
    first, last = (lines[0].id, lines[-1].id) if lines else (line_id, line_id)
    return LogPage(
        data=[
            LogLine(
                timestamp=line.at, job=job.name, job_step=line.step, job_task=line.task, message=line.message
            )
            for line in lines
        ],
        total=call.session.scalar(select(func.count()).select_from(wanted.subquery())) or 0,
        next_page=_cursor(call.session, wanted, "after", last),
        prev_page=_cursor(call.session, wanted, "before", first),
    )


def _lines(job: rows.Job, query: LogQuery) -> Select[rows.JobLog]:
    lines = select(rows.JobLog).where(
        rows.JobLog.job_id == job.id, rows.JobLog.attempt_id == _attempt(query.attempt_id, job.attempt_id)
    )
    if query.step_id is not None:
        attempt_id = _attempt(query.attempt_id, job.attempt_id)
        names = [step["name"] for step in job.platform_spec["steps"]]
        meant = [name for name in names if str(step_id(attempt_id, name)) == query.step_id]
        lines = lines.where(or_(rows.JobLog.step == query.step_id, rows.JobLog.step.in_(meant)))
    return lines.where(rows.JobLog.task == query.task_id) if query.task_id is not None else lines


def _attempt(given: str | None, present: UUID) -> UUID:
    if given is None:
        return present
    try:
        return UUID(given)
    except ValueError:
        raise Unprocessable(f"No attempt has the id '{given}'.") from None


def _page(
    session: Session, wanted: Select[rows.JobLog], side: Side, line_id: UUID | None, limit: int
) -> list[rows.JobLog]:
    if side == "before":
        newest_first = wanted.where(rows.JobLog.id < line_id).order_by(rows.JobLog.id.desc())
        return list(session.scalars(newest_first.limit(limit)))[::-1]
    later = wanted if line_id is None else wanted.where(rows.JobLog.id > line_id)
    return list(session.scalars(later.order_by(rows.JobLog.id).limit(limit)))


def _cursor(session: Session, wanted: Select[rows.JobLog], side: Side, line_id: UUID | None) -> str | None:
    """The cursor of the lines on that side of a line; None if there are none."""
    if line_id is None:
        return None
    beyond = wanted.where(rows.JobLog.id > line_id if side == "after" else rows.JobLog.id < line_id)
    there_are = session.scalar(select(beyond.exists()))
    return f"{side}.{line_id.hex}" if there_are else None


def _read_cursor(cursor: str | None) -> tuple[Side, UUID | None]:
    if cursor is None:
        return "after", None
    side, _, line_id = cursor.partition(".")
    try:
        known: dict[str, Side] = {"after": "after", "before": "before"}
        return known[side], UUID(line_id)
    except (KeyError, ValueError):
        raise Unprocessable("Invalid page cursor") from None
