"""Starts `make up` on a checkout with its own Procfile and observes it."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import psutil

from devstack.processes import free_port
from devstack.servers import EmbeddedPostgres
from tests.support.clusters import lay_out
from tests.support.deadlines import DEADLINE_S
from tests.support.processes import is_alive

REPOSITORY = Path(__file__).resolve().parents[2]

# Answers every path with 200, as the API and Flower do for theirs when they are well.
TINY_SERVER = """
import http.server, sys
class Well(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers()
    def log_message(self, *_): pass
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Well).serve_forever()
"""

PROCFILE = {
    "release": "echo migrated",
    "web": "exec python server.py $PORT",
    "worker": "echo at work, ready.; exec sleep 600",
    "flower": "exec python server.py $FLOWER_PORT",
}


def eventually(condition: Callable[[], object], *, within_s: float = DEADLINE_S) -> bool:
    """Whether the condition comes true in time."""
    deadline = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def alive(processes: Iterable[psutil.Process]) -> list[psutil.Process]:
    """Those that still run; a zombie only waits for init to notice."""
    return [one for one in processes if is_alive(one.pid) and one.is_running()]


def make_checkout(directory: Path, procfile: Mapping[str, str]) -> Path:
    """A checkout that holds the development stack and this Procfile."""
    shutil.copytree(REPOSITORY / "devstack", directory / "devstack")
    (directory / "server.py").write_text(TINY_SERVER)
    (directory / "Procfile").write_text("".join(f"{name}: {line}\n" for name, line in procfile.items()))
    return directory


class Stack:
    """A running `make up`."""

    def __init__(self, checkout: Path, *, output: Path | None = None, **variables: str) -> None:
        self.port = int(variables.get("PORT") or free_port())
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("WORKSPACES_")}
        ports = {"PORT": str(self.port), "FLOWER_PORT": str(free_port())}
        self._output = (output or checkout) / f"output-{self.port}.log"
        with self._output.open("wb") as file:
            self.process = psutil.Popen(
                [sys.executable, "-m", "devstack"],
                cwd=checkout,
                env=inherited | ports | variables,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                # Under nohup the stack would rightly ignore SIGHUP; the tests are about a terminal's.
                preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),
            )

    @property
    def lines(self) -> list[str]:
        return self._output.read_text().splitlines()

    def printed(self, text: str) -> bool:
        return any(text in line for line in self.lines)

    def is_ready(self) -> bool:
        assert self.process.poll() is None, self.lines

        return self.printed("stack    | ready")

    def descendants(self) -> list[psutil.Process]:
        return self.process.children(recursive=True)


@contextmanager
def running(
    checkout: Path, *, output: Path | None = None, is_new: bool = False, **variables: str
) -> Iterator[Stack]:
    """A stack that is ready, its log below `output` or in the checkout; it is stopped afterwards.

    Unless it `is_new`, a first start finds a cluster of PostgreSQL that was made before.
    """
    postgres = Path(variables.get("WORKSPACES_DATA_DIR") or checkout / ".data") / "postgres"
    if not (is_new or postgres.exists() or "WORKSPACES_DATABASE_URL" in variables):
        lay_out(EmbeddedPostgres(postgres, durable=False), migrated=False)
    stack = Stack(checkout, output=output, **variables)
    try:
        assert eventually(stack.is_ready, within_s=180), stack.lines

        yield stack
    finally:
        if stack.process.poll() is None:
            stack.process.terminate()
            stack.process.wait(DEADLINE_S)
