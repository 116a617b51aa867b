"""What operators ask for, beside ten thousand deletions of which a thousand are FAILED, one with very many failures."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import repeat
from statistics import median
from time import monotonic

from bench.bare import PATH as BARE
from bench.client import exchange
from bench.contents import make_workspace
from bench.figures import Figure, Goal, Row
from bench.product import Product
from bench.run import Part, Run, alternate
from bench.usage import cpu_s

_ALL, _FAILED, _DELETING, _FAILURES = 10_000, 1_000, 200, 20_000
_ROUND_S, _EACH_S = 0.4, 3
_GOAL = 10

_FILLED = f"""
INSERT INTO deletions (id, workspace_id, workspace_name, state, requested_by, requested_at, purge_after, started_at,
    finished_at, phase, reason, failed_at, has_progressed, attempts, polls, round, next_run_at, created_counts,
    deleted_counts)
SELECT gen_random_uuid(), gen_random_uuid(), 'old-' || n,
    CASE WHEN n <= {_FAILED} THEN 'FAILED' WHEN n <= {_FAILED + _DELETING} THEN 'DELETING' ELSE 'DONE' END,
    'ann', now() - n * interval '1 min', now(), now(), CASE WHEN n > {_FAILED + _DELETING} THEN now() END, 'filesets',
    CASE WHEN n <= {_FAILED} THEN 'filesets/data: denied (permanent)' END,
    CASE WHEN n <= {_FAILED} THEN now() END, false, 0, 0, 0, now() + interval '1 day',
    '{{"filesets": 10, "entities": 1000}}', '{{"filesets": 9, "entities": 1000}}'
FROM generate_series(1, {_ALL}) AS n;

INSERT INTO deletion_failures (deletion_id, kind, resource_id, name, error_class, message, cause, attempts,
    first_seen_at, last_seen_at)
SELECT id, 'filesets', n::text, 'data', 'permanent', 'denied: ' || n, 'denied', 1, now(), now()
FROM deletions, generate_series(1, CASE WHEN workspace_name = 'old-1' THEN {_FAILURES} ELSE 2 END) AS n
WHERE workspace_name LIKE 'old-%%' AND state = 'FAILED';

INSERT INTO deletion_events (deletion_id, actor, event, at, detail)
SELECT id, 'w', event, now(), '{{}}' FROM deletions, unnest('{{requested,started,failed}}'::text[]) AS event
WHERE workspace_name LIKE 'old-%%' AND (event <> 'failed' OR state = 'FAILED');
"""
_TABLES = ("deletions", "deletion_failures", "deletion_failure_counts", "deletion_events")
_EMPTIED = "".join(
    f"DELETE FROM {table} WHERE deletion_id IN (SELECT id FROM deletions WHERE workspace_name LIKE 'old-%%');"
    for table in reversed(_TABLES[1:])
)


@dataclass(frozen=True)
class _Asked:
    """A page of the console, or a request that a command makes; `ID` is the deletion with the failures."""

    name: str
    path: str

    @property
    def row(self) -> Row:
        return Row(f"{self.name}: CPU", "ms", "bare endpoint", (Goal(_GOAL),))


_D = "/apis/entities/v2/deletions"
_ASKED = (
    _Asked("overview", "/console"),
    _Asked("what the overview asks again", "/console/live"),
    _Asked("chart of what ended within a day", "/console/day"),
    _Asked("FAILED by cause", "/console/failed"),
    _Asked("page of deletions", "/console/deletions"),
    _Asked("page of FAILED deletions", "/console/deletions?state=FAILED"),
    _Asked("page of a deletion", "/console/deletions/ID"),
    _Asked("what the page of a deletion asks again", "/console/deletions/ID/live"),
    _Asked("page of its failures", "/console/deletions/ID/failures?kind=filesets&resource_id=15"),
    _Asked("page of workspaces", "/console/workspaces"),
    _Asked("page to delete a workspace", "/console/workspaces/kept/delete"),
    _Asked("page of the audit log", "/console/audit"),
    _Asked("page of hosts", "/console/hosts"),
    _Asked("page of webhooks", "/console/webhooks"),
    _Asked("`deletion list --all --state FAILED`", f"{_D}?scope=all&state=FAILED&page_size=15"),
    _Asked("`deletion get`", f"{_D}/ID"),
    _Asked("`deletion events`", f"{_D}/ID/events"),
    _Asked("`deletion causes`", "/apis/entities/v2/deletion-causes"),
    _Asked("`cleanup status`", "/apis/entities/v2/cleanup-control"),
    _Asked("`runtime hosts`", "/apis/jobs/v2/hosts"),
)


def _measure(run: Run) -> Iterator[Figure]:
    product = run.product
    make_workspace(product, "kept")
    for statement in _FILLED.split(";\n"):
        product.query(statement)
    for table in _TABLES:
        product.query(f"ANALYZE {table}")  # as autovacuum does within a minute
    [(deletion,)] = product.query("SELECT id::text FROM deletions WHERE workspace_name = 'old-1'")
    try:
        for one in _ASKED:
            run.check_time()
            found = alternate(
                run,
                {
                    "bare": partial(_costs, run, BARE),
                    "asked": partial(_costs, run, one.path.replace("ID", deletion)),
                },
                within_s=_EACH_S,
            )
            yield Figure(one.row, found["asked"]["cpu_ms"], found["bare"]["cpu_ms"])
    finally:
        _forget(product)


def _costs(run: Run, path: str) -> dict[str, float]:
    product = run.product
    pids = product.pids("web", "postgres")
    request = product.operator.encode("GET", path)
    before = cpu_s(pids)
    answers = exchange(product.port, repeat(request, run.scale.requests), until=monotonic() + _ROUND_S)
    used = cpu_s(pids) - before
    return {
        "cpu_ms": used / len(answers) * 1000,
        "wall_ms": median(answer.took_s for answer in answers) * 1000,
    }


def _forget(product: Product) -> None:
    """Leave no deletions behind that later parts would have to pass over."""
    product.query("SET session_replication_role = replica")
    for statement in (*_EMPTIED.split(";")[:-1], "DELETE FROM deletions WHERE workspace_name LIKE 'old-%%'"):
        product.query(statement)
    product.query("SET session_replication_role = origin")


PART = Part("operators", tuple(one.row for one in _ASKED), _measure, usual_s=60)
