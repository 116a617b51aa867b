"""The proxy that stands between the product and its servers while their network fails."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest

from devstack.processes import HOST
from tests.support.deadlines import DEADLINE_S
from tests.support.tcp_proxy import BLACK_HOLE, DROPPED, PASSING, TcpProxy, delayed, in_front_of, truncated

QUESTION, ANSWER = b"question", b"the answer"


def answer_all(listener: socket.socket) -> None:
    with suppress(OSError):  # the test is over
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=answer, args=(connection,), daemon=True).start()


def answer(connection: socket.socket) -> None:
    with connection, suppress(OSError):
        while connection.recv(100):
            connection.sendall(ANSWER)


@pytest.fixture
def proxy() -> Iterator[TcpProxy]:
    with socket.create_server((HOST, 0)) as listener:
        threading.Thread(target=answer_all, args=(listener,), daemon=True).start()
        with in_front_of(listener.getsockname()[1]) as proxy:
            yield proxy
        listener.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def connection(proxy: TcpProxy) -> Iterator[socket.socket]:
    with socket.create_connection((HOST, proxy.port), timeout=DEADLINE_S) as connection:
        assert asked(connection) == ANSWER
        yield connection


def asked(connection: socket.socket) -> bytes:
    connection.sendall(QUESTION)
    return connection.recv(100)


def test_it_drops_connections_and_takes_new_ones_afterwards(
    proxy: TcpProxy, connection: socket.socket
) -> None:
    proxy.suffer(DROPPED)

    with pytest.raises(ConnectionResetError):
        connection.recv(100)
    with socket.create_connection((HOST, proxy.port)) as new, pytest.raises(ConnectionResetError):
        new.recv(100)
    proxy.suffer(PASSING)
    with socket.create_connection((HOST, proxy.port)) as new:
        assert asked(new) == ANSWER


def test_nothing_passes_a_black_hole_until_it_is_over(proxy: TcpProxy, connection: socket.socket) -> None:
    proxy.suffer(BLACK_HOLE)

    connection.sendall(QUESTION)
    with socket.create_connection((HOST, proxy.port)) as new:
        new.sendall(QUESTION)
        for one in (connection, new):
            one.settimeout(0.2)
            with pytest.raises(TimeoutError):
                one.recv(100)
        proxy.suffer(PASSING)
        for one in (connection, new):
            one.settimeout(DEADLINE_S)
            assert one.recv(100) == ANSWER


def test_it_delays_both_ways(proxy: TcpProxy, connection: socket.socket) -> None:
    proxy.suffer(delayed(0.2))
    asked_at = time.monotonic()

    assert asked(connection) == ANSWER
    assert time.monotonic() - asked_at >= 0.4


def test_it_cuts_an_answer_in_half(proxy: TcpProxy) -> None:
    proxy.suffer(truncated(whole_answers=1))

    with socket.create_connection((HOST, proxy.port), timeout=DEADLINE_S) as connection:
        assert asked(connection) == ANSWER
        assert asked(connection) == ANSWER[:5]
        assert connection.recv(100) == b""


def test_a_server_that_is_down_is_seen_as_down() -> None:
    with socket.create_server((HOST, 0)) as listener:
        port = listener.getsockname()[1]
    with (
        in_front_of(port) as proxy,
        socket.create_connection((HOST, proxy.port)) as connection,
        pytest.raises(ConnectionResetError),
    ):
        connection.recv(100)
