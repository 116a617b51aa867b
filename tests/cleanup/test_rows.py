"""Deleting rows costs what is deleted, whatever else is in the table and whatever PostgreSQL believes of it."""

from collections.abc import Callable
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from app.cleanup import remaining
from app.cleanup.engine import run_slice
from app.cleanup.kinds import KINDS
from app.context import Context
from app.models import Workspace
from bench.contents import BEGAN_MS, ENTITIES
from tests import factories
from tests.support.statements import counted

MANY, CHUNK = 20_000, 100


def fill(session: Session, name: str, number: int, *, since_ms: int = BEGAN_MS) -> Workspace:
    workspace = factories.make_workspace(session, name)
    values = {"workspace": workspace.id, "began": since_ms, "first": 0, "last": number - 1}
    session.connection().exec_driver_sql(ENTITIES, values)
    return workspace


def read_so_far(session: Session) -> int:
    """The rows and entries of indexes of entities that the transaction has read."""
    read = text(
        "SELECT sum(pg_stat_get_xact_tuples_returned(one)) FROM (SELECT 'entities'::regclass::oid AS one "
        "UNION ALL SELECT indexrelid FROM pg_index WHERE indrelid = 'entities'::regclass) AS every"
    )
    return int(session.scalar(read) or 0)


@pytest.mark.parametrize("analysed", ["while it was empty", "with others in it", "as it is"])
def test_a_chunk_reads_what_it_removes(session: Session, analysed: str) -> None:
    analyse = text("ANALYZE entities")
    session.execute(analyse)
    fill(session, "younger", MANY, since_ms=BEGAN_MS + 10 * MANY)
    if analysed == "with others in it":
        session.execute(analyse)
    ours = fill(session, "ours", MANY)
    if analysed == "as it is":
        session.execute(analyse)
    session.commit()

    # Without triggers: of each plan the server makes for itself five trials, and those for foreign keys are not ours.
    session.execute(text("SET LOCAL session_replication_role = replica"))
    cursor: UUID | None = None
    before = read_so_far(session)
    for _ in range(10):  # as often as it takes the driver and the server to settle for a plan
        chunk = KINDS["entities"].delete_chunk(session, ours.id, CHUNK, cursor)
        cursor = chunk.cursor
        assert chunk.removed == CHUNK

    assert read_so_far(session) - before < 5 * 10 * CHUNK
    session.rollback()


def test_what_is_left_is_found_beside_a_workspace_that_has_the_whole_table(session: Session) -> None:
    fill(session, "large", MANY)
    empty = factories.make_workspace(session, "empty")
    session.execute(text("ANALYZE entities"))
    session.commit()
    before = read_so_far(session)

    for _ in range(25):  # as above
        assert remaining.first_kind(session, empty.id, uuid4()) is None
        assert not remaining.has_rows(session, KINDS["entities"], empty.id)

    assert read_so_far(session) - before < 250


def test_a_chunk_takes_few_statements_that_return_one_row_each(
    session: Session, context: Context, delete: Callable[[str], UUID], settings: Any
) -> None:
    fill(session, "ml-team", 10 * CHUNK)
    session.commit()
    object.__setattr__(context, "settings", settings.model_copy(update={"chunk_size": CHUNK}))
    deletion_id = delete("ml-team")

    with counted(context.sessions.kw["bind"]) as sent:
        run_slice(context, deletion_id, owner="w")

    of_chunks = [one for one in sent if "entities" in one.text or "deleted_counts, ARRAY" in one.text]
    assert {one.rows for one in of_chunks} == {1}
    assert len(of_chunks) <= 2 * 10 + 10  # and those by which a slice begins and ends
