"""Every interleaving: two workers, crashes, sleeps, faults and administrators, against the invariants.

By default the same few examples each time; `make search` tries more. For a long search with fresh ones:
`CLEANUP_SEARCH_EXAMPLES=1000 make test ARGS="-k interleaving"`.
"""

import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import HealthCheck, Phase
from hypothesis import settings as search_settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import Connection, Engine, select, update

from app.cleanup import control, operations, requests
from app.cleanup.engine import run_slice
from app.cleanup.failures import WHOLE_KIND
from app.config import Settings
from app.context import Context
from app.db import session_scope
from app.errors import Conflict, NotFound
from app.lifecycle import DeletionState, DeploymentStatus, JobStatus
from app.maintenance import sweep
from app.models import Deletion, Deployment, Job, RoleBinding, Workspace
from app.services.workspaces import create_workspace, writable_workspace
from app.storage.blob_store import BlobStore
from tests import factories
from tests.cleanup.conftest import FaultyStore, TimeMachine
from tests.cleanup.interleaving import OWNER, SimulatedWorker
from tests.cleanup.invariants import Observer, Snapshot, World, check, check_that_the_sweep_forgot_nobody
from tests.support.actors import trusted
from tests.support.database import restore
from tests.support.publisher import RecordingPublisher
from tests.support.search import examples

ANN = trusted("ann@example.com")
DOOMED = ("alpha", "beta")
FAULTS: dict[str, Callable[[], Exception]] = {
    "transient": lambda: ConnectionError("503 Service Unavailable"),
    "permanent": lambda: PermissionError("access denied"),
}
ENDED = {DeletionState.DONE, DeletionState.RESTORED}

REMEDIES = [
    *["retry", "skip", "force"] * 2,
    "restore",
    "pause",
]  # a pause or a restore ends most of what can go wrong

workers = st.integers(0, 1)
choices = st.integers(0, 11)
"""Picks one of what there is, whatever there is."""


