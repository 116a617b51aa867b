"""A page whose name is made to lead to this machine, in a real browser."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest

from tests.server.test_exposure import web
from tests.support.deadlines import DEADLINE_S
from tests.support.serving import serving

WORKSPACES = "/apis/entities/v2/workspaces"
PAGE = f"""<!doctype html><title>A page</title><p id=answer>nothing</p><script>
fetch("{WORKSPACES}", {{method: "POST", headers: {{"Content-Type": "application/json"}},
  body: JSON.stringify({{name: "by-" + location.hostname.split(".")[0].replace("127", "address")}})}})
.then(answer => document.getElementById("answer").textContent = "answered " + answer.status)
</script>"""


@contextmanager
def page_in_front_of(url: str) -> Iterator[int]:
    """The port of a server that answers with the page first, and then leads to `url`, as the page's name does."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(PAGE.encode())

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            answer = httpx.post(url + self.path, headers=dict(self.headers), content=body)
            self.send_response(answer.status_code)
            self.end_headers()
            self.wfile.write(answer.content)

        def log_message(self, *_: object) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    with serving(server):
        yield server.server_port


def opened(url: str, profile: Path) -> str:
    """What a browser shows of the page at `url`, for which evil.example is this machine."""
    command = (
        *("chromium", "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={profile}"),
        *(
            "--host-resolver-rules=MAP evil.example 127.0.0.1",
            "--virtual-time-budget=10000",
            "--dump-dom",
            url,
        ),
    )
    ended = subprocess.run(command, capture_output=True, text=True, timeout=2 * DEADLINE_S, check=False)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


@pytest.mark.long
@pytest.mark.needs("chromium", package="chromium")
def test_a_page_whose_name_leads_here_writes_nothing(tmp_path: Path, database_url: str) -> None:
    with web(tmp_path, WORKSPACES_DATABASE_URL=database_url) as server, page_in_front_of(server.url) as port:
        assert server.answers(), server.log

        rebound = opened(f"http://evil.example:{port}/", tmp_path / "one")
        own = opened(f"http://127.0.0.1:{port}/", tmp_path / "other")

        assert "answered 421" in rebound
        assert "answered 201" in own  # what refused the other was its name
        assert httpx.get(f"{server.url}{WORKSPACES}/by-evil").status_code == 404
