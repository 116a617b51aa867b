"""What is told of deletions."""

from datetime import timedelta
from uuid import uuid4

import pytest
from sqlalchemy import event, select

from app.cleanup import failures
from app.cleanup.report import report
from app.lifecycle import FailureClass
from app.models import Deletion
from tests import factories
from tests.cleanup.conftest import the
from tests.support.aging import age, time_of


def test_a_store_that_is_down_does_not_fill_the_report(session, delete, clock):
    factories.make_workspace(session)
    session.commit()
    deletion = the(session, delete("ml-team"))
    for i in range(150):
        failures.upsert(
            session,
            deletion.id,
            "filesets",
            resource_id=uuid4(),
            name=f"fs-{i:03}",
            error_class=FailureClass.TRANSIENT,
            message="503",
        )

    [shown] = report(session, [deletion])

    assert [one.name for one in shown.failures] == [f"fs-{i:03}" for i in range(100)], (
        "the longest known first"
    )


def test_the_number_of_queries_does_not_grow_with_the_number_of_deletions(session, delete, clock, engine):
    for i in range(6):
        factories.make_workspace(session, f"ws-{i}")
    session.commit()
    for i in range(6):
        delete(f"ws-{i}")
    deletions = session.scalars(select(Deletion)).all()
    statements = []

    def note(*args):
        statements.append(args[2])

    event.listen(engine, "before_cursor_execute", note)
    try:
        report(session, deletions[:1])
        for_one = len(statements)
        report(session, deletions)
    finally:
        event.remove(engine, "before_cursor_execute", note)

    assert len(statements) == 2 * for_one


def test_the_expected_end_follows_from_the_speed_so_far(session, delete, clock):
    workspace = factories.make_workspace(session)
    for i in range(30):
        factories.make_project(session, workspace, f"p-{i}")
    session.commit()
    deletion = the(session, delete("ml-team"))
    deletion.started_at = time_of(session) - timedelta(seconds=110)
    deletion.last_progress_at = time_of(session) - timedelta(seconds=10)
    deletion.deleted_counts = {"entities": 100}
    deletion.created_counts = {"entities": 100, "projects": 30}
    session.commit()

    [shown] = report(session, [deletion])
    assert shown.eta_seconds == pytest.approx(20, abs=2)

    etas = [shown.eta_seconds]
    for _ in range(3):  # it waits, and nothing more is deleted
        age(session, deletion, 8)
        etas.append(report(session, [deletion])[0].eta_seconds)
    assert etas == sorted(etas, reverse=True)
    assert etas[-1] == 0
