"""Encrypting the values of secrets anew by the first key, so that the others can be taken away."""

import time
from dataclasses import dataclass
from functools import partial
from math import inf
from uuid import UUID

from sqlalchemy import func, or_, select
from sqlalchemy.orm import Session, undefer

from app.access import audit
from app.access.authorize import Actor
from app.db import Transact
from app.errors import SecretUnreadable
from app.models import Secret
from app.models.audit import AuditEvent
from app.services.secrets.encryption import Keyring, Sealed

CHUNK = 100
"""Secrets of one transaction: their values together have a few megabytes at most."""

_LOWEST = UUID(int=0)


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
    for key_id in keys.others:
        cursor: UUID | None = _LOWEST
        while cursor is not None and time.monotonic() < deadline:
            number, cursor = transact(partial(_rotate_chunk, keys=keys, key_id=key_id, after=cursor))
            rotated += number
    return transact(partial(_conclude, keys=keys, actor=actor, rotated=rotated))


def _rotate_chunk(session: Session, *, keys: Keyring, key_id: str, after: UUID) -> tuple[int, UUID | None]:
    """Encrypt the next chunk anew; how many, and the last one of it, or None if there was none."""
    # In the order of the ids, as the cascade: neither waits for the other in a circle.
    page = select(Secret).where(Secret.key_id == key_id, Secret.id > after).order_by(Secret.id).limit(CHUNK)
    secrets = session.scalars(page.with_for_update().options(undefer(Secret.ciphertext))).all()
    number = sum(_rotate(keys, secret) for secret in secrets)
    return number, max((secret.id for secret in secrets), default=None)


def _rotate(keys: Keyring, secret: Secret) -> bool:
    """Whether the value could be decrypted, and is encrypted anew. When it was set is left as it is."""
    row, sealed = (secret.workspace_id, secret.id), Sealed(secret.key_id, secret.ciphertext)
    try:
        value = keys.open(sealed, workspace_id=row[0], secret_id=row[1], name=secret.name)
    except SecretUnreadable:
        return False  # in the log, and among those that are left
    anew = keys.seal(value, workspace_id=row[0], secret_id=row[1])
    secret.key_id, secret.ciphertext = anew.key_id, anew.ciphertext
    return True


def _conclude(session: Session, *, keys: Keyring, actor: Actor | str, rotated: int) -> Rotation:
    if rotated:
        audit.record(session, actor, AuditEvent.SECRETS_ROTATED, rotated=rotated)
    # Two ranges of the index, without those of the first key.
    others = or_(Secret.key_id < keys.first, Secret.key_id > keys.first)
    counted = select(Secret.key_id, func.count()).where(others).group_by(Secret.key_id)
    return Rotation(rotated, dict(session.execute(counted).all()))
