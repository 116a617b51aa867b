"""`/health/ready`, `/status` and `/metrics` tell what is wrong, and only to operators in whose words."""

import errno
import os
from collections.abc import Callable, Iterator
from threading import Event
from uuid import UUID

import pytest
from flask.testing import FlaskClient
from kombu.exceptions import OperationalError as BrokerError
from pydantic import SecretStr
from sqlalchemy import Engine, select, text, update
from sqlalchemy.orm import Session

from app import create_app
from app.clock import seconds_from_now
from app.context import Context
from app.health import dependencies
from app.health.heartbeat import Process, note_alive
from app.lifecycle import JobStatus
from app.maintenance import sweep
from app.models import CleanupControl, Deletion, DeletionHold, Heartbeat, Job
from app.storage.marker import Marker
from tests import factories
from tests.support.aging import age
from tests.support.database import database_at
from tests.support.health import all_alive
from tests.support.people import GATEWAY_SECRET, OPERATOR, announced

ELSEWHERE = {"environ_base": {"REMOTE_ADDR": "192.0.2.7"}}
SECRET_HOST = "db.internal.example"


@pytest.fixture
def healthy(context: Context, session: Session) -> None:
    sweep.sweep(context)
    all_alive(session)


@pytest.fixture
def revision(engine: Engine) -> Iterator[Callable[[str], None]]:
    """Sets the revision that the database says it has."""

    def set_to(number: str) -> None:
        with engine.begin() as connection:
            connection.execute(text("UPDATE alembic_version SET version_num = :number"), {"number": number})

    with engine.connect() as connection:
        before = connection.scalar(text("SELECT version_num FROM alembic_version"))
    yield set_to
    set_to(str(before))


def not_ready(client: FlaskClient, **options: object) -> list[tuple[str, str]]:
    response = client.get("/status", **options)
    assert response.status_code == 200
    return [(one["name"], one["message"]) for one in response.json["services"]["not_ready"]]


AwayAt = Callable[[str], FlaskClient]


@pytest.fixture
def away_at(context: Context) -> Iterator[AwayAt]:
    """Makes a client of a server whose database is at that URL."""
    opened = []

    def make(url: str) -> FlaskClient:
        opened.append(Context.open(context.settings.model_copy(update={"database_url": url})))
        return create_app(opened[-1]).test_client()

    yield make
    for each in opened:
        each.sessions.kw["bind"].dispose()


# --- the schema -------------------------------------------------------------------------------------------


def test_a_schema_older_than_the_code_is_not_ready(
    client: FlaskClient, healthy: None, revision: Callable[[str], None]
) -> None:
    revision("0007")

    assert client.get("/health/ready").status_code == 503
    [(name, message), *others] = not_ready(client)
    assert name == "schema"
    assert "revision 0007" in message
    assert "workspaces db upgrade" in message
    assert {name for name, _ in others} == set(Process)  # of which nothing is known
    assert client.get("/status").json["status"] == "unhealthy"


@pytest.mark.parametrize("newer", ["9999", "a1b2c3"])
def test_a_schema_that_is_newer_or_unknown_is_ready(
    client: FlaskClient, healthy: None, revision: Callable[[str], None], newer: str
) -> None:
    revision(newer)

    assert client.get("/health/ready").json == {"status": "ready"}
    assert not_ready(client) == []


def test_a_database_without_a_schema_is_not_ready(context: Context, away_at: AwayAt) -> None:
    client = away_at(database_at(context.settings.database_url, "postgres"))

    assert client.get("/health/ready").status_code == 503
    assert not_ready(client)[0] == ("schema", "is missing; run `workspaces db upgrade`")


# --- the processes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("process", Process)
def test_a_process_that_is_silent_is_named(
    client: FlaskClient, session: Session, healthy: None, process: Process
) -> None:
    factories.make_subscription(session)
    age(session, session.scalars(select(Heartbeat).where(Heartbeat.process == process)).one(), 300)

    assert [name for name, _ in not_ready(client)] == [process]
    assert client.get("/status").json["status"] == "degraded"
    assert client.get("/health/ready").status_code == 200
    assert f'workspaces_up{{dependency="{process}"}} 0.0' in client.get("/metrics").text


