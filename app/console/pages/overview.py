"""The first page: what is under way, since when, who is at work, and who has stopped it."""

from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache

from flask import Response
from sqlalchemy import Select, func, select
from sqlalchemy.orm import Session

from app.access.permissions import Permission
from app.cleanup import control
from app.cleanup.control import HeldRequester
from app.clock import database_now, seconds_from_now
from app.console.page import Fields, PageRequest, Pages
from app.health.dependencies import Health, check_health
from app.health.diagnosis import concern_of
from app.health.heartbeat import last_heartbeats
from app.health.metrics.deletions import Group, living_groups
from app.http.field_types import ShortText
from app.lifecycle import DeletionState
from app.models import CleanupControl, Deletion, OrphanScan
from app.models.deletion import is_in

pages = Pages()
HOURS = 24
MOST_COUNTED = 1_500
"""Deletions that the chart counts, the latest: a busier day is shown as far back as they go."""


@dataclass(frozen=True)
class Hour:
    """How many deletions ended in one hour."""

    begin: datetime
    ended: int


@dataclass(frozen=True)
class Day:
    """The last 24 hours."""

    hours: list[Hour]
    is_complete: bool
    """Whether all that ended were counted."""


@dataclass(frozen=True)
class Overview:
    """Everything on the page but the health of the servers."""

    now: datetime
    groups: list[Group]
    switch: CleanupControl
    held: list[HeldRequester]
    heartbeats: list[tuple[str, str, datetime]]
    scanned_at: datetime | None

    def number(self, name: str) -> int:
        """How many living deletions are in a condition, or `failed`."""
        return sum(one.number for one in self.groups if one.condition == name)

    def oldest(self, *, failed: bool) -> datetime | None:
        """Since when the oldest deletion that is FAILED, or that is not, may go on."""
        since = [
            one.since
            for one in self.groups
            if (one.condition == "failed") is failed and one.since is not None
        ]
        return datetime.fromtimestamp(float(min(since)), UTC) if since else None


class Release(Fields):
    """Whose deletions may go on."""

    requested_by: ShortText = ""


@pages.add("GET", "", permission=Permission.CLEANUP_READ)
def show_overview(call: PageRequest) -> Response:
    """The whole page."""
    seen = call.read(_look)
    return call.page("overview.html", seen=seen, now=seen.now)


@pages.add("GET", "/live", permission=Permission.CLEANUP_READ)
def watch_overview(call: PageRequest) -> Response:
    """What changes of the page."""
    seen = call.read(_look)
    return call.live("overview_live.html", seen=seen, now=seen.now)


@pages.add("GET", "/day", permission=Permission.CLEANUP_READ)
def show_day(call: PageRequest) -> Response:
    """What has ended within a day. A part of its own, which costs what that was."""
    return call.live("day.html", day=call.read(_ended))


@pages.add("GET", "/health", permission=Permission.CLEANUP_READ, waits_for_store=True)
def show_health(call: PageRequest) -> Response:
    """What the product depends on: seconds, if anything hangs."""
    call.read(_permitted)
    health: Health = check_health(call.context)
    concerns = [concern_of(name) for name, is_well in health.controllers.items() if not is_well]
    return call.live("health.html", health=health, concerns=concerns)


@pages.add("POST", "/pause", permission=Permission.CLEANUP_CONTROL)
def pause(call: PageRequest) -> Response:
    """Stop all destruction."""
    call.transact(lambda session: control.set_paused(session, paused=True, actor=call.actor))
    return call.went(
        "Destruction is paused: what runs goes on to the end of its slice, nothing new begins.", "/console"
    )


@pages.add("POST", "/resume", permission=Permission.CLEANUP_CONTROL)
def resume(call: PageRequest) -> Response:
    """Let destruction go on."""
    call.transact(lambda session: control.set_paused(session, paused=False, actor=call.actor))
    return call.went("Destruction goes on.", "/console")


@pages.add("POST", "/release", permission=Permission.CLEANUP_CONTROL)
def release(call: PageRequest, form: Release) -> Response:
    """Let the deletions of one requester go on."""
    call.transact(lambda session: control.release(session, call.actor, form.requested_by))
    return call.went(f"The deletions of {form.requested_by} go on.", "/console")


def _permitted(_: Session) -> None:
    """Nothing but the question whether the caller may: what is looked at next has no statement of its own."""


def _look(session: Session) -> Overview:
    now, scanned_at, switch = session.execute(_scanned_and_switched()).one()
    return Overview(
        now=now,
        groups=living_groups(session),
        switch=switch,
        held=control.held(session),
        heartbeats=sorted(
            (process, host, datetime.fromtimestamp(at, UTC)) for process, host, at in last_heartbeats(session)
        ),
        scanned_at=scanned_at,
    )


@cache
def _scanned_and_switched() -> Select[datetime, datetime | None, CleanupControl]:
    """The time, when the last orphan scan ended, and the switch."""
    scanned_at = select(OrphanScan.finished_at).scalar_subquery()
    return select(database_now(), scanned_at, CleanupControl)


def _ended(session: Session) -> Day:
    """How many deletions ended since a day ago, by the hour, as far as the index of their ends alone says it."""
    recent = (
        select(Deletion.finished_at)
        .where(
            is_in(DeletionState.DONE, DeletionState.RESTORED),
            Deletion.finished_at > seconds_from_now(-HOURS * 3600),
        )
        .order_by(Deletion.finished_at.desc())
        .limit(MOST_COUNTED)
        .subquery()
    )
    hour = func.floor(func.extract("epoch", recent.c.finished_at) / 3600)
    found = session.execute(select(hour, func.count()).group_by(hour)).all()
    ended = {int(at): number for at, number in found}
    now = session.scalars(select(database_now())).one()
    last = int(now.timestamp() // 3600)
    hours = [
        Hour(datetime.fromtimestamp(one * 3600, UTC), ended.get(one, 0))
        for one in range(last - HOURS + 1, last + 1)
    ]
    return Day(hours, sum(ended.values()) < MOST_COUNTED)
