"""The history of a deletion: append-only, and written to the log in the same words."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy.orm import Session

from app.logs import get_logger
from app.models import DeletionEvent

log = get_logger(__name__)

_WORRYING = {"backed_off", "worker_lost", "held"}
"""Events after which the work goes on by itself, but that a person may want to notice."""

_TOLD_APART = {"failed"}
"""Events of which `log_failed` writes the line, with all that a person needs."""


def record(session: Session, deletion_id: UUID, event: str, *, actor: str, **detail: Any) -> None:
    """Append one line to a deletion's history, and to the log."""
    session.add(DeletionEvent(deletion_id=deletion_id, actor=actor, event=event, detail=detail))
    if event in _TOLD_APART:
        return
    write = log.warning if event in _WORRYING else log.info
    write(f"deletion.{event}", deletion_id=str(deletion_id), actor=actor, **detail)


def log_failed(deletion_id: UUID, workspace: str, *, reason: str, reattempt_at: datetime | None) -> None:
    """Write the one line of the log about a FAILED deletion: what, where and why, and what comes next."""
    retry = f"POST /apis/entities/v2/deletions/{deletion_id}/retry"
    log.error(
        "workspace.cleanup_failed",
        deletion_id=str(deletion_id),
        workspace=workspace,
        reason=reason,
        next=f"re-attempted at {reattempt_at.isoformat()}; {retry} does it now"
        if reattempt_at
        else f"mend the cause, then {retry}; or skip what has to stay",
    )
