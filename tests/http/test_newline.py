"""Every JSON answer ends its line, so that a terminal shows the next prompt below it."""

import pytest
from flask.testing import FlaskClient

BASE = "/apis/entities/v2/workspaces"


@pytest.mark.parametrize(
    "path",
    [
        "/cluster-info",
        "/health/live",
        "/status",
        "/openapi.json",
        "/apis/auth/discovery",
        BASE,
        f"{BASE}/default",
        f"{BASE}/none-of-this-name",
        "/no/such/route",
        f"{BASE}?page_size=x",
        "/apis/files/v2/workspaces/default/filesets/notes/files",
    ],
)
def test_json_ends_with_one_newline_that_its_length_counts(client: FlaskClient, path: str) -> None:
    client.post("/apis/files/v2/workspaces/default/filesets", json={"name": "notes"})

    answer = client.get(path)

    assert answer.mimetype == "application/json"
    assert answer.data.endswith(b"\n")
    assert not answer.data.endswith(b"\n\n")
    assert answer.content_length in {None, len(answer.data)}


def test_what_a_write_answers_ends_with_a_newline(client: FlaskClient) -> None:
    made = client.post(BASE, json={"name": "ml-team"})
    gone = client.delete(f"{BASE}/ml-team")

    assert [made.data[-1:], gone.data[-1:]] == [b"\n", b"\n"]
