"""The migrations lead to the schema of the models, from an empty database and from every older one."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from psycopg.errors import LockNotAvailable
from sqlalchemy import Connection, Engine, TextClause, create_engine, make_url, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import NullPool

from app.db import Base
from tests.support.deadlines import DEADLINE_S
from tests.support.locks import has_to_wait, meanwhile

ROOT = Path(__file__).parent.parent


@pytest.fixture
def url(database_url: str) -> Iterator[str]:
    """A database of its own on the server of this test run."""
    server = create_engine(database_url, isolation_level="AUTOCOMMIT")
    with server.connect() as connection:
        connection.execute(text("DROP DATABASE IF EXISTS migrating"))
        connection.execute(text("CREATE DATABASE migrating"))
        yield database_url.rpartition("/")[0] + "/migrating"
        connection.execute(text("DROP DATABASE migrating"))
    server.dispose()


def configured(url: str) -> Config:
    config = Config(ROOT / "alembic.ini")
    config.attributes["url"] = url
    return config


def differences(engine: Engine) -> list[object]:
    with engine.connect() as connection:
        found: list[object] = compare_metadata(MigrationContext.configure(connection), Base.metadata)
    return found


def test_the_newest_version_is_the_schema_of_the_models(url: str) -> None:
    command.upgrade(configured(url), "head")

    engine = create_engine(url)
    assert differences(engine) == []
    with engine.connect() as connection:  # a new installation takes the store that is there
        assert connection.execute(text("SELECT count(*) FROM store")).scalar_one() == 0
    engine.dispose()


def test_a_database_of_the_first_version_keeps_its_rows(url: str) -> None:
    command.upgrade(configured(url), "0001")
    engine = create_engine(url)
    with engine.begin() as connection:
        workspace_id = connection.execute(
            text(
                "INSERT INTO workspaces (id, name, state, is_protected, created_at, updated_at) "
                "VALUES (gen_random_uuid(), 'ml-team', 'ACTIVE', false, now(), now()) RETURNING id"
            )
        ).scalar_one()
        connection.execute(
            text(
                "INSERT INTO jobs (id, workspace_id, name, attempt_id, source, fileset, status, created_at, "
                "created_by, updated_at, updated_by) VALUES (gen_random_uuid(), :workspace_id, 'train', "
                "gen_random_uuid(), 'tests', 'f', 'pending', now(), '', now(), '')"
            ),
            {"workspace_id": workspace_id},
        )
        connection.execute(
            text(
                "INSERT INTO filesets (id, workspace_id, name, description, project, purpose, created_at, created_by, "
                "updated_at, updated_by) VALUES (gen_random_uuid(), :workspace_id, 'f', '', '', 'generic', now(), '', "
                "now(), '')"
            ),
            {"workspace_id": workspace_id},
        )

    command.upgrade(configured(url), "head")

    with engine.connect() as connection:
        assert connection.execute(text("SELECT name, status FROM jobs")).all() == [("train", "pending")]
        # Its files are in a store that nobody recorded: an empty one is not taken for it.
        assert connection.execute(text("SELECT store FROM store")).all() == [(None,)]
    engine.dispose()


def test_the_namespace_of_what_serves_in_a_cluster_is_read_from_its_address(url: str) -> None:
    command.upgrade(configured(url), "0003")
    engine = create_engine(url)
    with engine.begin() as connection:
        workspace_id = connection.execute(
            text(
                "INSERT INTO workspaces (id, name, state, is_protected, created_at, updated_at) "
                "VALUES (gen_random_uuid(), 'ml-team', 'ACTIVE', false, now(), now()) RETURNING id"
            )
        ).scalar_one()
        for host, address in [("kubernetes", "http://ws-1.models.svc:8000"), ("here", "http://127.0.0.1:1")]:
            connection.execute(
                text(
                    "INSERT INTO deployments (id, workspace_id, name, entity_version, config, config_version, "
                    "status, status_message, host, address, created_at, created_by, updated_at, updated_by) "
                    "VALUES (gen_random_uuid(), :workspace_id, :host, 1, 'small', 1, 'READY', '', :host, "
                    ":address, now(), '', now(), '')"
                ),
                {"workspace_id": workspace_id, "host": host, "address": address},
            )

    command.upgrade(configured(url), "head")

    with engine.connect() as connection:
        found = connection.execute(text("SELECT host, namespace FROM deployments ORDER BY host"))
        assert found.all() == [("here", None), ("kubernetes", "models")]
    engine.dispose()


def test_every_step_can_be_taken_back(url: str) -> None:
    command.upgrade(configured(url), "head")

    command.downgrade(configured(url), "0001")
    command.upgrade(configured(url), "head")

    engine = create_engine(url)
    assert differences(engine) == []
    engine.dispose()


def test_a_migration_behind_a_long_reader_lets_others_pass_and_is_tried_again(url: str) -> None:
    command.upgrade(configured(url), "0004")
    engine = create_engine(url)
    reads = text("SELECT count(*) FROM audit_records")
    with engine.connect() as reader:
        reader.execute(reads)
        with meanwhile(lambda: command.upgrade(configured(url), "head")) as migrating:
            assert has_to_wait(engine, migrating)
            with engine.connect() as other:
                other.execute(text(f"SET LOCAL lock_timeout = '{DEADLINE_S}s'"))
                other.execute(reads)
            assert not migrating.done()
            reader.rollback()

    migrating.result()
    assert differences(engine) == []
    engine.dispose()


def test_a_migration_that_waits_in_a_circle_with_a_writer_yields_and_is_tried_again(url: str) -> None:
    """The writer has what a later statement of the migration locks, and wants what an earlier one has locked."""
    command.upgrade(configured(url), "0029")
    engine = create_engine(url)
    with engine.begin() as connection:
        name = connection.scalar(text("SELECT quote_ident(current_database())"))
        connection.exec_driver_sql(f"ALTER DATABASE {name} SET deadlock_timeout = '900ms'")
    with engine.connect() as writer, engine.connect() as other:
        writer.exec_driver_sql("LOCK TABLE filesets IN ROW EXCLUSIVE MODE")
        with meanwhile(lambda: command.upgrade(configured(url), "0030")) as migrating:
            assert has_to_wait(engine, migrating)
            writer.exec_driver_sql("LOCK TABLE jobs IN ROW EXCLUSIVE MODE")
            writer.commit()
        migrating.result()
        version = other.scalar(text("SELECT version_num FROM alembic_version"))
    engine.dispose()

    assert version == "0030"


def test_a_migration_that_never_gets_its_lock_changes_nothing(url: str) -> None:
    command.upgrade(configured(url), "0004")
    engine = create_engine(url)
    once = configured(url)
    once.attributes["attempts"] = 1
    with engine.connect() as reader:
        reader.execute(text("SELECT count(*) FROM audit_records"))
        with pytest.raises(OperationalError) as failed:
            command.upgrade(once, "head")

        assert isinstance(failed.value.orig, LockNotAvailable)
        assert reader.scalar(text("SELECT version_num FROM alembic_version")) == "0004"
    engine.dispose()


def test_members_that_have_become_one_are_reported(url: str) -> None:
    command.upgrade(configured(url), "0015")
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(
            text(
                "WITH w AS (INSERT INTO workspaces (id, name, state, is_protected, created_at, updated_at) "
                "VALUES (gen_random_uuid(), 'ml-team', 'ACTIVE', false, now(), now()) RETURNING id) "
                "INSERT INTO role_bindings (id, workspace_id, name, principal, role, granted_by, granted_at) "
                "SELECT gen_random_uuid(), w.id, principal || role, principal, role, '', now() FROM w, (VALUES "
                "('Bob@x.org', 'Viewer'), ('bob@x.org', 'Editor'), ('ann@x.org', 'Admin'), ('Crew', 'Viewer'), "
                "('crew', 'Viewer')) AS member (principal, role)"
            )
        )

    command.upgrade(configured(url), "head")

    with engine.connect() as connection:
        found = connection.execute(
            text("SELECT event, workspace_name, subject, detail FROM audit_records")
        ).all()
        assert connection.scalar(text("SELECT count(*) FROM role_bindings")) == 5
    detail = {"spellings": ["Bob@x.org", "bob@x.org"], "roles": ["Editor", "Viewer"]}
    assert [tuple(one) for one in found] == [("member.merged", "ml-team", "bob@x.org", detail)]
    engine.dispose()


def test_the_events_of_earlier_releases_are_in_the_order_of_their_ids_and_are_not_written_anew(
    url: str,
) -> None:
    command.upgrade(configured(url), "0041")
    engine = create_engine(url)
    file = text("SELECT pg_relation_filenode('deletion_events')")
    event = text(
        "INSERT INTO deletion_events (deletion_id, at, actor, event, detail) "
        "VALUES ('00000000-0000-0000-0000-000000000001', now(), 'w', :event, '{}')"
    )
    for name in ("first", "second", "third"):
        with engine.begin() as connection:
            connection.execute(text("SET LOCAL session_replication_role = replica"))
            connection.execute(event, {"event": name})
            before = connection.scalar(file)

    command.upgrade(configured(url), "head")

    with engine.begin() as connection:
        connection.execute(text("SET LOCAL session_replication_role = replica"))
        connection.execute(event, {"event": "fourth"})
        in_order = text("SELECT event FROM deletion_events ORDER BY transaction_id, id")
        assert connection.scalars(in_order).all() == ["first", "second", "third", "fourth"]
        numbers = text("SELECT count(DISTINCT transaction_id::text) FROM deletion_events")
        assert connection.scalar(numbers) == 2
        assert connection.scalar(file) == before
    engine.dispose()


HALF_BUILT = {"ix_jobs_project": "jobs (workspace_id)", "ix_entities_data": "entities USING gin (data)"}


def test_an_index_that_an_attempt_has_left_half_built_is_built_again(url: str) -> None:
    command.upgrade(configured(url), "0014")
    engine = create_engine(url)
    for index, columns in HALF_BUILT.items():
        with engine.begin() as connection:
            connection.execute(text(f"CREATE INDEX {index} ON {columns}"))
            connection.execute(
                text(f"UPDATE pg_index SET indisvalid = false WHERE indexrelid = '{index}'::regclass")
            )

    command.upgrade(configured(url), "head")

    with engine.connect() as connection:
        assert (
            connection.scalars(text("SELECT indexrelid::regclass FROM pg_index WHERE NOT indisvalid")).all()
            == []
        )
    assert differences(engine) == []
    engine.dispose()


@pytest.fixture
def poor_url(url: str) -> Iterator[str]:
    """The same database as a role that may make tables in it, and no extensions."""
    role = f"poor_{os.environ.get('PYTEST_XDIST_WORKER', 'alone')}"
    engine = create_engine(url, poolclass=NullPool)
    with engine.begin() as connection:
        connection.execute(
            text(f"CREATE ROLE {role} LOGIN PASSWORD 'poor'; GRANT CREATE ON SCHEMA public TO {role}")
        )
    yield make_url(url).set(username=role, password="poor").render_as_string(hide_password=False)
    with engine.begin() as connection:
        connection.execute(text(f"DROP OWNED BY {role}; DROP ROLE {role}"))


def test_where_no_extension_may_be_made_all_but_one_index_is_built(url: str, poor_url: str) -> None:
    command.upgrade(configured(poor_url), "head")

    engine = create_engine(url, poolclass=NullPool)
    missing = differences(engine)
    assert [(what, index.name) for what, index in missing] == [("add_index", "ix_entities_part_of_name")]
    # As docs/upgrading.md says.
    by_hand = re.findall(r"^(CREATE .+);$", (ROOT / "docs" / "upgrading.md").read_text(), re.MULTILINE)
    assert len(by_hand) == 2
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        for statement in by_hand:
            connection.execute(text(statement))
    assert differences(engine) == []


def fill_before_triggers(connection: Connection, more: TextClause) -> None:
    """Make a workspace and what `more` makes in it, as if that had been before there were triggers."""
    connection.execute(
        text(
            "INSERT INTO workspaces (id, name, state, is_protected, created_at, updated_at) "
            "VALUES (gen_random_uuid(), 'ml-team', 'ACTIVE', false, now(), now())"
        )
    )
    connection.execute(text("SET LOCAL session_replication_role = replica"))
    connection.execute(more)


def test_entities_are_counted_while_others_write(url: str) -> None:
    command.upgrade(configured(url), "0023")
    engine = create_engine(url, poolclass=NullPool)
    more = text(
        "INSERT INTO entities (id, workspace_id, entity_type, name, created_at, created_by, updated_at, updated_by, "
        "db_version) SELECT gen_random_uuid(), id, 'thing', gen_random_uuid()::text, now(), '', now(), '', 1 "
        "FROM workspaces, generate_series(1, 5)"
    )
    with engine.begin() as connection:
        fill_before_triggers(connection, more)
    with engine.begin() as writer:
        writer.execute(more)

        command.upgrade(configured(url), "0024")

    with engine.connect() as connection:
        assert connection.scalar(text("SELECT sum(delta) FROM entity_counts")) == 10
        assert connection.scalar(text("SELECT count(*) FROM entities")) == 10


def test_resources_from_before_and_after_the_triggers_are_counted(url: str) -> None:
    command.upgrade(configured(url), "0030")
    engine = create_engine(url, poolclass=NullPool)
    more = text(
        "INSERT INTO projects (id, workspace_id, name, created_at, created_by, updated_at, updated_by) "
        "SELECT gen_random_uuid(), id, gen_random_uuid()::text, now(), '', now(), '' "
        "FROM workspaces, generate_series(1, 5)"
    )
    with engine.begin() as connection:
        fill_before_triggers(connection, more)
    with engine.begin() as connection:  # after the triggers, before the count
        connection.execute(more)
        connection.execute(text("DELETE FROM projects WHERE id = (SELECT min(id::text)::uuid FROM projects)"))

    command.upgrade(configured(url), "0031")

    with engine.connect() as connection:
        kept = connection.execute(text("SELECT kind, sum(delta) FROM resource_counts GROUP BY kind")).all()
        assert [tuple(row) for row in kept] == [("projects", 9)]
        assert connection.scalar(text("SELECT count(*) FROM projects")) == 9


def test_failures_from_before_and_after_the_triggers_are_counted(url: str) -> None:
    command.upgrade(configured(url), "0026")
    engine = create_engine(url, poolclass=NullPool)
    more = text(
        "INSERT INTO deletion_failures (deletion_id, kind, resource_id, name, error_class, message, attempts, "
        "first_seen_at, last_seen_at) SELECT id, 'filesets', gen_random_uuid(), 'f', 'permanent', 'denied', 1, "
        "now(), now() FROM deletions, generate_series(1, 5)"
    )
    with engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO deletions (id, workspace_id, workspace_name, state, requested_by, requested_at, "
                "purge_after, has_progressed, attempts, polls, round, next_run_at, created_counts, deleted_counts) "
                "VALUES (gen_random_uuid(), gen_random_uuid(), 'ml-team', 'FAILED', '', now(), now(), false, 0, 0, "
                "0, now(), '{}', '{}')"
            )
        )
        connection.execute(text("SET LOCAL session_replication_role = replica"))  # before there were triggers
        connection.execute(more)
        gone = connection.scalar(text("SELECT resource_id FROM deletion_failures LIMIT 1"))
    with engine.begin() as connection:  # after the triggers, before the count
        connection.execute(
            text("DELETE FROM deletion_failures WHERE resource_id = :gone").bindparams(gone=gone)
        )
        assert connection.scalar(text("SELECT sum(number) FROM deletion_failure_counts")) == -1
    with engine.begin() as connection:
        connection.execute(more)

    command.upgrade(configured(url), "head")

    with engine.connect() as connection:
        assert connection.scalar(text("SELECT number FROM deletion_failure_counts")) == 9
        assert connection.scalar(text("SELECT count(*) FROM deletion_failures")) == 9


def test_since_when_a_deletion_is_failed_is_read_from_its_latest_failure(url: str) -> None:
    command.upgrade(configured(url), "0046")
    engine = create_engine(url, poolclass=NullPool)
    with engine.begin() as connection:
        connection.execute(
            text(
                "WITH made AS (INSERT INTO deletions (id, workspace_id, workspace_name, state, requested_by, "
                "requested_at, purge_after, has_progressed, attempts, polls, round, next_run_at, created_counts, "
                "deleted_counts) SELECT gen_random_uuid(), gen_random_uuid(), state, state, '', now(), now(), false, "
                "0, 0, 0, now(), '{}', '{}' FROM unnest('{DELETING,FAILED,DONE}'::text[]) AS state RETURNING id) "
                "INSERT INTO deletion_events (deletion_id, actor, event, at, detail) "
                "SELECT id, 'w', event, at, '{}' FROM made, (VALUES ('failed', '2026-01-01 00:00+00'::timestamptz), "
                "('retried', '2026-01-02 00:00+00'), ('failed', '2026-01-03 00:00+00'), "
                "('skipped', '2026-01-04 00:00+00')) AS one (event, at)"
            )
        )

    command.upgrade(configured(url), "head")

    with engine.connect() as connection:
        found = connection.execute(text("SELECT state, failed_at::date::text FROM deletions ORDER BY state"))
        assert found.all() == [("DELETING", None), ("DONE", None), ("FAILED", "2026-01-03")]


def test_a_release_that_was_rolled_back_leaves_a_newer_schema_as_it_is(url: str) -> None:
    """Otherwise its `release` would fail, and none of its processes would start."""
    command.upgrade(configured(url), "head")
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))

    command.upgrade(configured(url), "head")

    with engine.connect() as connection:
        assert connection.scalars(text("SELECT version_num FROM alembic_version")).all() == ["9999"]
    assert differences(engine) == []
    engine.dispose()
