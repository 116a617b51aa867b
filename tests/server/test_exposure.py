"""Where the server agrees to listen, and that the real server complies."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from pydantic import SecretStr

from app.config import Settings
from app.server.exposure import Address, exposure_error
from devstack.processes import free_port, kill_group
from devstack.procfile import read_procfile
from tests.support.deadlines import DEADLINE_S
from tests.support.preloaded import start_preloaded

ROOT = Path(__file__).parents[2]
SECRET = SecretStr("correct horse battery")
OPEN = Settings(auth_enabled=False, allow_open_access=False, allow_unsigned_jwt=False)

LOCAL: list[Address] = [
    ("127.0.0.1", 80),
    ("127.8.9.1", 80),
    ("127.1", 80),
    ("localhost", 80),
    ("::1", 80, 0, 0),
    ("::ffff:127.0.0.1", 80),
    "/run/workspaces.sock",
    b"\0abstract",
]
EXPOSED: list[Address] = [
    ("0.0.0.0", 80),
    ("0", 80),
    ("", 80),
    ("::", 80, 0, 0),
    ("::ffff:0.0.0.0", 80),
    ("192.0.2.7", 80),
    ("fe80::1", 80),
    ("no.such.host.invalid", 80),
]


@pytest.mark.parametrize("address", LOCAL, ids=str)
def test_this_machine_alone_may_reach_an_open_server(address: Address) -> None:
    assert exposure_error(OPEN, [address]) is None


@pytest.mark.parametrize("address", EXPOSED, ids=str)
def test_an_open_server_is_not_exposed(address: Address) -> None:
    reason = exposure_error(OPEN, [("127.0.0.1", 80), address]) or ""

    assert "WORKSPACES_AUTH_ENABLED" in reason
    assert "WORKSPACES_ALLOW_OPEN_ACCESS=true" in reason
    assert "\n" not in reason
    assert "127.0.0.1:80" not in reason


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"auth_enabled": True}, None),
        ({"allow_open_access": True}, None),
        ({"auth_enabled": True, "allow_unsigned_jwt": True}, "WORKSPACES_ALLOW_UNSIGNED_JWT"),
        ({"allow_open_access": True, "allow_unsigned_jwt": True}, "WORKSPACES_ALLOW_UNSIGNED_JWT"),
    ],
)
def test_an_exposed_server_needs_authentication_or_consent_and_never_takes_unsigned_tokens(
    changed: dict[str, bool], named: str | None
) -> None:
    reason = exposure_error(OPEN.model_copy(update=changed), [("0.0.0.0", 80)])

    assert named in reason if reason and named else reason is named, reason


def test_unsigned_tokens_are_for_this_machine() -> None:
    assert exposure_error(OPEN.model_copy(update={"allow_unsigned_jwt": True}), LOCAL) is None


@pytest.mark.parametrize(
    ("host", "changed", "runs"),
    [
        ("127.0.0.1", {}, True),
        ("0.0.0.0", {}, False),
        # Behind a proxy on this host every user would seem local, and be at least an Editor of `default`.
        ("127.0.0.1", {"auth_enabled": True}, False),
        ("127.0.0.1", {"auth_enabled": True, "allow_unsigned_jwt": True}, True),
        ("127.0.0.1", {"auth_enabled": True, "allow_unsigned_jwt": True, "trusted_proxies": 1}, False),
        ("127.0.0.1", {"trusted_proxies": 1}, False),
        ("127.0.0.1", {"allow_open_access": True}, False),
        ("127.0.0.1", {"auth_enabled": True, "allow_unsigned_jwt": True, "gateway_secret": SECRET}, False),
        ("127.0.0.1", {"allow_unsigned_jwt": True, "oidc_issuer": "https://login.example.com"}, False),
        ("0.0.0.0", {"auth_enabled": True, "subprocess_provider": "on"}, True),
        ("127.0.0.1", {"subprocess_provider": "off"}, False),
    ],
)
def test_processes_of_users_are_started_only_where_they_are_the_users_of_this_machine(
    monkeypatch: pytest.MonkeyPatch, host: str, changed: dict[str, object], runs: bool
) -> None:
    monkeypatch.setenv("HOST", host)
    settings = OPEN.model_copy(update=changed)

    assert settings.runs_processes is runs
    assert bool(settings.profiles) is runs
    assert settings.backend == ("subprocess" if runs else "none")
    assert runs or "WORKSPACES_SUBPROCESS_PROVIDER" in str(settings.why_no_processes)


@pytest.mark.parametrize(("host", "runs"), [("127.0.0.1", True), ("0.0.0.0", False), ("::", False)])
def test_no_processes_are_started_where_a_socket_listens_to_others(
    monkeypatch: pytest.MonkeyPatch, host: str, *, runs: bool
) -> None:
    monkeypatch.delenv("HOST", raising=False)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, 0), family=family):
        assert OPEN.runs_processes is runs
        assert runs or "listens beyond loopback" in str(OPEN.why_no_processes)
    assert OPEN.runs_processes


# --- The real server


LINE = read_procfile(ROOT / "Procfile")["web"]


def environment(**variables: str) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("WORKSPACES_")}
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return {**inherited, "PATH": path, "WEB_CONCURRENCY": "1", **variables}


class Web:
    """A process of the Procfile's web command."""

    def __init__(self, log: Path, **variables: str) -> None:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self._log_file = log
        log.touch()
        self.process = start_preloaded(
            LINE, env=environment(PORT=str(port), **variables), cwd=ROOT, output=log
        )

    @property
    def log(self) -> str:
        return self._log_file.read_text()

    def answers(self) -> bool:
        """Whether it answers before it ends."""
        deadline = time.monotonic() + DEADLINE_S
        while self.process.poll() is None and time.monotonic() < deadline:
            try:
                return httpx.get(f"{self.url}/health/live", timeout=2).is_success
            except httpx.TransportError:
                time.sleep(0.05)
        return False


