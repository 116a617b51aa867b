"""The dependencies of every process: settings, database, blob store, publisher and deletion log."""

from dataclasses import dataclass
from functools import cached_property
from typing import Self

from app.config import Settings
from app.db import Sessions, connect, sessions_of
from app.deletion_log import DeletionLog
from app.dispatch import BackgroundPublisher, TaskPublisher
from app.storage.blob_store import BlobStore
from app.store_identity import StoreIdentity


def open_store(settings: Settings, sessions: Sessions) -> BlobStore:
    """The store that `settings` name, which is used only if the database knows it as its own. Opens nothing yet."""
    identity = StoreIdentity(sessions)
    return BlobStore.open(settings.blob_url, identity=identity, group=settings.storage_group or None)


@dataclass(frozen=True)
class Context:
    """Built once by the entry point of a process, and passed down as an argument."""

    settings: Settings
    sessions: Sessions
    store: BlobStore
    publisher: TaskPublisher

    @cached_property
    def deletion_log(self) -> DeletionLog:
        """The log that the settings name."""
        return DeletionLog.open(self.settings.log_url)

    @classmethod
    def open(cls, settings: Settings) -> Self:
        """Prepare the connections that `settings` name; none is opened yet."""
        sessions = sessions_of(connect(settings))
        context = cls(
            settings=settings,
            sessions=sessions,
            store=open_store(settings, sessions),
            publisher=BackgroundPublisher(settings),
        )
        _ = context.deletion_log  # a URL that cannot work is refused now, not after the first deletion
        return context
