"""The store of a test, which the pristine database knows as its own."""

from uuid import UUID

from sqlalchemy.orm import Session

from app.config import Settings
from app.context import open_store
from app.db import Sessions
from app.models import StoreRecord
from app.storage.blob_store import BlobStore
from app.storage.marker import Marker
from app.store_identity import StoreIdentity

_ID = str(UUID(int=1))
_databases: dict[str, str] = {}


def record_store(session: Session) -> None:
    """Let the database know the store that `store_of` makes."""
    session.add(StoreRecord(store=_ID))


def store_of(settings: Settings, sessions: Sessions) -> BlobStore:
    """The store that `settings` name, with the marker of this database."""
    store = open_store(settings, sessions)
    store.write_marker(marker_of(settings.database_url, sessions))
    return store


def marker_of(database_url: str, sessions: Sessions) -> Marker:
    """The marker of the store that the database knows."""
    if database_url not in _databases:
        _databases[database_url] = StoreIdentity(sessions).database()
    return Marker(_ID, _databases[database_url])
