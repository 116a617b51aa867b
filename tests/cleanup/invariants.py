"""What must hold at every moment of every cascade, written as checks on two snapshots."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, literal, select, union_all

from app.cleanup.kinds import KINDS
from app.clock import database_now
from app.config import Settings
from app.lifecycle import DeletionState, WorkspaceState
from app.models import CleanupControl, Deletion, DeletionEvent, DeletionFailure, Workspace

Rows = dict[str, set[UUID]]


@dataclass(frozen=True)
class Snapshot:
    """The database and the store at one moment; nobody is in the middle of a transaction."""

    at: datetime
    is_paused: bool
    workspaces: dict[UUID, WorkspaceState]
    rows: dict[UUID, Rows]
    """What each workspace holds, by kind."""
    bytes: dict[UUID, set[UUID]]
    """The filesets of each workspace that have bytes."""
    in_store: set[UUID]
    """The workspaces that have anything in the store, be it an empty directory."""
    deletions: dict[UUID, Any]
    failures: dict[UUID, list[Any]]
    events: dict[UUID, list[Any]]

    def record_of(self, deletion_id: UUID) -> tuple[Any, ...]:
        """Everything that only the holder of a deletion's lease may change."""
        deletion = self.deletions[deletion_id]
        rows = self.rows.get(deletion.workspace_id)
        return deletion, self.failures[deletion_id], self.events[deletion_id], rows

    def skipped(self, workspace_id: UUID) -> set[UUID]:
        """The resources of a workspace that an administrator gave up on."""
        return {
            UUID(failure.resource_id)
            for deletion in self.deletions.values()
            if deletion.workspace_id == workspace_id
            for failure in self.failures[deletion.id]
            if failure.skipped_by
        }

    def is_due(self, deletion_id: UUID, at: datetime) -> bool:
        """Whether a worker may begin a slice of it; in words of our own, not those of `cleanup.lease`."""
        deletion = self.deletions[deletion_id]
        is_free = deletion.lease_until is None or deletion.lease_until < at
        is_time = max(deletion.next_run_at, deletion.purge_after) <= at
        return deletion.state is DeletionState.DELETING and is_free and is_time and not self.is_paused


@dataclass
class World:
    """What the test knows because it did it, not because the product says so."""

    settings: Settings
    held: dict[UUID, Rows] = field(default_factory=dict)
    """What was put into each workspace that ever was."""
    active: set[UUID] = field(default_factory=set)
    running: set[UUID] = field(default_factory=set)
    """Jobs and deployments whose process has not been seen to end."""
    budget: dict[UUID, tuple[int, Any]] = field(default_factory=dict)
    """Of each deletion: attempts counted so far, and the progress at the time."""


class Observer:
    """Reads everything that the invariants speak of; cheap enough to look after every step."""

    def __init__(self, reader: Connection, store: Any, world: World) -> None:
        self._reader = reader
        self._store = store
        self._world = world

    def look(self) -> Snapshot:
        """How things are; call it while nobody is inside a transaction."""
        rows: dict[UUID, Rows] = defaultdict(lambda: defaultdict(set))
        for kind, workspace_id, row_id in self._reader.execute(_ROWS):
            rows[workspace_id][kind].add(row_id)
        return Snapshot(
            at=self._reader.execute(select(database_now())).scalar_one(),
            is_paused=self._reader.execute(select(CleanupControl.paused)).scalar_one(),
            workspaces={row.id: row.state for row in self._reader.execute(_WORKSPACES)},
            rows={workspace_id: dict(held) for workspace_id, held in rows.items()},
            bytes={
                workspace_id: {one for one in held["filesets"] if self._store.files(workspace_id, one)}
                for workspace_id, held in self._world.held.items()
            },
            in_store=self._store.workspace_ids(),
            deletions={row.id: row for row in self._reader.execute(_DELETIONS)},
            failures=_by_deletion(self._reader.execute(_FAILURES)),
            events=_by_deletion(self._reader.execute(_EVENTS)),
        )


