"""Several filesets at the same time: as many as the setting says, settled in order, and no innocent one suffers."""

from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Barrier, Event, Lock
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.cleanup import resource_pass
from app.cleanup.engine import run_slice
from app.cleanup.outcomes import Failed, Finished, Postponed
from app.cleanup.timeout import begin_call
from app.config import Settings
from app.context import Context
from app.models import DeletionEvent, DeletionFailure, Fileset
from tests import factories
from tests.cleanup.conftest import TimeMachine, the
from tests.support.deadlines import DEADLINE_S

FILESETS = 11
"""One, two and then four at a time: the last eight are two groups of four."""


@dataclass
class Watched:
    """The real store, which tells of each purge before it begins; how many were under way at the same time."""

    real: Any
    begins: Callable[[UUID], None]
    most: int = 0
    _now: int = 0
    _lock: Lock = field(default_factory=Lock)

    def purge_fileset(self, workspace_id: UUID, fileset_id: UUID, *, within_s: float) -> Any:
        with self._lock:
            self._now += 1
            self.most = max(self.most, self._now)
        try:
            self.begins(fileset_id)
            return self.real.purge_fileset(workspace_id, fileset_id, within_s=within_s)
        finally:
            with self._lock:
                self._now -= 1

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)


@pytest.fixture
def filesets(session: Session) -> list[UUID]:
    workspace = factories.make_workspace(session)
    ids = [
        factories.make_fileset(session, workspace, f"fileset-{number:02}").id for number in range(FILESETS)
    ]
    session.commit()
    return ids


@pytest.fixture
def watching(context: Context, settings: Settings, clock: TimeMachine) -> Callable[..., Watched]:
    def watch(begins: Callable[[UUID], None], **limits: Any) -> Watched:
        watched = Watched(context.store, begins)
        object.__setattr__(context, "store", watched)
        limits = {"item_timeout_seconds": DEADLINE_S, "slice_seconds": 2 * DEADLINE_S} | limits
        object.__setattr__(context, "settings", settings.model_copy(update=limits))
        return watched

    return watch


def test_as_many_are_deleted_at_the_same_time_as_the_setting_says(
    context: Context, delete: Callable[[str], UUID], watching: Callable[..., Watched], filesets: list[UUID]
) -> None:
    together = Barrier(4)
    watched = watching(lambda one: together.wait(DEADLINE_S) if one in filesets[3:] else None)

    outcome = run_slice(context, delete("ml-team"), owner="w")

    assert outcome == Finished(f"ml-team is gone: filesets {FILESETS}")
    assert watched.most == 4


def test_one_after_another_if_the_setting_says_so(
    context: Context, delete: Callable[[str], UUID], watching: Callable[..., Watched], filesets: list[UUID]
) -> None:
    begun: list[UUID] = []
    watched = watching(begun.append, filesets_at_once=1)

    run_slice(context, delete("ml-team"), owner="w")

    assert (watched.most, begun) == (1, filesets)


def test_what_is_done_before_its_turn_waits_for_those_before_it(
    session: Session,
    context: Context,
    delete: Callable[[str], UUID],
    watching: Callable[..., Watched],
    filesets: list[UUID],
) -> None:
    """The cursor never passes one that is under way: a worker that is lost now leaves nothing behind."""
    third, later = filesets[2], Event()
    seen: list[Any] = []

    def begins(one: UUID) -> None:
        if one == filesets[4]:
            later.set()
        elif one == third:
            assert later.wait(DEADLINE_S)
            with Session(session.get_bind()) as other:
                left = list(other.scalars(select(Fileset.id).order_by(Fileset.id)))
                seen.append((the(other, deletion_id).cursor, left))

    watching(begins)
    deletion_id = delete("ml-team")

    run_slice(context, deletion_id, owner="w")

    assert seen == [(filesets[1], filesets[2:])]


def test_one_that_fails_makes_the_next_ones_go_one_by_one(
    session: Session,
    context: Context,
    delete: Callable[[str], UUID],
    watching: Callable[..., Watched],
    filesets: list[UUID],
) -> None:
    bad = set(filesets[1:])
    asked: list[UUID] = []

    def begins(one: UUID) -> None:
        asked.append(one)
        if one in bad:
            raise ConnectionError("503")

    watching(begins)

    outcome = run_slice(context, delete("ml-team"), owner="w")

    assert isinstance(outcome, Postponed)
    assert len(asked) == 1 + context.settings.dependency_down_after
    assert set(session.scalars(select(DeletionFailure.resource_id))) == {str(one) for one in asked[1:]}


class Killed(BaseException):
    """As sudden as SIGKILL: no handler of ours sees it."""


@pytest.mark.parametrize("place", [0, 3, 5, 10])
def test_one_that_kills_its_worker_is_named_and_costs_no_other_anything(
    session: Session,
    context: Context,
    clock: TimeMachine,
    delete: Callable[[str], UUID],
    watching: Callable[..., Watched],
    filesets: list[UUID],
    monkeypatch: pytest.MonkeyPatch,
    place: int,
) -> None:
    deadly, deaths = filesets[place], []

    def begin(*args: Any, resource_id: UUID, **options: Any) -> Any:
        if resource_id == deadly:  # at once: what has begun before it is not settled
            deaths.append(resource_id)
            raise Killed
        return begin_call(*args, resource_id=resource_id, **options)

    watching(lambda _: None)
    monkeypatch.setattr(resource_pass, "begin_call", begin)
    deletion_id = delete("ml-team")
    outcome: Any = None
    while not isinstance(outcome, Finished | Failed) and len(deaths) < 30:
        try:
            outcome = run_slice(context, deletion_id, owner="w")
        except Killed:
            outcome = None
        clock.pass_(61 if outcome is None else getattr(outcome, "retry_in_s", 0) + 0.001)

    assert isinstance(outcome, Failed)
    assert f"filesets/fileset-{place:02}" in outcome.reason
    assert session.scalars(select(Fileset.id)).all() == [deadly]
    assert session.scalars(select(DeletionFailure.resource_id)).all() == [str(deadly)]
    # One in each pass, and one more where it had begun beside others: then it is not known on which one it was lost.
    assert len(deaths) <= context.settings.max_attempts + 3
    lost = select(DeletionEvent.id).where(DeletionEvent.event == "worker_lost")
    assert len(session.scalars(lost).all()) == len(deaths)
