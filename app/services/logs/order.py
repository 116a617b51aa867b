"""The order of a log, which is that of the ids of its lines, whoever writes to it."""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import ARRAY, Select, Uuid, func, literal, select, true
from sqlalchemy.orm import Session

from app.models import JobLog


@dataclass(frozen=True)
class Log:
    """A log to append to."""

    name: str
    newest: Select[UUID]
    """Finds the last id that it has."""

    def next_id(self, session: Session) -> int:
        """The lowest id behind all lines, whatever the clocks of their writers say: who follows it must miss no line.

        Nobody else can append to it until the transaction ends.
        """
        # One writer after another, until the commit: an id that is committed late would be behind cursors of readers.
        key = func.hashtextextended(f"log:{self.name}", 0)
        session.execute(select(func.pg_advisory_xact_lock(key)))
        newest = session.scalar(self.newest)
        return newest.int + 1 if newest else 0


def own_log(job_id: UUID, attempt_ids: Sequence[UUID]) -> Log:
    """The own log of a job, for lines of these attempts: each is read by itself."""
    asked = func.unnest(literal(list(attempt_ids), ARRAY(Uuid))).table_valued("attempt").render_derived()
    last = select(JobLog.id).where(JobLog.job_id == job_id, JobLog.attempt_id == asked.c.attempt)
    # Of each by the index, without the lines before it.
    last_of_each = last.order_by(JobLog.id.desc()).limit(1).correlate(asked).lateral()
    newest = select(last_of_each.c.id).select_from(asked).join(last_of_each, true())
    return Log(f"job:{job_id}", newest.order_by(last_of_each.c.id.desc()).limit(1))


def folder_log(fileset_id: UUID, folder: str) -> Log:
    """The log of a folder of a fileset, that of a job with an `output_location` for example."""
    last = select(JobLog.id).where(JobLog.fileset_id == fileset_id, JobLog.base_path == folder)
    return Log(f"{fileset_id}:{folder}", last.order_by(JobLog.id.desc()).limit(1))