_ROWS = union_all(
    *(select(literal(name), kind.model.workspace_id, kind.model.id) for name, kind in KINDS.items())
)
_WORKSPACES = select(Workspace.id, Workspace.state)
_DELETIONS = select(Deletion.__table__).order_by(Deletion.id)
_FAILURES = select(DeletionFailure.__table__).order_by(DeletionFailure.kind, DeletionFailure.resource_id)
_EVENTS = select(DeletionEvent.__table__).order_by(DeletionEvent.id)


def _by_deletion(rows: Iterable[Any]) -> dict[UUID, list[Any]]:
    found = defaultdict(list)
    for row in rows:
        found[row.deletion_id].append(row)
    return found


def check(world: World, before: Snapshot, now: Snapshot) -> None:
    """Raise AssertionError naming the first invariant that does not hold."""
    for invariant in INVARIANTS:
        invariant(world, before, now)


def active_workspaces_hold_what_was_put_into_them(world: World, _: Snapshot, now: Snapshot) -> None:
    """I3 and I4: neighbours, successors and restored ones have lost nothing and gained nothing."""
    states = {
        workspace_id: state for workspace_id, state in now.workspaces.items() if workspace_id in world.held
    }
    assert {one for one, state in states.items() if state is WorkspaceState.ACTIVE} == world.active
    for workspace_id in world.active:
        assert now.rows.get(workspace_id, {}) == world.held[workspace_id]
        assert now.bytes[workspace_id] == world.held[workspace_id].get("filesets", set())


def nothing_is_left_of_workspaces_that_are_gone(world: World, _: Snapshot, now: Snapshot) -> None:
    """I1."""
    for workspace_id in world.held.keys() - now.workspaces.keys():
        skipped = now.skipped(workspace_id)
        assert workspace_id not in now.rows
        assert now.bytes[workspace_id] <= skipped, "bytes outlived their workspace"
        assert now.bytes[workspace_id] or workspace_id not in now.in_store, "a directory or an upload is left"


def no_row_goes_before_its_process(world: World, _: Snapshot, now: Snapshot) -> None:
    """I1: what runs has a row, or an administrator answers for it."""
    for workspace_id, held in world.held.items():
        there = now.rows.get(workspace_id, {})
        for kind in ("jobs", "deployments"):
            gone = held.get(kind, set()) - there.get(kind, set())
            assert gone & world.running <= now.skipped(workspace_id), f"{kind} went while they ran"


def data_goes_after_everything_that_runs(world: World, _: Snapshot, now: Snapshot) -> None:
    """I5."""
    for workspace_id, held in world.held.items():
        there = now.rows.get(workspace_id, {})
        if (there.get("jobs", set()) | there.get("deployments", set())) - now.skipped(workspace_id):
            assert now.bytes[workspace_id] == held["filesets"], "bytes went while something ran"
            for kind in ("filesets", "entities"):
                assert there.get(kind) == held.get(kind), f"{kind} went while something ran"


def failed_says_why(_: World, __: Snapshot, now: Snapshot) -> None:
    """I6."""
    for deletion in now.deletions.values():
        if deletion.state is DeletionState.FAILED:
            assert deletion.reason
            assert any(failure.skipped_by is None for failure in now.failures[deletion.id])
            assert deletion.lease_owner is None
            assert deletion.lease_until is None
            assert now.workspaces[deletion.workspace_id] is WorkspaceState.FAILED


def only_what_is_due_is_claimed(_: World, before: Snapshot, now: Snapshot) -> None:
    """I7: fences only grow, one by one, and only when nobody else holds the lease."""
    for deletion_id, deletion in before.deletions.items():
        grown = now.deletions[deletion_id].fence - deletion.fence
        assert grown in {0, 1}
        assert not grown or before.is_due(deletion_id, now.at), "claimed while it was not to be had"


