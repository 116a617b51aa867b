"""A limit on concurrent transfers of files, which leaves threads for all other requests."""

from collections.abc import Callable
from threading import Lock

from flask import Response

from app.errors import Busy


class Transfers:
    """Counts the uploads, the downloads, the large lists and the other requests to the store of this process.

    Each occupies a thread for as long as its client or the store takes.

    The server sets `limit` from its number of threads; without a limit nothing is refused.
    """

    def __init__(self) -> None:
        self.limit: int | None = None
        self._lock = Lock()
        self._under_way = 0

    def counted(self, answer: Callable[[], Response]) -> Response:
        """The response of `answer`, counted as a transfer until it is sent. Raises Busy at the limit."""
        with self._lock:
            if self.limit is not None and self._under_way >= self.limit:
                raise Busy(f"{self._under_way} other requests are busy with files or large lists; try again.")
            self._under_way += 1
        try:
            response = answer()
        except BaseException:
            self._end()
            raise
        response.call_on_close(self._end)
        return response

    def _end(self) -> None:
        with self._lock:
            self._under_way -= 1
