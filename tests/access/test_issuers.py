"""Issuers that answer late, wrongly or not at all, and the cached keys meanwhile."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import jwt
import pytest

from app.access.issuers import Issuer
from app.access.tokens import Tokens
from app.config import Settings
from app.errors import Busy
from tests.support.deadlines import DEADLINE_S
from tests.support.issuer import AUDIENCE, LocalIssuer, ec_key, rsa_key

COOLDOWN_S, LIFETIME_S = 10, 300


class Clock:
    """A clock that the tests set."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def server() -> Iterator[LocalIssuer]:
    with LocalIssuer() as one:
        yield one


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def meet(settings: Settings, clock: Clock) -> Callable[..., Issuer]:
    """Make an `Issuer` for a server."""
    settings = settings.model_copy(
        update={"jwks_cache_seconds": LIFETIME_S, "jwks_cooldown_seconds": COOLDOWN_S}
    )
    return lambda server, **more: Issuer(server.url, settings, monotonic=clock, **more)


def test_the_keys_may_be_where_the_settings_say(meet: Callable[..., Issuer], server: LocalIssuer) -> None:
    """Then it needs no discovery document, which is what the setting is for."""
    server.document_overrides = {"issuer": "https://somebody-else.example"}
    issuer = meet(server, jwks_uri=f"{server.url}/keys")

    assert issuer.key("rsa-1") is not None
    assert server.hits == {"/keys": 1}


def test_where_the_keys_are_holds_also_for_a_main_issuer_that_is_named_among_the_others(
    settings: Settings, server: LocalIssuer
) -> None:
    server.document_overrides = {"issuer": "https://somebody-else.example"}
    settings = settings.model_copy(
        update={
            "oidc_issuer": server.url,
            "oidc_jwks_uri": f"{server.url}/keys",
            "oidc_additional_issuers": ("https://other.example", server.url),
        }
    )

    assert Tokens(settings).issuers[server.url].key("rsa-1") is not None


def test_keys_are_asked_for_once_in_their_life(
    meet: Callable[..., Issuer], server: LocalIssuer, clock: Clock
) -> None:
    issuer = meet(server)

    for _ in range(5):
        assert issuer.key("rsa-1")
        assert issuer.key("ec-1")
    assert server.hits["/keys"] == 1

    clock.now += LIFETIME_S
    assert issuer.key("rsa-1")
    assert server.hits["/keys"] == 2


def test_a_withdrawn_key_ends_with_the_life_of_the_cache(
    meet: Callable[..., Issuer], server: LocalIssuer, clock: Clock
) -> None:
    issuer = meet(server)
    assert issuer.key("rsa-1")

    server.keys = [rsa_key("rsa-2")]
    clock.now += LIFETIME_S - 1
    assert issuer.key("rsa-1")
    clock.now += 1

    assert issuer.key("rsa-1") is None
    assert issuer.key("rsa-2")


ODD_KEYS = [
    {"kty": "oct", "kid": "x"},
    {"kty": "oct", "kid": "x", "k": "AAAA", "alg": "none"},
    {"kty": "oct", "kid": "x", "k": "AAAA", "alg": "HS256"},
    {"kty": "OKP", "kid": "x", "crv": "X448", "x": "AAAA"},
    {"kty": "OKP", "kid": "x"},
    {"kty": "AKP", "kid": "x", "alg": "ML-DSA-44", "pub": "AAAA"},
    {"kty": "EC", "kid": "x", "crv": "P-0"},
    {"kty": "RSA", "kid": "x", "n": 1, "e": []},
    {"kty": ["RSA"], "kid": "x"},
    {"kty": None, "kid": "x", "alg": {}},
    {"kid": "x"},
    {"kty": "RSA", "kid": 7},
    ["RSA"],
    "RSA",
    None,
    {},
]


@pytest.mark.parametrize("odd", ODD_KEYS, ids=str)
def test_a_key_of_another_sort_does_not_keep_the_others_from_being_renewed(
    meet: Callable[..., Issuer], server: LocalIssuer, clock: Clock, odd: Any
) -> None:
    issuer = meet(server)
    assert issuer.key("rsa-1")

    server.keys, server.extra_jwks = [rsa_key("rsa-2")], [odd]
    clock.now += LIFETIME_S

    assert issuer.key("rsa-2")
    assert issuer.key("rsa-1") is None
    assert issuer.key("x") is None


@pytest.mark.parametrize("raised", [KeyError("k"), NotImplementedError(), OverflowError(), RuntimeError()])
def test_whatever_the_library_raises_about_one_key_concerns_only_that_one(
    meet: Callable[..., Issuer], server: LocalIssuer, monkeypatch: pytest.MonkeyPatch, raised: Exception
) -> None:
    parse = jwt.PyJWK.from_dict

    def from_dict(published: dict[str, Any]) -> jwt.PyJWK:
        if published["kid"] == "odd":
            raise raised
        return parse(published)

    monkeypatch.setattr(jwt.PyJWK, "from_dict", from_dict)
    server.extra_jwks = [{"kid": "odd"}]

    assert meet(server).key("rsa-1")