class Cascade(RuleBasedStateMachine):
    """Workspaces `alpha` and `beta` may be deleted, and their successors; `neighbour` never is."""

    def __init__(self, context: Context, reader: Connection, clock: TimeMachine) -> None:
        super().__init__()
        self.context = context
        self.store: FaultyStore = context.store
        self.publisher: RecordingPublisher = context.publisher
        self.clock = clock
        self.world = World(context.settings)
        self.observer = Observer(reader, self.store.real, self.world)
        self.workers = [SimulatedWorker(context) for _ in range(2)]
        for name in (*DOOMED, "neighbour"):
            self._make_workspace(name, is_rich=name == "alpha")
        self.now = self.observer.look()
        self._request("alpha")
        self._look()

    def _make_workspace(self, name: str, *, is_rich: bool) -> None:
        with session_scope(self.context.sessions) as session:
            workspace = create_workspace(session, ANN, name, description=None, with_admin=False)
            bytes_ = {"store": self.store.real, "files": {"a/b.txt": b"bytes"}}
            factories.make_fileset(session, workspace, "f-0", **bytes_)
            job = factories.make_job(session, workspace, "j-0", JobStatus.ACTIVE, host="somewhere")
            self.world.running.add(job.id)
            factories.make_project(session, workspace)
            if is_rich:
                factories.make_fileset(session, workspace, "f-1", **bytes_)
                factories.make_fileset(session, workspace, "f-2", **bytes_)
                factories.make_job(session, workspace, "j-1")
                factories.make_config(session, workspace)
                deployment = factories.make_deployment(
                    session, workspace, status=DeploymentStatus.READY, host="somewhere"
                )
                self.world.running.add(deployment.id)
                factories.make_entity(
                    session, workspace, parent=factories.make_entity(session, workspace, "root")
                )
                factories.make_binding(session, workspace)
                self.store.real.stage(workspace.id, uuid4(), "a", [b"abandoned"])
        self.world.active.add(workspace.id)
        self.world.held[workspace.id] = self.observer.look().rows[workspace.id]

    @invariant()
    def _look(self) -> None:
        """Check what holds at every moment. Also called between the steps of a rule that makes several."""
        before, self.now = self.now, self.observer.look()
        check(self.world, before, self.now)

    # --- workers ----------------------------------------------------------------------------------------

    @rule(number=workers, which=st.none() | choices, steps=st.integers(1, 12), is_killed=st.booleans())
    def work(self, number: int, which: int | None, steps: int, *, is_killed: bool) -> None:
        """A worker goes on for a while, and then falls asleep or dies.

        An idle one takes a message for it, be it on time, late or doubled.
        """
        worker = self.workers[number]
        if not worker.is_busy:
            worker.start(None if which is None else self._unfinished(which).id)
        for _ in range(steps):
            if worker.is_busy:
                self._step(worker)
        if is_killed and worker.is_busy:
            worker.crash()

    @rule(which=choices, slices=st.integers(1, 12), is_runtime_prompt=st.sampled_from([True, True, False]))
    def work_undisturbed(self, which: int, slices: int, *, is_runtime_prompt: bool) -> None:
        """As nearly always: each message comes when the slice before it said, and nothing goes wrong."""
        idle = [worker for worker in self.workers if not worker.is_busy]
        deletion = self._unfinished(which)
        for _ in range(slices if idle else 0):
            if deletion.state is not DeletionState.DELETING:
                return
            self._pass(_seconds_in_the_way(deletion, self.now))
            idle[0].start(deletion.id)
            while idle[0].is_busy:
                self._step(idle[0])
            if is_runtime_prompt:
                self.runtime_confirms()
            deletion = self.now.deletions[deletion.id]

    def _step(self, worker: SimulatedWorker) -> None:
        before = self.now
        worker.step()
        self._look()
        if worker.claimed:
            deletion_id, fence = worker.claimed
            if before.deletions[deletion_id].fence != fence:
                assert self.now.record_of(deletion_id) == before.record_of(deletion_id), (
                    "I7: a stale worker wrote"
                )
        for deletion_id, deletion in before.deletions.items():
            if self.now.deletions[deletion_id].fence != deletion.fence:
                worker.claimed = deletion_id, self.now.deletions[deletion_id].fence

    # --- the world around them --------------------------------------------------------------------------

    @rule(seconds=st.sampled_from([3, 25, 130, 700]))
    def pass_time(self, seconds: int) -> None:
        """A moment, a slice, more than a lease, or more than the longest wait."""
        self._pass(seconds)

    def _pass(self, seconds: float) -> None:
        self.clock.pass_(seconds)
        self._look()  # of snapshots from before the times are no longer right

    @rule(which=choices, fault=st.sampled_from([*FAULTS, None]))
    def break_or_heal_a_fileset(self, which: int, fault: str | None) -> None:
        filesets = sorted(one for held in self.now.rows.values() for one in held.get("filesets", ()))
        fileset = filesets[which % len(filesets)]
        self.store.faults.pop(fileset, None)
        if fault:
            self.store.faults[fileset] = FAULTS[fault]()

    @precondition(lambda self: self.store.purged)
    @rule(which=choices)
    def a_purge_that_was_given_up_completes_late(self, which: int) -> None:
        fileset = self.store.purged[which % len(self.store.purged)]
        for workspace_id, held in self.world.held.items():
            if fileset in held["filesets"]:
                self.store.real.purge_fileset(workspace_id, fileset)

    @rule()
    def runtime_confirms(self) -> None:
        """What was asked to stop is seen to have stopped."""
        with session_scope(self.context.sessions) as session:
            for model, asked, stopped in (
                (Job, JobStatus.CANCELLING, JobStatus.CANCELLED),
                (Deployment, DeploymentStatus.DELETING, DeploymentStatus.DELETED),
            ):
                ended = (
                    update(model)
                    .where(model.status == asked)
                    .values(status=stopped, host=None)
                    .returning(model.id)
                )
                self.world.running.difference_update(session.scalars(ended))

    @rule()
    def sweep(self) -> None:
        self._sweep()

    def _sweep(self) -> set[UUID]:
        before, published_before = self.now, len(self.publisher.published)
        sweep.sweep(self.context)
        self._look()
        facts = [message.facts for message in self.publisher.published[published_before:]]
        published = {UUID(one["deletion_id"]) for one in facts if "deletion_id" in one}
        check_that_the_sweep_forgot_nobody(before, self.now, published, self.context.settings)
        return published

    # --- people -----------------------------------------------------------------------------------------

    @rule(name=st.sampled_from(DOOMED), wish=st.sampled_from(["delete", "succeed", "create"]))
    def ask(self, name: str, wish: str) -> None:
        """A user deletes a workspace, makes one of the same name, or creates something in it."""
        match wish:
            case "delete":
                self._request(name)
            case "succeed" if not self._active(name) and len(self.world.held) < 6:
                self._make_workspace(name, is_rich=False)
            case "create":
                self._create_late(name)

    def _request(self, name: str) -> None:
        workspace_id = self._active(name)
        try:
            with session_scope(self.context.sessions) as session:
                deletion = requests.request_deletion(session, self.context, ANN, name)
        except NotFound:
            assert workspace_id is None
            assert not self._living(name)
            return
        if workspace_id:
            assert deletion.workspace_id == workspace_id
            self.world.active.remove(workspace_id)
        else:
            assert deletion.id in self._living(name), "asking again is the same deletion"

    def _create_late(self, name: str) -> None:
        """I2: somebody who may not have heard of the deletion creates something."""
        workspace_id = self._active(name)
        held = self.world.held.get(workspace_id, {})
        try:
            with session_scope(self.context.sessions) as session:
                home = writable_workspace(session, ANN, name)
                project = factories.make_project(session, home, f"late-{len(held['projects'])}")
        except NotFound:
            assert workspace_id is None
        else:
            held["projects"].add(project.id)

    @rule(which=choices, remedy=st.sampled_from(REMEDIES))
    def administer(self, which: int, remedy: str) -> None:
        """What an administrator may do; a pause lasts until the next thing they do."""
        self._set_paused(is_paused=remedy == "pause")
        match remedy:
            case "restore":
                self._restore(self._unfinished(which))
            case "retry" | "skip" | "force" if failed := self._failed():
                self._remedy(failed[which % len(failed)], remedy, which)

    def _set_paused(self, *, is_paused: bool) -> None:
        with session_scope(self.context.sessions) as session:
            control.set_paused(session, paused=is_paused, actor=ANN.id)

    def _restore(self, before: Any) -> None:
        permitted = before.state is DeletionState.DELETING and before.started_at is None
        permitted = permitted and not self._active(before.workspace_name)
        try:
            with session_scope(self.context.sessions) as session:
                operations.restore(session, self.context, ANN, session.get_one(Deletion, before.id))
        except Conflict:
            assert not permitted
            return
        assert permitted
        self.world.active.add(before.workspace_id)
        with session_scope(self.context.sessions) as session:
            revoked = select(RoleBinding.id).where(
                RoleBinding.workspace_id == before.workspace_id, RoleBinding.revoked_at.is_not(None)
            )
            assert session.scalar(revoked) is None, "its members have their access again"

    def _remedy(self, deletion_id: UUID, remedy: str, which: int = 0) -> None:
        skippable = [
            failure
            for failure in self.now.failures[deletion_id]
            if failure.skipped_by is None and failure.resource_id != WHOLE_KIND
        ]
        try:
            with session_scope(self.context.sessions) as session:
                deletion = session.get_one(Deletion, deletion_id)
                if remedy == "retry":
                    operations.reopen(session, self.context, ANN, deletion, event="retried")
                    return
                if remedy == "skip" and skippable:
                    failure = skippable[which % len(skippable)]
                    chosen = {"kind": failure.kind, "resource_id": failure.resource_id}
                    operations.skip(session, self.context, ANN, deletion, reason="ticket 7", **chosen)
                else:
                    operations.force(session, self.context, ANN, deletion, reason="ticket 7")
        except NotFound:
            assert not skippable

    # --- the end ----------------------------------------------------------------------------------------

    def teardown(self) -> None:
        try:
            if sys.exc_info()[0] is None:  # otherwise a failure is on its way out, and is what matters
                self._end_everything()
                self._wake_the_sleepers()
        finally:
            for worker in self.workers:
                if worker.is_busy:
                    worker.crash()

    def _end_everything(self) -> None:
        """I9: with its causes mended, the sweep alone brings every deletion to its end."""
        self.store.faults.clear()
        self._set_paused(is_paused=False)
        for _ in range(100):
            self._look()
            unfinished = [one for one in self.now.deletions.values() if one.state not in ENDED]
            if not unfinished:
                return
            for deletion_id in self._failed():
                if self.now.deletions[deletion_id].next_reattempt_at is None:
                    self._remedy(deletion_id, "retry")
            for deletion_id in sorted(self._sweep()):
                run_slice(self.context, deletion_id, owner=OWNER)
                self._look()
            self.runtime_confirms()
            self.clock.pass_(self.context.settings.backoff_cap_seconds + 1)
        raise AssertionError(f"I9: {unfinished} did not end")

    def _wake_the_sleepers(self) -> None:
        """A worker that slept through it all changes nothing."""
        for worker in self.workers:
            while worker.is_busy:
                self._step(worker)

    # --- what there is ----------------------------------------------------------------------------------

    def _active(self, name: str) -> UUID | None:
        with session_scope(self.context.sessions) as session:
            query = select(Workspace.id).where(Workspace.name == name, Workspace.id.in_(self.world.active))
            return session.scalar(query)

    def _unfinished(self, which: int) -> Any:
        """One of the deletions, if possible one that is under way."""
        deletions = list(self.now.deletions.values())
        living = [one for one in deletions if one.state is DeletionState.DELETING]
        return (living or deletions)[which % len(living or deletions)]

    def _living(self, name: str) -> list[UUID]:
        deletions = self.now.deletions.values()
        return [one.id for one in deletions if one.workspace_name == name and one.state not in ENDED]

    def _failed(self) -> list[UUID]:
        return [one.id for one in self.now.deletions.values() if one.state is DeletionState.FAILED]


