"""Calls outside the database, each in a thread of its own."""

from uuid import UUID

from structlog.contextvars import bound_contextvars, get_contextvars

from app.cleanup.timeout import call_with_timeout
from tests.support.deadlines import DEADLINE_S


def test_what_a_call_logs_names_the_work_that_it_is_made_for() -> None:
    with bound_contextvars(request_id="r-1", deletion_id="d-1"):
        bound = call_with_timeout(
            get_contextvars, timeout_s=DEADLINE_S, dependency="filesets", resource_id=UUID(int=1)
        )

    assert bound == {"request_id": "r-1", "deletion_id": "d-1"}
