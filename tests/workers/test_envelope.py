"""The form of messages that workers accept is that in which our programs send them."""

import base64
import json
from typing import Any

import pytest

from workers.celery_app import celery
from workers.envelope import MalformedMessage, executable


def sent(**options: Any) -> dict[str, Any]:
    """A message as Celery makes it and kombu sends it."""
    task = celery.amqp.as_task_v2("7c1f", "workspace.maintenance.sweep", kwargs={"phase": "x"}, **options)
    return {
        "body": base64.b64encode(json.dumps(task.body).encode()).decode(),
        "content-type": "application/json",
        "content-encoding": "utf-8",
        "headers": {**task.headers, "redelivered": True},
        "properties": {
            **task.properties,
            "delivery_mode": 2,
            "delivery_info": {"exchange": "", "routing_key": "cleanup", "redelivered": True},
            "priority": 0,
            "body_encoding": "base64",
            "delivery_tag": "tag",
        },
    }


@pytest.mark.parametrize("options", [{}, {"expires": 300, "countdown": 5}, {"time_limit": 9, "retries": 3}])
def test_nothing_is_lost_of_a_message_of_ours(options: dict[str, Any]) -> None:
    """A header that a new Celery sends and the form does not know would be."""
    message = sent(**options)

    assert executable(message) == message


def test_a_request_id_that_would_write_into_the_log_is_refused() -> None:
    message = sent()
    message["headers"]["request_id"] = "0190-ab.c_D"
    assert executable(message)["headers"]["request_id"] == "0190-ab.c_D"
    for wrong in ("two words", "line\n", "x" * 65, 7):
        message["headers"]["request_id"] = wrong

        with pytest.raises(MalformedMessage, match="request_id"):
            executable(message)


def test_a_traceparent_that_is_none_is_refused() -> None:
    message = sent()
    message["headers"]["traceparent"] = f"00-{'4b' * 16}-{'0f' * 8}-01"
    assert executable(message)["headers"]["traceparent"] == message["headers"]["traceparent"]
    for wrong in ("00-1-2-01", f"00-{'4b' * 16}-{'0f' * 8}-01\n", 7):
        message["headers"]["traceparent"] = wrong

        with pytest.raises(MalformedMessage, match="traceparent"):
            executable(message)


def test_what_is_wrong_is_named() -> None:
    message = sent()
    message["headers"]["timelimit"] = 1

    with pytest.raises(MalformedMessage, match="timelimit: Input should be a valid list"):
        executable(message)
