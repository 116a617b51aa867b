"""A store that accepts every call and answers none: it is seen to be down, and costs little until it answers again."""

import threading
from collections.abc import Iterator
from dataclasses import replace
from threading import Event
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import select

from app.cleanup import timeout
from app.cleanup.engine import run_slice
from app.cleanup.outcomes import Advanced, Finished, Idle, Postponed
from app.cleanup.timeout import call_with_timeout
from app.models import DeletionFailure
from tests import factories
from tests.cleanup.conftest import TimeMachine, the
from tests.support.deadlines import DEADLINE_S

FILESETS = 12
TIMEOUT_S = 1
"""Of true time, two hundred times what an answer takes; the clock of the deletions goes on by ten seconds each time."""


class HangingStore:
    """The real store, but once it hangs its calls answer no more until it is released."""

    def __init__(self, real: Any, clock: TimeMachine) -> None:
        self.real, self.clock = real, clock
        self.answers = 0
        """The number of calls that are answered before it hangs."""
        self.asked: list[UUID] = []
        self.released = Event()
        self._one_at_a_time = threading.Lock()

    def purge_fileset(self, workspace_id: UUID, fileset_id: UUID, *, within_s: float) -> Any:
        self._answer(fileset_id)
        return self.real.purge_fileset(workspace_id, fileset_id, within_s=within_s)

    def purge_workspace(self, workspace_id: UUID, *, keep: Any) -> None:
        self._answer(workspace_id)
        self.real.purge_workspace(workspace_id, keep=keep)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)

    def _answer(self, what: UUID) -> None:
        with self._one_at_a_time:
            self.asked.append(what)
            hangs = len(self.asked) > self.answers and not self.released.is_set()
            if hangs:
                self.clock.pass_(10)
        if hangs:
            assert self.released.wait(DEADLINE_S)

    def release(self) -> None:
        """Answer all calls, also those that nobody waits for any more."""
        self.released.set()
        for thread in left_behind():
            thread.join(DEADLINE_S)


def left_behind() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "call to filesets"]


@pytest.fixture
def hanging(context, clock) -> Iterator[HangingStore]:
    store = HangingStore(context.store, clock)
    yield store
    store.release()


@pytest.fixture
def impatient(context, settings, hanging):
    """A context whose calls time out at once, and whose slices end as those of the product do: after two time-outs."""

    def with_slices_of(slice_seconds: float = 20, **others: Any) -> Any:
        limits = {"item_timeout_seconds": TIMEOUT_S, "slice_seconds": slice_seconds, **others}
        return type(context)(
            settings=settings.model_copy(update=limits),
            sessions=context.sessions,
            store=hanging,
            publisher=context.publisher,
        )

    return with_slices_of


def doomed(session, delete, name: str = "ml-team", filesets: int = FILESETS) -> UUID:
    workspace = factories.make_workspace(session, name)
    for number in range(filesets):
        factories.make_fileset(session, workspace, f"fileset-{number}")
    session.commit()
    return delete(name)


def test_a_store_that_hangs_is_seen_to_be_down_within_three_time_outs(
    session, delete, clock, hanging, impatient
):
    deletion_id = doomed(session, delete)

    outcome = run_slice(impatient(), deletion_id, owner="w")

    assert isinstance(outcome, Postponed)
    assert "TimeoutError: no answer within 1 s" in outcome.reason
    assert outcome.attempt == 1
    assert len(hanging.asked) <= 3
    assert isinstance(run_slice(impatient(), deletion_id, owner="w"), Idle)


def test_time_outs_on_both_sides_of_the_end_of_a_slice_count_together(
    session, delete, clock, hanging, impatient
):
    hanging.answers = 1
    deletion_id = doomed(session, delete)

    first = run_slice(impatient(10, filesets_at_once=1), deletion_id, owner="w")
    second = run_slice(impatient(), deletion_id, owner="w")

    assert first == Advanced(f"ml-team filesets: 1 deleted, {FILESETS - 1} left")
    assert isinstance(second, Postponed)
    assert len(hanging.asked) - hanging.answers <= 3


def test_a_slice_that_removed_nothing_in_its_time_is_not_due_at_once(
    session, delete, clock, hanging, impatient
):
    deletion_id = doomed(session, delete)

    outcome = run_slice(impatient(10), deletion_id, owner="w")

    assert isinstance(outcome, Postponed)
    assert len(hanging.asked) == 1
    assert the(session, deletion_id).cursor == hanging.asked[0], "the next slice tries others"


def test_what_hangs_costs_few_threads_and_no_time_once_it_is_known(
    session, delete, drive, clock, settings, hanging, impatient
):
    deletions = [doomed(session, delete, f"team-{number}") for number in range(3)]

    outcomes = []
    for deletion_id in deletions * 2:
        outcomes.append(run_slice(impatient(), deletion_id, owner="w"))
        clock.pass_(10)
    clock.pass_(200)

    assert all(isinstance(outcome, Postponed) for outcome in outcomes)
    assert "not tried: no answer yet to 4 others" in outcomes[-1].reason
    assert len(hanging.asked) == len(left_behind()) == timeout.MOST_UNANSWERED

    hanging.release()
    last = [drive(each, context=replace(impatient(), settings=settings))[-1] for each in deletions]
    assert {type(outcome) for outcome in last} == {Finished}
    assert session.scalars(select(DeletionFailure)).all() == []


def test_a_store_that_begins_to_hang_costs_no_more_threads_than_one_that_always_did(
    session, delete, clock, hanging, impatient
):
    hanging.answers = 5
    deletion_id = doomed(session, delete)

    outcome = run_slice(impatient(slice_seconds=1000), deletion_id, owner="w")

    assert isinstance(outcome, Postponed)
    assert len(hanging.asked) > hanging.answers + 1, "several had begun"
    assert len(left_behind()) <= timeout.MOST_UNANSWERED
    assert the(session, deletion_id).cursor == max(hanging.asked), "and all of them are settled"
    assert len(session.scalars(select(DeletionFailure)).all()) == len(hanging.asked) - hanging.answers


def test_the_last_step_is_postponed_while_the_store_hangs(
    session, delete, drive, clock, settings, hanging, impatient
):
    deletion_id = doomed(session, delete, filesets=0)

    outcome = run_slice(impatient(TIMEOUT_S), deletion_id, owner="w")

    assert isinstance(outcome, Postponed)
    [failure] = session.scalars(select(DeletionFailure))
    assert (failure.kind, failure.message) == ("store", "TimeoutError: no answer within 1 s")
    hanging.release()
    clock.pass_(10)
    assert isinstance(drive(deletion_id, context=replace(impatient(), settings=settings))[-1], Finished)


def test_one_resource_that_hangs_is_not_tried_again_before_it_answers(hanging):
    stuck, free = uuid4(), uuid4()

    def call(resource_id: UUID) -> Any:
        action = (lambda: hanging._answer(stuck)) if resource_id == stuck else (lambda: "went")
        return call_with_timeout(action, timeout_s=TIMEOUT_S, dependency="filesets", resource_id=resource_id)

    assert [str(call(stuck)) for _ in range(3)] == [
        "no answer within 1 s",
        "no answer yet to the last attempt",
        "no answer yet to the last attempt",
    ]
    assert call(free) == "went"
    assert hanging.asked == [stuck]
    hanging.release()
    assert call(stuck) is None
