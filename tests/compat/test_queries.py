"""Each parameter that the peer's SDK can send is accepted where it sends it."""

import json

from flask import Flask
from werkzeug.exceptions import HTTPException

from app.api.application import all_routes
from tests.compat.nemo import HERE, Nemo


def test_every_parameter_that_the_sdk_can_send_is_accepted(nemo: Nemo, app: Flask) -> None:
    done = nemo.run(HERE / "scripts" / "queries.py")
    assert done.returncode == 0, done.stderr
    client, refused, asked = app.test_client(), [], set()

    for method, path, names in json.loads(done.stdout):
        try:
            endpoint, _ = app.url_map.bind("").match(path, method)
        except HTTPException:
            continue  # a part of the peer that is not ours
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
