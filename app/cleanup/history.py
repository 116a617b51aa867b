"""The history of a deletion: append-only, and written to the log in the same words."""

from typing import Any
from uuid import UUID

from sqlalchemy.orm import Session

from app.logs import get_logger
from app.models import DeletionEvent

log = get_logger(__name__)

_WORRYING = {"backed_off", "worker_lost", "held"}
"""Events after which the work goes on by itself, but that a person may want to notice."""


def record(session: Session, deletion_id: UUID, event: str, *, actor: str, **detail: Any) -> None:
    """Append one line to a deletion's history, and to the log."""
    session.add(DeletionEvent(deletion_id=deletion_id, actor=actor, event=event, detail=detail))
    write = log.warning if event in _WORRYING else log.info
    write(f"deletion.{event}", deletion_id=str(deletion_id), actor=actor, **detail)
