"""The marker of a store: which store it is, and which database it belongs to."""

import json
from contextlib import suppress
from dataclasses import asdict, dataclass
from uuid import UUID

from app.storage.tree import Tree, write_file

KEY = "workspaces-store.json"
"""Beside the workspaces: whoever may upload may write it. No workspace's id looks like it."""

_MAX_BYTES = 10_000


@dataclass(frozen=True)
class Marker:
    """What a store says of itself."""

    store: str
    """The id that the store was given when it was first used."""
    database: str
    """The database that may destroy what is in it; see `app.store_identity`."""


def read_marker(tree: Tree) -> Marker | None:
    """The marker of the store, or None if it has none. Raises the store's errors."""
    try:
        content = tree.read_start(KEY, _MAX_BYTES)
    except FileNotFoundError:
        return None
    with suppress(ValueError, TypeError, KeyError):
        found = json.loads(content)
        return Marker(str(UUID(found["store"])), str(found["database"]))
    return None


def write_marker(tree: Tree, marker: Marker) -> None:
    """Give the store its marker, durably and at once. Raises the store's errors."""
    write_file(tree, KEY, json.dumps(asdict(marker)).encode())
