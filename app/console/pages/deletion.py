"""One deletion: what it is doing, what is left and why, what a person can do about it, and what has happened."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cache
from typing import Any
from uuid import UUID

from flask import Response
from pydantic import AwareDatetime
from sqlalchemy import Select, Uuid, bindparam, func, select
from sqlalchemy.orm import Session

from app.access.authorize import Access, permitted_platform_wide
from app.access.permissions import Permission
from app.cleanup import operations, requests
from app.cleanup.kinds import ORDER
from app.cleanup.report import DeletionReport, report, worked_seconds
from app.clock import database_now
from app.console.page import Fields, PageRequest, Pages
from app.health.metrics.deletions import condition
from app.http.field_types import Name, Reason, ShortText
from app.lifecycle import DELETION_UNFINISHED, DeletionState
from app.models import CleanupControl, Deletion, DeletionEvent
from app.models.deletion import is_in, is_on_hold

pages = Pages()
_ONE = "/deletions/<deletion_id>"
_BACK = "/console/deletions/{deletion_id}"
_EVENTS = 50
_SKIPPABLE = 10
"""Failures that the page offers to skip one by one; their own page has all."""


@dataclass(frozen=True)
class Bar:
    """How far one kind of resources is."""

    kind: str
    deleted: int
    left: int
    failing: int

    @property
    def share(self) -> float:
        """The part that is deleted, from 0 to 1."""
        total = self.deleted + self.left
        return self.deleted / total if total else 1.0


@dataclass(frozen=True)
class Seen:
    """A deletion as a page shows it, by one time of the database."""

    now: datetime
    report: DeletionReport
    condition: str
    is_held: bool
    paused_by: str | None
    """Who has paused destruction; None while nobody has."""
    worked_seconds: float | None
    may_operate: bool

    @property
    def is_over(self) -> bool:
        """Whether nothing will change any more."""
        return self.report.state not in DELETION_UNFINISHED

    @property
    def bars(self) -> list[Bar]:
        """Of each kind that the workspace had, in the order of the cascade; what is no kind comes last."""
        deleted, left = self.report.deleted, self.report.remaining
        failing: dict[str, int] = {}
        for cause in self.report.causes:
            failing[cause.kind] = failing.get(cause.kind, 0) + cause.count
        names = [kind.name for kind in ORDER]
        names += sorted((deleted.keys() | left.keys() | failing.keys()) - set(names))
        found = [Bar(one, deleted.get(one, 0), left.get(one, 0), failing.get(one, 0)) for one in names]
        return [bar for bar in found if bar.deleted or bar.left or bar.failing]

    @property
    def pace(self) -> float | None:
        """Resources a second of work, on which the expected end is based; None before the first."""
        deleted = sum(self.report.deleted.values())
        if self.worked_seconds is None or not deleted:
            return None
        return deleted / max(self.worked_seconds, 1.0)

    @property
    def version(self) -> str:
        """Changes with what can be done about it, so that a form is not taken away while somebody fills it in."""
        one = self.report
        return (
            f"{one.state}-{one.round}-{one.started_at is not None}-{sum(cause.count for cause in one.causes)}"
        )


class AsOf(Fields):
    """An action, and when its page was made: what has failed anew since is left alone."""

    as_of: AwareDatetime


class Skip(AsOf):
    """One resource to give up."""

    kind: ShortText
    resource_id: ShortText
    reason: Reason


class Force(AsOf):
    """The reason to give up all that fails."""

    reason: Reason


class Restore(Fields):
    """The name that the workspace is to have."""

    name: Name | None = None


class Watched(Fields):
    """What a page shows already."""

    version: str = ""


@pages.add("GET", _ONE, permission=Permission.DELETIONS_READ)
def show_deletion(call: PageRequest, deletion_id: str) -> Response:
    """The whole page."""
    seen, events = _read(call, deletion_id)
    return call.page(
        "deletion.html",
        seen=seen,
        events=events,
        now=seen.now,
        version="",
        flower_url=call.context.settings.flower_url,
    )


@pages.add("GET", f"{_ONE}/live", permission=Permission.DELETIONS_READ)
def watch_deletion(call: PageRequest, deletion_id: str, query: Watched) -> Response:
    """What changes of the page; the actions only if there are others than it shows."""
    seen, events = _read(call, deletion_id)
    return call.live("deletion_live.html", seen=seen, events=events, now=seen.now, version=query.version)


@pages.add("POST", f"{_ONE}/retry", permission=Permission.DELETIONS_OPERATE, back=_BACK)
def retry_deletion(call: PageRequest, deletion_id: str, form: AsOf) -> Response:
    """Try again now."""
    return _operate(
        call,
        deletion_id,
        "Workers try again, now.",
        lambda session, deletion: operations.retry(
            session, call.context, call.actor, deletion, as_of=form.as_of
        ),
    )


@pages.add("POST", f"{_ONE}/skip", permission=Permission.DELETIONS_OPERATE, back=_BACK)
def skip_resource(call: PageRequest, deletion_id: str, form: Skip) -> Response:
    """Give up one resource."""
    return _operate(
        call,
        deletion_id,
        "The resource is given up; workers go on with the rest.",
        lambda session, deletion: operations.skip(
            session,
            call.context,
            call.actor,
            deletion,
            kind=form.kind,
            resource_id=form.resource_id,
            reason=form.reason,
            as_of=form.as_of,
        ),
    )


@pages.add("POST", f"{_ONE}/force", permission=Permission.DELETIONS_OPERATE, back=_BACK)
def force_deletion(call: PageRequest, deletion_id: str, form: Force) -> Response:
    """Give up all that fails."""
    return _operate(
        call,
        deletion_id,
        "All that fails is given up; workers go on with the rest.",
        lambda session, deletion: operations.force(
            session, call.context, call.actor, deletion, reason=form.reason, as_of=form.as_of
        ),
    )


@pages.add("POST", f"{_ONE}/restore", permission=Permission.DELETIONS_RESTORE, back=_BACK)
def restore_workspace(call: PageRequest, deletion_id: str, form: Restore) -> Response:
    """Call it off."""
    return _operate(
        call,
        deletion_id,
        "The deletion is called off; the workspace and its members are as before.",
        lambda session, deletion: operations.restore(
            session, call.context, call.actor, deletion, name=form.name
        ),
    )


def _operate(
    call: PageRequest, deletion_id: str, done: str, act: Callable[[Session, Deletion], Any]
) -> Response:
    def work(session: Session) -> None:
        act(session, requests.find_deletion(session, call.actor, deletion_id))

    call.transact(work)
    return call.went(done, _BACK.format(deletion_id=deletion_id))


def _read(call: PageRequest, deletion_id: str) -> tuple[Seen, Sequence[Any]]:
    """The deletion, and its latest events."""
    return call.read(lambda session: (_look(session, call, deletion_id), _events(session, deletion_id)))


def _look(session: Session, call: PageRequest, deletion_id: str) -> Seen:
    deletion = requests.find_deletion(session, call.actor, deletion_id)
    now, doing, is_held, paused_by, may_operate = circumstances(session, call, deletion.id)
    [described] = report(session, [deletion], most_failures=_SKIPPABLE)
    return Seen(
        now=now,
        report=described,
        condition=doing,
        is_held=is_held,
        paused_by=paused_by,
        worked_seconds=worked_seconds(deletion),
        may_operate=may_operate,
    )


def circumstances(session: Session, call: PageRequest, deletion_id: UUID) -> Any:
    """The time, what the deletion is doing, whether it is held, who has paused all, and whether the caller may act."""
    operate = replace(call.actor, permission=Permission.DELETIONS_OPERATE)
    return session.execute(_asking(operate.access), {**operate.parameters, "deletion_id": deletion_id}).one()


@cache
def _asking(operate: Access) -> Select[*tuple[Any, ...]]:
    """Made once, because that takes longer than asking it."""
    paused_by = select(func.coalesce(CleanupControl.paused_by, "somebody")).where(CleanupControl.paused)
    doing = condition(is_in(DeletionState.DELETING))
    asked = (
        database_now(),
        doing,
        is_on_hold(),
        paused_by.scalar_subquery(),
        permitted_platform_wide(operate),
    )
    return select(*asked).where(Deletion.id == bindparam("deletion_id", type_=Uuid))


def _events(session: Session, deletion_id: str) -> Sequence[Any]:
    """The latest events, the newest first, of a deletion that the caller may follow."""
    return session.execute(_latest_events(), {"deletion_id": deletion_id}).all()


@cache
def _latest_events() -> Select[*tuple[Any, ...]]:
    event = DeletionEvent
    events = select(event.at, event.actor, event.event, event.detail)
    of_one = events.where(event.deletion_id == bindparam("deletion_id", type_=Uuid(as_uuid=False)))
    return of_one.order_by(event.id.desc()).limit(_EVENTS)
