"""Tenants of a running stack: filled, deleted over HTTP, and looked at from below, in tables and on disk."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any
from uuid import UUID

from sqlalchemy import create_engine, func, select, text
from sqlalchemy.orm import Session

from app.cleanup.kinds import KINDS
from app.config import Settings
from app.models import Workspace
from app.storage.blob_store import BlobStore
from tests.factories import fill, make_workspace, rows_of
from tests.support.deadlines import DEADLINE_S
from tests.support.stack import ALL, Part, Stack

FINALIZE = "finalize"
EACH = 4  # of every kind in a tenant that is deleted; what stays beside it can do with one
CHUNK = 2  # so that a kind of rows takes several transactions, and there is a middle

QUICK: dict[str, Any] = {
    "slice_seconds": 1,
    "item_timeout_seconds": 1,
    "task_soft_limit_seconds": 3,
    "task_hard_limit_seconds": 4,
    "lease_seconds": 5,
    "visibility_timeout_seconds": 6,
    "sweep_seconds": 1,
    "requeue_after_seconds": 1,
    "backoff_base_seconds": 0.1,
    "backoff_cap_seconds": 1,
    "waiting_poll_min_seconds": 0.2,
    "waiting_poll_max_seconds": 0.5,
    "reattempt_delays_seconds": (2,),
    "publish_timeout_seconds": 0.5,
    "chunk_size": CHUNK,
    "runtime_lease_seconds": 4,
    "runtime_poll_seconds": 0.2,
    "stop_grace_seconds": 1,
    "deployment_start_seconds": 5,
}
"""Settings under which every bound of the product is a matter of seconds."""

_SETTINGS = Settings(**QUICK)

# The formulas of the documentation; with the defaults they give its 25 and its 85 seconds.
MESSAGE_LOST_S = _SETTINGS.sweep_seconds + _SETTINGS.requeue_after_seconds
WORKER_LOST_S = _SETTINGS.lease_seconds + MESSAGE_LOST_S
# Beyond them: the deletion's own slices, and on a busy machine the start of the programs they run in.
WORK_S = 5.0

_numbers = count(1)  # names are never used twice, unless a test wants a successor


@dataclass(frozen=True)
class Tenant:
    """A workspace, and what it was given."""

    id: UUID
    name: str
    rows: dict[str, int]
    files: dict[str, bytes]


@dataclass
class World:
    """What a test sees of a stack."""

    stack: Stack

    def __post_init__(self) -> None:
        self.engine = create_engine(self.stack.database_url, pool_pre_ping=True)
        self.store = BlobStore.open(self.stack.blob_root.as_uri())

    # --- tenants ------------------------------------------------------------------------------------------

    def fill(self, name: str | None = None, *, each: int = EACH) -> Tenant:
        """A workspace that holds `each` of every kind, made below the API."""
        with Session(self.engine) as session:
            workspace = make_workspace(session, name or f"tenant-{next(_numbers)}")
            tenant_id, tenant_name = workspace.id, workspace.name
            fill(session, self.store, workspace, number=each)
            return Tenant(
                tenant_id, tenant_name, rows_of(session, tenant_id), files_of(self.stack.blob_root, tenant_id)
            )

    def is_untouched(self, tenant: Tenant) -> bool:
        """Whether a tenant is ACTIVE and still has everything."""
        with Session(self.engine) as session:
            workspace = session.get(Workspace, tenant.id)
            return (
                workspace is not None
                and workspace.state == "ACTIVE"
                and rows_of(session, tenant.id) == tenant.rows
                and files_of(self.stack.blob_root, tenant.id) == tenant.files
            )

    def left_of(self, tenant_id: UUID) -> list[str]:
        """Every table with a row of a workspace, and every path on disk that belongs to it."""
        with Session(self.engine) as session:
            rows = [f"{table}: {number} rows" for table, number in rows_of(session, tenant_id).items()]
            row = ["workspaces: its row"] if session.get(Workspace, tenant_id) else []
        return rows + row + [str(path) for path in paths_of(self.stack.blob_root, tenant_id)]

    # --- deletions ----------------------------------------------------------------------------------------

    def delete(self, name: str) -> str:
        """Ask for a workspace's deletion; the deletion's id."""
        answer = self.stack.client.delete(f"/apis/entities/v2/workspaces/{name}")
        assert answer.status_code == 200, answer.text
        return str(answer.json()["deletion_id"])

    def report(self, deletion: str) -> dict[str, Any]:
        answer = self.stack.client.get(f"/apis/entities/v2/deletions/{deletion}")
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    def events(self, deletion: str) -> list[str]:
        """What happened to a deletion, the oldest first."""
        answer = self.stack.client.get(
            f"/apis/entities/v2/deletions/{deletion}/events", params={"page_size": 1000}
        )
        assert answer.status_code == 200, answer.text
        return [one["event"] for one in answer.json()["data"]]

    def pause(self, *, paused: bool) -> None:
        """Pause destruction, or let it go on: deletions are accepted meanwhile, and nobody claims them."""
        answer = self.stack.client.put("/apis/entities/v2/cleanup-control", json={"paused": paused})
        assert answer.status_code == 200, answer.text

    def report_in(self, deletion: str, state: str) -> dict[str, Any]:
        """The report of a deletion as it was in that state, however soon it leaves it again."""
        seen: list[dict[str, Any]] = []

        def is_there() -> bool:
            seen.append(self.report(deletion))
            return bool(seen[-1]["state"] == state)

        self.stack.wait_until(is_there, f"deletion {deletion} is {state}", timeout_s=2 * DEADLINE_S)
        return seen[-1]

    def wait_for_state(self, deletion: str, state: str) -> float:
        """Return as soon as the deletion is in that state: the seconds it took."""
        try:
            return self.stack.wait_until(
                lambda: self.report(deletion)["state"] == state,
                f"deletion {deletion} is {state}",
                timeout_s=2 * DEADLINE_S,
            )
        except AssertionError as error:
            error.add_note(f"it says of itself: {self.report(deletion)}")
            raise

    # --- standing in the way ------------------------------------------------------------------------------

    @contextmanager
    def holding(self, tenant: Tenant, phase: str) -> Iterator[Callable[[], bool]]:
        """Lock the row in the middle of a phase for the block; gives: whether somebody waits for it now."""
        with self.engine.connect() as connection:
            model = Workspace if phase == FINALIZE else KINDS[phase].model
            column = Workspace.id if phase == FINALIZE else model.workspace_id
            ids = connection.scalars(select(model.id).where(column == tenant.id).order_by(model.id)).all()
            # A workspace's row is shared, as a creator would: its deletion must wait, its readers need not.
            is_shared = phase == FINALIZE
            query = select(model.id).where(model.id == ids[len(ids) // 2])
            connection.execute(query.with_for_update(read=is_shared, key_share=is_shared))
            holder = connection.scalar(text("SELECT pg_backend_pid()"))
            try:
                yield lambda: self._waits_for(holder)
            finally:
                connection.invalidate()  # lets go of the lock, and does not mind if the server is gone

    def _waits_for(self, holder: int | None) -> bool:
        waiting = select(func.count()).select_from(text("pg_stat_activity"))
        with self.engine.connect() as connection:
            blocked = waiting.where(text(":holder = ANY(pg_blocking_pids(pid))").bindparams(holder=holder))
            return bool(connection.scalar(blocked))

    def wait_until_in_the_middle(self, deletion: str, phase: str, is_waited_for: Callable[[], bool]) -> None:
        """Return once a worker has done a part of the phase and stands before the row that we hold."""
        self.stack.wait_until(
            lambda: is_waited_for() and (phase == FINALIZE or self.report(deletion)["deleted"].get(phase, 0)),
            f"a worker stands in the middle of {phase}",
        )

    # --- programs -----------------------------------------------------------------------------------------

    def one(self, name: str) -> Part:
        """The running program of that name, started if there is none."""
        running = self.stack.running(name)
        return running[0] if running else self.stack.start(name)

    def heal(self) -> None:
        """Whatever an earlier test broke works again."""
        for server in (self.stack.postgres, self.stack.valkey):
            if not server.answers():
                server.start()
        for name in ALL:
            self.one(name)
        self.pause(paused=False)


def files_of(blob_root: Path, tenant_id: UUID) -> dict[str, bytes]:
    """The bytes of a workspace by path."""
    return {str(path): path.read_bytes() for path in paths_of(blob_root, tenant_id) if path.is_file()}


def paths_of(blob_root: Path, tenant_id: UUID) -> list[Path]:
    """Everything on disk that belongs to a workspace: files and directories, also of uploads on their way."""
    tops = [blob_root / part / str(tenant_id) for part in ("files", "staging")]
    return sorted(path for top in tops if top.exists() for path in (top, *top.rglob("*")))


def seconds_since(started: float) -> float:
    return time.monotonic() - started
