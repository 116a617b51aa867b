"""A deletion's world: a fake clock, kinds that can be told to fail, and a driver of slices."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy.orm import Session

from app.cleanup import requests
from app.cleanup.engine import run_slice
from app.cleanup.outcomes import Failed, Finished, Idle, Outcome, Postponed
from app.context import Context
from app.db import session_scope
from app.models import Deletion
from tests.support.actors import trusted


@dataclass
class FakeClock:
    """Time that passes only when it is told to."""

    # Ahead of the clock by which requests are stamped, also where a busy machine takes long between the two.
    at: datetime = field(default_factory=lambda: datetime.now(UTC) + timedelta(seconds=30))

    def now(self) -> datetime:
        return self.at

    def pass_(self, seconds: float) -> None:
        self.at += timedelta(seconds=seconds)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def delete(context: Context) -> Callable[[str], UUID]:
    """Ask for a workspace's deletion, as the API does; the deletion's id."""

    def request(name: str) -> UUID:
        with session_scope(context.sessions) as session:
            return requests.request_deletion(session, context, trusted("ann@example.com"), name).id

    return request


@pytest.fixture
def drive(context: Context, clock: FakeClock) -> Callable[..., list[Outcome]]:
    """Run slices until the deletion ends or `rounds` are over, letting time pass whenever one is postponed."""

    def run(deletion_id: UUID, *, rounds: int = 200, context: Context = context) -> list[Outcome]:
        outcomes: list[Outcome] = []
        for _ in range(rounds):
            outcomes.append(run_slice(context, deletion_id, owner="test", now=clock.now))
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
