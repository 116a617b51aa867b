"""The tasks of the cleanup queue, with the results that operators read in Flower."""

import os
import socket
from dataclasses import replace
from uuid import UUID

from celery import Task
from sqlalchemy.exc import OperationalError

from app.cleanup.engine import run_slice
from app.cleanup.kinds import ORDER
from app.cleanup.outcomes import Advanced, Failed, Finished, Idle, Postponed
from app.dispatch import Message, cleanup_message, cleanup_task, readable
from app.logs import explain
from workers.celery_app import celery, context

_DATABASE_AWAY_SECONDS = 3.0


class NotYet(Exception):
    """The reason why a slice is retried; Flower shows it beside RETRY."""


class CleanupFailed(Exception):
    """The reason why a workspace is FAILED; Flower shows it beside FAILURE."""


def clean(task: Task, deletion_id: str, workspace: str, phase: str, attempt: int = 0) -> str:
    """Run one slice and translate its outcome: SUCCESS, RETRY with its reason, or FAILURE.

    A stale `phase` is harmless: the slice reads the present one from the row, and goes on to others. It may be one of
    another deletion, if it is another requester's turn. A retry is for the phase and the deletion that it is about.
    """
    owner = f"{socket.gethostname()}/{os.getpid()}/{task.request.id}"
    try:
        outcome = run_slice(context(), UUID(deletion_id), owner=owner)
    except OperationalError as error:
        # Nothing could be recorded: the row is unchanged, and its lease expires by itself.
        away = NotYet(f"{workspace}: the database is away: {explain(error)}")
        same = cleanup_message(UUID(deletion_id), workspace, phase, attempt=attempt)
        raise _again(task, replace(same, task=task.name), away, _DATABASE_AWAY_SECONDS) from None
    match outcome:
        case Idle(why):
            return f"{workspace}: nothing done, {why}"
        case Advanced(summary) | Finished(summary):
            return summary
        case Postponed(reason, made, retry_in_s, claim, before):
            budget = f"attempt {made}/{context().settings.max_attempts}, " if made else ""
            next_in = f"{budget}next in {retry_in_s:.0f} s{_since(before)}"
            not_yet = NotYet(f"{claim.workspace_name} {reason} {next_in}")
            message = cleanup_message(claim.id, claim.workspace_name, claim.phase, attempt=made)
            raise _again(task, message, not_yet, retry_in_s)
        case Failed(reason, claim, before):
            raise CleanupFailed(f"{claim.workspace_name} is FAILED: {reason}{_since(before)}")


def _since(before: str) -> str:
    return f" (before that {before})" if before else ""


def _again(task: Task, message: Message, why: NotYet, countdown: float) -> Exception:
    # As a retry of the task that bears the name of the phase: the slice may have come to another than its own.
    named = celery.tasks[message.task]
    named.request_stack.push(task.request)
    try:
        # Celery drops `argsrepr` on a retry, and Flower would show raw ids instead.
        retry: Exception = named.retry(
            kwargs=message.facts,
            exc=why,
            countdown=countdown,
            argsrepr=readable(message.facts),
            # Those of the message that was taken may be of another requester's deletion.
            headers=message.headers,
            throw=False,
        )
    finally:
        named.request_stack.pop()
    return retry


for _phase in [*(kind.name for kind in ORDER), None]:
    # The ledger counts retries; Celery's own limit must never be reached. The engine has logged what is FAILED.
    celery.task(clean, name=cleanup_task(_phase), bind=True, max_retries=10_000, throws=(CleanupFailed,))
