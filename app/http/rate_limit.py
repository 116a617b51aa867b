"""How often one caller may write, counted together by all web processes."""

import time
from math import ceil
from threading import Lock

from limits import parse
from limits.storage import RedisStorage
from limits.strategies import MovingWindowRateLimiter
from redis import ConnectionPool, RedisError

from app.config import Settings
from app.errors import TooManyRequests
from app.logs import get_logger

log = get_logger(__name__)

_WRITES = frozenset({"POST", "PUT", "PATCH", "DELETE"})
_PATIENCE_S = 0.1  # for a connection, and again for each answer
_REST_S = 5.0  # after Redis failed, nobody asks it for so long


class WriteLimit:
    """Refuses writes beyond `write_rate_limit`. One per process, safe for threads.

    The limit is worth less than an answer: while Redis is down, hung or slow, nobody is refused.
    """

    def __init__(self, settings: Settings) -> None:
        self._limit = parse(settings.write_rate_limit) if settings.write_rate_limit else None
        self._resting_until = 0.0
        self._lock = Lock()
        if self._limit:
            connections = ConnectionPool.from_url(
                settings.broker_url,
                socket_connect_timeout=_PATIENCE_S,
                socket_timeout=_PATIENCE_S,
            )
            storage = RedisStorage(
                settings.broker_url, connection_pool=connections, key_prefix="workspaces:writes"
            )
            self._window = MovingWindowRateLimiter(storage)

    def check(self, who: str, method: str) -> None:
        """Count a request of `who`, if `method` writes. Raises TooManyRequests, and such a request is not counted."""
        if self._limit is None or method not in _WRITES or self._is_resting():
            return
        try:
            if self._window.hit(self._limit, who):
                self._resting_until = 0.0
                return
            free_at = self._window.get_window_stats(self._limit, who).reset_time
        except (RedisError, OSError) as error:
            self._resting_until = time.monotonic() + _REST_S
            log.warning("write_limit.suspended", error=type(error).__name__, for_s=_REST_S)
            return
        wait_s = max(1, ceil(free_at - time.time()))
        raise TooManyRequests(
            f"More writes than {self._limit} are refused; try again in {wait_s} s.",
            retry_after_seconds=wait_s,
        )

    def _is_resting(self) -> bool:
        with self._lock:
            now = time.monotonic()
            if now < self._resting_until:
                return True
            if self._resting_until:
                # One request finds out whether Redis is back; meanwhile the others still pass.
                self._resting_until = now + _REST_S
            return False
