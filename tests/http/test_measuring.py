"""Requests are measured by route, method and status."""

import re

import pytest
from flask.testing import FlaskClient

WORKSPACES = "/apis/entities/v2/workspaces"
COUNT = "workspaces_http_request_duration_seconds_count"


def counted(client: FlaskClient) -> dict[str, float]:
    found = re.findall(rf"^{COUNT}{{(.*)}} (\S+)$", client.get("/metrics").text, re.MULTILINE)
    return {labels: float(number) for labels, number in found}


def series(method: str, route: str, code: int) -> str:
    return f'code="{code}",method="{method}",route="{route}"'


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("GET", f"{WORKSPACES}/default", ("GET", f"{WORKSPACES}/<workspace>", 200)),
        ("GET", f"{WORKSPACES}/nobody", ("GET", f"{WORKSPACES}/<workspace>", 404)),
        ("POST", WORKSPACES, ("POST", WORKSPACES, 422)),
        ("GET", "/nowhere/at/all", ("", "none", 404)),
        ("BREW", "/coffee", ("", "none", 404)),
        ("BREW", WORKSPACES, ("", "none", 405)),
    ],
)
def test_a_request_is_counted_under_its_route(
    client: FlaskClient, method: str, path: str, expected: tuple[str, str, int]
) -> None:
    before = counted(client)

    client.open(path, method=method)

    grown = {labels for labels, number in counted(client).items() if number > before.get(labels, 0)}
    assert grown - {series("GET", "/metrics", 200)} == {series(*expected)}


def test_an_error_of_the_server_is_counted_as_such(
    client: FlaskClient, app, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(**_: object) -> None:
        raise RuntimeError("a bug")

    [endpoint] = [rule.endpoint for rule in app.url_map.iter_rules() if rule.rule == "/cluster-info"]
    monkeypatch.setitem(app.view_functions, endpoint, fail)
    before = counted(client).get(series("GET", "/cluster-info", 500), 0)

    assert client.get("/cluster-info").status_code == 500

    assert counted(client)[series("GET", "/cluster-info", 500)] == before + 1


def test_a_request_is_in_progress_until_its_answer_is_made(client: FlaskClient) -> None:
    for path in ("/cluster-info", "/nowhere", f"{WORKSPACES}/nobody"):
        client.get(path)

    # The one that asks.
    assert "\nworkspaces_http_requests_in_progress 1.0\n" in client.get("/metrics").text
