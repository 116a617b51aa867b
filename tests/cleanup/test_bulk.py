"""What is done with many FAILED deletions at once is done with those alone that were FAILED at the look."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, cast
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, delete, func, select, update
from sqlalchemy.orm import Session

from app.access.authorize import Actor
from app.access.permissions import Permission
from app.access.principal import Principal
from app.cleanup import bulk, failures, lease, ledger, operations
from app.cleanup.bulk import Done, Matching, Selection, force_all, matching, retry_all, skip_all
from app.clock import database_now
from app.context import Context
from app.db import Sessions, session_scope
from app.errors import BadRequest, Forbidden
from app.lifecycle import DeletionState, FailureClass
from app.models import AuditRecord, Deletion, DeletionEvent, DeletionFailure, RoleBinding, Workspace
from tests.factories import make_binding, make_failed_deletion
from tests.support.actors import trusted
from tests.support.aging import time_of
from tests.support.locks import has_to_wait, meanwhile
from tests.support.publisher import RecordingPublisher

ROOT = trusted("root")
NOBODY = Actor(Principal("nobody"), Permission.DELETIONS_OPERATE)
DENIED = {"kind": "filesets", "error_class": FailureClass.PERMANENT, "cause": "denied"}

Act = Callable[[Context, Actor, Selection], Done]
WAYS: dict[str, Act] = {
    "retry": retry_all,
    "skip": lambda *given: skip_all(*given, reason="ticket 7"),
    "force": lambda *given: force_all(*given, reason="ticket 7"),
}
each_way = pytest.mark.parametrize("act", WAYS.values(), ids=WAYS)


@pytest.fixture(autouse=True)
def _no_time_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A call ends after some seconds, in which a slow machine may not have done what a test is about."""
    monkeypatch.setattr(bulk, "monotonic", lambda: 0.0)


@pytest.fixture
def make(session: Session) -> Callable[..., Deletion]:
    """Makes a FAILED deletion by the name of its workspace, with so many failures of a cause. Commits."""

    def do(name: str, *, number: int = 1, cause: str = "denied") -> Deletion:
        deletion = make_failed_deletion(session, name)
        session.flush()
        failures.forget_all(session, deletion.id)
        fail(session, deletion, number=number, cause=cause)
        session.commit()
        return deletion

    return do


def fail(session: Session, deletion: Deletion, *, number: int = 1, cause: str = "denied") -> None:
    about = {"kind": "filesets", "error_class": FailureClass.PERMANENT, "message": cause, "cause": cause}
    now = {"first_seen_at": time_of(session), "last_seen_at": time_of(session)}
    session.add_all(
        DeletionFailure(
            deletion_id=deletion.id, resource_id=f"{cause}-{one}", name=f"fs-{one}", **about, **now
        )
        for one in range(number)
    )


def fails_anew(session: Session, deletion_id: UUID) -> None:
    session.add(DeletionEvent(deletion_id=deletion_id, actor="w", event="failed", at=database_now()))
    session.execute(update(Deletion).where(Deletion.id == deletion_id).values(failed_at=database_now()))
    session.commit()


def look(session: Session, **about: Any) -> Selection:
    selection = Selection(time_of(session), **about)
    session.rollback()
    return selection


def states(session: Session) -> dict[str, str]:
    session.rollback()
    found = session.execute(select(Deletion.workspace_name, Deletion.state))
    return {name: state.value for name, state in found}


def interrupted(context: Context, by: Callable[[], Any]) -> Context:
    """The same, but something happens when one deletion is done and the turn of the next one comes."""
    opened = 0

    def sessions() -> Session:
        nonlocal opened
        opened += 1
        # The first two look at the clock and for the deletions, and the third one is for the first of these.
        if opened == 4:
            by()
        return context.sessions()

    return replace(context, sessions=cast("Sessions", sessions))


def events(session: Session, deletion: Deletion) -> list[tuple[str, dict[str, Any]]]:
    session.rollback()
    query = select(DeletionEvent.event, DeletionEvent.detail).where(DeletionEvent.deletion_id == deletion.id)
    return [(event, detail) for event, detail in session.execute(query.order_by(DeletionEvent.id))][1:]


