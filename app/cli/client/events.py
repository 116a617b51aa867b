"""The history of a deletion, read from its end."""

from app.cli.client.api import Api, Item
from app.cli.client.waiting import DELETIONS

_PAGE = 100


class Events:
    """The events of one deletion, which never change: they only become more."""

    def __init__(self, api: Api, deletion_id: str) -> None:
        self._api, self._path = api, f"{DELETIONS}/{deletion_id}/events"
        self._seen = 0

    def last(self, number: int) -> list[Item]:
        """The last so many, the oldest of them first."""
        first = self._page(1, number)
        pages = first["pagination"]["total_pages"]
        if pages <= 1:
            return list(first["data"])
        before = first if pages == 2 else self._page(pages - 1, number)
        return [*before["data"], *self._page(pages, number)["data"]][-number:]

    def new(self) -> list[Item]:
        """Those that this was not asked for before, a page of them at most."""
        page, known = self._seen // _PAGE + 1, self._seen % _PAGE
        found: list[Item] = self._page(page, _PAGE)["data"][known:]
        self._seen += len(found)
        return found

    def _page(self, page: int, page_size: int) -> Item:
        answer: Item = self._api.ask("GET", self._path, {"page": page, "page_size": page_size})
        return answer
