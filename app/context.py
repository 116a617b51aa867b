"""The dependencies of every process: settings, database, blob store and publisher."""

from dataclasses import dataclass
from typing import Self

from app.config import Settings
from app.db import Sessions, connect, sessions_of
from app.dispatch import BackgroundPublisher, TaskPublisher
from app.storage.blob_store import BlobStore


@dataclass(frozen=True)
class Context:
    """Built once by the entry point of a process, and passed down as an argument."""

    settings: Settings
    sessions: Sessions
    store: BlobStore
    publisher: TaskPublisher

    @classmethod
    def open(cls, settings: Settings) -> Self:
        """Prepare the connections that `settings` name; none is opened yet."""
        return cls(
            settings=settings,
            sessions=sessions_of(connect(settings)),
            store=BlobStore.open(settings.blob_url),
            publisher=BackgroundPublisher(settings),
        )
