"""A DELETE of a workspace that many clients write to without a pause."""

import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from threading import Event, Semaphore
from uuid import UUID

import pytest
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from app.cleanup.requests import request_deletion
from app.context import Context
from app.db import connect, session_scope, sessions_of
from app.errors import NotFound
from app.services.workspaces import writable_workspace
from tests.factories import make_project, make_workspace, rows_of
from tests.support.actors import trusted
from tests.support.deadlines import DEADLINE_S
from tests.support.figures import Tell
from tests.support.search import examples

ANN = trusted("ann@example.com")
TRIES = examples(short=2, long=50)


@pytest.fixture
def busy(context: Context) -> Iterator[Context]:
    """With a connection for each writer, and time for a machine on which all of them are slow."""
    settings = context.settings.model_copy(
        update={"database_pool_size": 70, "delete_lock_timeout_seconds": DEADLINE_S}
    )
    engine = connect(settings)
    yield replace(context, settings=settings, sessions=sessions_of(engine))
    engine.dispose()


def write(context: Context, number: int, has_begun: Semaphore, stop: Event) -> tuple[int, str]:
    """Create projects until the workspace is gone: how many, and the last answer."""
    made = 0
    while not stop.is_set():
        try:
            with session_scope(context.sessions) as session:
                make_project(session, writable_workspace(session, ANN, "ml-team"), f"{number}-{made}")
        except NotFound:
            return made, "404"
        except DBAPIError:
            return made, "503"
        made += 1
        if made == 1:
            has_begun.release()
    return made, "none"


def race(context: Context, session: Session, writers: int) -> tuple[float, Counter[str]]:
    """How long a DELETE took, in seconds, and the last answers of the writers."""
    workspace: UUID = make_workspace(session, "ml-team").id
    session.commit()
    has_begun, stop = Semaphore(0), Event()
    with ThreadPoolExecutor(writers) as pool, ExitStack() as undo:
        undo.callback(stop.set)
        tasks = [pool.submit(write, context, number, has_begun, stop) for number in range(writers)]
        for _ in range(writers):
            assert has_begun.acquire(timeout=DEADLINE_S)
        started = time.monotonic()
        with session_scope(context.sessions) as deleter:
            request_deletion(deleter, context, ANN, "ml-team")
        took_s = time.monotonic() - started
        answers = [task.result(DEADLINE_S) for task in tasks]
    assert rows_of(session, workspace) == {"projects": sum(made for made, _ in answers)}
    return took_s, Counter(answer for _, answer in answers)


@pytest.mark.parametrize("writers", [16, 64])
def test_a_delete_is_answered_and_every_writer_is_refused_after_it(
    database: Engine, session: Session, busy: Context, tell: Tell, writers: int
) -> None:
    took, answers = [], Counter[str]()
    for _ in range(TRIES):
        seconds, last = race(busy, session, writers)
        took.append(seconds)
        answers += last

    took.sort()
    tell(
        f"{writers} writers against DELETE, {TRIES} tries: answered after {took[0]:.2f} s at least, "
        f"{took[len(took) // 2]:.2f} s in the middle, {took[-1]:.2f} s at most; "
        f"the writers' last answers: {dict(answers)}"
    )
    assert set(answers) == {"404"}
