"""What is FAILED, by what has caused it, and the same action for all that fail for the same cause."""

from collections.abc import Callable

from flask import Response
from pydantic import AwareDatetime
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.access.permissions import Permission
from app.cleanup import bulk
from app.cleanup.report.causes import MOST_GROUPS, FailedCause, failed_causes
from app.clock import database_now
from app.console.page import Fields, PageRequest, Pages
from app.http.field_types import Reason
from app.lifecycle import FailureClass

pages = Pages()
_BACK = "/console/failed"
_AT_MOST = 1000


class Which(Fields):
    """Deletions that fail for one cause, and when somebody looked: what has failed since is left alone."""

    keeps_empty = frozenset({"cause"})

    as_of: AwareDatetime
    kind: str | None = None
    error_class: FailureClass | None = None
    cause: str

    @property
    def selection(self) -> bulk.Selection:
        """The same for those who carry it out."""
        return bulk.Selection(self.as_of, self.kind, self.error_class, self.cause)


class WhichAndWhy(Which):
    """The same with a reason, which is kept on record."""

    reason: Reason


@pages.add("GET", "/failed", permission=Permission.DELETIONS_OPERATE)
def list_causes(call: PageRequest) -> Response:
    """The causes, those of most deletions first."""

    def find(session: Session) -> tuple[list[FailedCause], AwareDatetime]:
        # The time first: what fails while the causes are read is newer than it.
        now = session.scalars(select(database_now())).one()
        return failed_causes(session, at_most=MOST_GROUPS + 1), now

    causes, now = call.read(find)
    more = len(causes) > MOST_GROUPS
    return call.page("failed.html", causes=causes[:MOST_GROUPS], more=more, now=now)


@pages.add("POST", "/failed/retry", permission=Permission.DELETIONS_OPERATE, back=_BACK)
def retry_all(call: PageRequest, form: Which) -> Response:
    """Try all of them again."""
    return _act(
        call,
        form,
        "retried",
        lambda: bulk.retry_all(call.context, call.actor, form.selection, at_most=_AT_MOST),
    )


@pages.add("POST", "/failed/skip", permission=Permission.DELETIONS_OPERATE, back=_BACK)
def skip_all(call: PageRequest, form: WhichAndWhy) -> Response:
    """Give up the resources that fail for that cause, in all of them."""
    return _act(
        call,
        form,
        "told to go on without them",
        lambda: bulk.skip_all(call.context, call.actor, form.selection, reason=form.reason, at_most=_AT_MOST),
    )


@pages.add("POST", "/failed/force", permission=Permission.DELETIONS_OPERATE, back=_BACK)
def force_all(call: PageRequest, form: WhichAndWhy) -> Response:
    """Give up all that fails, in all of them."""
    return _act(
        call,
        form,
        "forced to their end",
        lambda: bulk.force_all(
            call.context, call.actor, form.selection, reason=form.reason, at_most=_AT_MOST
        ),
    )


def _act(call: PageRequest, form: Which, done: str, act: Callable[[], bulk.Done]) -> Response:
    found = call.read(lambda session: bulk.matching(session, form.selection))
    outcome = act()
    text = f"{found.now} match now, {found.then} when you looked: {outcome.asked} {done}"
    if outcome.skipped:
        text += f", {outcome.skipped} resources given up"
    if outcome.left_alone:
        text += f", {outcome.left_alone} left alone"
    if outcome.left:
        text += f". {outcome.left} are left: do it again"
    return call.went(f"{text}.", _BACK)
