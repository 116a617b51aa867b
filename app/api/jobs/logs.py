"""The log of a job over HTTP; its pages are stable while it grows."""

from uuid import UUID

from pydantic import Field
from sqlalchemy import Select, or_, select

from app import models as rows
from app.access.permissions import Permission
from app.api.log_pages import LogPage, require_one_window
from app.errors import BadRequest, NotFound, Unprocessable
from app.http.route import Query, RequestContext, Routes
from app.services.job_steps import step_id
from app.services.jobs import readable_job
from app.services.logs.pages import InvalidCursor, page_of

routes = Routes("jobs")


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
    is_limited = "limit" in query.model_fields_set
    require_one_window(tail=query.tail, is_limited=is_limited, cursor=query.page_cursor)
    job = readable_job(call.session, call.actor, workspace, name)
    try:
        page = page_of(
            call.session, _lines(job, query), limit=query.limit, cursor=query.page_cursor, tail=query.tail
        )
    except InvalidCursor:
        raise Unprocessable("Invalid page cursor") from None
    return LogPage.of(page, job=job.name)


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
