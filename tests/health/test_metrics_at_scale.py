"""A scrape costs what is under way: not what was deleted before, and not what has ended."""

from typing import Any

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.orm import Session

from app.context import Context
from app.db import read_scope
from app.health.metrics.exposition import database_metrics
from tests import factories
from tests.support.statements import compact, nodes, noted

ALL, FAILED, DELETING = 10_000, 300, 100
LARGE = {"deletions", "deletion_failure_counts", "jobs", "deployments"}
"""Tables of which most rows concern what is over. What is not is young, and so close together.

Of a tenth of its rows a table is read as a whole, because that is as cheap: here it is less.
"""

FILLED = f"""
INSERT INTO deletions (id, workspace_id, workspace_name, state, requested_by, requested_at, purge_after, started_at,
    phase, has_progressed, attempts, polls, round, next_run_at, created_counts, deleted_counts, fence)
SELECT gen_random_uuid(), gen_random_uuid(), 'team-' || n,
    CASE WHEN n <= {FAILED} THEN 'FAILED' WHEN n <= {FAILED + DELETING} THEN 'DELETING' ELSE 'DONE' END,
    'ann', now() - n * interval '1 min', now(), now(), 'filesets', false, 0, 0, 0, now(),
    '{{"filesets": 10, "entities": 1000}}', '{{"filesets": 9, "entities": 1000}}', 7
FROM generate_series(1, {ALL}) AS n;

INSERT INTO deletion_failures (deletion_id, kind, resource_id, name, error_class, message, attempts, first_seen_at,
    last_seen_at, skipped_by)
SELECT id, 'filesets', r::text, 'data', 'permanent', 'denied ' || r, 1, now(), now(),
    CASE WHEN state = 'DONE' THEN 'root' END
FROM deletions, generate_series(1, 2) AS r;

INSERT INTO jobs (id, workspace_id, name, attempt_id, source, fileset, status, host, created_at, created_by,
    updated_at, updated_by)
SELECT gen_random_uuid(), CAST(:workspace AS uuid), 'job-' || n, gen_random_uuid(), 'tests', 'f',
    CASE WHEN n % 100 = 0 THEN 'active' ELSE 'completed' END, CASE WHEN n % 100 = 0 THEN 'gpu-1' END,
    now(), '', now(), ''
FROM generate_series(1, {ALL}) AS n;

INSERT INTO deployments (id, workspace_id, name, entity_version, config, config_version, status, status_message,
    created_at, created_by, updated_at, updated_by)
SELECT gen_random_uuid(), CAST(:workspace AS uuid), 'chat', n, 'small', 1,
    CASE WHEN n % 100 = 0 THEN 'READY' ELSE 'DELETED' END, '', now(), '', now(), ''
FROM generate_series(1, {ALL}) AS n
"""


def fill(session: Session) -> None:
    workspace = factories.make_workspace(session)
    for statement in FILLED.split(";\n"):
        session.execute(
            text(statement).bindparams(**{"workspace": workspace.id} if ":workspace" in statement else {})
        )
    session.commit()


def scrape(context: Context) -> list[tuple[str, Any]]:
    with noted(context.sessions.kw["bind"]) as sent, read_scope(context.sessions) as session:
        list(database_metrics(session, context.settings))
    return sent


@pytest.fixture
def many(session: Session, database: Engine) -> None:
    fill(session)
    compact(database, *LARGE)


def test_the_number_of_statements_does_not_depend_on_what_there_is(
    database: Engine, session: Session, context: Context
) -> None:
    before = len(scrape(context))
    fill(session)

    assert len(scrape(context)) == before <= 16


def test_no_statement_reads_all_of_a_large_table(many: None, context: Context, database: Engine) -> None:
    # One after the other, because to fill the tables takes longer than all of them.
    read = {}
    for statement, parameters in scrape(context):
        with database.connect() as connection:
            explained = connection.exec_driver_sql(f"EXPLAIN (FORMAT JSON) {statement}", parameters)
            plan = explained.scalar()
        for node in nodes(plan[0]["Plan"]):
            if node["Node Type"] == "Seq Scan" and node["Relation Name"] in LARGE:
                read[statement] = node["Relation Name"]

    assert read == {}
