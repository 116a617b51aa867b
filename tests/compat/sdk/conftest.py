"""The peer's unmodified SDK against our server. Run by the interpreter that has the SDK: see ../test_sdk.py."""

import os
import time
import uuid
from collections.abc import Callable, Iterator

import httpx
import pytest
from nemo_platform import DefaultHttpxClient, NeMoPlatform

pytest_plugins = ["tests.support.processes"]

Eventually = Callable[[Callable[[], bool], str], None]


@pytest.fixture
def requests() -> list[httpx.Request]:
    """Every request that `client` has sent, retries included."""
    return []


@pytest.fixture
def client(requests: list[httpx.Request]) -> Iterator[NeMoPlatform]:
    """The SDK as documented, at home in a new workspace."""
    base_url = os.environ["NMP_BASE_URL"]
    http_client = DefaultHttpxClient(base_url=base_url, event_hooks={"request": [requests.append]})
    name = f"sdk-{uuid.uuid4().hex[:12]}"
    with NeMoPlatform(base_url=base_url, workspace=name, http_client=http_client) as client:
        client.workspaces.create(name=name)
        requests.clear()
        yield client
        client.workspaces.delete(name)  # or the documented list, a page of a hundred, would hold nothing else


@pytest.fixture
def eventually() -> Eventually:
    """Waits for what the workers do."""

    def eventually(happened: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + 60
        while not happened():
            assert time.monotonic() < deadline, f"not within a minute: {what}"
            time.sleep(0.1)

    return eventually
