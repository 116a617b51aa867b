"""Real PostgreSQL for every test that needs a database; fakes only for clock, publisher and blobs."""

import gc
import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import httpx._transports.default as http_transport
import pytest
from flask import Flask
from flask.testing import FlaskClient
from hypothesis import HealthCheck
from hypothesis import settings as search_settings
from sqlalchemy import Engine, event
from sqlalchemy.orm import Session

from app.config import Settings
from app.context import Context
from app.logs import configure_logs
from tests.support.application import Engines, answering_from
from tests.support.keys import KEY, write_keys
from tests.support.publisher import RecordingPublisher, recording
from tests.support.statements import refuse_locking_subquery

# No search fails because the machine is busy.
search_settings.register_profile(
    "on any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
search_settings.load_profile("on any machine")

# Each client reads all certificates of the system, and most requests of tests have a client of their own.
http_transport.create_ssl_context = cache(http_transport.create_ssl_context)

# By default garbage is looked for after seven hundred new objects: a tenth of the time of tests, a quarter of that
# of their collection.
gc.set_threshold(50_000, 20, 100)

pytest_plugins = [
    f"tests.support.{name}"
    for name in ("access_keys", "database", "clusters", "figures", "groups", "needs", "processes")
]


def pytest_collection_finish() -> None:
    """Spare the garbage collector what the collected tests and their imports consist of: it stays to the end."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def _logs() -> Iterator[None]:
    """Set up once: a command that runs in this process would leave the log in a file that is closed behind it."""
    configure_logs(Settings())
    with pytest.MonkeyPatch.context() as patch:
        for module in ("app.cli.direct", "app.cli.db"):
            patch.setattr(f"{module}.configure_logs", lambda _: None)
        yield


@pytest.fixture(scope="session", autouse=True)
def _volatile_files() -> Iterator[None]:
    """Do not wait for the disk: a power cut costs the files of a test nobody misses. Processes of a stack do wait."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        yield


@pytest.fixture(scope="session", autouse=True)
def _statements() -> Iterator[None]:
    """Every statement that a test makes the product send is looked at."""

    def look_at(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        refuse_locking_subquery(statement)

    event.listen(Engine, "before_cursor_execute", look_at)
    yield
    event.remove(Engine, "before_cursor_execute", look_at)


@pytest.fixture
def session(database: Engine) -> Iterator[Session]:
    with Session(database, expire_on_commit=False) as session:
        yield session


@pytest.fixture(scope="session")
def _settings(database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    keys = write_keys(tmp_path_factory.mktemp("keys") / "secrets-keys", KEY)
    return Settings(database_url=database_url, statement_timeout_seconds=10, secrets_key_file=keys)


@pytest.fixture
def settings(_settings: Settings, tmp_path: Path) -> Settings:
    return _settings.model_copy(update={"data_dir": tmp_path})


@pytest.fixture
def publisher() -> Iterator[RecordingPublisher]:
    with recording() as publisher:
        yield publisher


@pytest.fixture(scope="session")
def engines() -> Iterator[Engines]:
    engines = Engines()
    yield engines
    engines.close()


@pytest.fixture
def context(
    database: Engine, settings: Settings, publisher: RecordingPublisher, engines: Engines
) -> Iterator[Context]:
    yield engines.context_of(settings, publisher)
    engines.tidy()


@pytest.fixture
def app(context: Context) -> Flask:
    return answering_from(context)


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()
