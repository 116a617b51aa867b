"""Calls outside the database, each in a thread of its own."""

from threading import Thread
from uuid import UUID

import pytest
from structlog.contextvars import bound_contextvars, get_contextvars

from app.cleanup.kinds.base import classify
from app.cleanup.timeout import MOST_UNANSWERED, call_with_timeout
from app.lifecycle import FailureClass
from tests.support.deadlines import DEADLINE_S


def test_what_a_call_logs_names_the_work_that_it_is_made_for() -> None:
    with bound_contextvars(request_id="r-1", deletion_id="d-1"):
        bound = call_with_timeout(
            get_contextvars, timeout_s=DEADLINE_S, dependency="filesets", resource_id=UUID(int=1)
        )

    assert bound == {"request_id": "r-1", "deletion_id": "d-1"}


def test_a_call_for_which_no_thread_starts_has_failed_and_its_resource_is_tried_again() -> None:
    def refused(_: Thread) -> None:
        raise RuntimeError("can't start new thread")

    def call() -> object:
        return call_with_timeout(
            lambda: "went", timeout_s=DEADLINE_S, dependency="filesets", resource_id=UUID(int=2)
        )

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Thread, "start", refused)
        failed = [call() for _ in range(MOST_UNANSWERED + 1)]

    assert {str(error) for error in failed} == {"can't start new thread"}
    assert {classify(error) for error in failed} == {FailureClass.TRANSIENT}
    assert call() == "went"
