"""What can be forgotten: each of these tests says what to do."""

from app.cleanup.kinds import ORDER
from app.db import Base
from app.dispatch import TaskName, cleanup_task
from tests.support.tables import tables_of_workspaces
from workers.celery_app import celery


def test_every_table_below_a_workspace_has_a_kind_that_cleans_it():
    cleaned = {kind.model.__tablename__ for kind in ORDER}
    below = {table.name for table in tables_of_workspaces(Base.metadata)}

    assert below - cleaned == set(), (
        "These tables reach `workspaces`, but no kind removes their rows, so no deletion would ever finish. "
        "For each: write app/cleanup/kinds/<table>.py (copy projects.py for plain rows, filesets.py for "
        "something outside the database) and give it its place in ORDER, in app/cleanup/kinds/__init__.py."
    )


def test_no_table_below_a_workspace_is_emptied_by_cascade():
    cascading = {
        f"{table.name}.{key.parent.name}"
        for table in tables_of_workspaces(Base.metadata)
        for key in table.foreign_keys
        if (key.ondelete or "").upper() not in {"", "RESTRICT", "NO ACTION"}
    }

    assert cascading == set(), (
        "These foreign keys would remove or change rows silently. Use ON DELETE RESTRICT, so that the database "
        "refuses to drop a workspace while anything remains."
    )


def test_every_row_below_a_workspace_restricts_its_end():
    for kind in ORDER:
        [key] = [key for key in kind.model.__table__.foreign_keys if key.column.table.name == "workspaces"]
        assert key.ondelete == "RESTRICT", (
            f"{kind.model.__tablename__}.workspace_id must be ON DELETE RESTRICT"
        )


def test_every_kind_has_its_task():
    celery.loader.import_default_modules()
    wanted = {cleanup_task(kind.name) for kind in ORDER} | {name.value for name in TaskName}

    assert {name for name in celery.tasks if name.startswith("workspace.")} == wanted
