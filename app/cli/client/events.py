"""The history of a deletion, read from its end."""

from app.cli.client.api import Api, Item
from app.cli.client.waiting import DELETIONS

_PAGE = 100


class Events:
    """The events of one deletion, which never change: they only become more."""

    def __init__(self, api: Api, deletion_id: str) -> None:
        self._api, self._path = api, f"{DELETIONS}/{deletion_id}/events"
        self._after = ""

    def last(self, number: int) -> list[Item]:
        """The last so many, the oldest of them first."""
        first = self._ask(page_size=number)
        pages = first["pagination"]["total_pages"]
        if pages <= 1:
            return list(first["data"])
        before = first if pages == 2 else self._ask(page=pages - 1, page_size=number)
        return [*before["data"], *self._ask(page=pages, page_size=number)["data"]][-number:]

    def new(self) -> list[Item]:
        """Those that this was not asked for before, a page of them at most."""
        answer = self._ask(after=self._after, page_size=_PAGE)
        self._after = answer["after"]
        return list(answer["data"])

    def _ask(self, **query: str | int) -> Item:
        answer: Item = self._api.ask("GET", self._path, query)
        return answer