def audited(session: Session) -> list[tuple[str, dict[str, Any]]]:
    session.rollback()
    query = select(AuditRecord.event, AuditRecord.detail).order_by(AuditRecord.id)
    return [(event, detail) for event, detail in session.execute(query)]


def open_causes(session: Session, deletion: Deletion) -> dict[str, int]:
    session.rollback()
    left = select(DeletionFailure.cause, func.count()).where(
        DeletionFailure.deletion_id == deletion.id, DeletionFailure.skipped_by.is_(None)
    )
    found = session.execute(left.group_by(DeletionFailure.cause))
    return {cause: number for cause, number in found}  # noqa: C416 -- a Row is no pair to mypy


@each_way
def test_forty_of_a_cause_and_not_the_one_that_fails_between_the_look_and_the_act(
    context: Context, session: Session, make: Callable[..., Deletion], publisher: RecordingPublisher, act: Act
) -> None:
    for number in range(40):
        make(f"team-{number}")
    make("other", cause="lost")
    seen = look(session, **DENIED)
    make("later")

    assert matching(session, seen) == Matching(now=41, then=40)
    assert act(context, ROOT, seen).asked == 40

    found = states(session)
    assert {name for name, state in found.items() if state == "FAILED"} == {"later", "other"}
    assert len(publisher.published) == 40
    assert matching(session, seen) == Matching(now=1, then=0)


@each_way
def test_what_fails_anew_before_its_turn_is_left_alone(
    context: Context, session: Session, make: Callable[..., Deletion], act: Act
) -> None:
    make("first")
    second = make("second")
    seen = look(session, **DENIED)

    done = act(interrupted(context, lambda: fails_anew(session, second.id)), ROOT, seen)

    assert (done.asked, done.left_alone, done.left) == (1, 1, 0)
    assert states(session) == {"first": "DELETING", "second": "FAILED"}
    assert [event for event, _ in events(session, second)] == ["failed"]


@each_way
def test_what_is_over_or_gone_before_its_turn_is_left_alone(
    context: Context, session: Session, make: Callable[..., Deletion], act: Act
) -> None:
    make("first")
    over, gone = make("over").id, make("gone").id
    seen = look(session, **DENIED)

    def happens() -> None:
        session.execute(update(Deletion).where(Deletion.id == over).values(state=DeletionState.DONE))
        for table in (DeletionFailure, DeletionEvent):
            session.execute(delete(table).where(table.deletion_id == gone))
        session.execute(delete(Deletion).where(Deletion.id == gone))
        session.commit()

    done = act(interrupted(context, happens), ROOT, seen)

    assert (done.asked, done.left_alone, done.left) == (1, 2, 0)
    assert states(session) == {"first": "DELETING", "over": "DONE"}


@each_way
def test_of_two_operators_at_the_same_time_one_does_it_with_each(
    context: Context, session: Session, database: Engine, make: Callable[..., Deletion], act: Act
) -> None:
    deletions = [make(f"team-{number}") for number in range(3)]
    seen = look(session, **DENIED)

    with Session(database) as holder:
        ledger.lock(holder, deletions[0].id)
        with (
            meanwhile(lambda: act(context, ROOT, seen)) as one,
            meanwhile(lambda: act(context, ROOT, seen)) as other,
        ):
            assert has_to_wait(database, one)
            assert has_to_wait(database, other, together=2)
            holder.commit()
            done = one.result(), other.result()

    assert sum(one.asked for one in done) == 3
    assert sum(one.left_alone for one in done) == 3
    assert set(states(session).values()) == {"DELETING"}
    for deletion in deletions:
        names = [event for event, _ in events(session, deletion)]
        assert names.count("reopened") + names.count("retried") == 1


@each_way
def test_who_may_not_operate_deletions_changes_nothing(
    context: Context, session: Session, make: Callable[..., Deletion], act: Act
) -> None:
    make("a")

    with pytest.raises(Forbidden):
        act(context, NOBODY, look(session, **DENIED))

    assert states(session) == {"a": "FAILED"}


