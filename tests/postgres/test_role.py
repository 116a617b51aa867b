"""Migrations and processes with roles of their own: what the product's role may do, and what it may not."""

import os
from collections.abc import Callable, Iterator
from datetime import timedelta

import psycopg
import pytest
from click.testing import CliRunner
from psycopg.errors import InsufficientPrivilege
from sqlalchemy import create_engine, make_url, select
from sqlalchemy.pool import NullPool

from app.cli.principal import principal
from app.clock import database_now
from app.config import Settings
from app.context import Context
from app.db import Base
from app.maintenance.retention import prune_records, record_retentions
from app.models import AuditRecord, Retention
from app.postgres import provide_role
from tests.postgres.conftest import create_and_delete

# Roles belong to the server, which other processes of the test run use too.
ROLE = f"product_{os.environ.get('PYTEST_XDIST_WORKER', 'alone')}"
PASSWORD = "it's-its-own"


FORBIDDEN = (
    "UPDATE audit_records SET actor = 'nobody'",
    "DELETE FROM audit_records",
    "TRUNCATE audit_records",
    "ALTER TABLE audit_records DISABLE TRIGGER ALL",
    "ALTER TABLE audit_records DISABLE TRIGGER append_only",
    "DROP TRIGGER append_only ON audit_records",
    "ALTER TABLE audit_records ADD COLUMN x integer",
    "DROP TABLE audit_records",
    "SET workspaces.rewriting_audit_log = 'DELETE'; DELETE FROM audit_records",
    "UPDATE retentions SET days = 1",
    "INSERT INTO retentions (records, days) VALUES ('audit_records', 1)",
    "DELETE FROM retentions",
    "CREATE OR REPLACE FUNCTION oldest_kept(days integer) RETURNS timestamptz LANGUAGE sql AS 'SELECT now()'",
    "SET session_replication_role = replica",
    "COPY workspaces FROM PROGRAM 'id'",
    "CREATE TABLE mine (x integer)",
    "CREATE ROLE another SUPERUSER",
    "UPDATE alembic_version SET version_num = 'x'",
)


@pytest.fixture
def as_product(copy_url: str) -> Iterator[str]:
    """The URL of the product's role, which `workspaces db upgrade` has just made."""
    url = make_url(copy_url).set(username=ROLE, password=PASSWORD)
    own = url.render_as_string(hide_password=False)
    yield provided(own, copy_url)
    with create_engine(copy_url, poolclass=NullPool).begin() as owner:
        owner.exec_driver_sql(f"DROP OWNED BY {ROLE}; DROP ROLE {ROLE}")


def provided(url: str, owner: str) -> str:
    settings = Settings(database_url=url, migration_database_url=owner)
    tables = [table.name for table in Base.metadata.sorted_tables]
    provide_role(
        settings,
        tables,
        append_only=[AuditRecord.__tablename__],
        read_only=[Retention.__tablename__],
    )
    return url


def test_it_may_do_all_that_the_product_does_after_any_number_of_upgrades(
    as_product: str, copy_url: str, product: Callable[..., Context]
) -> None:
    provided(as_product, copy_url)
    context = product(as_product)

    create_and_delete(context, "doomed")

    with context.sessions() as session:
        assert session.query(AuditRecord).filter_by(event="deletion.requested").count() == 1


def test_it_may_neither_rewrite_audit_records_nor_change_the_schema(as_product: str) -> None:
    with psycopg.connect(as_product.replace("+psycopg", ""), autocommit=True) as connection:
        assert connection.execute("SHOW is_superuser").fetchone() == ("off",)
        owned = "SELECT count(*) FROM pg_class WHERE relowner = current_user::regrole"
        assert connection.execute(owned).fetchone() == (0,)
        for statement in FORBIDDEN:
            with pytest.raises(InsufficientPrivilege):
                connection.execute(statement)


def test_it_may_let_records_end_that_are_as_old_as_the_owner_has_written_down(
    as_product: str, copy_url: str, product: Callable[..., Context]
) -> None:
    owner = Settings(database_url=as_product, migration_database_url=copy_url, audit_retention_days=30)
    record_retentions(owner)
    with product(as_product).sessions() as session:
        now = session.scalars(select(database_now())).one()
        for days in (40, 20):
            session.add(AuditRecord(event="workspace.created", actor="ann", at=now - timedelta(days=days)))
        session.flush()

        prune_records(session, at_most=10)

        found = session.scalars(select(AuditRecord).order_by(AuditRecord.at)).all()
        assert [(line.event, line.subject) for line in found] == [
            ("workspace.created", None),
            ("records.pruned", "audit_records"),
        ]


def test_it_may_have_a_principal_forgotten_that_has_nothing_any_more(
    as_product: str, copy_url: str, product: Callable[..., Context]
) -> None:
    context = product(as_product)
    with context.sessions() as session:
        session.add(AuditRecord(event="member.revoked", actor="ann", subject="bob"))
        session.commit()

    done = CliRunner().invoke(principal, ["forget", "bob", "--yes"], obj=context)

    assert done.exit_code == 0, done.output
    with context.sessions() as session:
        subject = session.scalars(
            select(AuditRecord.subject).where(AuditRecord.event == "member.revoked")
        ).one()
        assert subject is not None
        assert subject.startswith("forgotten:")


def test_where_migrations_have_no_role_of_their_own_nothing_changes(copy_url: str) -> None:
    provided(copy_url, "")

    with psycopg.connect(copy_url.replace("+psycopg", "")) as connection:
        mine = "SELECT has_table_privilege('audit_records', 'DELETE')"
        assert connection.execute(mine).fetchone() == (True,)
