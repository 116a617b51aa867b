"""Secrets are in no log, whether a request succeeds, is refused, or fails."""

import io
import os
from collections.abc import Iterator
from contextlib import redirect_stderr
from pathlib import Path

import pytest
from flask.testing import FlaskClient
from pydantic import SecretStr, ValidationError
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError

from app.access.authenticate import GATEWAY_SECRET
from app.config import Settings
from app.context import Context
from app.logs import configure_logs
from app.storage.blob_store import BlobStore
from tests.factories import make_fileset, make_workspace
from tests.support.application import answering_from
from tests.support.preloaded import run_preloaded

SECRET = "hunter2-"  # begins every secret of these tests
HEADERS = {
    "Authorization": f"Bearer {SECRET}token",
    "Cookie": f"session={SECRET}cookie",
    "X-Api-Key": f"{SECRET}key",
    GATEWAY_SECRET: f"{SECRET}gateway",
}
FILESET = "/apis/files/v2/workspaces/ml-team/filesets/data"
ENTITIES = "/apis/entities/v2/workspaces/ml-team/entities/note"
PROJECTS = "/apis/entities/v2/workspaces/ml-team/projects"


class FullDisk:
    """A filesystem on which nothing can be written."""

    protocol = "file"

    def __getattr__(self, name: str) -> object:
        def fail(*_: object, **__: object) -> None:
            raise self.error

        return fail

    def __init__(self, error: Exception) -> None:
        self.error = error


@pytest.fixture(params=["json", "console"])
def log(request: pytest.FixtureRequest, settings: Settings, context: Context) -> Iterator[io.StringIO]:
    """Everything the product logs while the test runs."""
    chatty = settings.model_copy(
        update={
            "log_format": request.param,
            "log_level": "DEBUG",
            "metrics_token": SecretStr(f"{SECRET}metrics"),
        }
    )
    object.__setattr__(context, "settings", chatty)
    written = io.StringIO()
    with redirect_stderr(written):
        configure_logs(chatty)
        yield written
    configure_logs(Settings())


@pytest.fixture
def client(log: io.StringIO, context: Context, session) -> FlaskClient:
    make_fileset(session, make_workspace(session, "ml-team"), "data")
    session.commit()
    return answering_from(context).test_client()


def test_requests_that_succeed_and_requests_that_are_refused(client: FlaskClient, log: io.StringIO) -> None:
    document = {"password": f"{SECRET}data"}
    codes = [
        client.post(ENTITIES, json={"data": document}, headers=HEADERS).status_code,
        client.put(f"{FILESET}/-/a", data=f"{SECRET}bytes", headers=HEADERS).status_code,
        client.post(ENTITIES, json={"data": document, "typo": f"{SECRET}typo"}, headers=HEADERS).status_code,
        client.post(ENTITIES, data=f'{{"{SECRET}broken', headers=HEADERS).status_code,
        client.post(PROJECTS, json={"name": f"{SECRET}NAME"}, headers=HEADERS).status_code,
        client.get(f"{ENTITIES}/nobody?token={SECRET}query", headers=HEADERS).status_code,
        client.get("/metrics", headers=HEADERS, environ_overrides={"REMOTE_ADDR": "192.0.2.7"}).status_code,
    ]

    assert codes == [201, 200, 422, 422, 422, 422, 403]
    assert SECRET not in log.getvalue()


@pytest.mark.parametrize(
    ("error", "status"),
    [(OSError(28, "No space left on device"), 507), (RuntimeError("the store is broken"), 500)],
    ids=["expected", "unexpected"],
)
def test_a_store_that_fails(
    client: FlaskClient, log: io.StringIO, context: Context, error: Exception, status: int
) -> None:
    object.__setattr__(context, "store", BlobStore(FullDisk(error), "/srv/blobs"))

    answer = client.put(f"{FILESET}/-/a", data=f"{SECRET}bytes", headers=HEADERS)

    assert answer.status_code == status
    assert "failed" in log.getvalue()
    assert "Error: " in log.getvalue()
    assert SECRET not in log.getvalue()
    assert "/srv" not in answer.text