def _seconds_in_the_way(deletion: Any, seen: Snapshot) -> float:
    """How long it takes until a slice of it can begin."""
    lapsed_at = [deletion.lease_until + timedelta(seconds=1)] if deletion.lease_until else []
    return max(0.0, *((at - seen.at).total_seconds() for at in (deletion.next_run_at, *lapsed_at)))


SEARCH_EXAMPLES = os.environ.get("CLEANUP_SEARCH_EXAMPLES")
SEARCH = search_settings(
    max_examples=int(SEARCH_EXAMPLES or examples(short=6, long=40)),
    stateful_step_count=50,
    derandomize=SEARCH_EXAMPLES is None,
    database=None,
    deadline=None,  # a step is as long as the machine is busy
    phases=[Phase.generate, Phase.shrink],
    # An example is a long story told to a real database: it is meant to be slow and large.
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    report_multiple_bugs=False,
    print_blob=False,
)


@pytest.mark.timeout(3600 if SEARCH_EXAMPLES else 900)  # a failing example is made small for some minutes
def test_no_interleaving_of_workers_breaks_a_promise_of_the_cascade(
    context: Context, engine: Engine, settings: Settings, clock: TimeMachine
) -> None:
    impatient = settings.model_copy(
        update={
            "max_attempts": 3,
            "page_size": 2,
            "chunk_size": 1,
            "dependency_down_after": 2,
            "waiting_limit_seconds": 120,
            "reattempt_delays_seconds": (600, 3600),
            "item_timeout_seconds": 600,  # of true time: a suspended purge is not a slow one
        }
    )

    def fresh_cascade() -> Cascade:
        restore(engine)
        shutil.rmtree(settings.data_dir, ignore_errors=True)
        store = FaultyStore(BlobStore.open(settings.blob_url))
        return Cascade(
            replace(context, settings=impatient, store=store, publisher=RecordingPublisher()), reader, clock
        )

    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as reader:
        run_state_machine_as_test(fresh_cascade, settings=SEARCH)
