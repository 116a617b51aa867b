"""The page of one deletion: what it says in each condition, what its buttons do, and how it is kept up to date."""

import re
import shlex
from collections.abc import Callable
from datetime import timedelta
from html import unescape
from typing import Any

import pytest
from sqlalchemy import select, text
from sqlalchemy.orm import Session

from app.cleanup import control
from app.context import Context
from app.lifecycle import DeletionState, FailureClass, WorkspaceState
from app.models import AuditRecord, Deletion, DeletionFailure, DeletionHold, Workspace
from tests import factories
from tests.support.aging import time_of
from tests.support.browser import Browser
from tests.support.statements import compact, counted, rows_read


def deletion_of(session: Session, name: str, **values: Any) -> Deletion:
    """An unfinished deletion of a workspace of that name, on which a worker has begun."""
    now = time_of(session)
    workspace = factories.make_workspace(session, name, state=WorkspaceState.DELETING)
    deletion = Deletion(
        workspace_id=workspace.id,
        workspace_name=name,
        requested_by="ann",
        **{"state": DeletionState.DELETING, "started_at": now, "phase": "filesets", "next_run_at": now}
        | values,
    )
    session.add(deletion)
    session.commit()
    return deletion


def page_of(browser: Browser, deletion: Deletion) -> str:
    answer = browser.open(f"/console/deletions/{deletion.id}")
    assert answer.status_code == 200
    return answer.text


def test_it_says_what_a_deletion_is_doing_and_when_it_goes_on(session: Session, operator: Browser) -> None:
    now = time_of(session)
    soon, later = now + timedelta(hours=3, minutes=30), now + timedelta(hours=3)
    expected = {
        "Running": {"lease_owner": "w", "lease_until": later},
        "Waiting": {"polls": 3},
        "Backing off": {"attempts": 3, "next_run_at": soon},
        "In its grace period": {"started_at": None, "phase": None, "purge_after": later},
    }

    for number, (words, values) in enumerate(expected.items()):
        text = page_of(operator, deletion_of(session, f"team-{number}", **values))
        assert f"<strong>{words}</strong>" in text
    assert "in 3 h" in page_of(
        operator, session.scalars(select(Deletion).where(Deletion.attempts == 3)).one()
    )


def test_hung_is_told_apart_from_failing(session: Session, operator: Browser) -> None:
    hung = deletion_of(session, "hung")
    now = time_of(session)
    session.add(
        DeletionFailure(
            deletion_id=hung.id,
            kind="filesets",
            resource_id="x",
            name="raw",
            error_class=FailureClass.TRANSIENT,
            message="TimeoutError: the store does not answer",
            cause="TimeoutError: the store does not answer",
            first_seen_at=now,
            last_seen_at=now,
        )
    )
    session.commit()

    assert "<strong>Hung</strong>" in page_of(operator, hung)


def test_paused_says_by_whom_and_held_says_whose(session: Session, operator: Browser) -> None:
    deletion = deletion_of(session, "ml-team")
    session.add(DeletionHold(requested_by="ann", held_at=time_of(session), reason="many"))
    session.commit()
    assert "the breaker holds the deletions of ann" in page_of(operator, deletion)

    session.query(DeletionHold).delete()
    control.set_paused(session, paused=True, actor="carl")
    session.commit()
    assert "carl has paused all destruction" in page_of(operator, deletion)


def test_it_says_how_far_each_kind_is_and_what_the_expected_end_is_based_on(
    session: Session, operator: Browser
) -> None:
    now = time_of(session)
    text = page_of(
        operator,
        deletion_of(
            session,
            "ml-team",
            started_at=now - timedelta(seconds=100),
            last_progress_at=now,
            created_counts={"filesets": 4000, "entities": 10},
            deleted_counts={"filesets": 1000},
        ),
    )

    assert "10.0 resources per second since it began" in text
    assert 'width="25.00"' in text
    for number in (
        "1\N{NARROW NO-BREAK SPACE}000",
        "3\N{NARROW NO-BREAK SPACE}000",
        '<th scope="row">entities',
    ):
        assert number in text


def test_a_retry_sets_the_workers_on_it_again(session: Session, operator: Browser) -> None:
    failed = factories.make_failed_deletion(session, "ml-team")
    session.commit()
    text = page_of(operator, failed)
    assert "filesets/stuck: denied" in text
    assert f"workspaces deletion retry {failed.id}" in text

    operator.send(operator.form("/retry"))

    assert operator.message == "done: Workers try again, now."
    session.expire_all()
    assert session.get_one(Deletion, failed.id).state is DeletionState.DELETING
    assert session.scalars(
        select(AuditRecord.actor).where(AuditRecord.event == "deletion.retried")
    ).all() == ["root"]


