"""`workspaces doctor` names what is wrong, and what to do about it."""

import errno
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from threading import Event
from typing import Any
from uuid import UUID

import pytest
from click.testing import CliRunner, Result
from kombu.exceptions import OperationalError as BrokerError
from sqlalchemy import event, select, text, update
from sqlalchemy.orm import Session

from app.cli import main
from app.context import Context
from app.health import diagnosis
from app.health.heartbeat import Process, note_alive
from app.lifecycle import DeletionState, JobStatus
from app.maintenance import sweep
from app.models import CleanupControl, Deletion, DeletionHold, Heartbeat
from app.models.maintenance import Step
from app.storage.marker import Marker
from tests import factories
from tests.support.aging import age, age_everything
from tests.support.clocks import Clock
from tests.support.database import database_at
from tests.support.deadlines import DEADLINE_S
from tests.support.health import all_alive

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def healthy(context: Context, session: Session) -> None:
    sweep.sweep(context)
    all_alive(session)


def examined(context: Context) -> Result:
    result = CliRunner().invoke(main, ["doctor", "-o", "json"], obj=context)
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def wrong(result: Result) -> dict[str, tuple[str, str]]:
    """What is not as it should be, and the remedy for it."""
    found = json.loads(result.stdout)
    assert result.exit_code == (0 if all(one["ok"] for one in found) else 1)
    return {one["name"]: (one["message"], one["remedy"]) for one in found if not one["ok"]}


def test_where_all_is_well_each_line_says_ok(context: Context) -> None:
    result = CliRunner().invoke(main, ["doctor"], obj=context)

    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert len(lines) >= 12
    assert all("  ok" in line for line in lines)


def test_a_remedy_stands_below_what_it_is_for(context: Context, session: Session) -> None:
    paused(context, session, pytest.MonkeyPatch())

    lines = CliRunner().invoke(main, ["doctor"], obj=context).stdout.splitlines()

    [at] = [number for number, line in enumerate(lines) if line.startswith("destruction ")]
    place = lines[at].index("is paused")
    assert lines[at + 1].index("remedy: see `workspaces cleanup status`") == place
    assert lines[at + 2].startswith("breaker ")


