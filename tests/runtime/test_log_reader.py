"""The thread that copies the output of a step to the log of its job."""

import os
from typing import Any, cast

import pytest
from structlog.contextvars import bound_contextvars

from app.runtime.jobs.log import LogReader
from tests.support.deadlines import DEADLINE_S


class BrokenLog:
    """A log that nothing can be written to."""

    def append(self, *_: object) -> None:
        raise RuntimeError("a bug")

    def take_tail(self) -> list[Any]:
        return []

    insert = append


def test_a_log_that_cannot_be_written_is_told_with_the_job_and_the_request(
    caplog: pytest.LogCaptureFixture,
) -> None:
    read, write = os.pipe()
    os.write(write, b"a line\n")
    os.close(write)

    with bound_contextvars(job_id="j-1", request_id="r-1"):
        LogReader(cast("Any", BrokenLog()), "train", os.fdopen(read, "rb")).join(DEADLINE_S)

    [line] = [record.msg for record in caplog.records if "job_log.failed" in str(record.msg)]
    assert (line["step"], line["job_id"], line["request_id"]) == ("train", "j-1", "r-1")
