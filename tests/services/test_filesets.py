"""Filesets under concurrency: uploads and deletions that meet."""

import threading
from uuid import uuid4

import pytest
from sqlalchemy import select, text
from sqlalchemy.orm import Session

from app.context import Context
from app.db import session_scope
from app.errors import Busy, NameTaken, NotFound
from app.lifecycle import WorkspaceState
from app.models import Fileset, Workspace
from app.services import filesets
from app.services.workspaces import writable_workspace
from app.storage.blob_store import BlobStore
from app.storage.purge import BytesRemain
from tests.factories import make_fileset, make_workspace
from tests.support.actors import trusted

ACTOR = trusted("ann@example.com")


@pytest.fixture
def fileset(session: Session, context: Context) -> Fileset:
    workspace = make_workspace(session, "ml-team")
    fileset = make_fileset(session, workspace, "data", store=context.store, files={"a": b"x"})
    session.commit()
    return fileset


def delete(context: Context, store: BlobStore | None = None) -> None:
    with session_scope(context.sessions) as session:
        filesets.delete_fileset(session, ACTOR, store or context.store, workspace="ml-team", name="data")


def wait_until_blocked(session: Session) -> None:
    """Return as soon as another connection waits for a row that this session has locked."""
    query = text(
        "SELECT count(*) FROM pg_stat_activity "
        "WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    with Session(session.get_bind()) as observer:
        while not observer.scalar(query):
            observer.rollback()


@pytest.fixture
def errors() -> list[Exception]:
    return []


def started(act: object, errors: list[Exception]) -> threading.Thread:
    def run() -> None:
        try:
            act()  # type: ignore[operator] # tests pass callables only
        except Exception as error:  # noqa: BLE001 -- the test asserts on any error
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def test_a_created_fileset_belongs_to_its_maker(session: Session) -> None:
    make_workspace(session, "ml-team")

    fileset = filesets.create_fileset(
        session, ACTOR, writable_workspace(session, ACTOR, "ml-team"), name="data"
    )

    assert (fileset.created_by, fileset.purpose, fileset.custom_fields) == (ACTOR.id, "generic", {})
    with pytest.raises(NameTaken):
        filesets.create_fileset(session, ACTOR, writable_workspace(session, ACTOR, "ml-team"), name="data")


@pytest.mark.usefixtures("fileset")
def test_a_fileset_created_under_the_name_of_the_emptied_one_is_not_deleted(
    context: Context, session: Session
) -> None:
    with session_scope(context.sessions) as other, pytest.raises(NotFound, match="deleted meanwhile"):
        filesets.delete_fileset(
            other, ACTOR, context.store, workspace="ml-team", name="data", emptied=uuid4()
        )

    assert session.scalars(select(Fileset.name)).all() == ["data"]


def test_a_deletion_waits_for_an_upload_that_is_being_published_and_removes_it(
    context: Context, fileset: Fileset, errors: list[Exception]
) -> None:
    staged = context.store.stage(fileset.workspace_id, fileset.id, "late", [b"late"])
    with session_scope(context.sessions) as session:
        filesets.writable_fileset(session, ACTOR, "ml-team", "data")
        deletion = started(lambda: delete(context), errors)
        wait_until_blocked(session)
        context.store.publish(staged)
    deletion.join()

    assert errors == []
    assert context.store.size(fileset.workspace_id) == 0


@pytest.mark.usefixtures("fileset")
def test_an_upload_that_waited_for_a_deletion_finds_the_fileset_gone(
    context: Context, errors: list[Exception]
) -> None:
    def publish() -> None:
        with session_scope(context.sessions) as session:
            filesets.writable_fileset(session, ACTOR, "ml-team", "data")

    with session_scope(context.sessions) as session:
        filesets.delete_fileset(session, ACTOR, context.store, workspace="ml-team", name="data")
        session.flush()
        upload = started(publish, errors)
        wait_until_blocked(session)
    upload.join()

    assert [type(error) for error in errors] == [NotFound]


def test_a_workspace_cannot_be_closed_while_an_upload_is_being_published(
    context: Context, fileset: Fileset, errors: list[Exception]
) -> None:
    def close() -> None:
        with session_scope(context.sessions) as session:
            session.get_one(Workspace, fileset.workspace_id).state = WorkspaceState.DELETING

    staged = context.store.stage(fileset.workspace_id, fileset.id, "b", [b"just in time"])
    with session_scope(context.sessions) as session:
        filesets.writable_fileset(session, ACTOR, "ml-team", "data")
        closing = started(close, errors)
        wait_until_blocked(session)
        context.store.publish(staged)
    closing.join()

    assert errors == []
    with session_scope(context.sessions) as session, pytest.raises(NotFound):
        filesets.writable_fileset(session, ACTOR, "ml-team", "data")


class FailingStore(BlobStore):
    """A store whose purge fails."""

    def __init__(self, failure: Exception) -> None:
        self.failure = failure

    def purge_fileset(self, workspace_id: object, fileset_id: object, *, within_s: float = 0) -> None:
        raise self.failure


@pytest.mark.parametrize(
    "failure",
    [PermissionError("no"), OSError("503"), TimeoutError(), BytesRemain("a")],
    ids=lambda f: type(f).__name__,
)
def test_a_fileset_whose_bytes_stay_stays_too(
    context: Context, session: Session, fileset: Fileset, failure: Exception
) -> None:
    with pytest.raises(Busy, match="was not deleted"):
        delete(context, FailingStore(failure))

    assert [row.id for row in session.query(Fileset)] == [fileset.id]


def test_a_slow_store_does_not_keep_the_workspace_from_being_deleted(
    context: Context, fileset: Fileset
) -> None:
    states: list[WorkspaceState] = []

    class Slow(BlobStore):
        def purge_fileset(self, workspace_id: object, fileset_id: object, *, within_s: float = 0) -> None:
            with session_scope(context.sessions) as session:
                session.execute(text("SET LOCAL lock_timeout = '2s'"))
                workspace = session.get_one(Workspace, workspace_id)
                workspace.state = WorkspaceState.DELETING
            states.append(WorkspaceState.DELETING)

    object.__setattr__(context, "store", Slow(None, "/"))

    filesets.empty_fileset(context, ACTOR, workspace="ml-team", name="data")

    assert states == [WorkspaceState.DELETING], "the DELETE did not have to wait for the store"
