"""Waiting for a deletion, and saying how far it is."""

import time
from collections.abc import Callable
from typing import Any

from app.cli.client.api import Api, Away, Item
from app.cli.client.output import in_words
from app.cli.outcome import Ended, Exit, echo

DELETIONS = "/apis/entities/v2/deletions"

_SHORTEST_S, _LONGEST_S = 0.2, 2.0
"""Between two looks; a deletion that takes long is looked at less often."""

_NUMBERS_S = 5.0
"""Seconds between two lines that differ only in a number."""


def wait_for(
    api: Api,
    deletion_id: str,
    *,
    timeout_s: float | None,
    on_look: Callable[[], Any] = lambda: None,
) -> Item:
    """The report of a deletion that is DONE, waited for up to `timeout_s` seconds; progress goes to standard error.

    Raises Ended if it is FAILED, is called off, or goes on when the time is over. A server or a database that is away
    is waited for as well. `on_look` is called after each look, the last one included.
    """
    begun, progress = time.monotonic(), _Progress()
    report: Item | None = None
    away: Away | None = None
    while True:
        try:
            report = api.ask("GET", f"{DELETIONS}/{deletion_id}")
            away = None
            on_look()
            if report["state"] in {"FAILED", "RESTORED"}:  # told by the error
                raise _ended(api, report)
            progress.show(_head(report), how_far(report))
            if report["state"] == "DONE":
                return report
        except Away as error:
            away = error
            progress.show("away", f"{error.message} (asking again)")
        waited_s = time.monotonic() - begun
        if timeout_s is not None and waited_s >= timeout_s:
            raise _timed_out(api, deletion_id, report, away)
        pause_s = min(_LONGEST_S, max(_SHORTEST_S, waited_s / 10))
        time.sleep(pause_s if timeout_s is None else min(pause_s, timeout_s - waited_s))


def how_far(report: Item) -> str:
    """One line: where a deletion stands."""
    name, left = report["workspace_name"], sum(report["remaining"].values())
    match report["state"]:
        case "DONE":
            return f"{name} is gone: {_what_went(report)}"
        case "RESTORED":
            return f"{name} was restored"
        case "FAILED":
            return f"{name} is FAILED: {_one_line(report['reason'])}"
    if report["started_at"] is None:
        is_in_grace = report["purge_after"] > report["requested_at"]
        grace = f", in its grace period until {report['purge_after']}" if is_in_grace else ""
        return f"{name}: has not begun{grace}; {left} left"
    gone = sum(report["deleted"].values())
    line = f"{name}: at {report['phase'] or 'the end'}; {gone} deleted, {left} left"
    if report["eta_seconds"] is not None:
        line += f", about {report['eta_seconds']} s to go"
    if report["attempts"]:
        line += f"; attempt {report['attempts']} without progress, the next at {report['next_run_at']}"
    return line + "".join(f"; {one}" for one in causes(report)[:1])


def _what_went(report: Item) -> str:
    parts = [in_words(report["deleted"])] if report["deleted"] else []
    if any(one["skipped_by"] is not None for one in report["failures"]):
        parts.append("what was skipped is retained")
    return "; ".join(parts) or "it was empty"


def failures(report: Item) -> list[str]:
    """Resources that are still there or retained, each in a line, as `deletion skip` wants them named."""
    return [
        f"{one['kind']}/{one['resource_id']} ({one['path']}): {_one_line(one['message'])} "
        + (f"({one['error_class']})" if one["skipped_by"] is None else f"(skipped: {one['skip_reason']})")
        for one in report["failures"]
    ]


def causes(report: Item) -> list[str]:
    """Why resources are still there, each in a line, the most frequent first."""
    return [
        f"{one['count']} {one['kind']}: {_one_line(one['message'])} ({one['error_class']})"
        for one in report["causes"]
    ]


def _one_line(text: str | None) -> str:
    return " ".join((text or "").split())


class _Progress:
    """Prints progress to standard error, but no line twice, and numbers alone not too often."""

    def __init__(self) -> None:
        self._head, self._line, self._at = "", "", 0.0

    def show(self, head: str, line: str) -> None:
        is_late = time.monotonic() - self._at >= _NUMBERS_S
        if line != self._line and (head != self._head or is_late):
            echo(line, err=True)
            self._head, self._line, self._at = head, line, time.monotonic()


def _head(report: Item) -> str:
    """The part of a report whose change is shown at once."""
    return f"{report['state']} {report['phase']} {report['attempts']} {report['started_at'] is None}"


def _ended(api: Api, report: Item) -> Ended:
    if report["state"] == "RESTORED":
        return Ended(f"{how_far(report)}: nothing was destroyed")
    lines = [how_far(report), *(f"  {one}" for one in causes(report)), *_remedies(api, report)]
    return Ended("\n".join(lines), Exit.FAILED)


def _remedies(api: Api, report: Item) -> list[str]:
    """The commands that help a FAILED deletion."""
    command, one = "workspaces deletion", f"{report['id']}{api.option}"
    again = report["next_reattempt_at"]
    when = f"It is tried again at {again}. " if again else ""
    lines = [f"{when}Mend the cause, then: {command} retry {one}"]
    match report["failures"]:
        case [failure]:
            which = f"--kind {failure['kind']} --resource-id '{failure['resource_id']}'"
            lines.append(f"Or give it up and leave it behind: {command} skip {one} {which} --reason …")
        case [_, *_]:
            lines.append(f"Or give up all that fails and leave it behind: {command} force {one} --reason …")
    return lines


def _timed_out(api: Api, deletion_id: str, report: Item | None, away: Away | None) -> Ended:
    how = away.message if away else how_far(report) if report else "nothing is known of it"
    again = f"workspaces deletion wait {deletion_id}{api.option}"
    return Ended(
        f"the deletion goes on, and is not waited for any longer: {how}\nGo on waiting: {again}",
        Exit.TIMED_OUT,
    )
