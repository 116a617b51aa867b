"""The requests of all processes of a server are counted together, and no number falls when a process is replaced."""

import os
import re
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.pool import NullPool

from tests.support.deadlines import DEADLINE_S
from tests.support.stack import Stack

PROCESSES = 2
ROUTE = "/cluster-info"
FILESETS = "/apis/files/v2/workspaces/default/filesets"


@pytest.fixture(scope="module")
def temporary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tmp")


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, temporary: Path) -> Iterator[Stack]:
    environment = {"WEB_CONCURRENCY": str(PROCESSES), "TMPDIR": str(temporary)}
    directory = tmp_path_factory.mktemp("stack")
    with Stack(
        directory, parts=("web",), environment=environment, statement_timeout_seconds=DEADLINE_S
    ) as stack:
        yield stack


def scrape(stack: Stack) -> str:
    # Over a connection of its own, which any of the processes may get.
    return httpx.get(f"{stack.api_url}/metrics", timeout=DEADLINE_S).text


def served(metrics: str) -> int:
    name = "workspaces_http_request_duration_seconds_count"
    found = re.findall(rf'^{name}{{.*route="{ROUTE}".*}} (\S+)$', metrics, re.MULTILINE)
    return int(sum(map(float, found)))


def in_progress(metrics: str) -> float:
    [number] = re.findall(r"^workspaces_http_requests_in_progress (\S+)$", metrics, re.MULTILINE)
    return float(number)


def files(temporary: Path) -> set[str]:
    return {path.name for path in temporary.glob("workspaces-metrics-*/*.db")}


def ask_until_all_have_served(stack: Stack, temporary: Path) -> int:
    """Ask over new connections until each process has a file; how often."""
    asked = 0

    def all_have() -> bool:
        nonlocal asked
        httpx.get(stack.api_url + ROUTE, timeout=DEADLINE_S)
        asked += 1
        return asked >= 10 and {f"histogram_{place}.db" for place in range(PROCESSES)} <= files(temporary)

    stack.wait_until(all_have, "each process has served a request")
    return asked


def test_whichever_process_answers_counts_those_of_all(stack: Stack, temporary: Path) -> None:
    before = served(scrape(stack))

    asked = ask_until_all_have_served(stack, temporary)

    assert {served(scrape(stack)) for _ in range(10)} == {before + asked}
    assert {in_progress(scrape(stack)) for _ in range(10)} == {1.0}


@contextmanager
def waiting(stack: Stack, number: int) -> Iterator[None]:
    """So many requests wait for a table meanwhile, each in a process that is chosen by chance."""
    engine = create_engine(stack.database_url, poolclass=NullPool)
    with engine.connect() as connection, ThreadPoolExecutor(number) as clients:
        connection.execute(text("LOCK TABLE filesets IN ACCESS EXCLUSIVE MODE"))
        for _ in range(number):
            clients.submit(httpx.get, f"{stack.api_url}{FILESETS}", timeout=DEADLINE_S)
        yield
        connection.rollback()


def replace_processes(stack: Stack) -> None:
    """Kill the processes, and wait until gunicorn has replaced them."""
    [web] = stack.running("web")
    server = psutil.Process(web.process.pid)
    killed = {one.pid for one in server.children()}
    for pid in killed:
        os.kill(pid, signal.SIGKILL)

    def are_replaced() -> bool:
        pids = {one.pid for one in server.children()}
        return len(pids) == PROCESSES and not pids & killed

    stack.wait_until(are_replaced, "gunicorn has replaced them")
    ready = f"{stack.api_url}/health/ready"
    stack.wait_until(lambda: httpx.get(ready, timeout=DEADLINE_S).is_success, "they serve")


def test_a_process_that_was_killed_takes_no_number_with_it_and_leaves_no_file(
    stack: Stack, temporary: Path
) -> None:
    ask_until_all_have_served(stack, temporary)
    before, known = served(scrape(stack)), files(temporary)

    with waiting(stack, 3):
        stack.wait_until(lambda: in_progress(scrape(stack)) == 4, "they wait")
        replace_processes(stack)

    assert served(scrape(stack)) == before
    asked = ask_until_all_have_served(stack, temporary)
    assert served(scrape(stack)) == before + asked
    assert files(temporary) <= known
    assert in_progress(scrape(stack)) == 1


def test_a_server_that_ends_leaves_nothing_behind(stack: Stack, temporary: Path) -> None:
    """The last test of this file."""
    assert list(temporary.glob("workspaces-metrics-*"))
    [web] = stack.running("web")

    web.stop()

    assert not list(temporary.glob("workspaces-metrics-*"))
