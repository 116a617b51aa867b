"""The conditions of access: made once, asked with parameters, and found by index however often they are asked."""

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from sqlalchemy import Engine, select, text, true
from sqlalchemy.dialects.postgresql.asyncpg import PGDialect_asyncpg
from sqlalchemy.exc import StatementError
from sqlalchemy.orm import Session

from app.access.authorize import Actor, permitted, permitted_platform_wide, require_platform_wide
from app.access.permissions import WITHOUT_WORKSPACE, Permission
from app.access.principal import Principal
from app.access.roles import Role
from app.errors import Forbidden, Unauthorized
from app.models import Workspace
from app.models.workspace import is_active
from app.services.workspaces import readable_workspace
from tests import factories
from tests.support.statements import compact, counted, nodes, noted

ANN = Actor(Principal("ann"), Permission.WORKSPACES_READ)
BEN = Actor(
    Principal("ben", email="ben@example.org", groups=frozenset({"one", "two"})), Permission.WORKSPACES_READ
)


def test_a_statement_without_the_parameters_of_an_actor_fails(session: Session) -> None:
    with pytest.raises(StatementError, match="actor_identities"):
        session.scalars(select(Workspace).where(permitted(ANN.access)))


def test_the_condition_of_a_permission_is_made_once() -> None:
    assert permitted(ANN.access) is permitted(BEN.access)


def test_the_server_sees_one_statement_whoever_asks(database: Engine, session: Session) -> None:
    with counted(database) as sent:
        for actor in (ANN, BEN):
            readable_workspace(session, actor, "default")
    assert len({one.text for one in sent}) == 1


def test_a_generic_plan_finds_the_name_by_its_index(session: Session) -> None:
    query = select(Workspace.id).where(Workspace.name == text("$1"), is_active())
    session.execute(text(f"PREPARE named (text) AS {query.compile(dialect=PGDialect_asyncpg())}"))
    for setting in ("plan_cache_mode = force_generic_plan", "enable_seqscan = off"):
        session.execute(text(f"SET LOCAL {setting}"))
    plan = session.scalars(text("EXPLAIN EXECUTE named ('default')")).all()
    assert any("uq_workspaces_name_active" in line for line in plan)
    session.execute(text("DEALLOCATE named"))


def test_who_may_read_a_workspace_is_asked_of_one_binding_however_many_the_caller_has(
    database: Engine, session: Session
) -> None:
    for number in range(300):
        workspace = factories.make_workspace(session, f"team-{number:03}")
        factories.make_binding(session, workspace, "ann", Role.VIEWER)
    session.commit()
    compact(database, "workspaces", "role_bindings")
    with noted(database) as asked:
        readable_workspace(session, ANN, "team-007")

    [(statement, parameters)] = asked
    explained = f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}"
    plan = session.connection().exec_driver_sql(explained, parameters).scalar_one()[0]["Plan"]
    assert sum(read_of(plan, "role_bindings")) <= 10


def read_of(plan: dict[str, Any], table: str) -> Iterator[float]:
    """The rows that the nodes of a plan have read of a table."""
    for node in nodes(plan):
        if node.get("Relation Name") == table:
            yield node["Actual Rows"] + node.get("Rows Removed by Filter", 0)


@pytest.mark.parametrize("permission", sorted(WITHOUT_WORKSPACE))
@pytest.mark.parametrize("is_admin", [False, True])
@pytest.mark.parametrize("is_in_scope", [False, True])
@pytest.mark.parametrize("key", ["", "ak-1"])
def test_a_permission_is_asked_for_unless_the_answer_is_certain(
    session: Session, database: Engine, permission: Permission, is_admin: bool, is_in_scope: bool, key: str
) -> None:
    actor = Actor(Principal("ann", is_platform_admin=is_admin, access_key=key), permission, is_in_scope)
    question = select(permitted_platform_wide(actor.access))

    with counted(database) as sent, suppress(Forbidden, Unauthorized):
        require_platform_wide(session, actor)

    is_certain = str(question) == str(select(true()))
    assert bool(sent) is not is_certain
