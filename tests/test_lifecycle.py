"""Every move of the tables is made, by its one writer, from exactly the states it leads from; and no other is."""

import ast
import inspect
from collections.abc import Callable, Iterator
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Engine, event, func, select
from sqlalchemy.orm import Session

import app
from app import clock
from app.cleanup import ledger
from app.cleanup.lease import Claim
from app.config import Settings
from app.errors import WrongState
from app.lease import LeaseLost
from app.lifecycle import (
    JOB_MOVES,
    JOB_TERMINAL,
    DeletionMove,
    DeletionState,
    DeliveryMove,
    DeliveryStatus,
    DeploymentMove,
    JobMove,
    JobStatus,
    WorkspaceMove,
    WorkspaceState,
)
from app.models import Deletion, DeletionEvent, Delivery, Workspace
from app.notifications import deliveries
from app.services import deployments, jobs, workspaces
from tests import factories
from tests.support.actors import trusted
from tests.support.sources import parsed

SETTINGS = Settings()
APP = Path(app.__file__).parent
FILES = sorted(APP.rglob("*.py"))


def claim_of(deletion: Deletion, **changes: Any) -> Claim:
    values: dict[str, Any] = {
        "id": deletion.id,
        "workspace_id": deletion.workspace_id,
        "workspace_name": deletion.workspace_name,
        "fence": deletion.fence,
        "owner": "worker",
        "phase": None,
        "phase_started_at": None,
        "cursor": None,
        "round": 0,
        "lease_s": 60,
        "is_first": False,
        "is_takeover": False,
        "is_forced": False,
        "has_failures": False,
    }
    return Claim(**{**values, **changes})


def restore(session: Session, deletion: Deletion) -> None:
    ledger.close_as_restored(session, deletion.id, actor="ann", name="ml-team")


def reopen(session: Session, deletion: Deletion) -> None:
    ledger.reopen(session, deletion.id, event="retried", actor="ann")


def fail(session: Session, deletion: Deletion, **changes: Any) -> None:
    ledger.fail(
        session,
        claim_of(deletion, **changes),
        SETTINGS,
        reason="no",
        is_permanent=False,
        attempts=8,
    )


def finish(session: Session, deletion: Deletion, **changes: Any) -> None:
    ledger.finish(session, claim_of(deletion, **changes))


def wait(session: Session, deletion: Deletion, **changes: Any) -> None:
    ledger.wait(session, claim_of(deletion, **changes), SETTINGS, polls=1)


MAKERS: dict[DeletionMove, Callable[[Session, Deletion], None]] = {
    DeletionMove.RESTORE: restore,
    DeletionMove.FAIL: fail,
    DeletionMove.REOPEN: reopen,
    DeletionMove.FINISH: finish,
}
"""How the code makes each move of a deletion."""

FOLLOWS = {DeletionState.FAILED: WorkspaceState.FAILED, DeletionState.RESTORED: WorkspaceState.ACTIVE}
"""The state of the workspace beside that of its deletion, where it is not DELETING."""


def make_deletion(session: Session, state: DeletionState, name: str = "ml-team") -> Deletion:
    workspace = factories.make_workspace(session, name, state=FOLLOWS.get(state, WorkspaceState.DELETING))
    deletion = Deletion(
        workspace_id=workspace.id, workspace_name=name, state=state, lease_owner="worker", fence=3
    )
    session.add(deletion)
    session.commit()
    return deletion


def state_of(session: Session, deletion: Deletion) -> tuple[DeletionState, WorkspaceState | None, int]:
    """Of the deletion and of its workspace; and how many events it has."""
    session.expire_all()
    workspace = session.get(Workspace, deletion.workspace_id)
    told = select(func.count()).where(DeletionEvent.deletion_id == deletion.id)
    return deletion.state, workspace.state if workspace else None, session.scalar(told) or 0