def test_one_resource_is_given_up_for_a_reason(session: Session, operator: Browser) -> None:
    failed = factories.make_failed_deletion(session, "ml-team")
    session.commit()
    page_of(operator, failed)

    operator.send(operator.form("/skip"), reason="")
    assert operator.message.startswith("refused: ")
    assert "reason" in operator.message
    operator.send(operator.form("/skip"), reason="the bucket is gone")

    assert operator.message.startswith("done: ")
    [skipped] = session.scalars(select(DeletionFailure).where(DeletionFailure.deletion_id == failed.id))
    session.refresh(skipped)
    assert (skipped.skipped_by, skipped.skip_reason) == ("root", "the bucket is gone")


@pytest.mark.parametrize("resource_id", ["*", "$(reboot)", "it's; rm -rf ~"])
def test_a_line_for_a_shell_says_the_same_there(
    session: Session, operator: Browser, resource_id: str
) -> None:
    """The id of a kind that fails as a whole is `*`, which a shell replaces by the names of files."""
    failed = factories.make_failed_deletion(session, "ml-team")
    failure = session.scalars(select(DeletionFailure).where(DeletionFailure.deletion_id == failed.id)).one()
    failure.resource_id = resource_id
    session.commit()

    lines = re.findall(r"<code>(workspaces deletion skip .*?)</code>", page_of(operator, failed))

    words = shlex.split(unescape(lines[0]))
    assert words[words.index("--resource-id") + 1 :] == [resource_id, "--reason", "…"]
    assert shlex.quote(resource_id) in unescape(lines[0])


def test_what_was_given_up_while_authentication_was_off_is_not_offered_again(
    session: Session, operator: Browser
) -> None:
    failed = factories.make_failed_deletion(session, "ml-team")
    failure = session.scalars(select(DeletionFailure).where(DeletionFailure.deletion_id == failed.id)).one()
    failure.skipped_by, failure.skip_reason = "", "the bucket is gone"
    session.commit()

    assert "/skip" not in page_of(operator, failed)
    failures = operator.open(f"/console/deletions/{failed.id}/failures").text
    assert "by nobody: the bucket is gone" in failures
    assert "/skip" not in failures


def test_the_end_does_not_deny_what_was_given_up(session: Session, operator: Browser) -> None:
    over = factories.make_failed_deletion(session, "ml-team")
    failure = session.scalars(select(DeletionFailure).where(DeletionFailure.deletion_id == over.id)).one()
    failure.skipped_by, failure.skip_reason = "", "the bucket is gone"
    over.state, over.finished_at = DeletionState.DONE, time_of(session)
    session.commit()

    assert "Everything is gone, but for <strong>what was given up</strong>, since" in page_of(operator, over)


def test_all_that_fails_is_given_up_for_a_reason(session: Session, operator: Browser) -> None:
    failed = factories.make_failed_deletion(session, "ml-team")
    session.commit()
    page_of(operator, failed)

    operator.send(operator.form("/force"), reason="the bucket is gone")

    assert operator.message.startswith("done: ")
    session.expire_all()
    forced = session.get_one(Deletion, failed.id)
    assert forced.force
    assert forced.force["reason"] == "the bucket is gone"


def test_an_action_in_the_wrong_state_is_a_message(session: Session, operator: Browser) -> None:
    failed = factories.make_failed_deletion(session, "ml-team")
    session.commit()
    page_of(operator, failed)
    retry = operator.form("/retry")
    operator.send(retry)

    answer = operator.send(retry)

    assert answer.status_code == 200
    assert operator.message.startswith("refused: The deletion is not FAILED")


def test_what_has_failed_anew_since_the_page_was_made_is_left_alone(
    session: Session, operator: Browser
) -> None:
    failed = factories.make_failed_deletion(session, "ml-team")
    session.commit()
    page_of(operator, failed)
    retry = operator.form("/retry")
    failed.failed_at = time_of(session)
    session.commit()

    operator.send(retry)

    assert operator.message.startswith("refused: ")
    session.expire_all()
    assert session.get_one(Deletion, failed.id).state is DeletionState.FAILED


