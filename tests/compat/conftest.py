"""One running stack for all of these tests, and the peer's unmodified client against it."""

from collections.abc import Iterator
from itertools import count
from pathlib import Path

import httpx
import pytest

from tests.compat.nemo import Nemo, Programs, installed_programs
from tests.support.stack import Stack

# Tests for the interpreter of the other environment; test_sdk.py runs them there.
collect_ignore = ["sdk"]

_numbers = count(1)


@pytest.fixture(scope="session")
def programs() -> Iterator[Programs]:
    """The peer's `python` and `nemo`."""
    programs = installed_programs()
    yield programs
    programs.close()


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """API, workers, beat, PostgreSQL and Valkey as real processes."""
    settings = {"stop_grace_seconds": 1, "deleted_deployment_seconds": 5, "sweep_seconds": 2}
    with Stack(tmp_path_factory.mktemp("stack"), **settings) as stack:
        yield stack


@pytest.fixture
def nemo(programs: Programs, stack: Stack, tmp_path: Path) -> Nemo:
    """The peer's SDK and CLI in a home of their own: no login, no context."""
    return Nemo(programs, home=tmp_path, base_url=stack.api_url)


@pytest.fixture
def http(stack: Stack) -> httpx.Client:
    """Plain HTTP, to look at what the SDK has done without trusting the SDK."""
    return stack.client


@pytest.fixture
def workspace(http: httpx.Client) -> str:
    """A new, empty workspace."""
    name = f"compat-{next(_numbers)}"
    assert http.post("/apis/entities/v2/workspaces", json={"name": name}).status_code == 201
    return name
