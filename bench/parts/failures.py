"""A deletion with very many failures: reading it, and giving them all up."""

from collections.abc import Iterator
from functools import partial
from itertools import repeat
from statistics import median
from time import monotonic
from uuid import UUID

from bench.client import exchange
from bench.contents import make_filesets, make_workspace
from bench.deleting import ALL, DELETIONS, begin, pause, wait_until_done
from bench.figures import Figure, Row
from bench.product import Product
from bench.run import Part, Run, alternate

_FEW = 100
"""As many as an answer shows."""
_READ = Row("get a deletion with 100,000 failures", "ms", "with a hundred")
_LIST = Row("page 1 of 100,000 failures", "ms", "of a hundred")
_FORCE = Row("answer to force, 100,000 failures", "ms", "a hundred failures")
_DONE = Row("from force until it is DONE, 100,000 failures", "s", "a hundred failures")
_ROUND_S = 0.5


def _measure(run: Run) -> Iterator[Figure]:
    product = run.product
    product.start(*ALL)
    pause(product, paused=True)
    try:
        few, many = _failed(product, "few", _FEW), _failed(product, "many", run.scale.some)
        product.query("ANALYZE deletion_failures")  # as autovacuum does within a minute
    finally:
        pause(product, paused=False)
    for row, path in ((_READ, ""), (_LIST, "/failures?page_size=100")):
        found = alternate(
            run,
            {name: partial(_time_ms, run, f"{one}{path}") for name, one in (("few", few), ("many", many))},
        )
        yield Figure(row, found["many"]["ms"], found["few"]["ms"])
    answer_ms, done_s = zip(*(_force(run, one) for one in (few, many)), strict=True)
    yield Figure(_FORCE, answer_ms[1], answer_ms[0])
    yield Figure(_DONE, done_s[1], done_s[0])


def _failed(product: Product, name: str, number: int) -> UUID:
    """A FAILED deletion with so many filesets that cannot be deleted."""
    ids = make_filesets(product, make_workspace(product, f"failed-{name}"), number)
    deletion = begin(product, f"failed-{name}")
    product.query(
        "INSERT INTO deletion_failures (deletion_id, kind, resource_id, name, error_class, message, cause, attempts, "
        "first_seen_at, last_seen_at) SELECT %s, 'filesets', id::text, 'f-' || id, 'permanent', "
        "'PermissionError: ' || id, 'PermissionError', 1, now(), now() FROM unnest(%s::uuid[]) AS id",
        deletion,
        ids,
    )
    product.query("UPDATE workspaces SET state = 'FAILED' WHERE name = %s", f"failed-{name}")
    product.query(
        "UPDATE deletions SET state = 'FAILED', phase = 'filesets', started_at = now(), phase_started_at = now(), "
        "pass_started_at = now(), reason = 'filesets: PermissionError' WHERE id = %s",
        deletion,
    )
    return deletion


def _time_ms(run: Run, path: str) -> dict[str, float]:
    request = run.product.operator.encode("GET", f"{DELETIONS}/{path}")
    answers = exchange(run.product.port, repeat(request, run.scale.requests), until=monotonic() + _ROUND_S)
    return {"ms": median(answer.took_s for answer in answers) * 1000}


def _force(run: Run, deletion: UUID) -> tuple[float, float]:
    """How many milliseconds the answer to a force took, and how many seconds it was until the deletion was DONE."""
    request = run.product.operator.encode("POST", f"{DELETIONS}/{deletion}/force", {"reason": "measured"})
    began = monotonic()
    (answer,) = exchange(run.product.port, [request])
    wait_until_done(run.product, deletion, until=run.deadline)
    return answer.took_s * 1000, monotonic() - began


PART = Part("failures", (_READ, _LIST, _FORCE, _DONE), _measure, usual_s=75)
