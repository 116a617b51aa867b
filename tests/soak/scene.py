"""The product, with a proxy before each of its servers and a clock for each of its programs."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

from app.health.heartbeat import Process
from tests.soak.ledger import Ledger
from tests.support import s3
from tests.support.clocks import Clock
from tests.support.stack import ALL, Part, Stack
from tests.support.stores import Store, keeping
from tests.support.tcp_proxy import TcpProxy, in_front_of

NO_ANSWER = "no answer"
SETTINGS: dict[str, Any] = {
    # The least that is more than what a busy machine makes of it.
    "slice_seconds": 2,
    "item_timeout_seconds": 2,
    "task_soft_limit_seconds": 6,
    "task_hard_limit_seconds": 8,
    "lease_seconds": 10,
    "visibility_timeout_seconds": 20,
    "sweep_seconds": 3,
    "requeue_after_seconds": 3,
    "backoff_base_seconds": 0.2,
    "backoff_cap_seconds": 4,
    "waiting_poll_min_seconds": 0.3,
    "waiting_poll_max_seconds": 2,
    "reattempt_delays_seconds": (5, 10),
    "reattempt_rounds": 100,
    "stop_grace_seconds": 1,
    "deployment_start_seconds": 60,
    "runtime_host": "here",
    # All that is older than ten minutes would go at once in the eyes of the breaker.
    "burst_deletions": 0,
}


@dataclass
class Scene:
    """What faults are inflicted on."""

    stack: Stack
    store: Store
    volume: Path | None
    """Where the files are, unless they are in a bucket."""
    database: TcpProxy
    broker: TcpProxy
    bucket: TcpProxy | None
    clocks: dict[str, Clock]
    ledger: Ledger

    def start(self, name: str, *, wait: bool = True) -> Part:
        """Run one more of the Procfile's `name`, on the other side of the proxies."""
        stack = self.stack
        return stack.start(
            name,
            wait=wait,
            WORKSPACES_DATABASE_URL=_through(self.database, stack.postgres.product_url),
            WORKSPACES_BROKER_URL=_through(self.broker, stack.broker_url),
            **self.clocks[name].environment,
        )

    def first_not_ready(self) -> str:
        """What `/status` names first: "" if all is well, maintenance if only sweeps fail, NO_ANSWER without one."""
        try:
            status = httpx.get(f"{self.stack.api_url}/status", timeout=8).json()
        except (httpx.TransportError, ValueError):
            return NO_ANSWER
        if not_ready := status["services"]["not_ready"]:
            return str(not_ready[0]["name"])
        controllers = status["controllers"]["status"]
        # A deletion may be FAILED until its next attempt.
        does_well = all(well for name, well in controllers.items() if name != "workspace_cleanup_none_failed")
        return "" if does_well else Process.MAINTENANCE


@contextmanager
def setting(kind: str, directory: Path) -> Iterator[Scene]:
    """The running product, with its files on a `disk` or in a `bucket`. Its logs stay in `directory`."""
    with ExitStack() as opened:
        clocks = {name: Clock(directory / "clocks" / name) for name in ALL}
        store = opened.enter_context(keeping(kind, directory))
        environment, bucket = dict(store.environment), None
        if endpoint := environment.get("AWS_ENDPOINT_URL_S3"):
            bucket = opened.enter_context(in_front_of(urlsplit(endpoint).port or 0))
            environment |= s3.environment(_through(bucket, endpoint))
        stack = opened.enter_context(
            Stack(directory / "stack", parts=(), environment=environment, storage_url=store.url, **SETTINGS)
        )
        volume = None if bucket else Path(urlsplit(store.url).path)
        database = opened.enter_context(in_front_of(stack.postgres.port))
        broker = opened.enter_context(in_front_of(stack.valkey.port))
        scene = Scene(stack, store, volume, database, broker, bucket, clocks, Ledger())
        for part in [scene.start(name, wait=False) for name in ALL]:
            stack.wait_until_ready(part)
        yield scene


def _through(proxy: TcpProxy, url: str) -> str:
    return url.replace(f":{urlsplit(url).port}", f":{proxy.port}")
