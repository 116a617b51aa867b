"""The deletion log: finished deletions, recorded where a restored backup of database and store does not overwrite them.

One file for each deletion, so that two that end at once need no lock: <yyyy-mm>/<workspace id>.<deletion id>.json.
The name says which workspace is gone, so a listing is enough to read the log.
"""

import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Self
from uuid import UUID

from app.storage.blob_store import open_tree
from app.storage.paths import naming_relative_paths
from app.storage.tree import Tree, write_file

_SLACK = timedelta(days=1)
"""How much earlier than the backup a deletion may have been recorded that the backup does not have as finished."""


@dataclass(frozen=True)
class FinishedDeletion:
    """A deletion of which nothing is left but the row that says so. No names: the log outlives its subjects."""

    deletion_id: UUID
    workspace_id: UUID
    requested_at: datetime
    finished_at: datetime


class DeletionLog:
    """The log at one URL. Its methods raise OSErrors."""

    def __init__(self, tree: Tree, root: str) -> None:
        self._tree, self._root = tree, root

    @classmethod
    def open(cls, url: str) -> Self:
        """The log at an fsspec URL. Opens nothing yet, and raises as `BlobStore.open`."""
        return cls(*open_tree(url))

    def relative(self, value: Any) -> Any:
        """`value`; if it is text, without the place of the log: who asked for a deletion reads why it waits."""
        return value.replace(self._root, "deletion log") if isinstance(value, str) else value

    @naming_relative_paths
    def append(self, finished: FinishedDeletion) -> None:
        """Record a deletion durably. One that is recorded twice is one all the same."""
        month = f"{finished.finished_at.astimezone(UTC):%Y-%m}"
        key = f"{month}/{finished.workspace_id}.{finished.deletion_id}.json"
        content = {
            name: value.isoformat() if isinstance(value, datetime) else str(value)
            for name, value in asdict(finished).items()
        }
        write_file(self._tree, key, json.dumps(content).encode())

    def is_empty(self) -> bool:
        """Whether no deletion is recorded: nothing was ever deleted, or this is not the log."""
        return not self._months()

    def read(self, since: datetime | None = None) -> Iterator[tuple[UUID, UUID]]:
        """The ids of workspace and deletion of each record, month by month; from that of `since` on."""
        first = f"{since - _SLACK:%Y-%m}" if since else ""
        for month in self._months():
            if month >= first:
                yield from self._read_month(month)

    def _months(self) -> list[str]:
        return sorted(each.key for each in self._tree.children() if not each.is_file)

    def _read_month(self, month: str) -> Iterator[tuple[UUID, UUID]]:
        for file in self._tree.files(month):
            with suppress(ValueError):  # a file of somebody else
                workspace_id, deletion_id, _ = file.key.rpartition("/")[2].split(".")
                yield UUID(workspace_id), UUID(deletion_id)
