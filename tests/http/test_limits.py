"""How much of anything a client may send."""

import gc
import io
import json
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from flask.testing import FlaskClient
from pydantic import BaseModel

from app import create_app
from app.api.application import all_routes
from app.config import Settings
from app.context import Context
from app.errors import TooManyRequests
from app.http import rate_limit
from app.http.rate_limit import WriteLimit
from app.storage.marker import KEY
from devstack.processes import free_port
from devstack.servers import EmbeddedValkey
from tests.factories import make_fileset, make_workspace
from tests.support.deadlines import DEADLINE_S
from tests.support.figures import Tell, Within

ENTITIES = "/apis/entities/v2/workspaces/ml-team/entities/note"
FILE = "/apis/files/v2/workspaces/ml-team/filesets/data/-/a"
FILES = "/apis/files/v2/workspaces/ml-team/filesets/data/files"

Configure = Callable[..., FlaskClient]


@pytest.fixture
def configured(context: Context) -> Configure:
    """Makes a client of the product with some settings changed."""

    def configure(**changed: Any) -> FlaskClient:
        # Frozen for everybody else.
        object.__setattr__(context, "settings", context.settings.model_copy(update=changed))
        return create_app(context).test_client()

    return configure


@pytest.fixture(autouse=True)
def _home(session) -> None:
    make_fileset(session, make_workspace(session, "ml-team"), "data")
    session.commit()


# --- JSON


def nested(depth: int, *, opening: str, closing: str) -> str:
    """A body of an entity, itself two levels deep, with so many more inside."""
    return '{"data": {"x": ' + opening * depth + "1" + closing * depth + "}}"


SHAPES = {"arrays": ("[", "]"), "objects": ('{"k":', "}"), "both": ('[{"k":', "}]")}


