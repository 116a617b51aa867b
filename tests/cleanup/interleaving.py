"""Workers that a test advances one transaction at a time, and can kill or put to sleep in between."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from threading import Semaphore, Thread
from typing import Any
from uuid import UUID

from sqlalchemy.orm import Session

from app.cleanup.engine import run_slice
from app.context import Context

OWNER = "worker"
"""All simulated workers sign alike, as a replaced container with the same host name would: the fence alone must
tell them apart."""

_TIME_BUDGET_S = 60


class Crash(BaseException):
    """As sudden as SIGKILL: no handler of ours sees it."""


class SimulatedWorker:
    """Runs slices in a thread that stops before every transaction and around every purge.

    It never waits inside a transaction, so it holds no lock while it is suspended, and the one thread that
    moves at a time cannot meet another: what the test does is repeatable.
    """

    def __init__(self, context: Context) -> None:
        self._sessions = context.sessions
        # `replace` keeps the rest of the context real. A callable stands in for the session factory.
        self._context = replace(
            context,
            # Two purges at the same time would move two threads; tests/cleanup/test_parallel.py tries those.
            settings=context.settings.model_copy(update={"filesets_at_once": 1}),
            sessions=self._open_session,
            store=_SuspendingStore(context.store, self._suspend),
        )
        self._go = Semaphore(0)
        self._stopped = Semaphore(0)
        self._is_doomed = False
        self._error: BaseException | None = None
        self.is_busy = False
        self.claimed: tuple[UUID, int] | None = None
        """The deletion and the fence that the present slice was seen to take."""

    def start(self, deletion_id: UUID | None) -> None:
        """Begin a slice, up to the moment before its first transaction."""
        self._is_doomed, self.is_busy, self.claimed = False, True, None
        Thread(target=self._run, args=(deletion_id,), name="simulated-worker", daemon=True).start()
        self._wait_until_stopped()

    def step(self) -> None:
        """Go on to the next transaction or purge, or to the end of the slice. Raises what the slice raised."""
        self._go.release()
        self._wait_until_stopped()
        if self._error:
            raise self._error

    def crash(self) -> None:
        """Die where it stands."""
        self._is_doomed = True
        self._go.release()
        self._wait_until_stopped()

    def _run(self, deletion_id: UUID | None) -> None:
        try:
            run_slice(self._context, deletion_id, owner=OWNER)
        except Crash:
            pass
        except BaseException as error:  # noqa: BLE001 -- raised again in the thread of the test
            self._error = error
        self.is_busy = False
        self._stopped.release()

    def _open_session(self) -> Session:
        self._suspend()
        return self._sessions()

    def _suspend(self) -> None:
        """Called in the worker's threads: hand over to the test, and wait to be allowed on."""
        self._stopped.release()
        self._go.acquire()
        if self._is_doomed:
            raise Crash

    def _wait_until_stopped(self) -> None:
        assert self._stopped.acquire(timeout=_TIME_BUDGET_S), "the worker neither stopped nor ended"


@dataclass(frozen=True)
class _SuspendingStore:
    real: Any
    suspend: Callable[[], None]

    def purge_fileset(self, workspace_id: UUID, fileset_id: UUID, *, within_s: float) -> Any:
        self.suspend()
        unfinished = self.real.purge_fileset(workspace_id, fileset_id, within_s=within_s)
        self.suspend()
        return unfinished

    def purge_workspace(self, workspace_id: UUID, *, keep: set[UUID]) -> None:
        self.suspend()
        self.real.purge_workspace(workspace_id, keep=keep)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)
