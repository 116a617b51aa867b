"""Encrypting the values of secrets anew by the first key, so that the others can be taken away.

Also those that sign webhooks.
"""

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from math import inf
from typing import Any
from uuid import UUID

from sqlalchemy import func, or_, select
from sqlalchemy.orm import Session, undefer

from app.access import audit
from app.access.authorize import Actor
from app.db import Transact
from app.errors import SecretUnreadable
from app.models import Secret, Subscription
from app.models.audit import AuditEvent
from app.services.secrets.encryption import PLATFORM, Keyring, Sealed

CHUNK = 100
"""Secrets of one transaction: their values together have a few megabytes at most."""

_LOWEST = UUID(int=0)

_ENCRYPTED: dict[type[Secret | Subscription], tuple[str, ...]] = {
    Secret: ("ciphertext",),
    Subscription: ("secret", "older_secret"),
}
"""The columns of each table whose values the key of its row has encrypted."""


@dataclass(frozen=True)
class Rotation:
    """How many secrets were encrypted anew, and how many there are under other keys than the first, by their ids."""

    rotated: int
    left: dict[str, int]


def rotate(transact: Transact, keys: Keyring, actor: Actor | str, *, within_s: float = inf) -> Rotation:
    """Encrypt anew by the first key what the others have encrypted, chunk by chunk, for about `within_s`.

    Each chunk is committed, so that it goes on where it was ended. What cannot be decrypted stays as it is.
    """
    deadline, rotated = time.monotonic() + within_s, 0
    for model in _ENCRYPTED:
        for key_id in keys.others:
            cursor: UUID | None = _LOWEST
            while cursor is not None and time.monotonic() < deadline:
                chunk = partial(_rotate_chunk, keys=keys, model=model, key_id=key_id, after=cursor)
                number, cursor = transact(chunk)
                rotated += number
    return transact(partial(_conclude, keys=keys, actor=actor, rotated=rotated))


def _rotate_chunk(
    session: Session, *, keys: Keyring, model: Any, key_id: str, after: UUID
) -> tuple[int, UUID | None]:
    """Encrypt the next chunk anew; how many, and the last one of it, or None if there was none."""
    # In the order of the ids, as the cascade: neither waits for the other in a circle.
    page = select(model).where(model.key_id == key_id, model.id > after).order_by(model.id).limit(CHUNK)
    values = [undefer(getattr(model, name)) for name in _ENCRYPTED[model]]
    rows: Sequence[Secret | Subscription] = session.scalars(page.with_for_update().options(*values)).all()
    number = sum(_rotate(keys, row) for row in rows)
    return number, max((row.id for row in rows), default=None)


def _rotate(keys: Keyring, row: Secret | Subscription) -> bool:
    """Whether the values could be decrypted, and are encrypted anew. When they were set is left as it is."""
    workspace_id, name = (
        (row.workspace_id, row.name) if isinstance(row, Secret) else (PLATFORM, f"webhook {row.id}")
    )
    place, anew = {"workspace_id": workspace_id, "secret_id": row.id}, {}
    try:
        for column in _ENCRYPTED[type(row)]:
            if ciphertext := getattr(row, column):
                value = keys.open(Sealed(row.key_id or "", ciphertext), **place, name=name)
                anew[column] = keys.seal(value, **place).ciphertext
    except SecretUnreadable:
        return False  # in the log, and among those that are left
    for column, ciphertext in anew.items():
        setattr(row, column, ciphertext)
    row.key_id = keys.first
    return True


def _conclude(session: Session, *, keys: Keyring, actor: Actor | str, rotated: int) -> Rotation:
    if rotated:
        audit.record(session, actor, AuditEvent.SECRETS_ROTATED, rotated=rotated)
    left: Counter[str] = Counter()
    for model in _ENCRYPTED:
        # Two ranges of the index, without those of the first key.
        others = or_(model.key_id < keys.first, model.key_id > keys.first)
        counted = select(model.key_id, func.count()).where(others).group_by(model.key_id)
        left.update({key_id: number for key_id, number in session.execute(counted) if key_id})
    return Rotation(rotated, dict(left))
