"""What the published description promises, tried with thousands of requests that are made from it."""

import time
from collections import Counter
from functools import cache
from typing import Any
from zlib import crc32

import jwt
import pytest
import schemathesis
from flask import Flask
from hypothesis import HealthCheck, Phase
from hypothesis import settings as hypothesis_settings
from schemathesis.checks import load_all_checks
from schemathesis.generation.feedback import NO_FEEDBACK
from schemathesis.pytest._test_builder import build_operation_test
from schemathesis.specs.openapi.checks import allow_header_conformance

from app.api.application import document
from app.config import Settings
from tests.access.world import World
from tests.support.figures import Tell
from tests.support.people import OPERATOR
from tests.support.search import SEARCHING, examples

CASES_PER_OPERATION = examples(short=2, long=30)
LEAST_CASES = CASES_PER_OPERATION * 65
sent: Counter[str] = Counter()
"""Requests so far: each test is an operation, with many of them."""

load_all_checks()
CONFIG = {
    "checks": {
        # Rules that no schema can state: a filter that parses, a project that exists, a role that counts there.
        "positive_data_acceptance": {"expected-statuses": ["2xx", 400, 401, 403, 404, 409, 422, 503]}
    }
}
# How a bad request is refused does not depend on who sends it: the short form tries those with authentication alone.
ONLY_GOOD = {} if SEARCHING else {"generation": {"mode": "positive"}}


class SwappableApplication:
    """The application under test; another one for each test, because each has a database of its own."""

    app: Flask
    known: dict[str, str]

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Any:
        return self.app.wsgi_app(environ, start_response)


served = SwappableApplication()


@cache
def description(*, asks_who: bool) -> schemathesis.BaseSchema:
    """What is published, ready to make requests from."""
    config = schemathesis.Config.from_dict(CONFIG if asks_who else CONFIG | ONLY_GOOD)
    schema = schemathesis.openapi.from_dict(document(asks_who=asks_who), config=config)
    schema.app = served
    schema.hook(map_path_parameters)
    if asks_who:
        schema.auth()(Operator)
    return schema


class Operator:
    """A platform administrator with a token: everybody else would only ever be refused."""

    def get(self, case: schemathesis.Case, context: schemathesis.AuthContext) -> str:
        now = int(time.time())
        claims = {"sub": "the-operator", "email": OPERATOR, "iat": now, "exp": now + 3600}
        return jwt.encode(claims, None, algorithm="none")

    def set(self, case: schemathesis.Case, data: str, context: schemathesis.AuthContext) -> None:
        case.headers["Authorization"] = f"Bearer {data}"


def map_path_parameters(_: Any, given: dict[str, Any] | None) -> dict[str, Any] | None:
    """Two requests out of three are about what is there; it would be a game of 404s otherwise."""
    return given and {
        name: served.known.get(name, value) if _is_replaced(name, str(value)) else value
        for name, value in given.items()
    }


def _is_replaced(name: str, value: str) -> bool:
    # What is too long is so on purpose, and has to arrive.
    return len(value) < 200 and crc32(f"{name}={value}".encode(errors="replace")) % 3 > 0


thoroughly = hypothesis_settings(
    max_examples=CASES_PER_OPERATION,
    deadline=None,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)


def operations(*, asks_who: bool) -> list[str]:
    """Method and path of each."""
    paths = document(asks_who=asks_who)["paths"]
    return [f"{method.upper()} {path}" for path, methods in paths.items() for method in methods]


IDS_TOO = {f"POST /apis/entities/v2/deletions/{verb}" for verb in ("retry", "skip", "force")}
"""Operations at whose address a GET looks for a deletion with that word as its id, as `Allow` says."""


def try_out(operation: str, how: str, *, asks_who: bool) -> None:
    """Send the requests of one operation.

    They are made here and not by schemathesis's own parametrization, because that makes all of them in every process
    that collects tests.
    """

    excluded = [allow_header_conformance] if operation in IDS_TOO else []

    @thoroughly
    def send(case: schemathesis.Case) -> None:
        sent[how] += 1
        case.call_and_validate(excluded_checks=excluded)

    schema = description(asks_who=asks_who)
    method, path = operation.split(" ")
    build_operation_test(
        config=schema.config,
        operation=schema[path][method],
        test_func=send,
        given_kwargs={},
        feedback=NO_FEEDBACK,
    )()


@pytest.fixture
def serving(app: Flask, world: World) -> None:
    """The application serves `world`; `name` is a job's in the paths of jobs, and so on."""
    served.app = app
    served.known = world.parameters | {"name": "data"}


def enough_were_sent(how: str, tell: Tell) -> None:
    tell(f"{sent[how]:7} requests made from the schema {how}")
    assert sent[how] >= LEAST_CASES, "run the whole class"


class TestWithAuthentication:
    """With a token, or without it where the check is about that."""

    @pytest.fixture
    def settings(self, settings: Settings) -> Settings:
        return settings.model_copy(update={"allow_unsigned_jwt": True})

    @pytest.mark.parametrize("operation", operations(asks_who=True))
    def test_no_request_gets_an_answer_that_is_not_described(self, operation: str, serving: None) -> None:
        try_out(operation, "with authentication", asks_who=True)

    def test_so_many_requests_were_sent(self, tell: Tell) -> None:
        enough_were_sent("with authentication", tell)


@pytest.mark.long  # its requests are the good ones of those with authentication
class TestWithoutAuthentication:
    """As anybody."""

    @pytest.fixture
    def settings(self, settings: Settings) -> Settings:
        return settings.model_copy(update={"auth_enabled": False})

    @pytest.mark.parametrize("operation", operations(asks_who=False))
    def test_no_request_gets_an_answer_that_is_not_described(self, operation: str, serving: None) -> None:
        try_out(operation, "without", asks_who=False)

    def test_so_many_requests_were_sent(self, tell: Tell) -> None:
        enough_were_sent("without", tell)
