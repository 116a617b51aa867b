"""The replay of finished deletions: what a restored backup has brought back is deleted again."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from uuid import UUID

from sqlalchemy import select

from app.cleanup.requests import repeat_deletion
from app.context import Context
from app.db import session_scope
from app.lifecycle import WorkspaceState
from app.models import BUILT_IN, Workspace

_BATCH = 1000
"""Number of ids in one query."""


class NothingRecorded(Exception):
    """The deletion log has no record at all: nothing was ever deleted, or this is not the log."""


@dataclass
class Replayed:
    """What a replay found: the number of records, and those of their workspaces that are there, by id with name."""

    recorded: int = 0
    repeated: dict[UUID, str] = field(default_factory=dict)
    """Deleted again; in a dry run, those that would be."""
    under_way: dict[UUID, str] = field(default_factory=dict)
    """Already being deleted."""
    protected: dict[UUID, str] = field(default_factory=dict)
    """Left alone, because they are protected or built in."""


def replay(
    context: Context,
    *,
    actor: str,
    since: datetime | None = None,
    is_protection_ignored: bool = False,
    is_dry_run: bool = False,
) -> Replayed:
    """Delete again each ACTIVE workspace that the deletion log has as deleted; the others are left alone.

    With `since`, reads only the months from that time on. Commits after each workspace, and can be repeated at any
    time. Raises NothingRecorded for an empty log, and the OSErrors of the log.
    """
    if context.deletion_log.is_empty():
        raise NothingRecorded
    replayed = Replayed()
    records = context.deletion_log.read(since)
    while batch := list(islice(records, _BATCH)):
        replayed.recorded += len(batch)
        finished = dict(batch)
        for workspace in _there(context, finished.keys() - replayed.repeated.keys()):
            _sort(replayed, workspace, is_protection_ignored=is_protection_ignored)
            if workspace.id in replayed.repeated and not is_dry_run:
                with session_scope(context.sessions) as session:
                    repeat_deletion(session, context, actor, workspace.id, finished_as=finished[workspace.id])
    return replayed


def _there(context: Context, ids: Iterable[UUID]) -> Sequence[Workspace]:
    """The workspaces among `ids` that the database knows."""
    with session_scope(context.sessions) as session:
        return session.scalars(select(Workspace).where(Workspace.id.in_(ids)).order_by(Workspace.id)).all()


def _sort(replayed: Replayed, workspace: Workspace, *, is_protection_ignored: bool) -> None:
    is_protected = workspace.is_protected and not is_protection_ignored
    if workspace.state is not WorkspaceState.ACTIVE:
        found = replayed.under_way
    elif is_protected or workspace.name in BUILT_IN:
        found = replayed.protected
    else:
        found = replayed.repeated
    found[workspace.id] = workspace.name
