"""A store that is absent, or another one, is never read as empty."""

import shutil
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import pytest
from flask.testing import FlaskClient
from sqlalchemy import delete as delete_from
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.cleanup.engine import run_slice
from app.cleanup.outcomes import Failed, Finished, Postponed
from app.config import Settings
from app.context import Context, open_store
from app.lifecycle import DeletionState
from app.maintenance.orphan_scan import scan_for_orphans
from app.models import Deletion, DeletionEvent, StoreRecord, Workspace
from app.storage.blob_store import BlobStore
from app.storage.marker import KEY, Marker
from app.storage.tree import StoreAbsent
from app.store_identity import StoreIdentity
from tests import factories

FILE = "/apis/files/v2/workspaces/ml-team/filesets/data/-/f"


@pytest.fixture
def root(settings: Settings) -> Path:
    return settings.data_dir / "blobs"


@pytest.fixture
def workspace(session: Session, context: Context, root: Path) -> Workspace:
    """A workspace with one stored file."""
    workspace = factories.make_workspace(session, "ml-team")
    fileset = factories.make_fileset(session, workspace, "data")
    session.commit()
    context.store.publish(context.store.stage(workspace.id, fileset.id, "f", [b"bytes"]))
    return workspace


def unmount(root: Path) -> Path:
    return root.rename(root.with_name("unmounted"))


def another(root: Path) -> None:
    """Put the store of another installation in its place."""
    unmount(root)
    store = BlobStore.open(root.as_uri())
    store.write_marker(Marker(str(uuid4()), "elsewhere/1"))


AWAY: dict[str, Callable[[Path], object]] = {
    "not mounted": unmount,
    "an empty directory": lambda root: (unmount(root), (root / "files").mkdir(parents=True)),
    "another one": another,
}


@pytest.mark.parametrize("away", AWAY)
class TestAway:
    def test_nothing_is_done_and_it_finishes_when_the_store_is_back(
        self,
        away: str,
        session: Session,
        context: Context,
        workspace: Workspace,
        root: Path,
        delete,
        clock,
    ) -> None:
        AWAY[away](root)
        deletion_id = delete("ml-team")

        outcome = run_slice(context, deletion_id, owner="w")

        assert isinstance(outcome, Postponed)
        assert "StoreAbsent" in outcome.reason
        assert "WORKSPACES_STORAGE_URL" in outcome.reason
        deletion = session.get_one(Deletion, deletion_id)
        assert (deletion.state, deletion.deleted_counts) == (DeletionState.DELETING, {})

        if root.exists():
            shutil.rmtree(root)
        root.with_name("unmounted").rename(root)
        while not isinstance(outcome, Finished):
            clock.pass_(60)
            outcome = run_slice(context, deletion_id, owner="w")
            assert not isinstance(outcome, Failed)
        assert {path.name for path in root.rglob("*") if path.is_file()} == {KEY}

    def test_an_upload_is_refused_and_lands_nowhere(
        self, away: str, client: FlaskClient, workspace: Workspace, root: Path
    ) -> None:
        AWAY[away](root)
        before = sorted(root.rglob("*"))

        for answer in (client.put(FILE, data=b"new"), client.get(FILE), client.delete(FILE)):
            assert answer.status_code == 503
            assert "not that of this installation" in answer.json["detail"]
        assert client.get("/apis/entities/v2/workspaces/ml-team/deletion-preview").status_code == 503
        assert client.get("/apis/files/v2/workspaces/ml-team/filesets/data/files").status_code == 503
        assert sorted(root.rglob("*")) == before

    def test_a_scan_does_not_say_that_there_are_no_orphans(
        self,
        away: str,
        context: Context,
        workspace: Workspace,
        root: Path,
    ) -> None:
        AWAY[away](root)

        with pytest.raises(StoreAbsent):
            scan_for_orphans(context)


def test_a_store_that_goes_during_a_purge_is_not_believed(
    context: Context, workspace: Workspace, root: Path, monkeypatch: pytest.MonkeyPatch, session: Session
) -> None:
    fileset = factories.make_fileset(session, workspace, "other")
    session.commit()
    tree = context.store._tree
    remains = tree.remains

    def unmount_then_look(top: str) -> str | None:
        unmount(root)
        return remains(top)

    monkeypatch.setattr(tree, "remains", unmount_then_look)
    with pytest.raises(StoreAbsent):
        context.store.purge_fileset(workspace.id, fileset.id)


# --- which store is taken ---------------------------------------------------------------------------------


@pytest.fixture
def unrecorded(session: Session, context: Context, root: Path) -> None:
    """An installation that has used no store yet."""
    session.execute(delete_from(StoreRecord))
    session.commit()
    (root / "files" / KEY).unlink()


@pytest.fixture
def older(session: Session, unrecorded: None) -> None:
    """One from before stores had markers, as its upgrade leaves it."""
    session.add(StoreRecord(store=None))
    session.commit()


