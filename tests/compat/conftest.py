"""One running stack for all of these tests, and the peer's unmodified client against it."""

import os
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import httpx
import pytest

from tests.compat.nemo import Nemo, Programs
from tests.compat.releases import BETWEEN, NEWEST, OLDEST, Release, as_parameter
from tests.support.stack import Stack

# Tests for the interpreters of the other environments; test_sdk.py and test_helix.py run them there.
collect_ignore = ["sdk", "helix"]

_numbers = count(1)


ALL = "all_releases"
"""The mark of tests for each release of the SDK; others are run with the oldest, and by `make long` with the newest."""


EVERYTHING = os.environ.get("CLIENTS") == "all"
"""Whether to try what `make clients` alone does: the releases between, and the slow files with the newest."""
SLOW = ("test_large_files", "test_parallel")


def pytest_configure(config: pytest.Config) -> None:
    """Declare the marker."""
    config.addinivalue_line("markers", f"{ALL}: run with each release of the peer's SDK")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give each test the releases that it is run with, unless it names its own."""
    if "release" not in metafunc.fixturenames or "release" in _named(metafunc):
        return
    is_for_all = metafunc.definition.get_closest_marker(ALL) is not None
    is_slow = metafunc.module.__name__.endswith(SLOW)
    chosen = [as_parameter(OLDEST)]
    if EVERYTHING or not is_slow:
        chosen.append(as_parameter(NEWEST) if is_for_all else as_parameter(NEWEST, pytest.mark.long))
    if EVERYTHING and is_for_all:
        chosen += [as_parameter(one) for one in BETWEEN]
    metafunc.parametrize("release", chosen, indirect=True, scope="session")


def _named(metafunc: pytest.Metafunc) -> set[str]:
    marks = metafunc.definition.iter_markers("parametrize")
    return {name.strip() for mark in marks for name in str(mark.args[0]).split(",")}


@pytest.fixture(scope="session")
def release(request: pytest.FixtureRequest) -> Release:
    """The release of the peer that a test is run with."""
    return request.param


@pytest.fixture(scope="session")
def programs(release: Release) -> Iterator[Programs]:
    """The peer's `python` and `nemo`."""
    programs = Programs(release)
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
