"""Pages of logs, as the routes of jobs and of filesets answer them."""

from typing import Self

from pydantic import BaseModel, Field

from app.clock import Timestamp
from app.errors import BadRequest
from app.services.logs.pages import MOST_COUNTED, LinePage

MOST_LINES = 10_000
"""The most lines of a page."""


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

    @classmethod
    def of(cls, page: LinePage, *, job: str) -> Self:
        """The public form of a page; `job` is the name of the job of the lines that name none."""
        lines = [
            LogLine(
                timestamp=line.at,
                job=line.job or job,
                job_step=line.step,
                job_task=line.task,
                message=line.message,
            )
            for line in page.lines
        ]
        return cls(data=lines, total=page.total, next_page=page.next_page, prev_page=page.prev_page)


def require_one_window(*, tail: int | None, is_limited: bool, cursor: str | None) -> None:
    """Raise BadRequest for a tail beside what asks for a page."""
    if tail is not None and is_limited:
        raise BadRequest("tail cannot be combined with limit; tail controls the returned log window size.")
    if tail is not None and cursor is not None:
        raise BadRequest(
            "tail cannot be combined with page_cursor; pass the returned prev_page as page_cursor without tail."
        )