def attempts_stay_within_their_budget(world: World, _: Snapshot, now: Snapshot) -> None:
    """I8: counted anew only after progress, in another phase, or when it was reopened."""
    for deletion in now.deletions.values():
        assert deletion.attempts <= world.settings.max_attempts
        reopened = sum(event.event in _REOPENING for event in now.events[deletion.id])
        progress = (sum(deletion.deleted_counts.values()), deletion.phase, reopened)
        counted, at_progress = world.budget.get(deletion.id, (0, progress))
        if deletion.attempts < counted:
            assert progress != at_progress, "attempts were forgotten without progress"
        if deletion.attempts != counted:
            world.budget[deletion.id] = (deletion.attempts, progress)


def everything_is_accounted_for(world: World, before: Snapshot, now: Snapshot) -> None:
    """I10: what was there is still there, or counted, or skipped."""
    for deletion in now.deletions.values():
        if deletion.state is DeletionState.RESTORED:
            continue
        held, there = world.held[deletion.workspace_id], now.rows.get(deletion.workspace_id, {})
        counted, skipped = deletion.deleted_counts, now.skipped(deletion.workspace_id)
        gone = {kind: len(ids - there.get(kind, set()) - skipped) for kind, ids in held.items()}
        assert counted == {kind: number for kind, number in gone.items() if number}
        if any(event.event == "phase_started" for event in now.events[deletion.id]):
            assert deletion.created_counts == {kind: len(ids) for kind, ids in held.items()}
        if earlier := before.deletions.get(deletion.id):
            assert all(counted[kind] >= number for kind, number in earlier.deleted_counts.items())


def histories_tell_the_whole_story(_: World, __: Snapshot, now: Snapshot) -> None:
    """I10: one beginning, one end, and no phase that stops without saying how."""
    for deletion in now.deletions.values():
        events = now.events[deletion.id]
        names = [event.event for event in events]
        assert names[0] == "requested"
        assert names.count("requested") == 1
        milestones = [(e.event, e.detail.get("kind")) for e in events if e.event in _MILESTONES]
        for earlier, later in pairwise(milestones):
            if earlier[0] == "phase_started":
                assert later in {("phase_finished", earlier[1]), ("failed", None)}
            if later[0] == "phase_finished":
                assert earlier == ("phase_started", later[1])
        if deletion.state is DeletionState.DONE:
            assert deletion.workspace_id not in now.workspaces
            assert (names[-1], names.count("finished"), names.count("started")) == ("finished", 1, 1)
            assert all(failure.skipped_by for failure in now.failures[deletion.id]), (
                "resolved, yet still listed"
            )
        if deletion.state is DeletionState.RESTORED:
            assert names == ["requested", "restored"]


_REOPENING = {"retried", "reopened", "reattempted"}
_MILESTONES = {"phase_started", "phase_finished", "failed", "finished"}

INVARIANTS = (
    active_workspaces_hold_what_was_put_into_them,
    nothing_is_left_of_workspaces_that_are_gone,
    no_row_goes_before_its_process,
    data_goes_after_everything_that_runs,
    failed_says_why,
    only_what_is_due_is_claimed,
    attempts_stay_within_their_budget,
    everything_is_accounted_for,
    histories_tell_the_whole_story,
)


def check_that_the_sweep_forgot_nobody(
    before: Snapshot, now: Snapshot, published: set[UUID], settings: Settings
) -> None:
    """Every due row has been enqueued, or will be within the time a message needs."""
    requeue_interval = timedelta(seconds=settings.requeue_after_seconds)
    for deletion_id, deletion in before.deletions.items():
        # What became due while the sweep was on its way may wait for the next one.
        was_due = before.is_due(deletion_id, before.at) or deletion.state is DeletionState.FAILED
        if was_due and now.is_due(deletion_id, now.at) and deletion_id not in published:
            assert deletion.last_enqueued_at is not None
            assert deletion.last_enqueued_at >= before.at - requeue_interval
