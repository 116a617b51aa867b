"""Since when a deletion has been FAILED is known from its row, also while workers of the release before change it."""

from datetime import timedelta

from sqlalchemy import Engine, select, text
from sqlalchemy.orm import Session

from app.cleanup import ledger
from app.models import Deletion
from tests.factories import make_failed_deletion
from tests.support.aging import age, time_of

RETRY = {"event": "retried", "actor": "root"}


def set_state(engine: Engine, deletion: Deletion, state: str) -> None:
    """What a release does that does not know the column."""
    with engine.begin() as connection:
        connection.execute(
            text("UPDATE deletions SET state = :state WHERE id = :id"), {"state": state, "id": deletion.id}
        )


def had_failed(session: Session, *, seconds_ago: float) -> bool:
    session.rollback()
    as_of = time_of(session) - timedelta(seconds=seconds_ago)
    return bool(session.scalars(select(Deletion.id).where(ledger.had_failed(as_of))).all())


def test_a_deletion_that_fails_anew_is_failed_since_then(session: Session, database: Engine) -> None:
    deletion = make_failed_deletion(session, "ml-team")
    age(session, deletion, 60)
    assert had_failed(session, seconds_ago=30)

    ledger.reopen(session, deletion.id, **RETRY)
    session.commit()
    assert deletion.failed_at is None
    set_state(database, deletion, "FAILED")

    assert not had_failed(session, seconds_ago=30)
    assert had_failed(session, seconds_ago=0)


def test_the_release_before_leaves_no_time_of_an_earlier_failure(session: Session, database: Engine) -> None:
    deletion = make_failed_deletion(session, "ml-team")
    age(session, deletion, 60)

    set_state(database, deletion, "DELETING")
    assert not had_failed(session, seconds_ago=0)
    set_state(database, deletion, "FAILED")

    assert not had_failed(session, seconds_ago=30)
    assert had_failed(session, seconds_ago=0)


def test_what_changes_of_a_failed_deletion_leaves_the_time_as_it_is(
    session: Session, database: Engine
) -> None:
    deletion = make_failed_deletion(session, "ml-team")
    age(session, deletion, 60)

    set_state(database, deletion, "FAILED")

    assert had_failed(session, seconds_ago=30)