def test_who_asked_for_it_may_call_it_off_and_no_more(
    session: Session, sitting: Callable[[str], Browser]
) -> None:
    now = time_of(session)
    ann = sitting("ann")
    failed = factories.make_failed_deletion(session, "stuck")
    failed.requested_by = "ann"
    session.commit()
    assert "/retry" not in page_of(ann, failed)
    assert "A platform administrator can retry it" in page_of(ann, failed)

    pending = deletion_of(
        session, "ml-team", started_at=None, phase=None, purge_after=now + timedelta(hours=1)
    )
    page_of(ann, pending)
    ann.send(ann.form("/restore"))

    assert ann.message.startswith("done: ")
    session.expire_all()
    assert session.get_one(Workspace, pending.workspace_id).state is WorkspaceState.ACTIVE


def test_a_page_that_is_open_is_told_what_has_changed_and_no_more(
    session: Session, operator: Browser
) -> None:
    failed = factories.make_failed_deletion(session, "ml-team")
    session.commit()
    live = f"/console/deletions/{failed.id}/live"
    poll = {"HX-Request": "true"}

    first = operator.open(live, **poll)
    assert 'id="actions"' not in first.text, "somebody may be filling in a form"
    assert f"{live}?version=" in first.text
    version = first.text.partition("?version=")[2].partition('"')[0]
    assert operator.open(f"{live}?version={version}", **poll).status_code == 200
    assert 'id="actions"' not in operator.page.text
    again = operator.open(live, **poll | {"If-None-Match": first.headers["ETag"]})
    assert again.status_code == 304

    failed.state = DeletionState.DELETING
    session.merge(failed)
    session.commit()
    moved = operator.open(f"{live}?version={version}", **poll | {"If-None-Match": first.headers["ETag"]})
    assert moved.status_code == 200
    assert 'id="actions" hx-swap-oob' in moved.text


def test_a_page_of_a_deletion_that_is_over_asks_no_more(session: Session, operator: Browser) -> None:
    over = deletion_of(session, "ml-team", state=DeletionState.DONE, finished_at=time_of(session))

    text = page_of(operator, over)

    assert "Everything is gone" in text
    assert "hx-trigger" not in text.partition("</main>")[0].partition("<main")[2]


def test_a_part_alone_is_a_page_for_who_has_no_script(session: Session, operator: Browser) -> None:
    failed = factories.make_failed_deletion(session, "ml-team")
    session.commit()

    assert "<html" in operator.open(f"/console/deletions/{failed.id}/live").text
    assert "<html" not in operator.open(f"/console/deletions/{failed.id}/live", **{"HX-Request": "true"}).text


def test_its_tasks_in_flower_are_linked_where_that_is_known(
    session: Session, console: Context, operator: Browser
) -> None:
    failed = factories.make_failed_deletion(session, "ml-team")
    session.commit()
    assert "Flower" not in page_of(operator, failed)

    object.__setattr__(
        console, "settings", console.settings.model_copy(update={"flower_url": "https://flower.example"})
    )
    assert "https://flower.example/tasks?name=workspace.cleanup%20ml-team" in page_of(operator, failed)


def test_twenty_thousand_failures_cost_a_page_no_more_than_a_hundred(
    session: Session, console: Context, operator: Browser
) -> None:
    failed = factories.make_failed_deletion(session, "ml-team")
    # In one statement: its triggers count each statement in the same row, and walk over what those before it left.
    session.execute(
        text(
            "INSERT INTO deletion_failures (deletion_id, kind, resource_id, name, error_class, message, cause, "
            "attempts, first_seen_at, last_seen_at) SELECT :deletion, 'entities', 'r-' || to_char(n, 'FM00000'), "
            "'e-' || n, 'permanent', 'denied', 'denied', 1, now(), now() FROM generate_series(0, 19999) AS n"
        ),
        {"deletion": failed.id},
    )
    session.commit()
    engine = console.sessions.kw["bind"]
    # As autovacuum does within a minute: by statistics of few failures, to read and sort all of them looks cheaper.
    compact(engine, "deletion_failures", "deletion_failure_counts")

    read = rows_read(engine, lambda: page_of(operator, failed))
    with counted(engine) as sent:
        page_of(operator, failed)

    assert read["deletion_failures"] <= 500
    assert len(sent) <= 16
    assert "20\N{NARROW NO-BREAK SPACE}001" in operator.page.text
    last = operator.open(f"/console/deletions/{failed.id}/failures?kind=entities&resource_id=r-19980")
    assert "r-19999" in last.text
    assert 'rel="next"' not in last.text
    first = operator.open(f"/console/deletions/{failed.id}/failures").text
    assert "?kind=entities&amp;resource_id=r-00024" in first
