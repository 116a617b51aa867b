"""The value of a secret, searched for in everything that the running product keeps, says and sends."""

import base64
import re
import subprocess
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import redis

from app.api.application import all_routes
from tests.faults.world import QUICK
from tests.support.stack import ALL, Stack

VALUE = "xyzzy-the-value-that-is-nowhere-4711"
FORMS = tuple(
    form.encode() for form in (VALUE, VALUE.encode().hex(), base64.b64encode(VALUE.encode()).decode()[:40])
)
MARK = "plugh-a-description-that-anybody-may-read"
"""Kept, said and sent like a value that is not kept secret: a search that does not find it finds nothing."""
LOGIN = ("ops", "its-password")

W = "/apis/entities/v2/workspaces"
SECRETS = "/apis/secrets/v2/workspaces/hushed/secrets"
JOBS = "/apis/jobs/v2/workspaces/hushed/jobs"
ANN = {"X-NMP-Principal-Id": "ann"}


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    directory = tmp_path_factory.mktemp("secrecy")
    login = {"FLOWER_BASIC_AUTH": ":".join(LOGIN)}
    with Stack(directory, parts=(*ALL, "flower"), environment=login, log_level="DEBUG", **QUICK) as stack:
        use_the_secret(stack)
        yield stack


def use_the_secret(stack: Stack) -> None:
    """Keep it, use it in jobs that end well and badly, send it where it does not belong, and change it."""
    http = stack.client
    http.headers.update(ANN)
    assert http.post(W, json={"name": "hushed"}).status_code == 201
    body = {"name": "token", "value": VALUE, "description": MARK}
    assert http.post(SECRETS, json=body).status_code == 201
    assert http.post(SECRETS, json={"name": "brief", "value": VALUE}).status_code == 201
    assert http.patch(f"{SECRETS}/token", json={"value": VALUE}).status_code == 200
    assert http.get(f"{SECRETS}/token/access").json()["value"] == VALUE
    # It prints that it has the value, and not the value.
    knows = f'test "$(printf %s "$TOKEN" | wc -c)" = {len(VALUE)} && echo "{MARK}"; '
    run(stack, "well", f"{knows} env | cut -d= -f1; echo result > $WORKSPACES_RESULTS_DIR/r", "completed")
    run(stack, "badly", f"{knows} exit 3", "error")
    assert http.post(f"{JOBS}/badly/rerun").status_code == 200
    ended(stack, "badly", "error")
    assert http.get(f"{JOBS}/well/logs").json()["data"][0]["message"] == MARK
    run(stack, "late", "sleep 0.1; true", "error", first="true", then=f"{SECRETS}/brief")
    for body in (
        {"name": "No--Good", "value": VALUE, "description": MARK},
        {"name": "more", "value": [VALUE]},
        {"name": "more", "value": "x", "typo": VALUE},
        {"name": "token", "value": VALUE},
    ):
        answer = http.post(SECRETS, json=body)
        assert answer.status_code in (409, 422)
        assert VALUE not in answer.text
    platform_spec = {"steps": [step("main", "true", "token")], "secrets": [{"name": "s", "value": VALUE}]}
    answer = http.post(JOBS, json={"source": "tests", "spec": {}, "platform_spec": platform_spec})
    assert answer.status_code == 422
    assert VALUE not in answer.text


def step(name: str, script: str, secret: str) -> dict[str, Any]:
    return {
        "name": name,
        "executor": {"provider": "subprocess", "command": ["sh", "-c", script]},
        "environment": [{"name": "TOKEN", "from_secret": {"name": secret}}],
    }


def run(stack: Stack, name: str, script: str, status: str, *, first: str = "", then: str = "") -> None:
    """Run a job to that end; with `then`, that secret is deleted between its first step and the one that needs it."""
    steps = [step("first", f"{first}; while ! [ -e go ]; do sleep 0.05; done", "token")] if first else []
    steps.append(step("main", script, "brief" if then else "token"))
    body = {
        "name": name,
        "source": "tests",
        "spec": {},
        "description": MARK,
        "platform_spec": {"steps": steps},
    }
    made = stack.client.post(JOBS, json=body)
    assert made.status_code == 201, made.text
    if then:
        stack.wait_until(lambda: stack.directories_of(made.json()["id"]), f"{name} has begun")
        assert stack.client.delete(then).status_code == 204
        [directory] = stack.directories_of(made.json()["id"])
        (directory / "go").touch()
    ended(stack, name, status)


