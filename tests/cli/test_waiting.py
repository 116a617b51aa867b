"""`--wait`, `deletion wait` and `watch` tell the truth in their exit status."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.cli.client.api import Away
from app.cli.client.waiting import wait_for
from app.cli.outcome import Ended
from app.clock import database_now
from app.lifecycle import DeletionState
from app.models import Deletion, DeletionEvent, DeletionFailure
from tests import factories
from tests.cli.conftest import MakeFailed, Run


def put(session: Session, state: DeletionState, **values: Any) -> Deletion:
    workspace = factories.make_workspace(session, "ml-team", state="DELETING")
    deletion = Deletion(workspace_id=workspace.id, workspace_name="ml-team", state=state, **values)
    session.add(deletion)
    session.flush()
    session.add(DeletionEvent(deletion_id=deletion.id, actor="w", event="requested", detail={"name": "x\ny"}))
    session.commit()
    return deletion


def test_done_is_0_and_says_what_went(run: Run, session: Session) -> None:
    done = put(session, DeletionState.DONE, deleted_counts={"filesets": 3})

    result = run("deletion", "wait", str(done.id), "-o", "json")

    assert result.exit_code == 0
    assert json.loads(result.stdout)["deleted"] == {"filesets": 3}
    # The last line: a thread that an earlier test has left in this process may log at any time.
    assert result.stderr.splitlines()[-1] == "ml-team is gone: filesets 3"


def test_failed_is_5_and_says_why_and_which_command_helps(run: Run, make_failed: MakeFailed) -> None:
    failed = make_failed("stuck-team")

    result = run("deletion", "wait", str(failed.id))

    assert (result.exit_code, result.stdout) == (5, "")
    assert "stuck-team is FAILED: filesets/stuck: denied (permanent)" in result.stderr
    assert "  1 filesets: denied (permanent)" in result.stderr
    assert f"workspaces deletion retry {failed.id} --direct" in result.stderr
    [remedy] = [line for line in result.stderr.splitlines() if " skip " in line]
    typed = remedy.partition("workspaces ")[2].replace("…", "ticket-7").replace("'", "").split()

    # As it stands there, it works.
    assert run(*[one for one in typed if one != "--direct"]).exit_code == 0


def test_a_resource_that_fails_is_named_as_a_skip_wants_it_and_stays_named_when_it_is_retained(
    run: Run, session: Session, make_failed: MakeFailed
) -> None:
    failed = make_failed("stuck-team")
    [failure] = session.scalars(select(DeletionFailure).where(DeletionFailure.deletion_id == failed.id))
    named = f"filesets/{failure.resource_id} (stuck-team/stuck): denied"

    assert f"{named} (permanent)" in run("deletion", "get", str(failed.id)).stdout

    failure.skipped_by, failure.skip_reason = "ann", "ticket 7"
    failed.state = DeletionState.DONE
    session.commit()

    result = run("deletion", "wait", str(failed.id))
    assert f"{named} (skipped: ticket 7)" in result.stdout
    assert result.stderr.splitlines()[-1] == "stuck-team is gone: what was skipped is retained"


def test_a_deletion_that_goes_on_is_6_and_says_how_far_it_is(run: Run, session: Session) -> None:
    going = put(
        session,
        DeletionState.DELETING,
        phase="filesets",
        started_at=database_now(),
        created_counts={"filesets": 5},
        deleted_counts={"filesets": 2},
    )

    result = run("deletion", "wait", str(going.id), "--timeout", "0.3s")

    assert (result.exit_code, result.stdout) == (6, "")
    assert "at filesets; 2 deleted, 3 left" in result.stderr
    assert f"workspaces deletion wait {going.id} --direct" in result.stderr


def test_a_grace_period_is_told(run: Run, session: Session) -> None:
    pending = put(session, DeletionState.DELETING, purge_after=datetime.now(UTC) + timedelta(days=2))

    result = run("deletion", "wait", str(pending.id), "--timeout", "0s")

    assert result.exit_code == 6
    assert "in its grace period until 20" in result.stderr


def test_a_deletion_that_was_called_off_is_not_done(run: Run, session: Session) -> None:
    restored = put(session, DeletionState.RESTORED)

    result = run("deletion", "wait", str(restored.id))

    assert (result.exit_code, result.stdout) == (1, "")
    assert "was restored" in result.stderr


def test_a_deletion_that_is_unknown_is_4(run: Run) -> None:
    assert run("deletion", "wait", "0198c0de-0000-7000-8000-000000000000").exit_code == 4
    assert run("deletion", "wait", "ml-team").exit_code == 2


def test_watching_prints_each_event_once_in_a_line_of_its_own(run: Run, make_failed: MakeFailed) -> None:
    failed = make_failed("stuck-team")

    result = run("deletion", "watch", str(failed.id))

    assert result.exit_code == 5
    [line] = result.stdout.splitlines()
    assert line.endswith("  w  failed")
    assert result.stderr.count("stuck-team is FAILED") == 1


def test_the_details_of_an_event_are_words(run: Run, session: Session) -> None:
    deletion = put(session, DeletionState.DONE)
    detail = {"held": {"jobs": 1, "filesets": 2}, "next_reattempt_at": None, "name": "a\nb"}
    session.add(DeletionEvent(deletion_id=deletion.id, actor="", event="started", detail=detail))
    session.commit()

    for command in ("events", "watch"):
        [line] = [
            line
            for line in run("deletion", command, str(deletion.id)).stdout.splitlines()
            if " started" in line
        ]
        _, actor, event, *words = line.split()
        assert (actor, event) == ("-", "started")
        assert sorted(" ".join(words).split(", ")) == sorted(
            ["held jobs 1", "filesets 2", "next_reattempt_at -", "name a b"]
        )


def test_many_events_are_read_from_their_end(run: Run, session: Session) -> None:
    done = put(session, DeletionState.DONE)
    session.add_all(
        DeletionEvent(deletion_id=done.id, actor="w", event=f"event_{number}") for number in range(250)
    )
    session.commit()

    def named(*arguments: str) -> list[str]:
        return run("deletion", "events", str(done.id), "-o", "name", *arguments).stdout.split()

    assert named() == [f"event_{number}" for number in range(150, 250)]
    assert named("--limit", "7") == [f"event_{number}" for number in range(243, 250)]
    assert named("--limit", "1000") == ["requested", *(f"event_{number}" for number in range(250))]
    assert len(run("deletion", "watch", str(done.id)).stdout.splitlines()) == 251


class Flaky:
    """An API that is away, and back at some time."""

    option = ""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)

    def ask(self, *_: Any) -> Any:
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def time(self) -> str:
        raise NotImplementedError


DONE = {"state": "DONE", "workspace_name": "x", "phase": None, "attempts": 0, "started_at": "t"} | {
    "remaining": {},
    "deleted": {},
    "failures": [],
}


def test_a_server_that_is_away_for_a_while_is_waited_for(capsys: pytest.CaptureFixture[str]) -> None:
    api = Flaky(Away("nobody answers"), Away("nobody answers"), DONE)

    assert wait_for(api, "id", timeout_s=60) == DONE

    told = capsys.readouterr().err.splitlines()
    assert told == ["nobody answers (asking again)", "x is gone: it was empty"]


def test_a_server_that_stays_away_is_the_reason_of_the_timeout() -> None:
    with pytest.raises(Ended, match="nobody answers") as ended:
        wait_for(Flaky(Away("nobody answers")), "id", timeout_s=0)

    assert ended.value.exit_code == 6
