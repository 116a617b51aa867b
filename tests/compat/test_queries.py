"""What the peer's SDK can ask for: which requests are answered, and each parameter is accepted where it is sent."""

import json
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest
from flask import Flask
from werkzeug.exceptions import HTTPException

from app.api.application import all_routes
from tests.compat.nemo import HERE, Nemo

DOCUMENT = Path(__file__).parents[2] / "docs" / "compatibility.md"

pytestmark = pytest.mark.all_releases


@pytest.fixture
def requests(nemo: Nemo) -> list[tuple[str, str, list[str]]]:
    """Method, path and parameters of every request that the SDK can make."""
    done = nemo.run(HERE / "scripts" / "queries.py")
    assert done.returncode == 0, done.stderr
    return [(method, path, names) for method, path, names in json.loads(done.stdout)]


def endpoint_of(app: Flask, method: str, path: str) -> str | None:
    """The route that answers, None if the request is for a part of the peer that is not ours."""
    try:
        endpoint, _ = app.url_map.bind("").match(path, method)
    except HTTPException:
        return None
    return str(endpoint)


def test_every_parameter_that_the_sdk_can_send_is_accepted(requests, app: Flask) -> None:
    client, refused, asked = app.test_client(), [], set()

    for method, path, names in requests:
        endpoint = endpoint_of(app, method, path)
        if endpoint is None:
            continue
        asked.add(endpoint)
        answer = client.open(path, method=method, query_string=dict.fromkeys(names, "1"), json={})
        errors = answer.json["detail"] if answer.status_code == 422 else []
        refused += [
            f"{method} {path}: {error['loc'][1]}"
            for error in errors
            if isinstance(error, dict) and error["type"] == "extra_forbidden" and error["loc"][0] == "query"
        ]

    assert refused == []
    assert len(asked) > 50, f"only {len(asked)} of {len(all_routes())} routes were asked"


def test_the_document_says_how_many_requests_are_answered(requests, nemo: Nemo, app: Flask) -> None:
    found: dict[str, set[tuple[str, str]]] = defaultdict(set)
    answered: dict[str, set[tuple[str, str]]] = defaultdict(set)
    for method, path, _ in requests:
        service = path.split("/")[2]
        found[service].add((method, path))
        if endpoint_of(app, method, path):
            answered[service].add((method, path))

    said = dict(documented(nemo.programs.release.name))

    assert said == {service: f"{len(answered[service])} of {len(all_)}" for service, all_ in found.items()}


def documented(release: str) -> Iterator[tuple[str, str]]:
    """The column of a release in the table of requests, by service."""
    table = re.search(r"^\| Service \|.*\n\|[-| ]+\n((?:\|.*\n)+)", DOCUMENT.read_text(), re.MULTILINE)
    assert table, "docs/compatibility.md has no table of requests by service"
    header = table[0].splitlines()[0]
    column = [cell.strip() for cell in header.split("|")].index(release)
    for line in table[1].splitlines():
        cells = [cell.strip() for cell in line.split("|")]
        yield cells[1].strip("`"), cells[column]
