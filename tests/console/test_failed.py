"""The inbox of FAILED deletions: by cause, and the same action for all that somebody has seen."""

import re

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.cleanup.report.causes import MOST_GROUPS
from app.lifecycle import DeletionState, FailureClass
from app.models import Deletion, DeletionFailure
from tests import factories
from tests.support.browser import Browser

INBOX = "/console/failed"


def failing(session: Session, number: int, **values: FailureClass) -> list[Deletion]:
    made = [
        factories.make_failed_deletion(session, f"stuck-{one:02}-{number}", **values) for one in range(number)
    ]
    session.commit()
    return made


def states(session: Session) -> dict[str, DeletionState]:
    session.rollback()
    return dict(session.execute(select(Deletion.workspace_name, Deletion.state)).all())


def test_nothing_failed_is_said(session: Session, operator: Browser) -> None:
    assert "Nothing is FAILED" in operator.open(INBOX).text


def test_forty_are_retried_and_the_one_that_failed_since_is_left_alone(
    session: Session, operator: Browser
) -> None:
    failing(session, 40)
    assert "40 deletions: filesets" in operator.open(INBOX).text
    retry = operator.form("/retry")
    factories.make_failed_deletion(session, "late")
    session.commit()

    operator.send(retry)
    before = 40
    while again := re.match(r"done: .* (\d+) are left: do it again\.", operator.message):
        assert int(again[1]) < before, "some are done each time, also on a busy machine"
        before = int(again[1])
        operator.send(retry)

    assert re.match(rf"done: \d+ match now, {before} when you looked: {before} retried", operator.message)
    found = states(session)
    assert found.pop("late") is DeletionState.FAILED
    assert set(found.values()) == {DeletionState.DELETING}
    assert "1 deletion: filesets" in operator.page.text


def test_another_cause_is_left_alone(session: Session, operator: Browser) -> None:
    failing(session, 2)
    [other] = failing(session, 1, error_class=FailureClass.TRANSIENT)
    operator.open(INBOX)

    operator.send(operator.form("/retry"))

    assert "2 match now, 2 when you looked: 2 retried" in operator.message
    assert states(session)[other.workspace_name] is DeletionState.FAILED


@pytest.mark.parametrize("action", ["skip", "force"])
def test_what_is_given_up_has_a_reason(session: Session, operator: Browser, action: str) -> None:
    failing(session, 3)
    operator.open(INBOX)

    operator.send(operator.form(f"/{action}"))
    assert operator.message.startswith("refused: ")
    assert set(states(session).values()) == {DeletionState.FAILED}
    operator.send(operator.form(f"/{action}"), reason="the bucket is gone")

    assert operator.message.startswith("done: 3 match now, 3 when you looked: 3 ")
    assert set(states(session).values()) == {DeletionState.DELETING}
    if action == "skip":
        reasons = session.scalars(select(DeletionFailure.skip_reason)).all()
        assert set(reasons) == {"the bucket is gone"}


def test_a_cause_without_words_is_not_every_cause(session: Session, operator: Browser) -> None:
    [silent] = failing(session, 1)
    silent.reason = None
    session.merge(silent)
    session.query(DeletionFailure).delete()
    session.commit()
    failing(session, 2)
    operator.open(INBOX)
    [form] = [one for one in operator.forms if one.action.endswith("/retry") and not one.fields["cause"]]

    operator.send(form)

    assert "1 match now, 1 when you looked: 1 retried" in operator.message
    assert sorted(states(session).values()) == ["DELETING", "FAILED", "FAILED"]


def test_that_there_are_more_causes_than_a_page_has_is_said(session: Session, operator: Browser) -> None:
    failing(session, MOST_GROUPS + 1)
    failures = session.scalars(select(DeletionFailure)).all()
    for number, failure in enumerate(failures):
        failure.cause = f"cause {number:02}"
    session.commit()
    assert f"There are more causes: these {MOST_GROUPS}" in operator.open(INBOX).text

    failures[0].cause = failures[1].cause
    session.commit()

    assert "There are more causes" not in operator.open(INBOX).text
