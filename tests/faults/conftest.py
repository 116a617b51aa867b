"""A running stack under settings that make every bound a matter of seconds."""

import logging
from collections.abc import Iterator

import pytest

from tests.faults.world import QUICK, World
from tests.support.stack import Stack

# A line for each request that a test waits with would hide the logs of the stack.
logging.getLogger("httpx").setLevel(logging.WARNING)


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
