"""A deletion's world: time that passes at once, kinds that can be told to fail, and a driver of slices."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy.orm import Session

from app.cleanup import engine, requests, resource_pass
from app.cleanup.engine import run_slice
from app.cleanup.outcomes import Failed, Finished, Idle, Outcome, Postponed
from app.context import Context
from app.db import Sessions, session_scope
from app.models import Deletion
from tests.support.actors import trusted
from tests.support.aging import age_everything, time_of


@dataclass
class TimeMachine:
    """Lets time pass at once: every row grows older, and so does the slice that is at work.

    For the deadlines of slices it is the only time that passes.
    """

    sessions: Sessions
    passed_s: float = 0.0

    def now(self) -> datetime:
        """The database's time."""
        with session_scope(self.sessions) as session:
            return time_of(session)

    def monotonic(self) -> float:
        return self.passed_s

    def pass_(self, seconds: float) -> None:
        self.passed_s += seconds
        with self.sessions() as session:
            age_everything(session, seconds)


@pytest.fixture
def clock(context: Context, monkeypatch: pytest.MonkeyPatch) -> TimeMachine:
    clock = TimeMachine(context.sessions)
    for module in (engine, resource_pass):
        monkeypatch.setattr(module, "monotonic", clock.monotonic)
    return clock


@pytest.fixture
def delete(context: Context) -> Callable[[str], UUID]:
    """Ask for a workspace's deletion, as the API does; the deletion's id."""

    def request(name: str) -> UUID:
        with session_scope(context.sessions) as session:
            return requests.request_deletion(session, context, trusted("ann@example.com"), name).id

    return request


@pytest.fixture
def drive(context: Context, clock: TimeMachine) -> Callable[..., list[Outcome]]:
    """Run slices until the deletion ends or `rounds` are over, letting time pass whenever one is postponed."""

    def run(deletion_id: UUID, *, rounds: int = 200, context: Context = context) -> list[Outcome]:
        outcomes: list[Outcome] = []
        for _ in range(rounds):
            outcomes.append(run_slice(context, deletion_id, owner="test"))
            match outcomes[-1]:
                case Postponed(_, _, retry_in_s):
                    clock.pass_(retry_in_s + 0.001)
                case Finished() | Failed() | Idle():
                    return outcomes
        raise AssertionError(f"the deletion did not end in {rounds} slices: {outcomes[-3:]}")

    return run


@dataclass
class FaultyStore:
    """The real store, but for filesets it was told to stumble over."""

    real: Any
    faults: dict[UUID, Exception] = field(default_factory=dict)
    purged: list[UUID] = field(default_factory=list)

    def purge_fileset(self, workspace_id: UUID, fileset_id: UUID, *, within_s: float) -> Any:
        self.purged.append(fileset_id)
        if fault := self.faults.get(fileset_id):
            raise fault
        return self.real.purge_fileset(workspace_id, fileset_id, within_s=within_s)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)


@pytest.fixture
def faulty(context: Context) -> FaultyStore:
    store = FaultyStore(context.store)
    object.__setattr__(context, "store", store)
    return store


def the(session: Session, deletion_id: UUID) -> Deletion:
    """The deletion as it is in the database now."""
    session.rollback()
    return session.get_one(Deletion, deletion_id, populate_existing=True)