@pytest.mark.usefixtures("unrecorded")
class TestTaking:
    def test_a_new_installation_takes_the_store_that_is_there(
        self, settings: Settings, context: Context, session: Session
    ) -> None:
        store = open_store(settings, context.sessions)

        store.verify(before_destruction=True)

        marker = store.marker()
        assert marker is not None
        assert session.scalar(select(StoreRecord.store)) == marker.store

    def test_it_does_also_if_a_fileset_was_created_while_the_store_was_away(
        self, context: Context, session: Session, client: FlaskClient, root: Path
    ) -> None:
        factories.make_fileset(session, factories.make_workspace(session, "ml-team"), "data")
        session.commit()

        answer = client.put(FILE, data=b"first")

        assert answer.status_code == 200, answer.json
        assert (root / "files" / KEY).exists()

    def test_one_that_another_process_takes_after_the_look_at_it_is_not_absent(
        self, settings: Settings, context: Context, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As at the first start, when all processes look at once."""
        store, other = (open_store(settings, context.sessions) for _ in range(2))
        look = store.marker

        def look_then_lose() -> Marker | None:
            found = look()
            other.verify()
            return found

        monkeypatch.setattr(store, "marker", look_then_lose)
        store.verify(before_destruction=True)

    @pytest.mark.parametrize("act", ["take", "adopt"])
    def test_one_connection_is_enough(self, settings: Settings, context: Context, act: str) -> None:
        """A second one may be among those that wait for the first, behind a pooler that has few."""
        only = Context.open(settings.model_copy(update={"database_pool_size": 1}))
        if act == "take":
            only.store.verify()
        else:
            StoreIdentity(only.sessions).adopt(only.store, actor="ann")

        assert only.store.marker() is not None
        only.sessions.kw["bind"].dispose()

    @pytest.mark.usefixtures("older")
    def test_an_older_installation_takes_the_store_with_its_workspaces(
        self, settings: Settings, context: Context, session: Session, root: Path
    ) -> None:
        workspace = factories.make_workspace(session, "ml-team")
        factories.make_fileset(session, workspace)
        session.commit()
        (root / "files" / str(workspace.id)).mkdir()

        open_store(settings, context.sessions).verify()

        assert (root / "files" / KEY).exists()

    @pytest.mark.usefixtures("older")
    def test_but_not_one_without_them(
        self, settings: Settings, context: Context, session: Session, root: Path
    ) -> None:
        factories.make_fileset(session, factories.make_workspace(session, "ml-team"))
        session.commit()
        (root / "files" / str(uuid4())).mkdir()

        with pytest.raises(
            StoreAbsent, match=r"files are expected in the store, .* `workspaces store adopt --empty`"
        ):
            open_store(settings, context.sessions).verify()

        assert not (root / "files" / KEY).exists()
        assert session.scalar(select(StoreRecord.store)) is None

    def test_a_process_that_was_killed_after_the_marker_is_made_good(
        self, settings: Settings, context: Context, session: Session
    ) -> None:
        database = StoreIdentity(context.sessions).database()
        open_store(settings, context.sessions).write_marker(Marker(str(uuid4()), database))

        open_store(settings, context.sessions).verify(before_destruction=True)

        assert session.scalar(select(StoreRecord.store)) is not None

    def test_directories_that_others_could_read_are_closed(
        self, settings: Settings, context: Context, root: Path
    ) -> None:
        (root / "files").chmod(0o755)

        open_store(settings, context.sessions).verify()

        assert (root / "files").stat().st_mode & 0o777 == 0o700


class TestACopyOfTheDatabase:
    """Restored from a backup, or made for a test: it must not destroy what belongs to the original."""

    @pytest.fixture(autouse=True)
    def _copy(self, workspace: Workspace, context: Context) -> None:
        marker = context.store.marker()
        assert marker is not None
        context.store.write_marker(Marker(marker.store, "cluster/of-the-original"))

    def test_destroys_nothing_until_the_store_is_adopted(
        self,
        context: Context,
        session: Session,
        client: FlaskClient,
        delete,
        clock,
    ) -> None:
        assert client.get(FILE).data == b"bytes"
        assert client.delete(FILE).status_code == 503
        deletion_id = delete("ml-team")

        outcome = run_slice(context, deletion_id, owner="w")
        assert isinstance(outcome, Postponed)
        assert "workspaces store adopt" in outcome.reason

        adopted = StoreIdentity(context.sessions).adopt(context.store, actor="root")
        assert (adopted.known, adopted.unknown, adopted.had_marker) == (1, 0, True)
        while not isinstance(outcome, Finished):
            clock.pass_(60)
            outcome = run_slice(context, deletion_id, owner="w")


class TestAdopting:
    def test_an_absent_store_is_not_adopted_by_mistake(
        self, context: Context, workspace: Workspace, root: Path
    ) -> None:
        unmount(root)
        identity = StoreIdentity(context.sessions)

        with pytest.raises(
            StoreAbsent, match=r"files are expected in the store, .* `workspaces store adopt --empty`"
        ):
            identity.adopt(context.store, actor="root")
        assert not root.exists()

        assert identity.adopt(context.store, actor="root", is_empty_meant=True).known == 0
        context.store.verify(before_destruction=True)


def test_what_stood_in_the_place_of_a_directory_is_on_record(
    session: Session,
    context: Context,
    workspace: Workspace,
    root: Path,
    tmp_path: Path,
    delete,
    clock,
) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "f").write_text("precious")
    directory = root / "files" / str(workspace.id)
    shutil.rmtree(directory)
    directory.symlink_to(precious)
    deletion_id = delete("ml-team")

    outcome = None
    while not isinstance(outcome, Finished):
        outcome = run_slice(context, deletion_id, owner="w")
        assert not isinstance(outcome, Postponed | Failed)
        clock.pass_(3)

    events = session.scalars(select(DeletionEvent).where(DeletionEvent.event == "displaced")).all()
    assert [event.detail["was"] for event in events] == [f"a link to {precious}"]
    assert (precious / "f").read_text() == "precious"


def test_the_marker_of_a_newer_or_damaged_form_is_not_ours(context: Context, root: Path) -> None:
    (root / "files" / KEY).write_text("{}")

    with pytest.raises(StoreAbsent):
        context.store.verify()
