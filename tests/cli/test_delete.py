"""`workspace delete` destroys nothing that nobody has agreed to."""

import json
import os
import pty
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.context import Context
from app.models import Deletion, Workspace
from tests import factories
from tests.cli.conftest import Run
from tests.support.deadlines import DEADLINE_S
from tests.support.preloaded import Preloaded
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


class Asking:
    """`workspace delete ml-team` on a terminal, once it asks."""

    def __init__(self, process: Preloaded, keyboard: int, output: Path, errors: Path) -> None:
        self._process, self._keyboard, self._output = process, keyboard, output
        deadline = time.monotonic() + DEADLINE_S
        while "type the name" not in (said := errors.read_text()):
            assert process.poll() is None, said
            assert time.monotonic() < deadline, said
            time.sleep(0.02)
        self.said = said

    def answer(self, typed: bytes) -> tuple[int, str]:
        """Type that: the exit status, and what stands on standard output."""
        deadline = time.monotonic() + DEADLINE_S
        while self._process.poll() is None:
            # Again, because a sign that comes before it reads can be lost, as an interrupt in a destructor is.
            os.write(self._keyboard, typed)
            assert time.monotonic() < deadline, "it does not end"
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(10)
        return self._process.wait(), self._output.read_text()


@pytest.fixture
def asking(context: Context, workspace: Workspace, tmp_path: Path) -> Iterator[Asking]:
    keyboard, screen = pty.openpty()
    output, errors = tmp_path / "stdout", tmp_path / "stderr"
    errors.touch()
    process = Preloaded(
        ["python", "-m", "app.cli", "workspace", "delete", workspace.name, "--direct", "-o", "name"],
        cwd=ROOT,
        output=output,
        errors=errors,
        terminal=Path(os.ttyname(screen)),
        env={
            **os.environ,
            "WORKSPACES_DATABASE_URL": context.settings.database_url,
            "WORKSPACES_DATA_DIR": str(context.settings.data_dir),
            "WORKSPACES_BROKER_URL": "redis://127.0.0.1:1/0",
        },
    )
    yield Asking(process, keyboard, output, errors)
    process.kill()
    os.close(keyboard)
    os.close(screen)


@pytest.mark.parametrize(
    ("typed", "exit_code", "is_deleted"),
    [(b"ml-team\n", 0, True), (b"ml-taem\n", 1, False), (b"\x03", 130, False), (b"\x04", 1, False)],
    ids=["its name", "another", "Ctrl-C", "Ctrl-D"],
)
def test_on_a_terminal_it_shows_what_goes_and_asks_for_the_name(
    session: Session, asking: Asking, workspace: Workspace, typed: bytes, exit_code: int, is_deleted: bool
) -> None:
    ended, printed = asking.answer(typed)

    assert ended == exit_code
    assert "'ml-team' holds: filesets 1, projects 1; 5 bytes." in asking.said
    found = deletions(session)
    assert [one.workspace_id for one in found] == ([workspace.id] if is_deleted else [])
    assert printed == "".join(f"{one.id}\n" for one in found)


def test_what_was_shown_is_what_goes_and_no_successor_of_its_name(
    session: Session, asking: Asking, workspace: Workspace
) -> None:
    workspace.name = "renamed"
    session.flush()
    session.add(Workspace(name="ml-team"))
    session.commit()

    assert asking.answer(b"ml-team\n") == (1, "")
    assert deletions(session) == []
