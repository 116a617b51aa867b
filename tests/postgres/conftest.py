"""Databases of their own, on the server of this test run or on another one."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from flask.testing import FlaskClient
from sqlalchemy import create_engine, text

from app.cleanup.engine import run_slice
from app.cleanup.outcomes import Idle
from app.config import Settings
from app.context import Context
from app.db import connect, sessions_of
from tests.support.application import answering_from
from tests.support.database import TEMPLATE, database_at
from tests.support.publisher import RecordingPublisher
from tests.support.store import store_of

WORKSPACES = "/apis/entities/v2/workspaces"


@contextmanager
def new_database(url: str, name: str, *, template: str = "template0") -> Iterator[str]:
    """The URL of a new database on the server of `url`."""
    server = create_engine(url, isolation_level="AUTOCOMMIT")
    with server.connect() as connection:
        connection.execute(text(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)"))
        connection.execute(text(f"CREATE DATABASE {name} TEMPLATE {template}"))
        yield database_at(url, name)
        connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
    server.dispose()


@pytest.fixture
def copy_url(database_url: str) -> Iterator[str]:
    """A migrated and seeded database of this test alone."""
    name = f"copied_{os.environ.get('PYTEST_XDIST_WORKER', 'alone')}"
    with new_database(database_url, name, template=TEMPLATE) as url:
        yield url


@pytest.fixture
def product(tmp_path: Path) -> Iterator[Callable[..., Context]]:
    """Makes the context of a process of the product on the database at a URL."""
    engines = []

    def make(url: str, **settings: object) -> Context:
        chosen = Settings(database_url=url, data_dir=tmp_path, **settings)
        engines.append(connect(chosen))
        sessions = sessions_of(engines[-1])
        return Context(chosen, sessions, store_of(chosen, sessions), RecordingPublisher())

    yield make
    for engine in engines:
        engine.dispose()


def create_and_delete(context: Context, name: str) -> None:
    """Fill a workspace, delete it, and clean up until nothing is left of it."""
    client: FlaskClient = answering_from(context).test_client()
    for path, body in (
        (WORKSPACES, {"name": name}),
        (f"{WORKSPACES}/{name}/entities/recipe", {"name": "soup", "data": {"salt": 3}}),
        (f"/apis/files/v2/workspaces/{name}/filesets", {"name": "weights"}),
    ):
        made = client.post(path, json=body)
        assert made.status_code in {200, 201}, made.json
    deleted = client.delete(f"{WORKSPACES}/{name}")
    assert deleted.status_code == 200
    while not isinstance(run_slice(context, owner="tests"), Idle):
        pass
    deletion = client.get(f"/apis/entities/v2/deletions/{deleted.json['deletion_id']}").json
    assert (deletion["state"], deletion["remaining"]) == ("DONE", {})
