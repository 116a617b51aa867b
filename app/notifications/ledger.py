"""What became of the attempts: each is written down under the fencing token of the lease, in one transaction.

A receiver that does not take something is left alone for a while, with all there is for it: it costs one attempt then,
however much waits.
"""

import random
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import ColumnElement, func, select, update
from sqlalchemy.orm import Session

from app.access import audit
from app.access.principal import SERVICE_PREFIX
from app.clock import database_now, seconds_from_now
from app.config import Settings
from app.context import Context
from app.db import session_scope
from app.lifecycle import DeliveryMove
from app.logs import get_logger
from app.models import Delivery, Subscription
from app.models.audit import AuditEvent
from app.notifications.attempt import AttemptFailed
from app.notifications.deliveries import move
from app.notifications.lease import Claim, write

log = get_logger(__name__)

SENDER = f"{SERVICE_PREFIX}notify"
"""The actor of what the sender does by itself. No token can claim this prefix."""

_FIRST_PAUSE_S = 5.0
_LONGEST_PAUSE_S = 6 * 3600.0
_GONE = 410


@dataclass(frozen=True)
class Attempt:
    """A delivery that is tried. The last attempt is the one after which it is given up."""

    delivery: Delivery
    is_last: bool


def deadline(settings: Settings) -> ColumnElement[Any]:
    """SQL: until when a `Delivery` is tried. A `Subscription` that is enabled again has its full time again."""
    since = func.greatest(Delivery.due_at, Subscription.enabled_at)
    return since + timedelta(days=settings.notification_retry_days)


def note_delivered(context: Context, claim: Claim, attempt: Attempt, *, code: int) -> None:
    """Write down a success. Raises LeaseLost."""
    with session_scope(context.sessions) as session:
        write(session, claim, failures=0, last_success_at=database_now())
        _note(session, attempt, DeliveryMove.DELIVER, answer_code=code, error=None)


def note_lost_record(context: Context, claim: Claim, attempt: Attempt) -> None:
    """Give up a delivery of which nobody knows any more what it is about. Raises LeaseLost."""
    with session_scope(context.sessions) as session:
        write(session, claim)
        reason = "its deletion is not on record any more"
        _note(session, attempt, DeliveryMove.GIVE_UP, answer_code=None, error=reason)


def note_failed(context: Context, claim: Claim, attempt: Attempt, failed: AttemptFailed) -> None:
    """Write down a failure, and leave the receiver alone for a while; give up after the last one. Raises LeaseLost."""
    is_given_up = attempt.is_last or failed.code == _GONE
    about = {"answer_code": failed.code, "error": str(failed)}
    with session_scope(context.sessions) as session:
        # The subscription before the delivery, as `redeliver` and `delete_subscription` lock them.
        number = write(session, claim, failures=Subscription.failures + 1).failures
        if is_given_up:
            _note(session, attempt, DeliveryMove.GIVE_UP, **about)
            _disable_if_dead(session, context.settings, claim, attempt, failed)
        else:
            write(session, claim, next_attempt_at=seconds_from_now(pause_after(number - 1)))
            again_at = _next_attempt_at(context.settings, attempt)
            _note(session, attempt, None, next_attempt_at=again_at, **about)
    log.warning(
        "delivery.given_up" if is_given_up else "delivery.failed",
        delivery_id=str(attempt.delivery.id),
        error=str(failed),
    )


def pause_after(failures: int) -> float:
    """Seconds to wait after a failure, with so many before it: 5, 15, 45, … up to six hours, ±10 %."""
    pause_s = min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 3.0 ** min(failures, 20))
    return pause_s * random.uniform(0.9, 1.1)  # noqa: S311 -- jitter, not a secret


def _next_attempt_at(settings: Settings, attempt: Attempt) -> ColumnElement[Any]:
    """SQL: after the pause, but the last attempt is at the deadline."""
    ends_at = (
        select(deadline(settings))
        .where(Subscription.id == Delivery.subscription_id)
        .correlate(Delivery)
        .scalar_subquery()
    )
    return func.least(seconds_from_now(pause_after(attempt.delivery.attempts)), ends_at)


def _note(session: Session, attempt: Attempt, outcome: DeliveryMove | None, **values: Any) -> None:
    """Nothing, if somebody has asked for the delivery again meanwhile: then it is sent once more."""
    is_same = Delivery.id == attempt.delivery.id, Delivery.due_at == attempt.delivery.due_at
    values |= {"attempts": Delivery.attempts + 1, "last_attempt_at": database_now()}
    if outcome:
        move(session, outcome, *is_same, **values)
    else:
        session.execute(
            update(Delivery).where(*is_same).values(values),
            execution_options={"synchronize_session": False},
        )


def _disable_if_dead(
    session: Session, settings: Settings, claim: Claim, attempt: Attempt, failed: AttemptFailed
) -> None:
    """Disable the subscription if nothing was delivered since this was due, or its receiver has said that it is gone.

    Otherwise the receiver is well, and will not have this one.
    """
    days = settings.notification_retry_days
    reason, guards = f"nothing was delivered for {days:g} days; {failed}", [~_has_succeeded_since(attempt)]
    if failed.code == _GONE:
        reason, guards = "the receiver says that it is gone for good (410)", []
    disabled = session.scalar(
        update(Subscription)
        .where(Subscription.id == claim.subscription.id, Subscription.is_enabled, *guards)
        .values(is_enabled=False, disabled_reason=reason)
        .returning(Subscription.id)
    )
    if disabled:
        log.error("subscription.disabled", subscription_id=str(disabled), reason=reason)
        audit.record(session, SENDER, AuditEvent.WEBHOOK_DISABLED, subject=str(disabled), reason=reason)


def _has_succeeded_since(attempt: Attempt) -> ColumnElement[bool]:
    begin = func.greatest(attempt.delivery.due_at, Subscription.enabled_at)
    return func.coalesce(Subscription.last_success_at > begin, False)
