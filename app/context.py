"""What every process of the product holds: settings, database, blob store, and the bell."""

from dataclasses import dataclass
from typing import Self

from app.config import Settings
from app.db import Sessions, connect, sessions_of
from app.dispatch import BackgroundPublisher, TaskPublisher
from app.storage.blob_store import BlobStore


@dataclass(frozen=True)
class Context:
    """Built once per process by its door; passed down, never imported."""

    settings: Settings
    sessions: Sessions
    store: BlobStore
    publisher: TaskPublisher

    @classmethod
    def open(cls, settings: Settings) -> Self:
        """Prepare the connections that `settings` name; nothing is contacted yet."""
        return cls(
            settings=settings,
            sessions=sessions_of(connect(settings)),
            store=BlobStore.open(settings.blob_url),
            publisher=BackgroundPublisher(settings),
        )