def test_who_loses_the_right_in_the_middle_goes_no_further(
    context: Context, session: Session, make: Callable[..., Deletion]
) -> None:
    system = session.scalars(select(Workspace).where(Workspace.name == "system")).one()
    binding = make_binding(session, system, "ann", "PlatformAdmin")
    make("first"), make("second")
    seen = look(session, **DENIED)

    def revoke() -> None:
        session.execute(
            update(RoleBinding).where(RoleBinding.id == binding.id).values(revoked_at=database_now())
        )
        session.commit()

    with pytest.raises(Forbidden):
        retry_all(interrupted(context, revoke), Actor(Principal("ann"), Permission.WORKSPACES_READ), seen)

    assert states(session) == {"first": "DELETING", "second": "FAILED"}


def test_a_look_that_is_to_come_is_one_now(
    context: Context, session: Session, make: Callable[..., Deletion]
) -> None:
    make("first")
    second = make("second")
    to_come = Selection(datetime.max.replace(tzinfo=UTC))

    done = retry_all(interrupted(context, lambda: fails_anew(session, second.id)), ROOT, to_come)

    assert (done.asked, done.left_alone) == (1, 1)
    assert states(session) == {"first": "DELETING", "second": "FAILED"}


def test_as_many_as_one_call_may_in_the_order_of_their_requests(
    context: Context, session: Session, make: Callable[..., Deletion]
) -> None:
    for name in "cab":
        make(name)
    seen = look(session)

    assert retry_all(context, ROOT, seen, at_most=2) == Done(asked=2, left_alone=0, left=1)
    assert states(session) == {"c": "DELETING", "a": "DELETING", "b": "FAILED"}
    assert retry_all(context, ROOT, seen, at_most=2) == Done(asked=1, left_alone=0, left=0)


