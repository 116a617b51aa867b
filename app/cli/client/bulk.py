"""The same for many deletions, but for none that an operator has not seen."""

from typing import Any

from app.cli.client.api import Api, Item, Query, Refused, items_of
from app.cli.client.consent import require_answer, require_terminal
from app.cli.client.waiting import DELETIONS
from app.cli.outcome import echo

_MOST = 10_000
"""Deletions that one command asks for; it can be given again."""

_PAGE = 15
"""As of `deletion list`."""

_LEFT_ALONE = {404, 409}
"""Answers for a deletion that is not FAILED any more, has failed anew since, or has nothing of that sort to skip."""


def ask_each(api: Api, verb: str, body: Any, which: Query, *, as_of: str, is_agreed: bool) -> list[Item]:
    """Ask `verb` of each deletion that fits and was FAILED at `as_of` already; their reports.

    Who sits at a terminal is asked before, unless that is agreed. Each request has the time, so that what fails anew
    meanwhile is not touched. Raises Ended where that is refused, and if any of them cannot be asked.
    """
    now = _count(api, which)
    seen = list(
        items_of(
            api, DELETIONS, {**which, "as_of": as_of, "sort": "requested_at"}, limit=_MOST, page_size=_PAGE
        )
    )
    echo(f"{now} match now, {seen[0][1] if seen else 0} when you looked ({as_of})", err=True)
    if not seen:
        return []
    if not is_agreed:
        require_terminal(f"to {verb} {len(seen)} deletions")
        require_answer(f"{verb} {len(seen)} deletions? Type yes", "yes")
    reports: list[Item] = []
    for one, _ in seen:
        try:
            reports.append(api.ask("POST", f"{DELETIONS}/{one['id']}/{verb}", {"as_of": as_of}, body))
        except Refused as error:
            if error.status not in _LEFT_ALONE:
                raise
            echo(f"{one['id']} {one['workspace_name']}: left alone: {error.message}", err=True)
    echo(f"{verb}: asked of {len(reports)}, {len(seen) - len(reports)} left alone", err=True)
    return reports


def _count(api: Api, which: Query) -> int:
    answer = api.ask("GET", DELETIONS, {**which, "page_size": 1})
    return int(answer["pagination"]["total_results"])