@pytest.mark.parametrize("before", DeletionState)
@pytest.mark.parametrize("move", DeletionMove)
def test_a_deletion_makes_a_move_from_exactly_the_states_it_leads_from(
    session: Session, move: DeletionMove, before: DeletionState
) -> None:
    assert move in MAKERS, f"{move} is in app/lifecycle.py: say in MAKERS which code makes it, or take it out"
    deletion, neighbour = make_deletion(session, before), make_deletion(session, before, "neighbour")
    untouched = state_of(session, neighbour)

    if before in move.value.before:
        MAKERS[move](session, deletion)
        session.commit()
        state, workspace, events = state_of(session, deletion)
        expected = {
            DeletionMove.FINISH: None,
            DeletionMove.RESTORE: WorkspaceState.DELETING,  # `operations.restore` gives it back
        }.get(move, FOLLOWS.get(state, WorkspaceState.DELETING))
        assert (state, workspace, events) == (move.value.after, expected, 1)
    else:
        with pytest.raises((WrongState, LeaseLost)):
            MAKERS[move](session, deletion)
        assert state_of(session, deletion) == untouched

    assert state_of(session, neighbour) == untouched


@pytest.mark.parametrize("before", WorkspaceState)
@pytest.mark.parametrize("move", WorkspaceMove)
def test_a_workspace_makes_a_move_from_exactly_the_states_it_leads_from(
    session: Session, move: WorkspaceMove, before: WorkspaceState
) -> None:
    workspace = factories.make_workspace(session, state=before)
    neighbour = factories.make_workspace(session, "neighbour", state=before)
    leads_from_it = before in move.value.before

    moved = workspaces.move_workspace(session, move, Workspace.id == workspace.id)
    session.commit()

    states = dict(session.execute(select(Workspace.id, Workspace.state)).all())
    assert (moved is not None) == leads_from_it
    assert states.get(workspace.id) == (move.value.after if leads_from_it else before)
    assert states[neighbour.id] is before


@pytest.mark.parametrize("before", DeliveryStatus)
@pytest.mark.parametrize("move", DeliveryMove)
def test_a_delivery_makes_a_move_from_exactly_the_states_it_leads_from(
    session: Session, move: DeliveryMove, before: DeliveryStatus
) -> None:
    subscription = factories.make_subscription(session)
    delivery, neighbour = (factories.make_delivery(session, subscription, status=before) for _ in range(2))

    deliveries.move(session, move, Delivery.id == delivery.id, attempts=7)
    session.commit()

    leads_from_it = before in move.value.before
    assert delivery.status is (move.value.after if leads_from_it else before)
    assert (delivery.attempts == 7) == leads_from_it
    assert (neighbour.status, neighbour.attempts) == (before, 0)


def test_a_deletion_that_has_begun_is_not_restored(session: Session) -> None:
    deletion = make_deletion(session, DeletionState.DELETING)
    deletion.started_at = clock.now()
    session.commit()

    with pytest.raises(WrongState, match="Destruction has begun"):
        restore(session, deletion)


@pytest.mark.parametrize("change", [{"fence": 2}, {"owner": "another"}, {"id": UUID(int=1)}], ids=str)
@pytest.mark.parametrize("make", [fail, finish, wait])
def test_a_worker_whose_lease_is_lost_moves_nothing(
    session: Session, make: Callable[..., None], change: dict[str, Any]
) -> None:
    deletion = make_deletion(session, DeletionState.DELETING)

    with pytest.raises(LeaseLost):
        make(session, deletion, **change)

    assert state_of(session, deletion) == (DeletionState.DELETING, WorkspaceState.DELETING, 0)


@pytest.mark.parametrize("make", [fail, finish, wait, restore, reopen])
def test_a_transition_of_a_deletion_is_one_guarded_update(
    engine: Engine, session: Session, make: Callable[[Session, Deletion], None]
) -> None:
    deletion = make_deletion(session, DeletionState.FAILED if make is reopen else DeletionState.DELETING)
    updates: list[str] = []

    @event.listens_for(engine, "before_cursor_execute")
    def note(*call: Any) -> None:
        if call[2].startswith("UPDATE deletions "):
            updates.append(call[2])

    make(session, deletion)
    session.commit()
    event.remove(engine, "before_cursor_execute", note)

    [update] = updates
    assert "deletions.state" in update.partition(" WHERE ")[2]