@pytest.mark.parametrize(("opening", "closing"), SHAPES.values(), ids=SHAPES)
def test_a_body_may_be_nested_as_deeply_as_is_set_and_no_deeper(
    configured: Configure, opening: str, closing: str
) -> None:
    client = configured(max_json_depth=12)
    per_step = opening.count("[") + opening.count("{")

    def post(depth: int) -> Any:
        body = nested(depth // per_step, opening=opening, closing=closing)
        return client.post(ENTITIES, data=body, content_type="application/json")

    assert post(10).status_code == 201
    refused = post(10 + per_step)
    assert refused.status_code == 422
    [error] = refused.json["detail"]
    assert error["loc"] == ["body"]
    assert "more than 12 levels" in error["msg"]


@pytest.mark.parametrize("depth", [199, 200, 201, 300, 1000, 100_000])
@pytest.mark.parametrize(("opening", "closing"), SHAPES.values(), ids=SHAPES)
def test_however_deep_a_body_is_it_is_refused_clearly(
    client: FlaskClient, depth: int, opening: str, closing: str
) -> None:
    body = nested(depth, opening=opening, closing=closing)

    answer = client.post(ENTITIES, data=body, content_type="application/json")

    assert answer.status_code == 422
    assert "more than 64 levels" in answer.json["detail"][0]["msg"]


def test_brackets_in_text_are_no_nesting(client: FlaskClient) -> None:
    assert client.post(ENTITIES, json={"data": {"x": "[" * 1000}}).status_code == 201


def test_a_large_flat_body_is_not_slow(client: FlaskClient, context: Context, tell: Tell) -> None:
    def seconds(lists: int) -> float:
        """Of the processor, which others do not take from us."""
        body = json.dumps({"data": {"x": [[0]] * lists}})
        assert len(body) < context.settings.max_body_bytes
        started = time.process_time()
        answer = client.post(ENTITIES, data=body, content_type="application/json")
        assert answer.status_code == 201
        return time.process_time() - started

    # The garbage collector looks at all that other tests have left, the more often the larger the body.
    gc.disable()
    try:
        small, large = (min(seconds(lists) for _ in range(3)) for lists in (20_000, 200_000))
    finally:
        gc.enable()

    tell(f"{large / small:7.1f} times the processor time for ten times the body")
    assert large < 50 * small, "a hundred times would be the square"


# --- Text


BOUNDED_BY_THE_BODY = {
    "ModelSpec": "kept as one JSON document, which is never compared or indexed",
    "ToolCallConfig": "part of ModelSpec",
    "ExecutorConfig": "kept as one JSON document",
    "PlatformSpec": "kept as one JSON document",
    "StepSpec": "part of PlatformSpec",
    "ContainerExecutor": "part of PlatformSpec",
    "SubprocessExecutor": "part of PlatformSpec",
    "Container": "part of PlatformSpec",
    "Resources": "part of PlatformSpec",
    "Quantities": "part of PlatformSpec",
    "EnvironmentVariable": "part of PlatformSpec",
    "SecretReference": "part of PlatformSpec",
    "Lifecycle": "part of PlatformSpec",
    "FilesetMetadata": "kept as one JSON document",
    "DatasetMetadata": "part of FilesetMetadata",
    "ModelMetadata": "part of FilesetMetadata",
    "ToolCalling": "part of FilesetMetadata",
}
BODIES = {route.body for route in all_routes() if route.body}


def texts(schema: dict[str, Any], place: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every string below a schema, with where it is."""
    if schema.get("type") == "string":
        yield place, schema
    for name, inner in schema.get("properties", {}).items():
        yield from texts(inner, f"{place}.{name}")
    for inner in [*schema.get("anyOf", ()), *filter(None, [schema.get("items")])]:
        yield from texts(inner, place)


def is_bounded(text: dict[str, Any]) -> bool:
    return bool(text.keys() & {"maxLength", "enum", "const", "pattern"}) or text.get("format") in {
        "uuid",
        "date-time",
    }


@pytest.mark.parametrize("body", sorted(BODIES, key=lambda body: body.__name__))
def test_every_text_of_a_body_is_bounded(body: type[BaseModel]) -> None:
    schema = body.model_json_schema()
    models = {body.__name__: schema, **schema.get("$defs", {})}
    endless = [
        place
        for name, model in models.items()
        if name not in BOUNDED_BY_THE_BODY
        for place, text in texts(model, name)
        if not is_bounded(text)
    ]

    assert endless == [], "Give it a max_length (Description, ShortText), or its model a reason in this file."


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/apis/entities/v2/workspaces", {"name": "ab"}),
        ("/apis/entities/v2/workspaces/ml-team/projects", {"name": "ab"}),
    ],
)
def test_a_description_is_a_text_and_not_a_book(client: FlaskClient, path: str, body: dict[str, str]) -> None:
    assert client.post(path, json={**body, "description": "x" * 10_001}).status_code == 422
    assert client.post(path, json={**body, "description": "x" * 10_000}).status_code == 201


def test_page_sizes_are_bounded_everywhere() -> None:
    for route in all_routes():
        for name in ("page", "page_size", "limit"):
            if route.query and name in route.query.model_fields:
                assert "maximum" in route.query.model_json_schema()["properties"][name], (route.rule, name)


# --- Uploads


class Counting(io.BytesIO):
    """A body that knows how much of it was read."""

    def __init__(self, content: bytes) -> None:
        super().__init__(content)
        self.taken = 0

    def read(self, size: int | None = -1) -> bytes:
        part = super().read(size)
        self.taken += len(part)
        return part

    def readinto(self, buffer: Any) -> int:
        taken = super().readinto(buffer)
        self.taken += taken
        return taken


def upload(client: FlaskClient, body: Counting, *, announced: int | None, content_type: str = "") -> Any:
    length = {"CONTENT_LENGTH": str(announced)} if announced is not None else {}
    return client.put(
        FILE,
        environ_overrides={
            "wsgi.input": body,
            "wsgi.input_terminated": True,
            "CONTENT_TYPE": content_type,
            **length,
        },
    )


def nothing_stored(client: FlaskClient, context: Context) -> bool:
    assert client.get(FILES).json == {"data": []}
    stored = {path.name for path in context.settings.data_dir.rglob("*") if path.is_file()}
    return stored <= {KEY}


def test_an_upload_that_announces_too_much_is_refused_unread(configured: Configure, context: Context) -> None:
    client, body = configured(max_upload_bytes=1000), Counting(b"x" * 1001)

    answer = upload(client, body, announced=1001)

    assert answer.status_code == 413
    assert "1000 bytes" in answer.json["detail"]
    assert body.taken == 0
    assert nothing_stored(client, context)


def test_an_upload_that_announces_nothing_is_read_up_to_the_limit(
    configured: Configure, context: Context
) -> None:
    client, body = configured(max_upload_bytes=1000), Counting(b"x" * 50_000_000)

    answer = upload(client, body, announced=None)

    assert answer.status_code == 413
    assert body.taken < 3_000_000
    assert nothing_stored(client, context)


@pytest.mark.parametrize("is_announced", [True, False])
def test_a_form_is_limited_too(configured: Configure, context: Context, is_announced: bool) -> None:
    client = configured(max_upload_bytes=1000)
    form = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n%s\r\n--b--\r\n'
    large, small = form % (b"x" * 1000), form % (b"x" * 100)

    def send(form: bytes) -> Any:
        announced = len(form) if is_announced else None
        return upload(
            client, Counting(form), announced=announced, content_type="multipart/form-data; boundary=b"
        )

    assert send(large).status_code == 413
    assert nothing_stored(client, context)
    assert send(small).json["size"] == 100


def test_an_upload_of_exactly_the_limit_is_taken(configured: Configure) -> None:
    assert configured(max_upload_bytes=1000).put(FILE, data=b"x" * 1000).json["size"] == 1000


def test_a_refused_upload_leaves_the_file_that_was_there(configured: Configure) -> None:
    client = configured(max_upload_bytes=1000)
    client.put(FILE, data=b"old")

    assert upload(client, Counting(b"x" * 2000), announced=None).status_code == 413
    assert client.get(FILE).data == b"old"


def test_without_a_limit_an_upload_may_be_of_any_size(configured: Configure) -> None:
    assert configured(max_upload_bytes=0).put(FILE, data=b"x" * 3_000_000).json["size"] == 3_000_000


# --- Writes


@pytest.fixture(scope="module")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    server = EmbeddedValkey(tmp_path_factory.mktemp("valkey"))
    yield server.start()
    server.kill()
    server.discard()


def limit(url: str, rate: str = "3/minute") -> WriteLimit:
    return WriteLimit(Settings(broker_url=url, write_rate_limit=rate))


def refused(counted: WriteLimit, who: str, method: str = "POST") -> int | None:
    """Seconds to wait; None if the request may pass."""
    try:
        counted.check(who, method)
    except TooManyRequests as error:
        return error.retry_after_seconds
    return None


def test_the_processes_count_together_and_each_caller_apart(redis_url: str) -> None:
    one, other = limit(redis_url), limit(redis_url)

    passed = [
        refused(process, "ann", method)
        for process, method in [(one, "POST"), (other, "PUT"), (one, "DELETE")]
    ]

    assert passed == [None, None, None]
    wait = refused(other, "ann", "PATCH")
    assert wait is not None
    assert 50 <= wait <= 60
    assert refused(other, "bob") is None
    assert refused(other, "ann", "GET") is None
    assert refused(other, "ann", "HEAD") is None


def test_without_a_rate_nothing_is_counted() -> None:
    counted = limit(f"redis://127.0.0.1:{free_port()}", rate="")

    assert [refused(counted, "ann") for _ in range(100)] == [None] * 100


def test_the_api_answers_429_with_retry_after(configured: Configure, redis_url: str) -> None:
    client = configured(write_rate_limit="2/minute", broker_url=redis_url)
    ann = {"X-NMP-Principal-Id": "ann@api"}

    codes = [client.post(ENTITIES, json={"data": {}}, headers=ann).status_code for _ in range(3)]
    last = client.delete(FILE, headers=ann)

    assert codes == [201, 201, 429]
    assert last.status_code == 429
    assert 1 <= int(last.headers["Retry-After"]) <= 60
    assert "2 per 1 minute" in last.json["detail"]
    assert client.get(ENTITIES, headers=ann).status_code == 200


def test_without_a_login_no_name_that_a_client_chooses_is_a_new_caller(
    configured: Configure, redis_url: str
) -> None:
    client = configured(write_rate_limit="2/minute", broker_url=redis_url)
    somewhere = {"REMOTE_ADDR": "127.0.0.7"}

    codes = [
        client.post(
            ENTITIES,
            json={"data": {}},
            headers={"X-NMP-Principal-Id": f"ann-{number}"},
            environ_overrides=somewhere,
        ).status_code
        for number in range(3)
    ]

    assert codes == [201, 201, 429]


@pytest.fixture
def hung() -> Iterator[str]:
    """A Redis that takes connections and never says anything."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"redis://127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture
def down() -> str:
    return f"redis://127.0.0.1:{free_port()}"


@pytest.mark.parametrize("state", ["hung", "down"])
def test_a_write_does_not_wait_for_a_redis_that_fails(
    state: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, within: Within
) -> None:
    counted = limit(request.getfixturevalue(state), rate="1/day")
    monkeypatch.setattr(rate_limit, "_PAUSE_S", 600.0)  # however long this test takes
    asked, hit = [], counted._window.hit
    monkeypatch.setattr(counted._window, "hit", lambda *about: asked.append(about) or hit(*about))

    started = time.monotonic()
    assert [refused(counted, "ann") for _ in range(100)] == [None] * 100

    within(f"a hundred writes while Redis is {state}", time.monotonic() - started, 1)
    assert len(asked) == 1, "Redis is left alone for some seconds after it failed"


def test_counting_goes_on_when_redis_is_back(redis_url: str) -> None:
    counted = limit(redis_url, rate="1/day")
    counted._paused_until = time.monotonic() + 0.05
    assert refused(counted, "eve") is None
    assert refused(counted, "eve") is None

    deadline = time.monotonic() + DEADLINE_S
    while refused(counted, "eve") is None:
        assert time.monotonic() < deadline


def test_one_request_alone_asks_whether_redis_is_back(hung: str) -> None:
    counted = limit(hung)
    refused(counted, "ann")
    counted._paused_until = time.monotonic() - 1  # it has rested long enough

    assert not counted._is_paused()
    assert counted._is_paused()
