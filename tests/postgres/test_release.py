"""The previous release goes on working while this one's schema is already there, until its processes are replaced."""

import subprocess
from collections.abc import Iterator

import pytest
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError

from tests.support.release_statements import ROOT, recorded, statements_of

PREVIOUS = "v0.1.0"
COUNTING = text(
    "SELECT tgrelid::regclass::text, quote_ident(tgname) FROM pg_trigger "
    "WHERE NOT tgisinternal AND tgname LIKE 'count%'"
)


def has_tag() -> bool:
    found = subprocess.run(
        ["git", "rev-parse", "-q", "--verify", f"refs/tags/{PREVIOUS}"], cwd=ROOT, check=False
    )
    return found.returncode == 0


@pytest.fixture
def newest(database: Engine) -> Iterator[Connection]:
    """A connection to the newest schema, whose changes do not last."""
    with database.connect() as connection, connection.begin() as transaction:
        # As a replica: the rows of the statements have no neighbours to refer to, and some may not be changed.
        connection.exec_driver_sql("SET LOCAL session_replication_role = replica")
        # The triggers that count do their work all the same: they do it for the previous release, too.
        for table, trigger in connection.execute(COUNTING).all():
            connection.exec_driver_sql(f"ALTER TABLE {table} ENABLE ALWAYS TRIGGER {trigger}")
        yield connection
        transaction.rollback()


def refused(connection: Connection) -> list[str]:
    """The statements of the previous release that fail."""
    failed = []
    for statement in recorded(PREVIOUS).read_text().splitlines():
        try:
            with connection.begin_nested():
                connection.exec_driver_sql(statement)
        except DBAPIError as error:
            failed.append(f"{statement} -- {error.orig}")
    return failed


def test_the_statements_of_the_previous_release_work_on_the_newest_schema(newest: Connection) -> None:
    assert refused(newest) == [], (
        "Let what is new be nullable or have a default of the server, and rename or drop nothing that the "
        "previous release uses: its processes run on for a while."
    )


@pytest.mark.parametrize(
    "migration",
    [
        "ALTER TABLE audit_records ADD COLUMN later text NOT NULL",
        "ALTER TABLE audit_records RENAME COLUMN email TO mail",
        "ALTER TABLE jobs DROP COLUMN description",
        "ALTER TABLE deletions ADD CONSTRAINT later CHECK (round < 7)",
        "ALTER TABLE resource_counts RENAME COLUMN delta TO later",
    ],
    ids=["required", "renamed", "dropped", "narrowed", "counting"],
)
def test_a_migration_that_would_break_the_previous_release_is_seen(
    newest: Connection, migration: str
) -> None:
    newest.exec_driver_sql(migration)

    assert refused(newest)


@pytest.mark.skipif(not has_tag(), reason=f"this clone has no tag {PREVIOUS}")
def test_the_recorded_statements_are_those_of_the_previous_release() -> None:
    assert recorded(PREVIOUS).read_text() == statements_of(PREVIOUS)