def test_when_its_time_is_over_a_call_says_what_is_left(
    context: Context, session: Session, make: Callable[..., Deletion], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("first", "second", "third"):
        make(name)
    times = iter([0.0, 0.0, 4.9, 5.1])
    monkeypatch.setattr(bulk, "monotonic", lambda: next(times))

    assert retry_all(context, ROOT, look(session)) == Done(asked=2, left_alone=0, left=1)


def test_a_skip_gives_up_what_fails_for_the_cause_and_nothing_else(
    context: Context, session: Session, make: Callable[..., Deletion]
) -> None:
    deletion = make("a", number=3)
    fail(session, deletion, cause="lost")
    session.commit()

    done = WAYS["skip"](context, ROOT, look(session, cause="denied"))

    assert done == Done(asked=1, left_alone=0, left=0, skipped=3)
    assert open_causes(session, deletion) == {"lost": 1}
    about = {"reason": "ticket 7", "cause": "denied"}
    assert events(session, deletion) == [
        ("skipped", {"kind": "filesets", "number": 3, **about}),
        ("reopened", {"round": 0}),
    ]
    assert audited(session) == [("deletion.skipped", {"skipped": {"filesets": 3}, **about})]


def test_a_deletion_with_more_than_one_call_gives_up_stays_failed_until_none_is_left(
    context: Context, session: Session, make: Callable[..., Deletion], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulk, "MOST_SKIPPED", 10)
    small, large, last = make("a", number=4), make("large", number=25), make("last")
    seen = look(session, **DENIED)
    skip = WAYS["skip"]

    assert skip(context, ROOT, seen) == Done(asked=1, left_alone=0, left=2, skipped=10)
    assert states(session) == {"a": "DELETING", "large": "FAILED", "last": "FAILED"}
    assert [event for event, _ in events(session, large)] == ["skipped"]
    assert open_causes(session, large) == {"denied": 19}
    assert skip(context, ROOT, seen) == Done(asked=0, left_alone=0, left=2, skipped=10)
    assert skip(context, ROOT, seen) == Done(asked=2, left_alone=0, left=0, skipped=10)
    assert set(states(session).values()) == {"DELETING"}
    assert [detail["number"] for event, detail in events(session, large) if event == "skipped"] == [6, 10, 9]
    assert events(session, small)[0][1]["number"] == 4
    assert open_causes(session, last) == {}


def test_a_kind_that_fails_as_a_whole_is_tried_anew_as_by_a_skip_of_one(
    context: Context, session: Session, make: Callable[..., Deletion]
) -> None:
    deletion = make("a", number=0)
    for kind, message in (("jobs", "ProgrammingError"), ("entities", "other")):
        about = {"resource_id": None, "name": "*", "error_class": FailureClass.PERMANENT, "message": message}
        failures.upsert(session, deletion.id, kind, **about)
    session.commit()

    done = WAYS["skip"](context, ROOT, look(session, kind="jobs"))

    assert done == Done(asked=1, left_alone=0, left=0)
    assert open_causes(session, deletion) == {"other": 1}
    assert [event for event, _ in events(session, deletion)] == ["reopened"]
    assert [event for event, _ in audited(session)] == ["deletion.skipped"]


def test_a_deletion_of_which_nothing_fails_can_be_retried_and_not_be_given_up(
    context: Context, session: Session, make: Callable[..., Deletion]
) -> None:
    make("odd", number=0).reason = "no progress in 8 passes"
    session.commit()
    seen = look(session, cause="no progress in 8 passes")

    for way in ("force", "skip"):
        assert WAYS[way](context, ROOT, seen) == Done(asked=0, left_alone=1, left=0)
    assert states(session) == {"odd": "FAILED"}
    assert retry_all(context, ROOT, seen).asked == 1


def test_a_skip_of_everything_is_a_force(context: Context, session: Session) -> None:
    with pytest.raises(BadRequest, match="use force"):
        skip_all(context, ROOT, look(session, error_class=FailureClass.PERMANENT), reason="r")


STEPS = st.lists(
    st.sampled_from(["fails anew", "goes on", "is retried", "fails for something else"]), max_size=2
)


# Each example has deletions of its own.
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    histories=st.lists(st.tuples(STEPS, STEPS), min_size=1, max_size=4),
    way=st.sampled_from(sorted(WAYS)),
    kind=st.sampled_from([None, "filesets"]),
)
def test_it_is_done_with_what_was_failed_for_it_at_the_look_and_still_is_and_with_nothing_else(
    database: Engine,
    context: Context,
    histories: list[tuple[list[str], list[str]]],
    way: str,
    kind: str | None,
) -> None:
    with Session(database, expire_on_commit=False) as session:
        prefix = session.scalar(select(func.count()).select_from(Deletion))
        every = [make_failed_deletion(session, f"w-{prefix}-{number}") for number in range(len(histories))]
        session.commit()
        happens(context, every, [before for before, _ in histories])
        seen = look(session, cause="denied", kind=kind)
        then = [condition(session, one) for one in every]
        happens(context, every, [after for _, after in histories])
        now = [condition(session, one) for one in every]

        WAYS[way](context, ROOT, seen)

        touched = [condition(session, one) != before for one, before in zip(every, now, strict=True)]
        assert touched == [
            one == before and one[0] is DeletionState.FAILED and "denied" in one[1]
            for one, before in zip(now, then, strict=True)
        ]


def condition(session: Session, deletion: Deletion) -> tuple[DeletionState, set[str], int]:
    """Its state, what it fails for, and how much has happened to it."""
    causes, number = open_causes(session, deletion), len(events(session, deletion))
    return session.get_one(Deletion, deletion.id, populate_existing=True).state, {*causes}, number


def happens(context: Context, deletions: list[Deletion], steps: list[list[str]]) -> None:
    """Let these things happen to each of the deletions, as far as they can."""
    for deletion, step in [(one, step) for one, some in zip(deletions, steps, strict=True) for step in some]:
        with session_scope(context.sessions) as session:
            one = session.get_one(Deletion, deletion.id)
            if one.state is not DeletionState.FAILED:
                continue
            if step == "is retried":
                operations.retry(session, context, ROOT, one)
                continue
            ledger.reopen(session, one.id, event="reattempted", actor=ledger.SWEEP)
            if step == "goes on":
                continue
            if step == "fails for something else":
                failures.forget_all(session, one.id)
                fail(session, one, cause="lost")
            claim = lease.claim(session, owner="w", lease_s=60, deletion_id=one.id)
            assert claim
            ledger.fail(session, claim, context.settings, reason="r", is_permanent=True, attempts=1)
