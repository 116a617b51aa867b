"""`workspace delete` destroys nothing that nobody has agreed to."""

import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.context import Context
from app.models import Deletion, Workspace
from tests import factories
from tests.cli.conftest import Run
from tests.support.deadlines import DEADLINE_S
from tests.support.publisher import RecordingPublisher

ROOT = Path(__file__).parents[2]


@pytest.fixture
def workspace(session: Session, context: Context) -> Workspace:
    workspace = factories.make_workspace(session)
    factories.make_fileset(session, workspace, store=context.store, files={"a": b"12345"})
    factories.make_project(session, workspace)
    session.commit()
    return workspace


def deletions(session: Session) -> list[Deletion]:
    session.rollback()
    return list(session.scalars(select(Deletion)))


def test_off_a_terminal_it_needs_yes(run: Run, session: Session, workspace: Workspace) -> None:
    result = run("workspace", "delete", "ml-team", input="ml-team\n")

    assert result.exit_code == 2
    assert "--yes" in result.stderr
    assert deletions(session) == []


def test_with_yes_it_is_begun_with_grace_and_reason_and_workers_are_told(
    run: Run, session: Session, workspace: Workspace, publisher: RecordingPublisher
) -> None:
    at_once = run("workspace", "delete", "ml-team", "--yes", "--reason", "ticket 7", "-o", "name")
    session.add(Workspace(name="later"))
    session.commit()
    later = run("workspace", "delete", "later", "--yes", "--grace", "2d", "-o", "json")

    first, second = sorted(deletions(session), key=lambda one: one.requested_at)
    assert at_once.stdout == f"{first.id}\n"
    assert (first.request_reason, first.purge_after) == ("ticket 7", first.requested_at)
    assert json.loads(later.stdout)["deletion_id"] == str(second.id)
    assert (second.purge_after - second.requested_at).total_seconds() == 2 * 86400
    assert [message.facts["workspace"] for message in publisher.published] == ["ml-team"]


def test_again_it_is_the_same_deletion(run: Run, session: Session, workspace: Workspace) -> None:
    said = {run("workspace", "delete", "ml-team", "--yes", "-o", "name").stdout for _ in range(2)}

    assert said == {f"{one.id}\n" for one in deletions(session)}
    assert len(said) == 1


def test_a_dry_run_only_shows(run: Run, session: Session, workspace: Workspace) -> None:
    shown = json.loads(run("workspace", "delete", "ml-team", "--dry-run", "-o", "json").stdout)

    assert shown["remaining"] == {"filesets": 1, "projects": 1}
    assert (shown["bytes"], shown["id"]) == (5, str(workspace.id))
    assert deletions(session) == []


@pytest.mark.parametrize("given", ["soon", "-1h", "1w", ""])
def test_what_is_no_duration_is_refused(run: Run, given: str) -> None:
    result = run("workspace", "delete", "ml-team", "--yes", "--grace", given)

    assert result.exit_code == 2
    assert "is no duration" in result.stderr


def sit_down() -> None:
    """The terminal becomes the controlling one, from which Ctrl-C comes."""
    os.close(os.open(os.ttyname(0), os.O_RDWR))
    # Also where the tests run in the background, for which a shell lets them ignore it.
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@contextmanager
def asked(context: Context) -> Iterator[tuple[bytes, Callable[[bytes], tuple[int, str]]]]:
    """`workspace delete ml-team` on a terminal, once it asks: what it has said, and what answers it.

    The answer returns the exit status and what stands on standard output.
    """
    ours, its = pty.openpty()
    command = [sys.executable, "-m", "app.cli", "workspace", "delete", "ml-team", "--direct", "-o", "name"]
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        stdin=its,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        preexec_fn=sit_down,  # noqa: PLW1509 -- no thread has a lock here
        env={
            **os.environ,
            "WORKSPACES_DATABASE_URL": context.settings.database_url,
            "WORKSPACES_DATA_DIR": str(context.settings.data_dir),
            "WORKSPACES_BROKER_URL": "redis://127.0.0.1:1/0",
        },
    )
    os.close(its)
    said = b""
    with process:
        assert process.stdout
        assert process.stderr
        printed = process.stdout
        while b"type the name" not in said:
            sign = process.stderr.read(1)
            assert sign, said
            said += sign

        def answer(typed: bytes) -> tuple[int, str]:
            deadline = time.monotonic() + DEADLINE_S
            while process.poll() is None:
                # Again, because a sign that comes before it reads can be lost, as an interrupt in a destructor is.
                os.write(ours, typed)
                assert time.monotonic() < deadline, "it does not end"
                with suppress(subprocess.TimeoutExpired):
                    process.wait(10)
            return process.wait(), printed.read().decode()

        yield said, answer
    os.close(ours)


@pytest.mark.parametrize(
    ("typed", "exit_code", "is_deleted"),
    [(b"ml-team\n", 0, True), (b"ml-taem\n", 1, False), (b"\x03", 130, False), (b"\x04", 1, False)],
    ids=["its name", "another", "Ctrl-C", "Ctrl-D"],
)
def test_on_a_terminal_it_shows_what_goes_and_asks_for_the_name(
    session: Session, context: Context, workspace: Workspace, typed: bytes, exit_code: int, is_deleted: bool
) -> None:
    with asked(context) as (said, answer):
        ended, printed = answer(typed)

    assert ended == exit_code
    assert b"'ml-team' holds: filesets 1, projects 1; 5 bytes." in said
    found = deletions(session)
    assert [one.workspace_id for one in found] == ([workspace.id] if is_deleted else [])
    assert printed == "".join(f"{one.id}\n" for one in found)


def test_what_was_shown_is_what_goes_and_no_successor_of_its_name(
    session: Session, context: Context, workspace: Workspace
) -> None:
    with asked(context) as (_, answer):
        workspace.name = "renamed"
        session.flush()
        session.add(Workspace(name="ml-team"))
        session.commit()
        ended, printed = answer(b"ml-team\n")

    assert (ended, printed) == (1, "")
    assert deletions(session) == []
