import logging

import pytest

from app.dispatch import TaskName
from workers.log_filter import NO_SCAN_IS_DUE, NOTHING_TO_DO, log_no_news_at_debug

SWEEP, SCAN = TaskName.SWEEP.value, TaskName.ORPHAN_SCAN.value
CLEAN, FAILED = "workspace.cleanup.filesets", "Task %(name)s[%(id)s] %(description)s"
RECEIVED, SUCCEEDED = "Task %(name)s[%(id)s] received", "Task %(name)s[%(id)s] succeeded: %(return_value)s"


@pytest.fixture
def _log_filter() -> None:
    log_no_news_at_debug()


@pytest.mark.usefixtures("_log_filter")
@pytest.mark.parametrize(
    ("logger", "line", "is_told"),
    [
        ("celery.beat", ("Sending due task %s (%s)", "sweep", SWEEP), False),
        ("celery.beat", ("Sending due task %s (%s)", "orphan-scan", SCAN), False),
        ("celery.beat", ("Sending due task %s (%s)", "another", CLEAN), True),
        ("celery.beat", ("beat: Starting...",), True),
        ("celery.worker.strategy", (RECEIVED, {"name": SWEEP, "id": "1"}), False),
        ("celery.worker.strategy", (RECEIVED, {"name": SCAN, "id": "1"}), False),
        ("celery.worker.strategy", (RECEIVED, {"name": CLEAN, "id": "1"}), True),
        (
            "celery.app.trace",
            (SUCCEEDED, {"name": SCAN, "id": "1", "return_value": repr(NO_SCAN_IS_DUE)}),
            False,
        ),
        ("celery.app.trace", (SUCCEEDED, {"name": SCAN, "id": "1", "return_value": "'nothing left'"}), True),
        (
            "celery.app.trace",
            (SUCCEEDED, {"name": SWEEP, "id": "1", "return_value": repr(NOTHING_TO_DO)}),
            False,
        ),
        ("celery.app.trace", (SUCCEEDED, {"name": SWEEP, "id": "1", "return_value": "'enqueued 1'"}), True),
        ("celery.app.trace", (FAILED, {"name": CLEAN, "id": "1", "description": "raised expected"}), False),
        ("celery.app.trace", (FAILED, {"name": CLEAN, "id": "1", "description": "retry"}), True),
    ],
)
def test_a_round_is_told_only_when_it_did_something(
    caplog: pytest.LogCaptureFixture, logger: str, line: tuple[object, ...], is_told: bool
) -> None:
    with caplog.at_level("INFO", logger):
        logging.getLogger(logger).info(*line)

    assert bool(caplog.records) is is_told


@pytest.mark.usefixtures("_log_filter")
def test_with_the_level_debug_every_round_is_told(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("DEBUG", "celery.beat"):
        logging.getLogger("celery.beat").info("Sending due task %s (%s)", "sweep", SWEEP)

    assert [record.levelname for record in caplog.records] == ["DEBUG"]
