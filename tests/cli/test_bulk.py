"""Retry, skip and force of many deletions touch only those that were FAILED when the operator looked."""

from datetime import datetime
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.cli.client.api import Query
from app.cli.client.bulk import ask_each
from app.cli.client.database import Database
from app.clock import database_now
from app.context import Context
from app.lifecycle import FailureClass
from app.models import Deletion, DeletionFailure
from tests.cli.conftest import MakeFailed, Run


def states(session: Session) -> dict[str, str]:
    session.rollback()
    return {one.workspace_name: one.state for one in session.scalars(select(Deletion))}


def now(session: Session) -> str:
    """The database's time."""
    at: datetime = session.scalars(select(database_now())).one()
    session.rollback()
    return at.isoformat()


def fails_again(session: Session, deletion: Deletion) -> None:
    deletion.failed_at = session.scalars(select(database_now())).one()
    session.commit()


@pytest.mark.parametrize("verb", [("retry",), ("force", "--reason", "ticket 7")], ids=lambda verb: verb[0])
def test_what_failed_after_the_look_is_not_touched(
    run: Run, session: Session, make_failed: MakeFailed, verb: tuple[str, ...]
) -> None:
    make_failed("a"), make_failed("b")
    again = make_failed("again")
    looked_at = now(session)
    fails_again(session, again)
    make_failed("later")

    result = run("deletion", *verb, "--all", "--state", "FAILED", "--as-of", looked_at, "--yes", "-o", "name")

    assert result.exit_code == 0
    assert f"4 match now, 2 when you looked ({looked_at})" in result.stderr
    assert states(session) == {"a": "DELETING", "b": "DELETING", "again": "FAILED", "later": "FAILED"}
    assert len(result.stdout.split()) == 2


def test_what_fails_anew_while_others_are_asked_for_is_not_touched(
    context: Context, session: Session, make_failed: MakeFailed
) -> None:
    make_failed("first")
    second = make_failed("second")

    class Slow(Database):
        """The second one is retried by somebody else, and fails again, before its turn comes."""

        def ask(self, method: str, path: str, query: Query | None = None, body: Any = None) -> Any:
            if method == "POST" and str(second.id) in path:
                fails_again(session, second)
            return super().ask(method, path, query, body)

    which = {"scope": "all", "state": "FAILED"}
    reports = ask_each(Slow(context), "retry", None, which, as_of=now(session), is_agreed=True)

    assert [one["workspace_name"] for one in reports] == ["first"]
    assert states(session) == {"first": "DELETING", "second": "FAILED"}


def test_only_those_with_a_failure_of_the_class_match(
    run: Run, session: Session, make_failed: MakeFailed
) -> None:
    make_failed("refused")
    make_failed("away", error_class=FailureClass.TRANSIENT)
    which = ("--all", "--state", "FAILED", "--class", "transient")

    listed = run("deletion", "list", *which, "-o", "name")
    result = run("deletion", "retry", *which, "--as-of", now(session), "--yes")

    assert len(listed.stdout.split()) == 1
    assert "1 match now, 1 when you looked" in result.stderr
    assert states(session) == {"refused": "FAILED", "away": "DELETING"}


@pytest.mark.parametrize("verb", [("retry",), ("force", "--reason", "ticket 7")], ids=lambda verb: verb[0])
def test_only_those_of_the_cause_match(
    run: Run, session: Session, make_failed: MakeFailed, verb: tuple[str, ...]
) -> None:
    make_failed("refused")
    lost = select(DeletionFailure).where(DeletionFailure.deletion_id == make_failed("lost").id)
    session.scalars(lost).one().cause = "lost"
    session.commit()
    causes = run("deletion", "causes", "-o", "name")
    which = ("--kind", "filesets", "--cause", "lost", "--as-of", now(session))

    result = run("deletion", *verb, "--all", *which, "--yes")

    assert causes.stdout.split() == ["denied", "lost"]
    assert causes.stderr.startswith("2 FAILED, as of ")
    assert "1 match now, 1 when you looked" in result.stderr
    assert states(session) == {"refused": "FAILED", "lost": "DELETING"}


def test_what_is_skipped_everywhere_is_one_resource_of_each(
    run: Run, session: Session, make_failed: MakeFailed
) -> None:
    first, second = make_failed("first"), make_failed("second")
    stuck = select(DeletionFailure).where(DeletionFailure.deletion_id == first.id)
    resource = session.scalars(stuck).one().resource_id
    which = ("--kind", "filesets", "--resource-id", resource, "--reason", "ticket 7")

    result = run("deletion", "skip", *which, "--all", "--as-of", now(session), "--yes")

    assert result.exit_code == 0
    assert f"{second.id} second: left alone" in result.stderr
    assert states(session) == {"first": "DELETING", "second": "FAILED"}
    assert session.scalars(stuck).one().skip_reason == "ticket 7"


def test_more_than_a_page_of_them(run: Run, session: Session, make_failed: MakeFailed) -> None:
    for number in range(120):
        make_failed(f"team-{number}")

    result = run("deletion", "retry", "--all", "--as-of", now(session), "--yes", "-o", "name")

    assert len(set(result.stdout.split())) == 120
    assert set(states(session).values()) == {"DELETING"}


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("retry",), "Give the ID of one deletion, or --all"),
        (("retry", "0198c0de-0000-7000-8000-000000000000", "--all"), "Give the ID of one deletion, or --all"),
        (("retry", "--all"), "--all needs --as-of"),
        (("retry", "--all", "--as-of", "yesterday"), "is no time"),
        (("causes", "--as-of", "0001-01-01T00:00:00+01:00"), "is no time"),
        (("causes", "--as-of", "9999-12-31T23:59:59-01:00"), "is no time"),
        (("retry", "--all", "--as-of", "2026-01-01", "--state", "DONE"), "FAILED"),
        (("force", "--all", "--as-of", "2026-01-01"), "--reason"),
    ],
)
def test_what_is_not_clear_is_not_done(run: Run, arguments: tuple[str, ...], complaint: str) -> None:
    result = run("deletion", *arguments)

    assert result.exit_code == 2
    assert complaint in result.stderr


def test_off_a_terminal_it_needs_yes(run: Run, session: Session, make_failed: MakeFailed) -> None:
    make_failed("a")

    result = run("deletion", "retry", "--all", "--as-of", now(session))

    assert result.exit_code == 2
    assert "--yes is needed to retry 1 deletions" in result.stderr
    assert states(session) == {"a": "FAILED"}


def test_the_list_says_the_time_that_the_bulk_takes(
    run: Run, session: Session, make_failed: MakeFailed
) -> None:
    make_failed("seen")
    listed = run("deletion", "list", "--all", "--state", "FAILED")
    looked_at = listed.stderr.strip().partition("as of ")[2]
    make_failed("later")

    run("deletion", "retry", "--all", "--as-of", looked_at, "--yes")

    assert listed.stderr.startswith("1 of 1, as of ")
    assert states(session) == {"seen": "DELETING", "later": "FAILED"}
