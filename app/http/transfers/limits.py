"""Limits on what goes on at the same time in a process, which leave threads for all other requests."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock

from flask import Response, request

from app.errors import Busy, TooManyRequests


class Transfers:
    """Counts the uploads, the downloads, the large lists and the other requests to the store of this process.

    Each occupies a thread for as long as its client or the store takes.

    The server sets `limit` from its number of threads; without a limit nothing is refused. It lets a request wait for
    its place before it takes a thread, and gives the place back itself.
    """

    def __init__(self) -> None:
        self.limit: int | None = None
        self._lock = Lock()
        self._under_way = 0

    def begin(self) -> bool:
        """Count one more, until `end`. False at the limit, where nothing is counted."""
        with self._lock:
            if self.limit is not None and self._under_way >= self.limit:
                return False
            self._under_way += 1
            return True

    def end(self) -> None:
        """Count one less."""
        with self._lock:
            self._under_way -= 1

    def counted(self, answer: Callable[[], Response]) -> Response:
        """The response of `answer`, counted as a transfer until it is sent. Raises Busy at the limit.

        A request to which the server has given a place is not counted again.
        """
        connection = request.environ.get("gunicorn.socket")
        if connection and connection.has_place:
            return answer()
        if not self.begin():
            raise Busy("All places for files and large lists are taken; try again.")
        if connection:
            connection.is_transfer = True
        try:
            response = answer()
        except BaseException:
            self.end()
            raise
        response.call_on_close(self.end)
        return response


class Searches:
    """Counts, for each caller, the searches in documents that this process carries out.

    Each may take the whole time limit of a statement, and the documents have no index.

    The server sets `limit` from its number of threads; without a limit nothing is refused.
    """

    def __init__(self) -> None:
        self.limit: int | None = None
        self._lock = Lock()
        self._under_way: Counter[str] = Counter()

    @contextmanager
    def counted(self, caller: str) -> Iterator[None]:
        """Count a search of `caller` for as long as the block takes. Raises TooManyRequests at the limit."""
        with self._lock:
            if self.limit is not None and self._under_way[caller] >= self.limit:
                raise TooManyRequests(
                    f"{self.limit} of your searches are under way, the most at the same time; try again.",
                    retry_after_seconds=1,
                )
            self._under_way[caller] += 1
        try:
            yield
        finally:
            with self._lock:
                self._under_way -= Counter([caller])  # which also drops what is zero
