"""The rate limit of writes per caller, shared by all web processes."""

import time
from math import ceil
from threading import Lock

from limits import parse
from limits.storage import RedisStorage
from limits.strategies import MovingWindowRateLimiter
from redis import ConnectionPool, RedisError

from app.config import Settings
from app.errors import TooManyRequests
from app.logs import explain, get_logger

log = get_logger(__name__)

_WRITES = frozenset({"POST", "PUT", "PATCH", "DELETE"})
_TIMEOUT_S = 0.1  # for a connection, and again for each answer
_PAUSE_S = 5.0  # without requests to Redis after it has failed


class WriteLimit:
    """Refuses writes beyond `write_rate_limit`. One per process, thread-safe.

    Availability comes before the limit: while Redis is down, hung or slow, no write is refused.
    """

    def __init__(self, settings: Settings) -> None:
        self._limit = parse(settings.write_rate_limit) if settings.write_rate_limit else None
        self._paused_until = 0.0
        self._lock = Lock()
        if self._limit:
            connections = ConnectionPool.from_url(
                settings.broker_url,
                socket_connect_timeout=_TIMEOUT_S,
                socket_timeout=_TIMEOUT_S,
            )
            storage = RedisStorage(
                settings.broker_url, connection_pool=connections, key_prefix="workspaces:writes"
            )
            self._window = MovingWindowRateLimiter(storage)

    def check(self, caller: str, method: str) -> None:
        """Count a request of `caller` if `method` writes. Raises TooManyRequests for one that is not counted."""
        if self._limit is None or method not in _WRITES or self._is_paused():
            return
        try:
            if self._window.hit(self._limit, caller):
                self._paused_until = 0.0
                return
            free_at = self._window.get_window_stats(self._limit, caller).reset_time
        except (RedisError, OSError) as error:
            self._paused_until = time.monotonic() + _PAUSE_S
            log.warning("write_limit.suspended", error=explain(error), for_s=_PAUSE_S)
            return
        wait_s = max(1, ceil(free_at - time.time()))
        raise TooManyRequests(
            f"More writes than {self._limit} are refused; try again in {wait_s} s.",
            retry_after_seconds=wait_s,
        )

    def _is_paused(self) -> bool:
        with self._lock:
            now = time.monotonic()
            if now < self._paused_until:
                return True
            if self._paused_until:
                # One request tests whether Redis is back; meanwhile the others pass.
                self._paused_until = now + _PAUSE_S
            return False
