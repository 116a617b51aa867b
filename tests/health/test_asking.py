"""Checks that are made side by side, each in a thread of its own."""

from threading import Thread

import pytest

from app.health.asking import ask
from tests.support.deadlines import DEADLINE_S


def test_a_check_for_which_no_thread_starts_has_failed_and_is_made_the_next_time() -> None:
    owner = object()

    def asked() -> object:
        return ask({"store": lambda: "ok"}, of=owner, within_s=DEADLINE_S)["store"]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Thread, "start", refused)
        failed = asked()

    assert isinstance(failed, RuntimeError)
    assert str(failed) == "can't start new thread"
    assert asked() == "ok"


def refused(_: Thread) -> None:
    """As a thread starts in a container whose `pids_limit` is reached."""
    raise RuntimeError("can't start new thread")
