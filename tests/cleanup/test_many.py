"""More than a statement takes parameters: 65,535."""

from uuid import uuid4

from sqlalchemy import select, text

from app.cleanup import remaining
from app.maintenance import orphan_scan
from app.models import Deletion, Fileset
from tests import factories

MANY = 70_000


def test_more_retained_resources_than_parameters_are_removed(session):
    workspace = factories.make_workspace(session)
    fileset = factories.make_fileset(session, workspace)
    deletion = Deletion(workspace_id=workspace.id, workspace_name="ml-team")
    session.add(deletion)
    session.flush()
    insert = text(
        "INSERT INTO deletion_failures"
        " (deletion_id, kind, resource_id, name, error_class, message, attempts,"
        " first_seen_at, last_seen_at, skipped_by)"
        " SELECT :deletion, 'filesets', id, 'x', 'permanent', 'x', 1, now(), now(), 'ann'"
        " FROM (SELECT CAST(:fileset AS text) AS id UNION ALL"
        "       SELECT CAST(gen_random_uuid() AS text) FROM generate_series(1, :many)) AS every"
    )
    session.execute(insert, {"deletion": deletion.id, "fileset": str(fileset.id), "many": MANY})
    session.commit()

    assert remaining.remove_retained_rows(session, workspace.id, deletion.id, ["filesets"], limit=MANY) == 1

    assert session.scalars(select(Fileset.id)).all() == []


def test_the_scan_asks_about_few_stored_workspaces_at_once(context, monkeypatch):
    stored = {uuid4() for _ in range(2 * orphan_scan._BATCH + 1)}
    monkeypatch.setattr(type(context.store), "workspace_ids", lambda *_, **__: stored)
    monkeypatch.setattr(type(context.store), "purge_workspace", lambda *_, **__: None)
    asked = []
    monkeypatch.setattr(
        orphan_scan,
        "_known",
        lambda context, batch, known=orphan_scan._known: asked.append(len(batch)) or known(context, batch),
    )

    assert f"no orphans in {len(stored)} stored workspaces" in orphan_scan.scan_for_orphans(context)
    assert asked == [orphan_scan._BATCH, orphan_scan._BATCH, 1]