def ended(stack: Stack, name: str, status: str) -> None:
    def is_there() -> bool:
        return bool(stack.client.get(f"{JOBS}/{name}").json()["status"] == status)

    stack.wait_until(is_there, f"{name} is {status}")


def has_value(text: str | bytes) -> bool:
    content = text.encode() if isinstance(text, str) else text
    return any(form in content for form in FORMS)


def test_no_dump_of_the_database_has_the_value(stack: Stack) -> None:
    url = stack.database_url.replace("+psycopg", "", 1)
    dump = subprocess.run(
        [stack.postgres.home.binary("pg_dump"), "--inserts", url],
        capture_output=True,
        check=True,
        timeout=120,
    ).stdout

    assert MARK.encode() in dump
    assert not has_value(dump)


def test_no_log_of_a_process_has_the_value(stack: Stack) -> None:
    assert "job" in stack.log("runtime")
    for part in stack.parts:
        assert not has_value(part.log), part.name


def test_no_file_that_is_left_has_the_value(stack: Stack) -> None:
    files = [path for path in stack.data_dir.rglob("*") if path.is_file()]
    assert files
    assert [path for path in files if has_value(path.read_bytes())] == []


def answers(stack: Stack) -> Iterator[tuple[str, str]]:
    """What every GET of the API answers, of the workspace and of the platform; paths and texts."""
    names = {"secrets": ("token",), "jobs": ("well", "badly", "late")}
    for route in all_routes():
        if route.method != "GET" or route.rule.endswith("/access"):
            continue
        kind = (re.findall(r"/(\w+)/<name>", route.rule) or [""])[0]
        for name in names.get(kind, ("job-fileset-well",)):
            path = address(route.rule, workspace="hushed", name=name, step="main", task="main", result="r")
            yield path, stack.client.get(path).text


def address(rule: str, **known: str) -> str:
    return re.sub(r"<(?:\w+:)?(\w+)>", lambda one: known.get(one[1], "results/r"), rule)


def test_no_answer_to_a_get_has_the_value(stack: Stack) -> None:
    found = dict(answers(stack))

    assert MARK in found[SECRETS]
    assert MARK in found[f"{JOBS}/well/logs"]
    assert "token" in found["/apis/auth/v2/audit"]
    assert "'brief'" in found[f"{JOBS}/late"]
    assert [path for path, text in found.items() if has_value(text)] == []


def test_flower_does_not_show_the_value(stack: Stack) -> None:
    def tasks() -> str:
        listed = httpx.get(f"{stack.flower_url}/api/tasks", params={"limit": 5000}, timeout=10, auth=LOGIN)
        return listed.raise_for_status().text

    stack.wait_until(lambda: "workspace.job.run" in tasks(), "Flower shows the jobs")
    assert not has_value(tasks())


def test_no_key_of_the_broker_has_the_value(stack: Stack) -> None:
    with redis.Redis.from_url(stack.broker_url) as broker:
        read = {
            b"string": broker.get,
            b"hash": broker.hgetall,
            b"set": broker.smembers,
            b"list": lambda key: broker.lrange(key, 0, -1),
            b"zset": lambda key: broker.zrange(key, 0, -1),
        }
        kept = {key: repr(read[broker.type(key)](key)) for key in broker.scan_iter()}

    assert kept
    assert not has_value(repr(kept))


def test_a_deletion_wipes_the_secrets_of_its_workspace(stack: Stack) -> None:
    preview = stack.client.get(f"{W}/hushed/deletion-preview").json()
    assert preview["remaining"]["secrets"] == 1

    deletion = stack.client.delete(f"{W}/hushed").json()["deletion_id"]

    def report() -> Any:
        return stack.client.get(f"/apis/entities/v2/deletions/{deletion}").json()

    stack.wait_until(lambda: report()["state"] == "DONE", "the workspace is gone")
    assert report()["deleted"]["secrets"] == 1
    assert stack.client.get(f"{SECRETS}/token/access").status_code == 404
