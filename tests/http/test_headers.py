"""What every answer carries, whichever it is."""

import io
import json
import re
from base64 import b64encode
from collections.abc import Iterator
from contextlib import redirect_stderr
from hashlib import sha256

import pytest
from flask import Flask, Response, g
from flask.testing import FlaskClient
from structlog.contextvars import get_contextvars

from app.config import Settings
from app.errors import Forbidden, TooManyRequests, Unauthorized
from app.http.error_handlers import register_failures
from app.http.headers import add_headers
from app.logs import configure_logs, get_logger
from tests.factories import make_fileset, make_workspace

ALWAYS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
}
ERRORS = {
    "/anonymous": Unauthorized("Who are you?"),
    "/refused": Forbidden("Not yours."),
    "/often": TooManyRequests("Slow down.", retry_after_seconds=17),
    "/broken": RuntimeError("a path: /srv/secret"),
}


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """The log of the test, one JSON object a line."""
    written = io.StringIO()
    with redirect_stderr(written):
        configure_logs(Settings(log_format="json"))
    yield written
    configure_logs(Settings())


@pytest.fixture
def routes(log: io.StringIO) -> FlaskClient:
    """A route for each error, with our headers and failures."""
    app = Flask("routes")
    register_failures(app)
    add_headers(app)

    def view(**path: str) -> Response:
        get_logger(__name__).info("route.called")
        if error := ERRORS.get(f"/{path['name']}"):
            raise error
        return Response(g.request_id, headers={"Cache-Control": "private"})

    app.add_url_rule("/<name>", view_func=view)
    return app.test_client()


@pytest.mark.parametrize("path", [*ERRORS, "/no/such/path"])
def test_every_answer_carries_them_errors_included(routes: FlaskClient, path: str) -> None:
    answer = routes.get(path)

    assert {name: answer.headers.get(name) for name in ALWAYS} == ALWAYS
    assert re.fullmatch(r"[0-9a-f]{32}", answer.headers["X-Request-Id"])
    assert "/srv" not in answer.text


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/apis/entities/v2/workspaces", 200),
        ("HEAD", "/apis/entities/v2/workspaces", 200),
        ("GET", "/openapi.json", 200),
        ("GET", "/health/live", 200),
        ("GET", "/nowhere", 404),
        ("PATCH", "/apis/entities/v2/workspaces", 405),
        ("POST", "/apis/entities/v2/workspaces", 422),
        ("GET", "/apis/entities/v2/workspaces/", 307),
    ],
)
def test_the_product_answers_with_them(client: FlaskClient, method: str, path: str, status: int) -> None:
    answer = client.open(path, method=method, headers={"X-Request-Id": "from-the-proxy"})

    assert answer.status_code == status
    assert {name: answer.headers.get(name) for name in ALWAYS} == ALWAYS
    assert answer.headers["X-Request-Id"] == "from-the-proxy"


def test_what_a_route_says_itself_stays(routes: FlaskClient) -> None:
    assert routes.get("/well").headers.getlist("Cache-Control") == ["private"]


def test_no_cache_keeps_a_download(client: FlaskClient, session) -> None:
    make_fileset(session, make_workspace(session, "ml-team"), "data")
    session.commit()
    address = "/apis/files/v2/workspaces/ml-team/filesets/data/-/page.html"
    client.put(address, data=b"<script>alert(1)</script>")

    answer = client.get(address)

    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Content-Security-Policy"] == ALWAYS["Content-Security-Policy"]


def test_the_docs_may_show_their_own_style_and_do_nothing_else(client: FlaskClient) -> None:
    answer = client.get("/docs")
    page, policy = answer.text, answer.headers["Content-Security-Policy"]

    [style] = re.findall(r"<style>(.*?)</style>", page, re.DOTALL)
    assert f"style-src 'sha256-{b64encode(sha256(style.encode()).digest()).decode()}'" in policy
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    # What the policy would keep from working.
    assert not re.search(r"<script|<img|<link|<form|<iframe|\sstyle=|\son\w+=|javascript:", page)


# --- The request id


@pytest.mark.parametrize("sent", ["a", "Trace_1.2-3", "x" * 64])
def test_a_sane_request_id_is_kept(routes: FlaskClient, sent: str) -> None:
    answer = routes.get("/well", headers={"X-Request-Id": sent})

    assert (answer.headers["X-Request-Id"], answer.text) == (sent, sent)


@pytest.mark.parametrize("sent", ["", "x" * 65, "a b", "a,b", 'a"b', "é", "<b>", "a;b=c"])
def test_any_other_is_replaced(routes: FlaskClient, sent: str) -> None:
    first, second = (routes.get("/well", headers={"X-Request-Id": sent}).text for _ in range(2))

    assert re.fullmatch(r"[0-9a-f]{32}", first)
    assert first != second


def test_the_log_of_a_request_names_it_and_no_other_line_does(routes: FlaskClient, log: io.StringIO) -> None:
    routes.get("/broken", headers={"X-Request-Id": "mine"})
    get_logger(__name__).info("afterwards")

    lines = [json.loads(line) for line in log.getvalue().splitlines()]
    assert [(line["event"], line.get("request_id")) for line in lines] == [
        ("route.called", "mine"),
        ("request.failed", "mine"),
        ("afterwards", None),
    ]
    assert "request_id" not in get_contextvars()


# --- Headers of single errors


def test_an_unauthorized_answer_says_how_to_authenticate(routes: FlaskClient) -> None:
    answer = routes.get("/anonymous")

    assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, "Bearer")
    assert "WWW-Authenticate" not in routes.get("/refused").headers


def test_too_many_requests_says_when_to_come_back(routes: FlaskClient) -> None:
    answer = routes.get("/often")

    assert (answer.status_code, answer.headers["Retry-After"]) == (429, "17")
