"""The identity of the store: the database records which store is its own, and the store carries a marker.

A volume that is not mounted, another directory, another prefix of a bucket: each of them lists as empty. So whoever
is about to believe that nothing is there, to store something or to destroy it, looks at the marker first.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from threading import Thread
from uuid import UUID, uuid4

from sqlalchemy import ARRAY, Uuid, cast, exists, func, select, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from app.db import Sessions, session_scope
from app.logs import explain, get_logger
from app.models import Deletion, Fileset, StoreRecord, Workspace
from app.storage.blob_store import BlobStore
from app.storage.marker import Marker
from app.storage.tree import StoreAbsent

log = get_logger(__name__)

_REMEDY = "mount it or mend WORKSPACES_STORAGE_URL or WORKSPACES_DATA_DIR; `workspaces store adopt` takes it as it is"
_NOTHING_OF_OURS = (
    "files are expected in the store, and none of them is there: it is not mounted, or is another one; "
    "if they are lost for good, `workspaces store adopt --empty` takes it all the same"
)
_NO_MARKER = f"the store has no marker: it is not mounted, or it is another one; {_REMEDY}"


class StoreIdentity:
    """Tells the store of this database from any other. Gives a store its marker when the first one is used."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions
        self.database = cache(self._identify_database)
        self._store: str | None = None

    def verify(self, store: BlobStore, *, before_destruction: bool) -> None:
        """Raise StoreAbsent unless the store is that of this database; before destruction, this database's alone.

        Raises the errors of the store and of the database, too.
        """
        known, marker = self._store, store.marker()
        if marker is None and known:
            raise StoreAbsent(_NO_MARKER)
        if marker is None or marker.store != known:
            self._store = known = self._recorded(store)  # it may have been adopted meanwhile
            # Whoever took the store after our look had written its marker before the record that we have read.
            marker = marker or store.marker()
        if marker is None:
            raise StoreAbsent(_NO_MARKER)
        if marker.store != known:
            raise StoreAbsent(f"the store is that of another installation; {_REMEDY}")
        if before_destruction and marker.database != self.database():
            raise StoreAbsent(
                "the store belongs to another database than this one, which may be a copy or a restored backup: "
                "nothing is destroyed before `workspaces store adopt`"
            )

    def adopt(self, store: BlobStore, *, actor: str, is_empty_meant: bool = False) -> "Adopted":
        """Make the store that of this database, whatever its marker says. Commits.

        Raises StoreAbsent if files are expected in it and it has none of them, unless that `is_empty_meant`.
        """
        database = self.database()
        with session_scope(self._sessions) as session:
            _lock(session)
            before, found = store.marker(), _Contents.of(session, store.workspace_ids(verified=False))
            if not found.is_plausible and not is_empty_meant:
                raise StoreAbsent(_NOTHING_OF_OURS)
            marker = Marker(before.store if before else str(uuid4()), database)
            store.write_marker(marker)
            _record(session, marker, adopted_by=actor)
        return Adopted(before is not None, found.known, found.unknown)

    def _recorded(self, store: BlobStore) -> str:
        """The id of our store. With no record of one, the store that is there is taken, if it can be ours."""
        # Not below the lock: a second connection may be one of those that wait for it.
        database = self.database()
        with session_scope(self._sessions) as session:
            if (recorded := session.scalar(select(StoreRecord.store))) is None:
                _lock(session)  # one process takes it, the others find it taken
                recorded = session.scalar(select(StoreRecord.store)) or self._take(session, store, database)
        return recorded

    def _take(self, session: Session, store: BlobStore, database: str) -> str:
        marker = store.marker()
        if marker and marker.database != database:
            raise StoreAbsent(f"the store is that of another installation; {_REMEDY}")
        if not _Contents.of(session, store.workspace_ids(verified=False)).is_plausible:
            raise StoreAbsent(f"{_NOTHING_OF_OURS}; {_REMEDY}")
        if marker is None:
            store.write_marker(marker := Marker(str(uuid4()), database))
        _record(session, marker, adopted_by=None)
        log.info("store.taken", store=marker.store)
        return marker.store

    def _identify_database(self) -> str:
        with session_scope(self._sessions) as session:
            number = session.scalar(text("SELECT oid FROM pg_database WHERE datname = current_database()"))
            try:
                with session.begin_nested():
                    cluster = session.scalar(text("SELECT system_identifier FROM pg_control_system()"))
            except DBAPIError:  # not every provider lets its users ask
                cluster = "unknown"
        return f"{cluster}/{number}"


def why_absent(store: BlobStore) -> str | None:
    """Why this is not the store of the installation, or None if it is. Raises the errors of store and database."""
    try:
        store.verify()
    except StoreAbsent as error:
        return str(error)
    return None


def report_store(store: BlobStore) -> None:
    """Look at the store in a thread, and log whether it is there: a process serves what it can without it."""

    def check() -> None:
        try:
            if reason := why_absent(store):
                log.error("store.absent", reason=reason)
        except Exception as error:  # noqa: BLE001 -- a dependency that is away is told by whoever needs it
            log.warning("store.not_verified", error=explain(error))

    Thread(target=check, name="check of the store", daemon=True).start()


@dataclass(frozen=True)
class Adopted:
    """What was found in a store that was adopted."""

    had_marker: bool
    known: int
    """Workspaces with files in the store that the database knows."""
    unknown: int
    """Those that it does not know."""


@dataclass(frozen=True)
class _Contents:
    known: int
    unknown: int
    is_plausible: bool
    """Whether this can be the store of the database: it has what is expected, or nothing is."""

    @classmethod
    def of(cls, session: Session, stored: Iterable[UUID]) -> "_Contents":
        ids = list(stored)
        is_stored = func.unnest(cast(ids, ARRAY(Uuid))).table_valued("id").render_derived()
        known = (
            select(func.count())
            .select_from(is_stored)
            .where(
                exists().where(Workspace.id == is_stored.c.id)
                | exists().where(Deletion.workspace_id == is_stored.c.id)
            )
        )
        # Without a record no file was ever stored, in whatever filesets there are.
        are_expected = select(exists().select_from(StoreRecord) & exists().select_from(Fileset))
        number = session.scalar(known) or 0
        return cls(number, len(ids) - number, number > 0 or not session.scalar(are_expected))


def _record(session: Session, marker: Marker, *, adopted_by: str | None) -> None:
    row = {"store": marker.store, "adopted_by": adopted_by, "adopted_at": func.now()}
    statement = insert(StoreRecord).values(id=1, **row)
    session.execute(statement.on_conflict_do_update(index_elements=["id"], set_=row))


def _lock(session: Session) -> None:
    session.execute(select(func.pg_advisory_xact_lock(func.hashtext("workspaces store"))))
