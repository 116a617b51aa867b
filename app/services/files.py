"""The files of a fileset: no transaction is open while their bytes are on the way."""

import errno
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import chain, islice
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.access.authorize import Actor
from app.context import Context
from app.db import read, session_scope
from app.errors import BadRequest, Busy, Conflict, NotFound, TooLarge
from app.logs import get_logger
from app.models import Fileset
from app.services.filesets import find_fileset, writable_fileset
from app.services.workspaces import readable_workspace
from app.storage.blob_store import BlobStore, StoredFile
from app.storage.paths import checked_path
from app.storage.reading import Reading
from app.storage.tree import told_to_clients

log = get_logger(__name__)

Requirement = Callable[[str | None], None]
"""Raises if a change is not wanted of the file with that ETag; None stands for no file."""


def list_files(
    context: Context, actor: Actor, workspace: str, name: str, path: str = ""
) -> tuple[UUID, Iterator[StoredFile]]:
    """The workspace of a fileset and its files, or those at or below `path`; the first has been read from the store.

    Raises NotFound, BadRequest for a malformed path, and Busy when the store fails.
    """
    fileset = _readable_fileset(context, actor, workspace, name)
    found = context.store.each_file(fileset.workspace_id, fileset.id, checked_path(path) if path else "")
    with store_errors(workspace, name, path):
        # The first one is read now, so that a failing store fails before anything is answered.
        return fileset.workspace_id, chain(list(islice(found, 1)), found)


def put_file(
    context: Context,
    actor: Actor,
    workspace: str,
    name: str,
    path: str,
    *,
    receive: Callable[[], Iterable[bytes]],
    at_most: int | None,
    require: Requirement | None = None,
) -> StoredFile:
    """Store a file, which becomes visible when all of its bytes have arrived and replaces any file at `path`.

    `receive` is called once the caller is known to have access; `at_most` is the announced number of bytes, if any.
    `require` is asked about the file that would be replaced: before the bytes are received, to spare them, and again
    while nobody else can change a file of the fileset.
    Raises NotFound, also when the fileset is deleted meanwhile, Forbidden for a service's fileset, and as
    `store_errors`, `receive` and `require` do.
    """
    path, store = checked_path(path), context.store
    with session_scope(context.sessions) as session:
        fileset = writable_fileset(session, actor, workspace, name)

    @contextmanager
    def fileset_locked() -> Iterator[None]:
        """Lock the fileset against deletion. Raises NotFound if it was deleted while the bytes arrived."""
        with session_scope(context.sessions) as session:
            locked = writable_fileset(session, actor, workspace, name, alone=require is not None)
            if locked.id != fileset.id:
                raise NotFound(f"Fileset '{name}' was deleted while the file was uploaded")
            if require:
                require(_etag(store, fileset, path))
                _renew(session)
            yield

    with store_errors(workspace, name, path):
        if require:
            require(_etag(store, fileset, path))
        try:
            staged = store.stage(fileset.workspace_id, fileset.id, path, receive(), at_most=at_most)
            try:
                with fileset_locked():
                    return store.publish(staged)
            finally:
                store.discard(staged)
        except FileNotFoundError as error:
            with fileset_locked():
                raise Busy("The upload was removed before it was complete; send it again.") from error


def open_file(context: Context, actor: Actor, workspace: str, name: str, path: str) -> Reading:
    """Open a file; the reading must be closed. Raises NotFound, and as `store_errors` does."""
    fileset = _readable_fileset(context, actor, workspace, name)
    with store_errors(workspace, name, path):
        return context.store.read(fileset.workspace_id, fileset.id, checked_path(path))


def delete_file(
    context: Context,
    actor: Actor,
    workspace: str,
    name: str,
    path: str,
    *,
    require: Requirement | None = None,
) -> StoredFile:
    """Delete a file; the file as it was. `require` is asked about it while nobody else can change it.

    Raises NotFound, Forbidden, and as `store_errors` and `require` do.
    """
    path, store = checked_path(path), context.store
    if require:
        with store_errors(workspace, name, path):
            store.verify()  # not below the lock: the first time it needs a connection of its own
    with session_scope(context.sessions) as session:
        fileset = writable_fileset(session, actor, workspace, name, alone=require is not None)
        if require:
            with store_errors(workspace, name, path):
                store.stat(fileset.workspace_id, fileset.id, path)  # without a file no condition counts
                require(_etag(store, fileset, path))
                _renew(session)
                return store.remove(fileset.workspace_id, fileset.id, path)
    # No lock is needed: the id cannot be another fileset's, and a deletion does not mind one file less.
    with store_errors(workspace, name, path):
        return store.remove(fileset.workspace_id, fileset.id, path)


def _etag(store: BlobStore, fileset: Fileset, path: str) -> str | None:
    """The ETag of a file, empty if the store offers none; None if there is no file. Raises the store's errors."""
    try:
        reading = store.read(fileset.workspace_id, fileset.id, path)
    except FileNotFoundError:
        return None
    reading.close()
    return reading.etag


def _renew(session: Session) -> None:
    """Begin anew the time for which the database bears an idle transaction; raises if it, and its lock, is over.

    The store was just asked, which may have taken as long as the lock lasts.
    """
    session.execute(select(1))


@contextmanager
def store_errors(workspace: str, name: str, path: str) -> Iterator[None]:
    """Turn an error of the store into a DomainError that names no path of the server.

    Raises NotFound, Conflict, BadRequest, TooLarge, StorageFull, and Busy for any other OSError.
    """
    try:
        yield
    except FileNotFoundError:
        raise NotFound(f"File '{path}' not found in fileset '{workspace}/{name}'") from None
    except (IsADirectoryError, NotADirectoryError):
        raise Conflict(
            f"'{path}' cannot be stored in fileset '{workspace}/{name}': a file and a directory cannot share "
            "a path. Delete the one that is there, or choose another path."
        ) from None
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise BadRequest("The path is too long for this storage; choose a shorter one.") from None
        if error.errno == errno.EFBIG:
            raise TooLarge(
                "The file is too large for this storage: at most 77 GiB without a Content-Length, 618 GiB with one."
            ) from None
        log.warning("store.failed", fileset=f"{workspace}/{name}", exc_info=error)
        raise told_to_clients(error) from error


def _readable_fileset(context: Context, actor: Actor, workspace: str, name: str) -> Fileset:
    return read(
        context.sessions,
        lambda session: find_fileset(session, readable_workspace(session, actor, workspace), name),
    )
