"""Writes the lines of a job's log: its beginning as they come, and its end beyond the size limit."""

from collections import deque
from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import and_, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session
from uuid_utils.compat import uuid7

from app import clock
from app.context import Context
from app.db import session_scope
from app.lease import LeaseLost, is_held
from app.models import Fileset, Job, JobLog
from app.services.job_steps import TASK
from app.services.logs.order import folder_log, own_log

_ROW_BYTES = 300
"""What a line costs in the database besides its text: its row, and its entries in the indexes."""
_TAIL_BYTES = 256 * 1024
"""How much of the end is kept beyond the limit; a quarter of a smaller limit."""


class Line(NamedTuple):
    """A line with its id, by which it is written once, also if nobody knows whether a commit succeeded."""

    id: UUID
    at: datetime
    text: str

    @classmethod
    def now(cls, text: str) -> "Line":
        """A line that was printed now."""
        return cls(uuid7(), clock.now(), text)

    @property
    def size(self) -> int:
        """The bytes that it takes in the database."""
        return len(self.text.encode()) + _ROW_BYTES


class LogWriter:
    """Appends to the log of one attempt of a job, up to its size limit, while the runner holds the lease.

    Of what is beyond the limit it remembers the end, which the caller writes when a step has ended.
    """

    def __init__(self, context: Context, job: Job, fence: int) -> None:
        self._context = context
        self._job = job
        self._fence = fence
        self._limit = self._left = context.settings.job_log_limit_bytes
        self._is_full = False
        self._tail, self._tail_size = deque[Line](), 0
        self._left_out = 0
        self._shift = 0
        """By how much ids are raised: others append to the log as well, and their lines may have come before."""

    def append(self, step: str, lines: Sequence[Line]) -> None:
        """Write lines up to the limit, and remember the last of those beyond it.

        Raises LeaseLost, and SQLAlchemy's errors when the database is away: then the same lines may be appended again.
        """
        kept, left = 0, self._left
        while kept < len(lines) and lines[kept].size <= left and not self._is_full:
            left -= lines[kept].size
            kept += 1
        written, beyond = list(lines[:kept]), lines[kept:]
        if beyond and not self._is_full:
            # It takes the place and the id of the first line that is left out: so it is written once.
            written.append(beyond[0]._replace(text=self._notice))
        if written:
            self.insert(step, written)
        self._left, self._is_full = left, self._is_full or bool(beyond)
        for line in beyond:
            self._remember(line)

    def take_tail(self) -> list[Line]:
        """The end of what was beyond the limit since the last call, and how much was left out before it."""
        left_out = [Line.now(f"{self._left_out} lines are left out here.")] if self._left_out else []
        # The order of lines is that of their ids, and the first of them may have given its id to the notice.
        tail = [*left_out, *(line._replace(id=uuid7()) for line in self._tail)]
        self._tail.clear()
        self._tail_size = self._left_out = 0
        return tail

    @property
    def _notice(self) -> str:
        return (
            f"The log has reached its limit of {self._limit} bytes. Of what follows only the end is kept: it is "
            "written when the step has ended."
        )

    def _remember(self, line: Line) -> None:
        self._tail.append(line)
        self._tail_size += line.size
        while self._tail_size > min(_TAIL_BYTES, self._limit // 4) and len(self._tail) > 1:
            self._tail_size -= self._tail.popleft().size
            self._left_out += 1

    def insert(self, step: str, lines: Sequence[Line]) -> None:
        """Write lines whatever the limit, such as those of `take_tail`. Raises as `append`."""
        job = self._job
        is_output = and_(Fileset.workspace_id == Job.workspace_id, Fileset.name == Job.output_location)
        with session_scope(self._context.sessions) as session:
            # FOR SHARE: nobody takes the lease, and nobody removes the job, between this query and the commit.
            leased = select(Job.id, Fileset.id).outerjoin(Fileset, is_output)
            held = leased.where(is_held(Job, job.id, self._fence)).with_for_update(read=True, of=Job)
            found = session.execute(held).one_or_none()
            if found is None:
                raise LeaseLost(Job, job.id, self._fence)
            ours: dict[str, Any] = {
                "workspace_id": job.workspace_id,
                "job_id": job.id,
                "attempt_id": job.attempt_id,
            }
            if fileset_id := found[1]:
                ours |= {"fileset_id": fileset_id, "base_path": job.artifact_base_path, "job": job.name}
            self._go_behind(session, lines[0], fileset_id)
            rows = [
                {
                    **ours,
                    "id": self._id_of(line),
                    "step": step,
                    "task": TASK,
                    "at": line.at,
                    "message": line.text,
                }
                for line in lines
            ]
            session.execute(insert(JobLog).on_conflict_do_nothing(index_elements=["id"]), rows)

    def _go_behind(self, session: Session, line: Line, fileset_id: UUID | None) -> None:
        """Let the lines from this one on come behind all that the log has, unless they have been written before."""
        job = self._job
        own, folder = own_log(job.id, [job.attempt_id]), job.artifact_base_path or ""
        next_id = (folder_log(fileset_id, folder) if fileset_id else own).next_id(session)
        if session.scalar(select(JobLog.id).where(JobLog.id == self._id_of(line))) is None:
            # It stays so high: by their ids lines are written once, and in their order.
            self._shift = max(self._shift, next_id - line.id.int)

    def _id_of(self, line: Line) -> UUID:
        return UUID(int=line.id.int + self._shift)
