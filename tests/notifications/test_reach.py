"""What a webhook may reach, and for how long: no private address, no redirect, and no receiver that trickles."""

import socket
import threading
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler

import pytest

from app.notifications import addresses
from app.notifications.addresses import find_addresses, is_public
from app.notifications.attempt import AttemptFailed
from app.notifications.webhook import post
from tests import factories
from tests.notifications.certificate import server_tls
from tests.notifications.conftest import deliveries, with_settings
from tests.notifications.receiver import free_port, receiving

PRIVATE = (
    *(
        "127.0.0.1",
        "127.8.8.8",
        "10.0.0.1",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "0.0.0.0",
    ),
    *("224.0.0.1", "255.255.255.255", "240.0.0.1", "198.18.0.1"),
    *("::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1", "fd12::1", "fec0::1", "ff02::1"),
    *("::ffff:127.0.0.1", "::ffff:169.254.169.254", "::ffff:a00:1"),
    *("64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "2002:7f00:1::", "2002:a00:1::1"),
)


@pytest.fixture
def short(context):
    """Settings with a short budget."""
    return with_settings(context, webhook_timeout_seconds=0.5).settings


@pytest.mark.parametrize("address", PRIVATE)
def test_an_address_of_the_own_network_is_private(address):
    assert not is_public(address)


@pytest.mark.parametrize(
    "address", ["8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808", "2002:808:808::1"]
)
def test_an_address_of_the_internet_is_public(address):
    assert is_public(address)


def test_a_private_address_is_refused_unless_the_settings_allow_it(
    session, context, receiver, subscribe, delete, send
):
    factories.make_workspace(session)
    session.commit()
    ours = subscribe(receiver.url)
    delete("ml-team")

    by_default = with_settings(context, webhooks_to_private_addresses=False)
    assert "the receiver's address is private" in send(ours, of=by_default)

    assert receiver.received == []
    assert deliveries(session)[0].error.startswith("the receiver's address is private")


def test_a_name_with_a_private_address_is_refused_too(context, receiver):
    by_default = with_settings(context, webhooks_to_private_addresses=False).settings
    url = receiver.url.replace("127.0.0.1", "localhost")

    with pytest.raises(AttemptFailed, match="private"):
        post(by_default, url, b"{}", {})

    assert receiver.received == []


def test_the_connection_is_made_to_the_address_that_was_looked_at(context, receiver, monkeypatch):
    """DNS rebinding: the name leads elsewhere when it is asked for again."""
    asked: list[str] = []
    real = socket.getaddrinfo

    def once(host, *arguments, **options):
        asked.append(host)
        if host == "rebinding.example":
            if asked.count(host) > 1:
                raise AssertionError("a second search")
            return real("127.0.0.1", *arguments, **options)
        return real(host, *arguments, **options)

    monkeypatch.setattr(addresses.socket, "getaddrinfo", once)
    url = receiver.url.replace("127.0.0.1", "rebinding.example")

    assert post(context.settings, url, b"{}", {}) == 204

    assert asked.count("rebinding.example") == 1
    assert receiver.received[0].headers["host"].startswith("rebinding.example")


def test_of_several_addresses_only_public_ones_are_left(monkeypatch):
    found = [(socket.AF_INET, 1, 6, "", (one, 443)) for one in ("10.0.0.1", "8.8.8.8", "127.0.0.1")]
    monkeypatch.setattr(addresses.socket, "getaddrinfo", lambda *_args, **_options: found)

    assert find_addresses("mixed.example", 443, within_s=5, is_private_allowed=False) == ["8.8.8.8"]


def test_a_search_for_an_address_ends_at_the_budget(short, monkeypatch):
    go_on = threading.Event()
    monkeypatch.setattr(addresses.socket, "getaddrinfo", lambda *_args, **_options: go_on.wait() and [])
    try:
        with pytest.raises(AttemptFailed, match="took too long"):
            post(short, "http://slow.example/", b"{}", {})
    finally:
        go_on.set()


def test_a_host_without_an_address_is_said_so(context, monkeypatch):
    def none(*_arguments, **_options):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(addresses.socket, "getaddrinfo", none)
    with pytest.raises(AttemptFailed, match="the host has no address"):
        post(context.settings, "http://nowhere.example/", b"{}", {})


@pytest.mark.parametrize(
    ("end", "asked"),
    [("", "/"), ("?token=ours", "/?token=ours"), ("//twice?a=//b", "//twice?a=//b"), ("/a;b", "/a;b")],
)
def test_a_receiver_is_asked_for_what_its_url_names(context, receiver, end, asked):
    """Without a path there is a slash all the same: `POST ?token=ours` is no request."""
    found: list[str] = []

    def answer(handler: BaseHTTPRequestHandler) -> None:
        found.append(handler.requestline)
        handler.send_response(204)
        handler.end_headers()

    receiver.answer = answer

    post(context.settings, receiver.url.removesuffix("/hook?of=ours") + end, b"{}", {})

    assert found == [f"POST {asked} HTTP/1.1"]


def test_a_redirect_is_not_followed(context, receiver):
    with receiving() as other:
        receiver.status, receiver.headers = 302, {"Location": other.url}
        with pytest.raises(AttemptFailed, match=r"redirects \(302\), which is not followed") as failed:
            post(context.settings, receiver.url, b"{}", {})

        assert other.received == []
    assert failed.value.code == 302


def test_a_receiver_that_never_answers_ends_at_the_budget(short, receiver):
    go_on = threading.Event()
    receiver.meanwhile = go_on.wait
    try:
        with pytest.raises(AttemptFailed, match=r"no answer within 0\.5 s"):
            post(short, receiver.url, b"{}", {})
    finally:
        go_on.set()


def test_a_receiver_that_trickles_ends_at_the_budget(short, receiver):
    """Each byte comes in time for a time-out that begins anew."""
    ended = threading.Event()

    def trickle(request: BaseHTTPRequestHandler) -> None:
        try:
            request.wfile.write(b"HTTP/1.1 200 OK\r\nX-Endless: ")
            while not ended.wait(0.05):
                request.wfile.write(b"x")
        except OSError:
            ended.set()

    receiver.answer = trickle
    try:
        with pytest.raises(AttemptFailed, match=r"no answer within 0\.5 s"):
            post(short, receiver.url, b"{}", {})
    finally:
        ended.set()


def test_the_body_of_an_answer_is_not_waited_for(short, receiver):
    go_on = threading.Event()

    def endless(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Length", str(2**40))
        request.end_headers()
        go_on.wait()

    receiver.answer = endless
    try:
        assert post(short, receiver.url, b"{}", {}) == 200
    finally:
        go_on.set()


def test_what_is_no_http_is_said_so(context):
    with (
        answering(b"220 smtp.example ESMTP\r\n") as port,
        pytest.raises(AttemptFailed, match="does not speak HTTP"),
    ):
        post(context.settings, f"http://127.0.0.1:{port}/", b"{}", {})


def test_a_handshake_that_never_ends_ends_at_the_budget(short):
    with answering(b"", is_open=True) as port, pytest.raises(AttemptFailed, match=r"no answer within 0\.5 s"):
        post(short, f"https://127.0.0.1:{port}/", b"{}", {})


def test_a_certificate_of_nobody_is_refused(context, tmp_path):
    with answering_with_tls(tmp_path) as port, pytest.raises(AttemptFailed, match="certificate is not valid"):
        post(context.settings, f"https://localhost:{port}/", b"{}", {})


def test_nobody_at_the_port_is_said_so(context):
    with pytest.raises(AttemptFailed, match="refuses connections"):
        post(context.settings, f"http://127.0.0.1:{free_port()}/", b"{}", {})


@contextmanager
def answering(text: bytes, *, is_open: bool = False):
    """A server that says one thing to whoever connects, and closes the connection unless it stays open."""
    opened = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve():
            try:
                connection, _ = server.accept()
            except OSError:
                return
            opened.append(connection)
            connection.sendall(text)
            if not is_open:
                connection.recv(65536)
                connection.close()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield server.getsockname()[1]
        finally:
            thread.join()
            for one in opened:
                one.close()


@contextmanager
def answering_with_tls(directory):
    """The same with TLS, and a certificate that nobody has signed."""
    tls = server_tls(directory / "server.pem")
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve():
            connection, _ = server.accept()
            with connection, suppress(OSError):
                tls.wrap_socket(connection, server_side=True).close()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield server.getsockname()[1]
        thread.join()