@contextmanager
def web(directory: Path, **variables: str) -> Iterator[Web]:
    server = Web(directory / "web.log", **variables)
    try:
        yield server
    finally:
        kill_group(server.process)


@pytest.mark.parametrize(
    "variables",
    [
        {"HOST": "0.0.0.0"},
        {"HOST": "[::]"},
        {"HOST": "127.0.0.1:0 -b 0.0.0.0"},
        {"HOST": "127.0.0.1:0 -b "},  # no host at all
        {
            "HOST": "0.0.0.0",
            "WORKSPACES_ALLOW_OPEN_ACCESS": "true",
            "WORKSPACES_ALLOW_UNSIGNED_JWT": "true",
        },
    ],
    ids=str,
)
def test_the_real_server_refuses_to_be_exposed(tmp_path: Path, variables: dict[str, str]) -> None:
    with web(tmp_path, **variables) as server:
        assert not server.answers()

        assert server.process.wait(DEADLINE_S) == 2
        [line] = [line for line in server.log.splitlines() if "WORKSPACES_" in line]
        assert "127.0.0.1" in line
        assert "Listening at" not in server.log


def test_the_real_server_refuses_a_signing_file_that_others_can_read(tmp_path: Path) -> None:
    file = tmp_path / "keys.pem"
    file.write_text("a key")
    file.chmod(0o644)

    with web(tmp_path, HOST="127.0.0.1", WORKSPACES_ACCESS_KEY_SIGNING_FILE=str(file)) as server:
        assert not server.answers()

        assert server.process.wait(DEADLINE_S) == 2
        [line] = [line for line in server.log.splitlines() if "WORKSPACES_" in line]
        assert line.startswith(f"WORKSPACES_ACCESS_KEY_SIGNING_FILE: {file} cannot be used: others may read")
        assert "(mode 0644): chmod 600 it" in line


def test_the_real_server_refuses_an_exposed_socket_that_it_inherits() -> None:
    with socket.create_server(("0.0.0.0", 0)) as listener:
        number = listener.fileno()
        ended = subprocess.run(
            ["/bin/sh", "-c", LINE],
            cwd=ROOT,
            env=environment(HOST=f"fd://{number} -b 127.0.0.1", PORT="0"),
            pass_fds=[number],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    assert ended.returncode == 2, ended.stderr
    assert "WORKSPACES_AUTH_ENABLED" in ended.stderr


@pytest.mark.parametrize(
    "variables",
    [{"HOST": "127.0.0.1"}, {"HOST": "0.0.0.0", "WORKSPACES_ALLOW_OPEN_ACCESS": "true"}],
    ids=str,
)
def test_the_real_server_answers_where_it_may(tmp_path: Path, variables: dict[str, str]) -> None:
    with web(tmp_path, **variables) as server:
        assert server.answers(), server.log


def test_processes_are_not_offered_by_a_server_that_was_started_in_another_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, database_url: str
) -> None:
    """Without our configuration of gunicorn nothing refuses the address; what listens is looked at itself."""
    monkeypatch.setattr(f"{__name__}.LINE", "exec gunicorn -b 0.0.0.0:${PORT} 'app:create_app()'")
    with web(tmp_path, WORKSPACES_DATABASE_URL=database_url) as server:
        assert server.answers(), server.log

        assert httpx.get(f"{server.url}/apis/jobs/v2/execution-profiles").json() == []


@pytest.mark.parametrize("path", ["/metrics", "/x/metrics"])
def test_no_client_moves_the_root_of_the_paths(tmp_path: Path, path: str) -> None:
    with web(tmp_path, HOST="127.0.0.1") as server:
        assert server.answers(), server.log

        plain = httpx.get(server.url + path)
        for header in ("SCRIPT_NAME", "Script-Name", "PATH_INFO", "Path-Info"):
            moved = httpx.get(server.url + path, headers={header: "/x"})
            assert (moved.status_code, moved.headers["Content-Type"]) == (
                plain.status_code,
                plain.headers["Content-Type"],
            )


def test_a_token_of_100_kb_reaches_the_application(tmp_path: Path) -> None:
    with web(tmp_path, HOST="127.0.0.1") as server:
        assert server.answers(), server.log

        answer = httpx.get(f"{server.url}/nowhere", headers={"Authorization": "Bearer " + "a" * 102_400})

        # The error is the application's, not the server's.
        assert answer.json()["detail"]
        assert answer.headers["Content-Type"] == "application/json"


def test_a_client_whose_upload_was_not_read_loses_no_other_request(tmp_path: Path) -> None:
    with web(tmp_path, HOST="127.0.0.1") as server, httpx.Client(base_url=server.url) as client:
        assert server.answers(), server.log

        refused = client.put("/nowhere", content=b"x" * 2_000_000)

        assert (refused.status_code, refused.headers["Connection"]) == (404, "close")
        assert client.get("/health/live").status_code == 200
