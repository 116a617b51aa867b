"""The log of a job over HTTP; its pages are stable while it grows."""

from itertools import accumulate
from typing import Literal
from uuid import UUID

from pydantic import BaseModel, Field
from sqlalchemy import Select, func, or_, select
from sqlalchemy.orm import Session

from app import models as rows
from app.access.permissions import Permission
from app.clock import Timestamp
from app.errors import BadRequest, NotFound, Unprocessable
from app.http.route import Query, RequestContext, Routes
from app.services.job_steps import step_id
from app.services.jobs import readable_job

routes = Routes("jobs")

Side = Literal["after", "before"]

MAX_PAGE_BYTES = 1024 * 1024
"""Bytes of text in one page; in JSON a control character becomes six."""

MOST_COUNTED = 100_000
"""Lines that are counted for an answer: whoever follows a log asks every second."""


class LogQuery(Query):
    """A page of a log, and its filters."""

    limit: int = Field(
        100,
        gt=0,
        le=10_000,
        description="Lines per page. A page ends earlier at 1 MiB of text; `next_page` goes on behind it.",
    )
    page_cursor: str | None = Field(None, description="`next_page` or `prev_page` of another page.")
    tail: int | None = Field(
        None,
        gt=0,
        le=10_000,
        description="Instead of a page, so many of the newest lines; fewer at 1 MiB of text. `prev_page` goes back.",
    )
    attempt_id: str | None = Field(
        None, description="Id of an attempt of the job; the current one by default."
    )
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
    """Lines of a log, oldest first. `next_page` is null at the current end of the log."""

    data: list[LogLine]
    total: int = Field(description=f"The number of lines, counted up to {MOST_COUNTED:,}.")
    next_page: str | None
    prev_page: str | None


@routes.add(
    "GET",
    "/apis/jobs/v2/workspaces/<workspace>/jobs/<name>/logs",
    permission=Permission.JOBS_READ,
    returns=LogPage,
    raises=(BadRequest, NotFound, Unprocessable),
)
def get_logs(call: RequestContext, workspace: str, name: str, query: LogQuery) -> LogPage:
    """Read the log of a job.

    The output of its processes is in it within a second. Request the last page again to follow the log.
    """
    _require_one_window(query)
    job = readable_job(call.session, call.actor, workspace, name)
    matching = _lines(job, query)
    side, line_id = _read_cursor(query.page_cursor)
    if query.tail is None:
        lines = _page(call.session, matching, side, line_id, query.limit)
    else:
        lines = _first(call.session, matching.order_by(rows.JobLog.id.desc()), query.tail)[::-1]
    first, last = (lines[0].id, lines[-1].id) if lines else (line_id, line_id)
    return LogPage(
        data=[
            LogLine(
                timestamp=line.at, job=job.name, job_step=line.step, job_task=line.task, message=line.message
            )
            for line in lines
        ],
        total=_count(call.session, matching),
        next_page=None if query.tail else _cursor(call.session, matching, "after", last),
        prev_page=_cursor(call.session, matching, "before", first),
    )


def _require_one_window(query: LogQuery) -> None:
    if query.tail is not None and "limit" in query.model_fields_set:
        raise BadRequest("tail cannot be combined with limit; tail controls the returned log window size.")
    if query.tail is not None and query.page_cursor is not None:
        raise BadRequest(
            "tail cannot be combined with page_cursor; pass the returned prev_page as page_cursor without tail."
        )


def _lines(job: rows.Job, query: LogQuery) -> Select[rows.JobLog]:
    lines = select(rows.JobLog).where(
        rows.JobLog.job_id == job.id, rows.JobLog.attempt_id == _attempt(query.attempt_id, job.attempt_id)
    )
    if query.step_id is not None:
        attempt_id = _attempt(query.attempt_id, job.attempt_id)
        names = [step["name"] for step in job.platform_spec["steps"]]
        named = [name for name in names if str(step_id(attempt_id, name)) == query.step_id]
        lines = lines.where(or_(rows.JobLog.step == query.step_id, rows.JobLog.step.in_(named)))
    return lines.where(rows.JobLog.task == query.task_id) if query.task_id is not None else lines


def _attempt(given: str | None, current: UUID) -> UUID:
    if given is None:
        return current
    try:
        return UUID(given)
    except ValueError:
        raise Unprocessable(f"No attempt has the id '{given}'.") from None


def _page(
    session: Session, matching: Select[rows.JobLog], side: Side, line_id: UUID | None, limit: int
) -> list[rows.JobLog]:
    if side == "before":
        earlier = matching.where(rows.JobLog.id < line_id).order_by(rows.JobLog.id.desc())
        return _first(session, earlier, limit)[::-1]
    later = matching if line_id is None else matching.where(rows.JobLog.id > line_id)
    return _first(session, later.order_by(rows.JobLog.id), limit)


def _first(session: Session, lines: Select[rows.JobLog], limit: int) -> list[rows.JobLog]:
    """The first lines that fit into a page, at least one if there is any."""
    # Known without reading them; a log only grows behind its last line, so the second query finds the same lines.
    sizes = session.scalars(lines.with_only_columns(func.octet_length(rows.JobLog.message)).limit(limit))
    fitting = sum(total <= MAX_PAGE_BYTES for total in accumulate(sizes))
    return list(session.scalars(lines.limit(max(fitting, 1))))


def _count(session: Session, matching: Select[rows.JobLog]) -> int:
    counted = matching.with_only_columns(rows.JobLog.id).limit(MOST_COUNTED).subquery()
    return session.scalar(select(func.count()).select_from(counted)) or 0


def _cursor(session: Session, matching: Select[rows.JobLog], side: Side, line_id: UUID | None) -> str | None:
    """The cursor of the lines on that side of a line; None if there are none."""
    if line_id is None:
        return None
    beyond = matching.where(rows.JobLog.id > line_id if side == "after" else rows.JobLog.id < line_id)
    exists = session.scalar(select(beyond.exists()))
    return f"{side}.{line_id.hex}" if exists else None


def _read_cursor(cursor: str | None) -> tuple[Side, UUID | None]:
    if cursor is None:
        return "after", None
    side, _, line_id = cursor.partition(".")
    try:
        known: dict[str, Side] = {"after": "after", "before": "before"}
        return known[side], UUID(line_id)
    except (KeyError, ValueError):
        raise Unprocessable("Invalid page cursor") from None
