"""A running stack under settings that make every bound a matter of seconds, and a table of what was measured."""

import logging
from collections.abc import Callable, Iterator

import pytest

from tests.faults.world import QUICK, World
from tests.support.stack import Stack

# A line for each request that a test waits with would bury the logs of the stack.
logging.getLogger("httpx").setLevel(logging.WARNING)

_MEASURED = pytest.StashKey[list[str]]()

Measured = Callable[[str, float, float], None]


@pytest.fixture(scope="package")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack(tmp_path_factory.mktemp("faults"), **QUICK) as stack:
        yield stack


@pytest.fixture
def world(stack: Stack) -> Iterator[World]:
    """The stack, whole: whatever an earlier test broke works again."""
    world = World(stack)
    world.heal()
    yield world
    world.engine.dispose()


@pytest.fixture
def within(request: pytest.FixtureRequest) -> Measured:
    """Asserts that something took no longer than its bound, and has it printed at the end of the run."""

    def check(what: str, took_s: float, bound_s: float) -> None:
        lines = request.config.stash.setdefault(_MEASURED, [])
        lines.append(f"{took_s:7.2f} s of at most {bound_s:5.1f} s  {what}")
        assert took_s <= bound_s, what

    return check


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if lines := config.stash.get(_MEASURED, []):
        terminalreporter.section("measured under faults")
        for line in lines:
            terminalreporter.line(line)
