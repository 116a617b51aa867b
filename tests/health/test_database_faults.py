"""Why the database does not serve reaches the log in its words, and the client in ours."""

import psycopg
import pytest
from flask import Flask
from psycopg import errors
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, OperationalError

from app import create_app
from app.context import Context
from app.health.database_faults import DatabaseFault, fault_of
from tests.support.database import database_at

SAMPLES = [
    ('connection to server at "127.0.0.1", port 1 failed: Connection refused', DatabaseFault.REFUSED),
    ("FATAL:  the database system is starting up", DatabaseFault.REFUSED),
    ("server closed the connection unexpectedly", DatabaseFault.REFUSED),
    ('FATAL:  database "none" does not exist', DatabaseFault.WRONG),
    ('FATAL:  password authentication failed for user "app"', DatabaseFault.WRONG),
    ("failed to resolve host 'nowhere': Name or service not known", DatabaseFault.WRONG),
    ("FATAL:  sorry, too many clients already", DatabaseFault.NO_CONNECTION),
    ("FATAL:  remaining connection slots are reserved", DatabaseFault.NO_CONNECTION),
    ("the server did not answer within 7 s", DatabaseFault.SILENT),
]


@pytest.mark.parametrize(("message", "fault"), SAMPLES, ids=[message for message, _ in SAMPLES])
def test_a_connection_that_fails_says_why(message: str, fault: DatabaseFault) -> None:
    assert fault_of(OperationalError("SELECT 1", {}, psycopg.OperationalError(message))) is fault


@pytest.mark.parametrize(
    ("error", "fault"),
    [
        (errors.DiskFull, DatabaseFault.FULL),
        (errors.TooManyConnections, DatabaseFault.NO_CONNECTION),
        (errors.AdminShutdown, DatabaseFault.REFUSED),
        (errors.QueryCanceled, DatabaseFault.SILENT),
        (errors.InvalidCatalogName, DatabaseFault.WRONG),
    ],
)
def test_a_statement_that_fails_says_why(error: type[psycopg.Error], fault: DatabaseFault) -> None:
    assert fault_of(DBAPIError("SELECT 1", {}, error("whatever it says"))) is fault


def test_no_space_left_is_507(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.http.route.read", _full)

    response = app.test_client().get("/apis/entities/v2/workspaces")

    assert (response.status_code, response.json) == (
        507,
        {"detail": "The database has no space left; its operator has to look."},
    )


def _full(*_: object) -> None:
    raise OperationalError("INSERT", {}, errors.DiskFull("could not extend file: No space left on device"))


@pytest.mark.parametrize(
    ("name", "logged", "told"),
    [
        ("refused", "Connection refused", "The database refuses connections; try again."),
        ("no_such_database", 'database "no_such_database" does not exist', "is not the one of the settings"),
    ],
)
def test_the_log_has_the_servers_words_and_the_client_ours(
    context: Context, capsys: pytest.CaptureFixture[str], name: str, logged: str, told: str
) -> None:
    url = database_at(context.settings.database_url, name)
    if name == "refused":
        url = "postgresql+psycopg://app@127.0.0.1:1/none"
    settings = context.settings.model_copy(update={"database_url": url})
    client = create_app(Context.open(settings)).test_client()

    response = client.get("/apis/entities/v2/workspaces")

    assert response.status_code == 503
    assert told in response.json["detail"]
    assert logged not in response.json["detail"]
    [line] = [one for one in capsys.readouterr().err.splitlines() if "request.database_busy" in one]
    assert logged in line


def test_a_statement_is_logged_without_its_text_and_values(
    context: Context, caplog: pytest.LogCaptureFixture, app: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cancelled(*_: object) -> None:
        with context.sessions() as session:
            session.execute(text("SET LOCAL statement_timeout = 1"))
            session.execute(text("SELECT pg_sleep(60), :value"), {"value": "a secret"})

    monkeypatch.setattr("app.http.route.read", cancelled)

    assert app.test_client().get("/apis/entities/v2/workspaces").status_code == 503
    [line] = [one.msg for one in caplog.records if "database_busy" in str(one.msg)]
    assert "canceling statement due to statement timeout" in line["error"]
    assert "pg_sleep" not in line["error"]
    assert "a secret" not in line["error"]
