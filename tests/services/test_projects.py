"""A project that is deleted while somebody else uses it."""

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from app.context import Context
from app.db import session_scope
from app.errors import NotFound
from app.services import projects
from tests.factories import make_project, make_workspace
from tests.support.actors import trusted
from tests.support.locks import has_to_wait, meanwhile

ANN = trusted("ann")
ACTS: dict[str, Callable[[Session], Any]] = {
    "update": lambda session: projects.update_project(
        session, ANN, "ml-team", "apollo", {"description": "x"}
    ),
    "delete": lambda session: projects.delete_project(session, ANN, "ml-team", "apollo"),
}


@pytest.mark.parametrize("act", ACTS)
def test_who_comes_after_a_deletion_finds_no_project(
    session: Session, context: Context, database: Engine, act: str
) -> None:
    make_project(session, make_workspace(session, "ml-team"), "apollo")
    session.commit()

    def follow() -> None:
        with session_scope(context.sessions) as later:
            ACTS[act](later)

    projects.delete_project(session, ANN, "ml-team", "apollo")
    with meanwhile(follow) as following:
        assert has_to_wait(database, following)
        session.commit()

    assert isinstance(following.exception(), NotFound)
