"""What operators see of notifications: metrics, documents, and that nothing of it grows with what is over."""

import re
from pathlib import Path

import pytest
from sqlalchemy import select, text

from app.db import session_scope
from app.health.metrics.notifications import notification_metrics
from app.lifecycle import NotificationType
from app.maintenance.sweep import sweep
from app.models import AuditRecord
from app.models.audit import AuditEvent
from app.notifications import subscriptions
from app.notifications.sweep import due_messages
from tests import factories
from tests.notifications.conftest import ROOT, notified, the
from tests.support import guide
from tests.support.aging import age_everything, time_of
from tests.support.statements import compact, rows_read

GUIDE = (Path(__file__).parents[2] / "docs" / "notifications.md").read_text()


def values(session) -> dict[str, float | None]:
    session.rollback()
    return {
        family.name.removeprefix("workspaces_webhooks_"): family.samples[0].value if family.samples else None
        for family in notification_metrics(session)
    }


def test_metrics_say_what_waits_since_when_and_who_is_disabled(session, receiver, subscribe, delete, send):
    factories.make_workspace(session)
    factories.make_subscription(session, is_enabled=False)
    session.commit()
    assert values(session) == {"pending": 0, "oldest_timestamp_seconds": None, "disabled": 0}
    ours = subscribe(receiver.url)
    receiver.status = 500
    delete("ml-team")
    send(ours)
    age_everything(session, 3600)

    found = values(session)
    assert (found["pending"], found["disabled"]) == (1, 0)
    assert time_of(session).timestamp() - found["oldest_timestamp_seconds"] == pytest.approx(3600, abs=1000)

    age_everything(session, 3 * 86400)
    send(ours)
    assert values(session) == {"pending": 0, "oldest_timestamp_seconds": None, "disabled": 1}


def test_one_that_an_administrator_leaves_disabled_alerts_nobody_any_more(session, context, subscribe):
    ours = subscribe("https://hooks.example.com/")
    dead = the(session, ours)
    dead.is_enabled, dead.disabled_reason = False, "the receiver says that it is gone for good (410)"
    session.commit()
    assert values(session)["disabled"] == 1

    with session_scope(context.sessions) as other:
        disabled = subscriptions.SubscriptionChange(is_enabled=False)
        subscriptions.update_subscription(other, context, ROOT, ours.id, disabled)

    assert values(session)["disabled"] == 0
    dead = the(session, ours)
    assert (dead.is_enabled, dead.disabled_reason) == (False, None)
    assert AuditEvent.WEBHOOK_UPDATED in session.scalars(select(AuditRecord.event)).all()


def test_neither_a_sweep_nor_a_scrape_reads_what_is_over(session, context, subscribe, receiver):
    """Twenty thousand deliveries of the past, and none that is due."""
    ours = subscribe(receiver.url)
    session.execute(
        text(
            "INSERT INTO deliveries (subscription_id, event_id, type, created_at, status, due_at, next_attempt_at)"
            " SELECT :id, n, 'deletion.failed', now() - n * interval '1 s', 'DELIVERED', now(), now()"
            " FROM generate_series(1, 20000) AS n"
        ),
        {"id": ours.id},
    )
    session.commit()
    engine = session.get_bind()
    compact(engine, "deliveries")

    def look() -> None:
        session.rollback()
        assert due_messages(session, requeue_s=0) == []
        assert values(session)["pending"] == 0

    assert rows_read(engine, look)["deliveries"] < 10


def test_the_sweep_notes_what_it_has_enqueued(session, context, publisher, receiver, subscribe, delete):
    factories.make_workspace(session)
    session.commit()
    ours = subscribe(receiver.url)
    delete("ml-team")
    publisher.published.clear()

    def enqueued() -> int:
        before = len(notified(publisher))
        sweep(context)
        return len(notified(publisher)) - before

    assert [enqueued(), enqueued()] == [1, 0]
    age_everything(session, context.settings.requeue_after_seconds + 1)
    assert enqueued() == 1

    assert the(session, ours).last_enqueued_at is not None


def test_the_guide_has_every_type_with_its_meaning():
    rows = dict(re.findall(r"^\| `([a-z.]+)` \| (.+) \|$", GUIDE, re.MULTILINE))

    assert rows == {one.value: guide.meaning(one) for one in NotificationType}, (
        "docs/notifications.md has the texts behind `#:` in app/lifecycle.py"
    )
