"""The API as commands use it, whichever way it is reached."""

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from app.cli.outcome import Ended, Exit

Item = dict[str, Any]
"""A resource as the API describes it."""

Query = Mapping[str, str | int | float | None]
"""Parameters of a request; those that are None are left out."""

_STATUSES = {
    400: Exit.USAGE,
    401: Exit.NOT_AUTHORISED,
    403: Exit.NOT_AUTHORISED,
    404: Exit.NOT_FOUND,
    422: Exit.USAGE,
}
_AWAY = {429, 502, 503, 504}
"""Answers after which the same request may succeed later."""


class Refused(Ended):
    """The API answered with an error."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message, _STATUSES.get(status, Exit.ERROR))
        self.status = status


class Away(Ended):
    """Nobody answered, or could: the same request may succeed later. It may have been carried out."""


class Api(Protocol):
    """The routes: those of a server, or of this process (`--direct`)."""

    option: str
    """What to add to a command, so that it reaches the same API: nothing, or `--direct`."""

    def ask(self, method: str, path: str, query: Query | None = None, body: Any = None) -> Any:
        """The body of the answer to a request. Raises Refused or Away."""

    def time(self) -> str:
        """The time over there, by which `--as-of` is understood."""


def refused(status: int, detail: Any) -> Ended:
    """The end of a command whose request was answered with that status and `detail`."""
    message = _message(detail)
    return Away(message) if status in _AWAY else Refused(status, message)


def _message(detail: Any) -> str:
    """What a person reads of an error: its text, or of a list of them, the place and the text of each."""
    if not isinstance(detail, list):
        return str(detail)
    return "; ".join(f"{'.'.join(map(str, one['loc'][1:]))}: {one['msg']}" for one in detail)


def items_of(api: Api, path: str, query: Query, *, limit: int, page_size: int) -> Iterator[tuple[Item, int]]:
    """The first `limit` items of a list, each with the number of all, read page by page."""
    page_size = min(page_size, limit)
    left, page = limit, 1
    while left > 0:
        answer = api.ask("GET", path, {**query, "page": page, "page_size": page_size})
        total = answer["pagination"]["total_results"]
        for item in answer["data"][:left]:
            yield item, total
        left -= page_size
        if page >= answer["pagination"]["total_pages"]:
            return
        page += 1
