"""How commands ask a server: whose token they send, to whom, and what they say when nobody answers."""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from app.cli import main
from tests.support.serving import serving

Answer = tuple[int, dict[str, str], bytes]


@pytest.fixture
def answering() -> Iterator[Callable[..., tuple[str, list[Any]]]]:
    """Makes a server that gives these answers, the last one again and again; its address, and the headers it got."""

    def make(*answers: Answer) -> tuple[str, list[Any]]:
        left, seen = list(answers), []

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                seen.append(self.headers)
                status, headers, body = left.pop(0) if len(left) > 1 else left[0]
                self.send_response(status)
                for name, value in {"Content-Length": str(len(body)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_PUT = answer  # noqa: N815 -- the names of http.server

            def log_message(self, *_: Any) -> None:
                pass

        server = HTTPServer(("127.0.0.1", 0), Handler)
        servers.enter_context(serving(server))
        return f"http://127.0.0.1:{server.server_port}", seen

    with ExitStack() as servers:
        yield make


@pytest.fixture(autouse=True)
def no_token(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


def status(url: str) -> Result:
    return CliRunner().invoke(main, ["cleanup", "status", "-o", "json", "--server", url])


PAUSED = (200, {}, b'{"paused": true}')


def test_the_token_comes_from_the_environment_or_from_a_file(
    answering: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    url, seen = answering(PAUSED)
    by_default, named = tmp_path / "config" / "workspaces" / "token", tmp_path / "named"
    by_default.parent.mkdir(parents=True)
    for file, token in ((by_default, "by-default\n"), (named, "named\n")):
        file.touch(mode=0o600)
        file.write_text(token)

    assert status(url).exit_code == 0
    monkeypatch.setenv("WORKSPACES_TOKEN_FILE", str(named))
    assert status(url).exit_code == 0
    monkeypatch.setenv("WORKSPACES_TOKEN", "of-the-environment")
    assert status(url).exit_code == 0

    sent = [headers["Authorization"] for headers in seen]
    assert sent == ["Bearer by-default", "Bearer named", "Bearer of-the-environment"]


def test_without_a_token_none_is_sent(answering: Callable[..., Any]) -> None:
    url, seen = answering(PAUSED)

    assert status(url).exit_code == 0
    assert [headers["Authorization"] for headers in seen] == [None]


@pytest.mark.parametrize(("mode", "complaint"), [(0o640, "chmod 600"), (None, "is not there")])
def test_a_token_that_others_can_read_or_that_is_not_there_is_not_used(
    answering: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    mode: int | None,
    complaint: str,
) -> None:
    url, seen = answering(PAUSED)
    file = tmp_path / "token"
    if mode is not None:
        file.write_text("secret")
        file.chmod(mode)
    monkeypatch.setenv("WORKSPACES_TOKEN_FILE", str(file))

    result = status(url)

    assert (result.exit_code, seen) == (2, [])
    assert complaint in result.stderr
    assert "secret" not in result.stderr


def test_no_option_takes_a_token() -> None:
    """All users of a machine can read the arguments of a program."""
    result = CliRunner().invoke(main, ["cleanup", "status", "--help"])

    assert "WORKSPACES_TOKEN" in result.output
    assert "--token" not in result.output


def test_a_token_follows_no_redirect(answering: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere, seen = answering(PAUSED)
    url, _ = answering((307, {"Location": elsewhere}, b""))
    monkeypatch.setenv("WORKSPACES_TOKEN", "secret")

    result = status(url)

    assert (result.exit_code, seen) == (1, [])
    assert "is --server right?" in result.stderr


@pytest.mark.parametrize(
    ("answer", "exit_code", "complaint"),
    [
        ((401, {}, b'{"detail": "Unauthorized"}'), 3, "Unauthorized; put a token into WORKSPACES_TOKEN"),
        ((403, {}, b'{"detail": "Forbidden"}'), 3, "Forbidden"),
        ((404, {}, b'{"detail": "gone \\u001b[31m"}'), 4, "gone \\x1b[31m"),
        ((409, {}, b'{"detail": "not now"}'), 1, "not now"),
        ((422, {}, b'{"detail": [{"loc": ["body", "a", 0], "msg": "too long"}]}'), 2, "a.0: too long"),
        ((502, {}, b"<html>Bad Gateway</html>"), 1, "answers 502, and not as Workspaces does"),
        ((200, {}, b"<html>Hello</html>"), 1, "answers 200, and not as Workspaces does"),
        ((500, {}, b"[1]"), 1, "answers 500, and not as Workspaces does"),
    ],
)
def test_an_error_is_one_line_and_its_exit_status(
    answering: Callable[..., Any], answer: Answer, exit_code: int, complaint: str
) -> None:
    url, _ = answering(answer)

    result = status(url)

    assert (result.exit_code, result.stdout) == (exit_code, "")
    [line] = result.stderr.splitlines()
    assert line.startswith("Error: ")
    assert complaint in line


def test_a_limit_on_writes_is_waited_for(answering: Callable[..., Any]) -> None:
    url, seen = answering((429, {"Retry-After": "0"}, b'{"detail": "too many"}'), PAUSED)

    result = CliRunner().invoke(main, ["cleanup", "pause", "-o", "name", "--server", url])

    assert (result.exit_code, result.stdout, len(seen)) == (0, "True\n", 2)


def test_a_server_that_is_away_is_one_line_with_the_way_without_it() -> None:
    result = status("http://127.0.0.1:1")

    assert (result.exit_code, result.stdout) == (1, "")
    [line] = result.stderr.splitlines()
    assert line.startswith("Error: the server http://127.0.0.1:1 does not answer: ")
    assert "--direct" in line


@pytest.mark.parametrize("number", [200, 409, 500])
def test_an_answer_that_is_cut_off_is_one_line(answering: Callable[..., Any], number: int) -> None:
    url, _ = answering((number, {"Content-Length": "900"}, b'{"detail": "not now"}'))

    result = status(url)

    assert (result.exit_code, result.stdout) == (1, "")
    [line] = result.stderr.splitlines()
    assert line.startswith(f"Error: the server {url} does not answer: IncompleteRead(")


@pytest.mark.parametrize("url", ["localhost:8080", "ftp://host", "http://ann:secret@host", "http://"])
def test_what_is_not_the_address_of_a_server_is_refused(url: str) -> None:
    result = status(url)

    assert result.exit_code == 2
    assert "--server must be" in result.stderr
    assert "secret" not in result.stderr


def test_the_server_is_that_of_the_environment_unless_one_is_named(
    answering: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    url, seen = answering(PAUSED)
    monkeypatch.setenv("WORKSPACES_SERVER", url)

    assert CliRunner().invoke(main, ["cleanup", "status", "-o", "name"]).stdout == "True\n"
    assert len(seen) == 1
    assert os.environ["WORKSPACES_SERVER"] == url