def no_broker(context: Context, _: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise BrokerError("Connection refused") from ConnectionRefusedError("redis.internal refused")

    monkeypatch.setattr(type(context.publisher), "ping", refuse)


def silent(process: Process) -> Callable[..., None]:
    def stop(_: Context, session: Session, __: pytest.MonkeyPatch) -> None:
        age(session, session.scalars(select(Heartbeat).where(Heartbeat.process == process)).one(), 300)

    return stop


def unmounted(context: Context, _: Session, __: pytest.MonkeyPatch) -> None:
    (context.settings.data_dir / "blobs").rename(context.settings.data_dir / "away")


def another_store(context: Context, _: Session, __: pytest.MonkeyPatch) -> None:
    context.store.write_marker(Marker(str(UUID(int=9)), "another"))


def read_only(context: Context, _: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(type(context.store._tree), "stage", refuse)


def swept_long_ago(_: Context, session: Session, __: pytest.MonkeyPatch) -> None:
    age_everything(session, 95)
    all_alive(session)


def failing_step(_: Context, session: Session, __: pytest.MonkeyPatch) -> None:
    session.execute(
        text("UPDATE maintenance_steps SET last_success_at = now() - interval '1 hour' WHERE name = :name"),
        {"name": Step.MARK_LOST_JOBS},
    )
    session.commit()


def full(_: Context, session: Session, __: pytest.MonkeyPatch) -> None:
    workspace = factories.make_workspace(session)
    factories.make_job(session, workspace, "runs", JobStatus.ACTIVE, host="here")
    factories.make_job(session, workspace, "waits")
    note_alive(session, Process.RUNTIME, ["here"], job_slots=1)
    session.commit()


def nobody_takes_jobs(_: Context, session: Session, __: pytest.MonkeyPatch) -> None:
    factories.make_job(session, factories.make_workspace(session), "waits")
    session.commit()


def paused(_: Context, session: Session, __: pytest.MonkeyPatch) -> None:
    session.execute(update(CleanupControl).values(paused=True))
    session.commit()


def held(_: Context, session: Session, __: pytest.MonkeyPatch) -> None:
    session.add(DeletionHold(requested_by="ann", held_at=text("now()"), reason="a burst"))
    session.commit()


def failed(_: Context, session: Session, __: pytest.MonkeyPatch) -> None:
    session.add(Deletion(workspace_id=UUID(int=7), workspace_name="x", state=DeletionState.FAILED))
    session.commit()


FAULTS: dict[str, tuple[Callable[..., None], str, str, str]] = {
    "broker down": (no_broker, "broker", "redis.internal refused", "start Redis"),
    "beat stopped": (silent(Process.BEAT), "beat", "is silent", "serve beat"),
    "no maintenance": (silent(Process.MAINTENANCE), "maintenance", "has no worker", "serve maintenance"),
    "no cleanup worker": (silent(Process.CLEANUP), "cleanup", "has no worker", "serve worker"),
    "no runtime worker": (silent(Process.RUNTIME), "runtime", "has no worker", "serve runtime"),
    "runtime full": (full, "job slots", "all 1 are taken, and 1 jobs wait", "WORKSPACES_RUNTIME_JOB_SLOTS"),
    "runtime takes none": (nobody_takes_jobs, "job slots", "no host takes up jobs", "SUBPROCESS_PROVIDER"),
    "store not mounted": (unmounted, "store", "no marker", "mount it"),
    "another store": (another_store, "store", "another installation", "store adopt"),
    "store read-only": (read_only, "store", "Read-only file system", "for writing"),
    "no sweep": (swept_long_ago, "sweep", "s ago; not done lately: ", "start beat and maintenance"),
    "step fails": (failing_step, "sweep", "not done lately: mark_lost_jobs", "maintenance.step_failed"),
    "paused": (paused, "destruction", "is paused", "cleanup resume"),
    "held": (held, "breaker", "holds", "cleanup status"),
    "deletions failed": (failed, "deletions", "FAILED", "deletion list --all --state FAILED"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_named_with_its_cause_and_its_remedy_and_nothing_else_is(
    context: Context, session: Session, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    break_it, name, cause, remedy = FAULTS[fault]
    break_it(context, session, monkeypatch)

    [(found, (message, what_to_do))] = wrong(examined(context)).items()

    assert found == name
    assert cause in message
    assert remedy in what_to_do


# --- the database -------------------------------------------------------------------------------------------


def at(context: Context, url: str) -> dict[str, tuple[str, str]]:
    elsewhere = Context.open(context.settings.model_copy(update={"database_url": url}))
    try:
        return wrong(examined(elsewhere))
    finally:
        elsewhere.sessions.kw["bind"].dispose()


def test_without_the_database_nothing_else_is_asked_of_it(context: Context) -> None:
    found = at(context, "postgresql+psycopg://app@127.0.0.1:1/none")

    message, remedy = found["database"]
    assert "refuses connections" in message
    assert "start PostgreSQL" in remedy
    unknown = {name: what for name, (why, what) in found.items() if "not known without the database" in why}
    assert unknown == dict.fromkeys(("schema", "store", *Process), "mend the database first")


def test_a_database_that_was_never_migrated_is_named(context: Context) -> None:
    found = at(context, database_at(context.settings.database_url, "postgres"))

    message, remedy = found["schema"]
    assert "is missing" in message
    assert "workspaces db upgrade" in remedy
    assert found["store"] == ("is not known without the database", "mend the database first")


def refuse(_: Event) -> None:
    raise OSError("no room for a temporary file")


def hang(released: Event) -> None:
    assert released.wait(DEADLINE_S)


@pytest.mark.parametrize(
    ("answer", "reason"), [(refuse, "OSError: no room for"), (hang, "TimeoutError: no answer within 0.5 s")]
)
def test_a_database_that_answers_only_the_first_questions_is_named_with_what_is_not_known(
    context: Context,
    session: Session,
    monkeypatch: pytest.MonkeyPatch,
    answer: Callable[[Event], None],
    reason: str,
) -> None:
    paused(context, session, monkeypatch)
    failing_step(context, session, monkeypatch)
    released, engine = Event(), context.sessions.kw["bind"]
    monkeypatch.setattr(diagnosis, "WITHIN_S", 0.5 if answer is hang else DEADLINE_S)

    def reply(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if "job_slots" in statement:  # of the second look alone
            answer(released)

    event.listen(engine, "before_cursor_execute", reply)
    try:
        found = wrong(examined(context))
    finally:
        released.set()
        for thread in [one for one in threading.enumerate() if one.name == "check of diagnosis"]:
            thread.join(DEADLINE_S)
        event.remove(engine, "before_cursor_execute", reply)

    assert set(found) == {"clock", "sweep", "job slots", "destruction"}
    assert "not done lately: mark_lost_jobs" in found["sweep"][0]
    for name in ("clock", "job slots"):
        message, remedy = found[name]
        assert message.startswith(f"was not looked at: {reason}")
        assert "workspaces doctor" in remedy


# --- the clock ----------------------------------------------------------------------------------------------


@pytest.mark.needs("cc", package="gcc")
@pytest.mark.parametrize(
    ("seconds", "told"),
    [(31, "31 s ahead of that of the database"), (-31, "31 s behind that of the database"), (0, None)],
)
def test_a_clock_that_is_wrong_is_named(
    context: Context, session: Session, tmp_path: Path, seconds: int, told: str | None
) -> None:
    clock = Clock(tmp_path / "clock")
    clock.move(seconds)
    variables: dict[str, Any] = {
        "WORKSPACES_DATABASE_URL": context.settings.database_url,
        "WORKSPACES_DATA_DIR": context.settings.data_dir,
        "WORKSPACES_BROKER_URL": "redis://127.0.0.1:1/0",
    }

    ended = subprocess.run(
        [sys.executable, "-m", "app.cli", "doctor", "-o", "json"],
        cwd=ROOT,
        env={**os.environ, **variables, **clock.environment},
        capture_output=True,
        text=True,
        check=False,
    )

    found = {one["name"]: one for one in json.loads(ended.stdout)}
    assert ended.returncode == 1
    assert not found["broker"]["ok"]  # there is none
    assert found["clock"]["ok"] == (told is None)
    assert (told or "ok") in found["clock"]["message"]