def test_where_nobody_is_notified_no_worker_for_it_is_needed(
    client: FlaskClient, session: Session, healthy: None
) -> None:
    factories.make_subscription(session, is_enabled=False)
    age(session, session.scalars(select(Heartbeat).where(Heartbeat.process == Process.NOTIFY)).one(), 300)

    assert not_ready(client) == []


def test_the_metrics_show_the_slots_of_each_host_and_how_many_jobs_wait(
    client: FlaskClient, session: Session
) -> None:
    workspace = factories.make_workspace(session)
    note_alive(session, Process.RUNTIME, ["gpu-1"], job_slots=3)
    for number in range(2):
        factories.make_job(session, workspace, f"waits-{number}")
    factories.make_job(session, workspace, "runs", JobStatus.ACTIVE, host="gpu-1")
    session.commit()

    shown = client.get("/metrics").text.splitlines()

    assert {
        'workspaces_runtime_job_slots{host="gpu-1"} 3.0',
        'workspaces_runtime_jobs{host="gpu-1"} 1.0',
        "workspaces_jobs_waiting 2.0",
    } <= set(shown)


def test_a_silent_host_is_missed_while_something_is_on_it(
    client: FlaskClient, session: Session, healthy: None
) -> None:
    job = factories.make_job(session, factories.make_workspace(session))
    job.host = "gpu-1"
    session.commit()

    [(name, message)] = not_ready(client)
    [(_, told_elsewhere)] = not_ready(client, **ELSEWHERE)

    assert (name, message) == (
        "runtime",
        "is silent on 1 of the hosts that jobs or deployments are on: gpu-1",
    )
    assert "gpu-1" not in told_elsewhere
    session.get_one(Job, job.id).host = None
    session.commit()
    assert not_ready(client) == []


# --- the broker and the store -----------------------------------------------------------------------------