def test_an_issuer_elsewhere_does_not_send_us_to_servers_of_this_machine(
    settings: Settings, server: LocalIssuer, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = "https://login.example.com"
    document = {"issuer": elsewhere, "jwks_uri": f"{server.url}/keys"}
    monkeypatch.setattr(Issuer, "_fetch_document", lambda _: document)
    issuer = Issuer(elsewhere, settings, monotonic=clock)

    with pytest.raises(Busy):
        issuer.key("rsa-1")
    assert server.hits == {}


def test_an_issuer_that_withdraws_every_key_is_believed(
    meet: Callable[..., Issuer], server: LocalIssuer, clock: Clock
) -> None:
    issuer = meet(server)
    assert issuer.key("rsa-1")

    server.keys = []
    clock.now += LIFETIME_S

    assert issuer.key("rsa-1") is None


def test_keys_of_an_issuer_that_is_away_stay_good_for_a_day(
    meet: Callable[..., Issuer], server: LocalIssuer, clock: Clock
) -> None:
    """No longer: an attacker who blocks the issuer must not keep a withdrawn key valid for ever."""
    issuer = meet(server)
    assert issuer.key("rsa-1")

    server.stop()

    clock.now += 24 * 3600 - 1
    assert issuer.key("rsa-1")
    clock.now += COOLDOWN_S
    with pytest.raises(Busy):
        issuer.key("rsa-1")


def test_unknown_keys_cost_the_issuer_one_request_per_cooldown(
    meet: Callable[..., Issuer], server: LocalIssuer, clock: Clock
) -> None:
    issuer = meet(server)

    for cooldown in range(3):
        for number in range(20):
            assert issuer.key(f"no-{cooldown}-{number}") is None
        assert server.hits["/keys"] == cooldown + 1
        clock.now += COOLDOWN_S


def test_a_rotated_key_is_found_after_the_cooldown(
    meet: Callable[..., Issuer], server: LocalIssuer, clock: Clock
) -> None:
    issuer = meet(server)
    assert issuer.key("rsa-2") is None

    server.keys.append(rsa_key("rsa-2"))
    clock.now += COOLDOWN_S

    assert issuer.key("rsa-2")


@pytest.mark.parametrize(
    "entry",
    [
        7,
        None,
        [],
        {},
        {"kid": "x"},
        {"kty": ["RSA"], "kid": "x"},
        {"kty": "RSA", "kid": "x", "alg": ["RS256"], "n": "AQAB", "e": "AQAB"},
        {"kty": "RSA", "kid": "x", "alg": {"a": 1}},
        {"kty": "RSA", "kid": "x", "n": 5, "e": []},
        {"kty": "RSA", "kid": ["x"], "n": "!", "e": "AQAB"},
        {"kty": "EC", "kid": "x", "crv": "P-256", "x": "AQAB", "y": "AQAB"},
        {"kty": "EC", "kid": "x", "crv": ["P-256"]},
        {"kty": "OKP", "kid": "x", "crv": "Ed25519", "x": 1},
        {"kty": "oct", "kid": "x", "k": "c2VjcmV0" * 8},
        # A key is another one in each run, and so cannot name its case.
        pytest.param(rsa_key("x").jwk | {"use": "enc"}, id="for encryption"),
        pytest.param(rsa_key("x").jwk | {"alg": "RS512"}, id="for RS512"),
        pytest.param(rsa_key("x", bits=1024).jwk, id="of 1024 bits"),
    ],
    ids=lambda entry: str(entry)[:60],
)
def test_an_entry_that_is_no_key_spoils_none(
    meet: Callable[..., Issuer], server: LocalIssuer, entry: Any
) -> None:
    server.extra_jwks = [entry]
    issuer = meet(server)

    assert issuer.key("rsa-1")
    assert issuer.key("ec-1")
    assert issuer.key("x") is None


BROKEN_ANSWERS: dict[str, bytes] = {
    "no HTTP": b"rubbish\r\n\r\n",
    "nothing": b"\r\n",
    "cut off": b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n{",
    "cut off in a chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\n{",
    "no JSON": b"HTTP/1.1 200 OK\r\n\r\n<html>",
    "no object": b"HTTP/1.1 200 OK\r\n\r\n[]",
    "no text": b"HTTP/1.1 200 OK\r\n\r\n\xff\xfe\xfd",
    "nested without end": b"HTTP/1.1 200 OK\r\n\r\n" + b"[" * 200_000,
    "without end": b"HTTP/1.1 200 OK\r\n\r\n" + b" " * 3_000_000 + b"{}",
    "an error": b"HTTP/1.1 503 Busy\r\n\r\n{}",
}


@pytest.mark.parametrize("answer", BROKEN_ANSWERS.values(), ids=BROKEN_ANSWERS.keys())
def test_a_broken_answer_is_none(
    meet: Callable[..., Issuer], server: LocalIssuer, clock: Clock, answer: bytes
) -> None:
    fresh, knowing = meet(server), meet(server)
    assert knowing.key("rsa-1")

    server.raw = answer
    clock.now += LIFETIME_S

    assert knowing.key("rsa-1")
    assert fresh.document() == {}
    with pytest.raises(Busy):
        fresh.key("rsa-1")


@pytest.mark.parametrize("answer", [{"keys": {"a": 1}}, {"error": "x"}, {"keys": None}])
def test_an_answer_without_a_list_of_keys_withdraws_none(
    meet: Callable[..., Issuer], server: LocalIssuer, clock: Clock, answer: dict[str, Any]
) -> None:
    issuer = meet(server)
    assert issuer.key("rsa-1")

    server.keys_answer = answer
    clock.now += LIFETIME_S

    assert issuer.key("rsa-1")


def test_an_endless_answer_is_none(meet: Callable[..., Issuer], server: LocalIssuer) -> None:
    server.extra_jwks = ["x" * 2_000_000]

    with pytest.raises(Busy):
        meet(server).key("rsa-1")


def test_an_issuer_is_not_followed_elsewhere(meet: Callable[..., Issuer], server: LocalIssuer) -> None:
    with LocalIssuer() as elsewhere:
        server.raw = f"HTTP/1.1 302 Found\r\nLocation: {elsewhere.url}/keys\r\n\r\n".encode()

        with pytest.raises(Busy):
            meet(server, jwks_uri=f"{server.url}/keys").key("rsa-1")

        assert elsewhere.hits == {}


@pytest.mark.parametrize("uri", ["http://keys.example/", "ftp://127.0.0.1/", "", None, 7, "http://[", "//x"])
def test_keys_are_fetched_only_over_https_or_from_this_host(
    meet: Callable[..., Issuer], server: LocalIssuer, uri: Any
) -> None:
    server.document_overrides = {"jwks_uri": uri}

    with pytest.raises(Busy):
        meet(server).key("rsa-1")


def test_keys_are_not_read_from_files(
    meet: Callable[..., Issuer], server: LocalIssuer, tmp_path: Path
) -> None:
    (tmp_path / "keys").write_text(json.dumps({"keys": [rsa_key("rsa-1").jwk]}))
    server.document_overrides = {"jwks_uri": (tmp_path / "keys").as_uri()}

    with pytest.raises(Busy):
        meet(server).key("rsa-1")


def test_nobody_with_a_known_key_waits_for_a_silent_issuer(
    meet: Callable[..., Issuer], server: LocalIssuer, clock: Clock
) -> None:
    """One thread at a time fetches; all others use the cached keys."""
    issuer = meet(server)
    assert issuer.key("rsa-1")
    asked_before = server.hits.total()
    clock.now += LIFETIME_S
    server.silent.set()

    with ThreadPoolExecutor(1) as asking:
        first = asking.submit(issuer.key, "rsa-1")
        wait_until(lambda: server.hits.total() > asked_before)
        others = [issuer.key("ec-1") for _ in range(20)]
        unknown = [issuer.key(f"no-{number}") for number in range(20)]
        is_first_still_waiting = not first.done()
        server.silent.clear()

        assert first.result(timeout=DEADLINE_S)
    assert is_first_still_waiting
    assert all(others)
    assert unknown == [None] * 20
    assert server.hits.total() == asked_before + 2


@pytest.mark.parametrize("part", ["header", "body"])
def test_a_trickling_issuer_is_given_up(
    meet: Callable[..., Issuer], server: LocalIssuer, part: Literal["header", "body"]
) -> None:
    server.trickling = part
    with pytest.raises(Busy):
        meet(server).key("rsa-1")
    assert not server.was_waited_for


def test_many_who_come_first_together_ask_once(meet: Callable[..., Issuer], server: LocalIssuer) -> None:
    issuer, start = meet(server), threading.Barrier(8)

    def ask(_: int) -> object:
        start.wait()
        return issuer.key("rsa-1")

    with ThreadPoolExecutor(8) as together:
        assert all(together.map(ask, range(8)))
    assert server.hits["/keys"] == 1


def wait_until(is_so: Callable[[], bool], *, within_s: float = DEADLINE_S) -> None:
    deadline = time.monotonic() + within_s
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.mark.parametrize("key", [rsa_key("rsa-1"), ec_key("ec-1")], ids=lambda key: key.algorithm)
def test_the_issuer_of_these_tests_signs_with_what_it_publishes(key, server: LocalIssuer, meet) -> None:
    claims = jwt.decode(server.token(key=key), meet(server).key(key.kid), audience=AUDIENCE)

    assert claims["sub"] == "ann"
