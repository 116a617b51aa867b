"""The orphan scan in slices: a store of any size is searched, whatever becomes of the processes that do it."""

import os
import shutil
from datetime import timedelta
from uuid import UUID

import pytest
from sqlalchemy import select, update
from uuid_utils.compat import uuid7

from app import clock
from app.context import Context
from app.maintenance import orphan_scan
from app.maintenance.sweep import sweep
from app.models import OrphanScan
from tests import factories
from tests.support.aging import age

ORPHANS, NEIGHBOURS = 4, 3


@pytest.fixture(autouse=True)
def shortest_slices(monkeypatch):
    """Each slice ends as soon as it has done anything."""
    monkeypatch.setattr(orphan_scan, "SLICE_S", 0.0)


@pytest.fixture
def orphans(session, context) -> list[UUID]:
    """Workspaces without a row that have bytes, between others that have both."""
    gone = []
    for number in range(ORPHANS):
        gone.append(uuid7())
        context.store.publish(context.store.stage(gone[-1], uuid7(), "secret.txt", [b"leak"]))
        if number < NEIGHBOURS:
            neighbour = factories.make_workspace(session, f"ws-{number}")
            factories.make_fileset(session, neighbour, store=context.store, files={"a": b"x"})
    session.commit()
    return gone


def abandon_uploads(context: Context, number: int) -> None:
    for _ in range(number):
        context.store.stage(uuid7(), uuid7(), "a", [b"half"])
    old = (clock.now() - timedelta(days=2)).timestamp()
    for path in (context.settings.data_dir / "blobs" / "staging").rglob("*"):
        if path.is_file():
            os.utime(path, (old, old))


def run_to_the_end(context: Context) -> str:
    while (result := orphan_scan.run_slice(context)).endswith("so far"):
        pass
    return result


def state(session) -> OrphanScan:
    session.rollback()
    return session.scalars(select(OrphanScan).execution_options(populate_existing=True)).one()


def test_a_scan_of_many_slices_names_all_orphans_at_its_end(session, context, orphans):
    abandon_uploads(context, 3)
    for _ in range(3 + ORPHANS + NEIGHBOURS):
        assert orphan_scan.run_slice(context).endswith("so far")
        assert state(session).finished_at is None

    with pytest.raises(orphan_scan.OrphansFound) as found:
        orphan_scan.run_slice(context)

    assert all(str(one) in str(found.value) for one in orphans)
    assert str(found.value).startswith(f"{ORPHANS} workspaces are gone")
    assert state(session).progress is None
    assert state(session).finished_at is not None
    assert state(session).found == {"bytes": ORPHANS, "servers": 0}


def test_a_scan_by_hand_is_on_record_as_one_by_the_clock_is(session, context, orphans):
    with pytest.raises(orphan_scan.OrphansFound):
        orphan_scan.scan_for_orphans(context)
    assert state(session).found == {"bytes": ORPHANS, "servers": 0}
    assert not orphan_scan.is_due(context)

    for workspace_id in orphans:
        shutil.rmtree(context.settings.data_dir / "blobs" / "files" / str(workspace_id))
    orphan_scan.scan_for_orphans(context)

    assert state(session).found == {"bytes": 0, "servers": 0}


def test_a_cluster_that_was_not_asked_is_not_free_of_orphans(session, context, monkeypatch):
    def refuse(*_, **__):
        raise ConnectionError("refused")

    monkeypatch.setattr(orphan_scan, "find_orphans", refuse)

    with pytest.raises(orphan_scan.OrphansFound):
        run_to_the_end(context)

    assert state(session).found == {"bytes": 0}


def test_the_next_scan_begins_anew(session, context):
    factories.make_fileset(session, factories.make_workspace(session), store=context.store, files={"a": b"x"})
    session.commit()
    orphan_scan.run_slice(context)
    assert orphan_scan.run_slice(context).startswith("no orphans in 1 stored workspaces")
    late = uuid7()
    context.store.publish(context.store.stage(late, uuid7(), "secret.txt", [b"leak"]))

    orphan_scan.run_slice(context)
    orphan_scan.run_slice(context)
    with pytest.raises(orphan_scan.OrphansFound, match=str(late)):
        orphan_scan.run_slice(context)


def test_a_scan_is_due_when_the_last_one_was_long_ago_whatever_beat_remembers(session, context):
    """Beat remembers nothing over a restart, and may be restarted every day."""
    assert orphan_scan.is_due(context)  # none was ever completed
    while orphan_scan.run_slice(context).endswith("so far"):
        assert orphan_scan.is_due(context)

    assert not orphan_scan.is_due(context)
    day_s = context.settings.orphan_scan_seconds
    age(session, state(session), day_s - 60)
    assert not orphan_scan.is_due(context)
    age(session, state(session), 120)
    assert orphan_scan.is_due(context)


def test_a_scan_whose_process_was_killed_goes_on_where_it_was(session, context, orphans, monkeypatch):
    for _ in range(3):
        orphan_scan.run_slice(context)
    before = state(session).progress

    def killed(*_, **__):
        raise GeneratorExit

    with monkeypatch.context() as patched:
        patched.setattr(orphan_scan, "_search_store", killed)
        patched.setattr(orphan_scan, "_release", lambda *_, **__: None)
        with pytest.raises(GeneratorExit):
            orphan_scan.run_slice(context)
    assert orphan_scan.run_slice(context) == "another process scans"
    session.execute(update(OrphanScan).values(busy_until=clock.now() - timedelta(seconds=1)))
    session.commit()

    assert orphan_scan.run_slice(context).endswith("so far")
    assert state(session).progress["stored"] == before["stored"] + 1
    with pytest.raises(orphan_scan.OrphansFound) as found:
        run_to_the_end(context)
    assert all(str(one) in str(found.value) for one in orphans)


def test_the_sweep_enqueues_the_next_slice_and_none_without_a_scan(session, context, orphans, publisher):
    def enqueued() -> int:
        publisher.published.clear()
        sweep(context)
        return sum(message.task == "workspace.maintenance.orphan_scan" for message in publisher.published)

    assert enqueued() == 0
    orphan_scan.run_slice(context)
    assert enqueued() == 1
    session.execute(update(OrphanScan).values(busy_until=clock.now() + timedelta(minutes=1)))
    session.commit()
    assert enqueued() == 0


def test_a_scan_ends_with_an_error_of_the_store(session, context, orphans, monkeypatch):
    orphan_scan.run_slice(context)

    def refuse(*_, **__):
        raise OSError("the store is away")

    monkeypatch.setattr(type(context.store), "workspace_ids", refuse)
    with pytest.raises(OSError, match="away"):
        orphan_scan.run_slice(context)

    assert state(session).progress is None
    assert state(session).busy_until is None


def test_only_the_first_of_very_many_orphans_are_named(session, context, orphans, monkeypatch):
    monkeypatch.setattr(orphan_scan, "_MOST_NAMED", 1)

    with pytest.raises(orphan_scan.OrphansFound, match=f"^4 workspaces .*: {orphans[0]}: .*; and 3 others$"):
        orphan_scan.scan_for_orphans(context)