def broken_broker(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise BrokerError("Connection refused") from ConnectionRefusedError(f"{SECRET_HOST} refused")

    monkeypatch.setattr(type(context.publisher), "ping", refuse)


def absent_store(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    (context.settings.data_dir / "blobs").rename(context.settings.data_dir / "unmounted")


def another_store(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    context.store.write_marker(Marker(str(UUID(int=9)), "another"))


def full_store(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), f"/{SECRET_HOST}/blobs")

    monkeypatch.setattr(type(context.store._tree), "stage", refuse)


@pytest.fixture
def hung(monkeypatch: pytest.MonkeyPatch) -> Iterator[Event]:
    released = Event()
    yield released
    released.set()


FAULTS = {
    "broker": (broken_broker, "does not answer (ConnectionRefusedError)"),
    "absent": (absent_store, "is not there, or is another one than that of this installation (StoreAbsent)"),
    "another": (
        another_store,
        "is not there, or is another one than that of this installation (StoreAbsent)",
    ),
    "full": (full_store, "is full (OSError)"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_told_with_its_class_and_its_text_only_to_operators(
    client: FlaskClient, context: Context, healthy: None, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    assert not_ready(client) == []
    break_it, public = FAULTS[fault]
    break_it(context, monkeypatch)
    name = "broker" if fault == "broker" else "store"

    assert not_ready(client, **ELSEWHERE) == [(name, public)]
    [(_, told_here)] = not_ready(client)
    assert told_here.startswith(f"{public}: ")
    assert client.get("/status").json["status"] == "degraded"
    assert client.get("/health/ready").status_code == 200
    assert f'workspaces_up{{dependency="{name}"}} 0.0' in client.get("/metrics").text


def test_a_store_that_hangs_is_told_in_time_and_holds_one_thread(
    client: FlaskClient, context: Context, healthy: None, hung: Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    monkeypatch.setattr(type(context.store), "check", lambda _: asked.append(1) or hung.wait())
    monkeypatch.setattr(dependencies, "WITHIN_S", 2.0)

    for _ in range(3):
        assert not_ready(client, **ELSEWHERE) == [("store", "does not answer (TimeoutError)")]
    assert len(asked) == 1


def test_the_texts_of_servers_are_for_the_bearer_of_the_token_too(context: Context, monkeypatch) -> None:
    with_token = context.settings.model_copy(update={"metrics_token": SecretStr("s3cret")})
    object.__setattr__(context, "settings", with_token)
    broken_broker(context, monkeypatch)
    client = create_app(context).test_client()

    def told(**headers: str) -> str:
        return str(dict(not_ready(client, headers=headers, **ELSEWHERE))["broker"])

    assert SECRET_HOST not in told()
    assert SECRET_HOST not in told(Authorization="Bearer wrong")
    assert SECRET_HOST in told(Authorization="Bearer s3cret")


def test_a_platform_administrator_reads_the_texts_of_servers(context: Context, monkeypatch) -> None:
    behind_a_gateway = {
        "auth_enabled": True,
        "gateway_secret": SecretStr(GATEWAY_SECRET),
        "admin_email": OPERATOR,
    }
    object.__setattr__(context, "settings", context.settings.model_copy(update=behind_a_gateway))
    broken_broker(context, monkeypatch)
    client = create_app(context).test_client()

    def told(headers: dict[str, str]) -> str:
        return str(dict(not_ready(client, headers=headers, **ELSEWHERE))["broker"])

    assert SECRET_HOST not in told({})
    assert SECRET_HOST not in told(announced("ann"))
    assert SECRET_HOST in told(announced("operator", email=OPERATOR))


# --- the database -----------------------------------------------------------------------------------------


def test_without_the_database_the_metrics_have_what_is_known(away_at: AwayAt) -> None:
    response = away_at("postgresql+psycopg://app@127.0.0.1:1/none").get("/metrics")

    assert response.status_code == 200
    for sample in (
        'workspaces_up{dependency="database"} 0.0',
        'workspaces_up{dependency="api"} 1.0',
        "workspaces_build_info{",
    ):
        assert sample in response.text
    assert "workspaces_deletions" not in response.text


def test_refused_and_wrong_are_two_first_lines(context: Context, away_at: AwayAt) -> None:
    refused = away_at("postgresql+psycopg://app@127.0.0.1:1/none")
    wrong = away_at(database_at(context.settings.database_url, "no_such_database"))

    assert not_ready(refused, **ELSEWHERE)[0] == ("database", "refuses connections (OperationalError)")
    name, message = not_ready(wrong, **ELSEWHERE)[0]
    assert (name, message.partition(":")[0]) == ("database", "is not the one of the settings")
    assert "no_such_database" not in message
    assert "no_such_database" in not_ready(wrong)[0][1]


# --- a worker that takes nothing ---------------------------------------------------------------------------


@pytest.fixture
def deletion(session: Session, healthy: None) -> Deletion:
    """A deletion that has been due for two minutes."""
    deletion = Deletion(workspace_id=UUID(int=7), workspace_name="ml-team", requested_by="ann")
    session.add(deletion)
    session.commit()
    age(session, deletion, 120)
    return deletion


def test_deletions_that_nobody_takes_are_a_fault_of_the_cleanup_worker(
    client: FlaskClient, deletion: Deletion
) -> None:
    [(name, message)] = not_ready(client)

    assert name == "cleanup"
    assert "nobody works on any" in message


@pytest.mark.parametrize(
    "change",
    [
        lambda session: session.execute(update(Deletion).values(next_run_at=seconds_from_now(-30))),
        lambda session: session.execute(update(Deletion).values(purge_after=seconds_from_now(30))),
        lambda session: session.execute(update(Deletion).values(lease_until=seconds_from_now(-30))),
        lambda session: session.execute(update(Deletion).values(claimed_at=seconds_from_now(-30))),
        lambda session: session.execute(update(CleanupControl).values(paused=True)),
        lambda session: session.execute(update(CleanupControl).values(resumed_at=seconds_from_now(-30))),
        lambda session: session.add(
            DeletionHold(requested_by="ann", held_at=seconds_from_now(-90), reason="a burst")
        ),
        lambda session: session.add(
            DeletionHold(
                requested_by="ann",
                held_at=seconds_from_now(-90),
                reason="a burst",
                released_at=seconds_from_now(-30),
            )
        ),
    ],
    ids=[
        "due lately",
        "grace",
        "lapsed lately",
        "taken lately",
        "paused",
        "resumed lately",
        "held",
        "released lately",
    ],
)
def test_deletions_that_nobody_could_have_taken_for_long_are_none(
    client: FlaskClient, session: Session, deletion: Deletion, change: Callable[[Session], object]
) -> None:
    change(session)
    session.commit()

    assert not_ready(client) == []