def test_a_deletion_whose_workspace_does_not_follow_it_is_not_moved_on(session: Session) -> None:
    deletion = make_deletion(session, DeletionState.DELETING)
    session.get_one(Workspace, deletion.workspace_id).state = WorkspaceState.ACTIVE
    session.commit()

    with pytest.raises(RuntimeError, match="not in the state of its deletion"):
        finish(session, deletion)

    session.rollback()
    assert state_of(session, deletion) == (DeletionState.DELETING, WorkspaceState.ACTIVE, 0)


def test_what_a_job_has_ended_as_is_left_by_nothing_but_a_rerun() -> None:
    assert set(JobMove.RERUN.value.before) == JOB_TERMINAL
    assert all(JobStatus.CREATED not in after for after in JOB_MOVES.values())
    assert [
        move for move in JobMove if JOB_TERMINAL & set(move.value.before) and move is not JobMove.RERUN
    ] == []


@cache
def named_by_code() -> frozenset[str]:
    """Every `Name.ATTRIBUTE` that the code outside app/lifecycle.py mentions."""
    return frozenset(
        f"{node.value.id}.{node.attr}"
        for path in FILES
        if path.name != "lifecycle.py"
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
    )


@pytest.mark.parametrize("move", [*WorkspaceMove, *DeletionMove, *JobMove, *DeliveryMove], ids=str)
def test_every_move_is_made_by_some_code(move: Enum) -> None:
    assert str(move) in named_by_code(), (
        f"No code makes {move}: make it where its state is written, or take it out of app/lifecycle.py."
    )


@pytest.mark.parametrize("move", DeploymentMove)
def test_every_move_of_a_deployment_is_made_by_who_reports_it(session: Session, move: DeploymentMove) -> None:
    home = factories.make_workspace(session)
    for before in move.value.before:
        factories.make_deployment(session, home, before.lower(), before)

    for before in move.value.before:
        reported = deployments.report_status(
            session,
            trusted("ann"),
            "ml-team",
            before.lower(),
            version=None,
            status=move.value.after,
            message="",
            model_provider_id=None,
        )
        assert reported.status is move.value.after


WRITERS = {workspaces.move_workspace, ledger._move, jobs._change, deployments.move, deliveries.move}
"""The functions that write the state of a row that is there."""


def test_nothing_but_the_one_writer_of_a_table_changes_a_state() -> None:
    allowed = {(Path(inspect.getsourcefile(one) or ""), one.__name__) for one in WRITERS}
    found = {(path, name) for path in FILES for name in state_writers(parsed(path))}

    assert found == allowed, (
        "A state is changed by a move of app/lifecycle.py, made by the one writer of its table; "
        f"these are others, or writers no more: {sorted(map(str, found ^ allowed))}"
    )


def state_writers(tree: ast.AST) -> Iterator[str]:
    """The functions that set `state` or `status` of a row, in an UPDATE or as an attribute."""
    for function in ast.walk(tree):
        if isinstance(function, ast.FunctionDef):
            # The keys of what it collects in a dictionary before it updates a row.
            given = {
                key.value
                for node in ast.walk(function)
                if isinstance(node, ast.Assign | ast.AugAssign) and isinstance(node.value, ast.Dict)
                for key in node.value.keys
                if isinstance(key, ast.Constant)
            }
            for node in ast.walk(function):
                if isinstance(node, ast.Call) and _called(node) in {"values", "write", "setattr"}:
                    if ast.unparse(node.func).startswith(("upsert(", "insert(")):
                        continue  # a row that was not there
                    named = {keyword.arg for keyword in node.keywords}
                    named |= {one.value for one in node.args if isinstance(one, ast.Constant)}
                    if any(isinstance(one, ast.Name) for one in node.args) or None in named:
                        named |= given
                    if named & {"state", "status"}:
                        yield function.name
                elif (
                    isinstance(node, ast.Attribute)
                    and isinstance(node.ctx, ast.Store)
                    and node.attr in {"state", "status"}
                    and ast.unparse(node.value) != "self"
                ):
                    yield function.name


def _called(call: ast.Call) -> str:
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
