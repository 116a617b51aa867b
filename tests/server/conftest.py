"""The web server alone, as it is delivered."""

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.server.wire import FILESETS
from tests.support.deadlines import DEADLINE_S
from tests.support.stack import Stack


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Uploads may stand still for as long as tests wait."""
    directory = tmp_path_factory.mktemp("server") / "product"
    with Stack(directory, parts=("web",), upload_idle_seconds=DEADLINE_S) as stack:
        assert stack.client.post(FILESETS, json={"name": "data"}).status_code == 200
        yield stack


@pytest.fixture
def connections() -> Iterator[ExitStack]:
    with ExitStack() as connections:
        yield connections