@pytest.fixture(params=["check", "type", "trigger"])
def broken_table(request: pytest.FixtureRequest, database: Engine) -> Iterator[str]:
    """Inserts into `projects` fail with an error in which PostgreSQL quotes the row or the value."""
    changes = {
        "check": ("ADD CONSTRAINT ck_broken CHECK (description = 'fine')", "DROP CONSTRAINT ck_broken"),
        "type": (
            "ADD COLUMN broken int GENERATED ALWAYS AS (description::varchar::int) STORED",
            "DROP COLUMN broken",
        ),
        "trigger": ("ALTER COLUMN description TYPE varchar(3)", "ALTER COLUMN description TYPE text"),
    }
    change, undo = changes[request.param]
    with database.begin() as connection:
        connection.execute(text(f"ALTER TABLE projects {change}"))
    yield request.param
    with database.begin() as connection:
        connection.execute(text("DELETE FROM projects"))
        connection.execute(text(f"ALTER TABLE projects {undo}"))


def test_a_row_that_the_database_refuses(client: FlaskClient, broken_table: str, log: io.StringIO) -> None:
    body = {"name": "apollo", "description": f"{SECRET}description"}

    answer = client.post(PROJECTS, json=body, headers=HEADERS)

    assert (answer.status_code, answer.json) == (500, {"detail": "An unexpected error occurred."})
    assert "request.failed" in log.getvalue()
    assert "projects.py" in log.getvalue()
    assert SECRET not in log.getvalue()


def test_a_failure_of_the_database_is_still_logged_with_its_cause(
    client: FlaskClient, database: Engine, log: io.StringIO
) -> None:
    with database.begin() as connection:
        connection.execute(text("ALTER TABLE projects RENAME TO elsewhere"))
    try:
        answer = client.post(PROJECTS, json={"name": "apollo"})
    finally:
        with database.begin() as connection:
            connection.execute(text("ALTER TABLE elsewhere RENAME TO projects"))

    assert answer.status_code == 500
    assert "42P01" in log.getvalue()
    assert "projects" in log.getvalue()
    assert "INSERT" not in answer.text


def test_an_error_of_the_database_does_not_quote_the_parameters(context: Context) -> None:
    """Other programs than our log show it, too: a terminal, Flower."""
    with context.sessions() as session, pytest.raises(DBAPIError) as caught:
        session.execute(text("SELECT CAST(:value AS text), 1 / 0"), {"value": f"{SECRET}parameter"})

    assert "division by zero" in str(caught.value)
    assert SECRET not in str(caught.value)


# --- Settings


def test_settings_shown_hide_what_is_secret() -> None:
    settings = Settings(
        database_url=f"postgresql+psycopg://app:{SECRET}db@localhost/x",
        broker_url=f"redis://:{SECRET}broker@localhost/0",
        storage_url=f"s3://key:{SECRET}store@bucket",
        metrics_token=SecretStr(f"{SECRET}metrics"),
    )

    assert SECRET not in repr(settings)
    assert SECRET not in str(settings)


def test_settings_refused_do_not_quote_the_others() -> None:
    with pytest.raises(ValidationError) as caught:
        Settings(storage_url=SECRET, slice_seconds=1000)  # first and short: pydantic quotes the ends

    assert SECRET not in str(caught.value)


ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize(
    "command",
    [
        ["-m", "app.cli", "db", "upgrade"],
        ["-m", "alembic", "upgrade", "head"],
        ["-m", "celery", "-A", "workers.celery_app:celery", "report"],
        ["-m", "celery", "-A", "workers.celery_app:celery", "inspect", "ping", "--timeout", "1"],
    ],
    ids=lambda command: command[1],
)
@pytest.mark.parametrize("scheme", ["postgresql+psycopg", "mysql"])
def test_a_program_whose_servers_are_away_does_not_print_their_passwords(
    command: list[str], scheme: str
) -> None:
    ended = run_preloaded(
        "python",
        *command,
        cwd=ROOT,
        env={
            **os.environ,
            "WORKSPACES_DATABASE_URL": f"{scheme}://app:{SECRET}db@127.0.0.1:1/x",
            "WORKSPACES_BROKER_URL": f"redis://:{SECRET}broker@127.0.0.1:1/0",
            "WORKSPACES_LOG_LEVEL": "DEBUG",
        },
    )

    assert ended.stdout + ended.stderr
    assert SECRET not in ended.stdout + ended.stderr
