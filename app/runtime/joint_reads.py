"""Reads the statuses of all rows that this process supervises in one query, however many there are."""

import time
from dataclasses import dataclass
from threading import Lock
from typing import Any, Self
from uuid import UUID
from weakref import WeakKeyDictionary, WeakSet

from sqlalchemy import select

from app.db import Sessions, session_scope
from app.models import Deployment, Job
from app.runtime.lease import DATABASE_AWAY

_of_databases: WeakKeyDictionary[Sessions, "dict[type[Any], JointReads]"] = WeakKeyDictionary()
_lock = Lock()


@dataclass(frozen=True, eq=False)
class ReadRow:
    """A row with the token under which it is held; it is read for as long as somebody refers to this."""

    id: UUID
    fence: int


class DatabaseAway(Exception):
    """The database did not answer; nothing is known of any row."""


class JointReads:
    """The statuses of the jobs, or of the deployments, that the supervisors of this process hold. Thread-safe.

    Whoever finds that the last reading is too old reads for all; the others wait for that, and share its failure.
    """

    def __init__(self, sessions: Sessions, model: type[Job] | type[Deployment]) -> None:
        self._sessions, self._model = sessions, model
        self._rows: WeakSet[ReadRow] = WeakSet()
        self._rows_lock, self._reading = Lock(), Lock()
        self._found: dict[tuple[UUID, int], Any] | None = None
        self._began_at = self._ended_at = float("-inf")

    @classmethod
    def of(cls, sessions: Sessions, model: type[Job] | type[Deployment]) -> Self:
        """The one of this process for a table of a database."""
        with _lock:
            of_database: dict[type[Any], Any] = _of_databases.setdefault(sessions, {})
            found: Self = of_database.setdefault(model, cls(sessions, model))
            return found

    def add(self, row_id: UUID, fence: int) -> ReadRow:
        """Read this row with the others from now on."""
        row = ReadRow(row_id, fence)
        with self._rows_lock:
            self._rows.add(row)
        return row

    def status(self, row: ReadRow, *, after: float, within_s: float) -> Any:
        """The status of a row, None if another supervisor has it.

        It was read after a time of `monotonic()`, and not longer than `within_s` seconds before this call. Raises
        DatabaseAway.
        """
        asked_at = time.monotonic()
        with self._reading:
            is_fresh = self._began_at >= asked_at - within_s or self._ended_at >= asked_at
            if not is_fresh or self._began_at <= after:
                self._read()
            if self._found is None:
                raise DatabaseAway
            return self._found.get((row.id, row.fence))

    def _read(self) -> None:
        with self._rows_lock:
            ids = [row.id for row in self._rows]
        model = self._model
        query = select(model.id, model.fence, model.status).where(
            model.id.in_(ids), model.lease_owner.is_not(None)
        )
        self._began_at = time.monotonic()
        try:
            with session_scope(self._sessions) as session:
                self._found = {(row.id, row.fence): row.status for row in session.execute(query)}
        except DATABASE_AWAY:
            self._found = None
        self._ended_at = time.monotonic()
