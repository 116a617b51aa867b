"""The transport of Celery's programs, with a broker that fails."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from kombu import Connection

from devstack.servers import EmbeddedValkey
from tests.support.deadlines import DEADLINE_S
from tests.support.tcp_proxy import TcpProxy, in_front_of, truncated


@pytest.fixture(scope="module")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedValkey]:
    valkey = EmbeddedValkey(tmp_path_factory.mktemp("valkey"))
    valkey.start()
    yield valkey
    valkey.discard()


@pytest.fixture
def proxy(valkey: EmbeddedValkey) -> Iterator[TcpProxy]:
    with in_front_of(valkey.port) as proxy:
        yield proxy


@pytest.mark.parametrize("settle", [lambda one: one.ack(), lambda one: one.reject()], ids=["ack", "reject"])
def test_a_message_of_which_the_broker_learns_no_end_occupies_no_place(
    valkey: EmbeddedValkey, proxy: TcpProxy, settle: Callable[[Any], None]
) -> None:
    url = valkey.url.replace(f":{valkey.port}/", f":{proxy.port}/")
    with Connection(url, transport="workers.transport:Transport") as connection:
        channel = connection.channel()
        channel.basic_qos(0, 1, False)
        received: list[Any] = []
        with connection.SimpleQueue("work", channel=channel) as queue:
            queue.put("one")
            received.append(queue.get(timeout=DEADLINE_S))
        assert not channel.qos.can_consume()
        proxy.suffer(truncated())

        with pytest.raises(connection.connection_errors):
            settle(received[0])

        assert channel.qos.can_consume()
