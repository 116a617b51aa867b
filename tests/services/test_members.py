from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from app import clock
from app.access.roles import Role
from app.errors import LastAdmin
from app.models import RoleBinding, Workspace
from app.services import members
from app.services.workspaces import writable_workspace
from tests.factories import make_project, make_workspace
from tests.support.actors import trusted
from tests.support.locks import has_to_wait, meanwhile

ROOT = trusted("root")
Leave = Callable[[Session, str], Any]


def leave_by_delete(session: Session, principal: str) -> None:
    members.remove_member(session, ROOT, "ml-team", principal)


def leave_by_put(session: Session, principal: str) -> None:
    members.replace_roles(session, ROOT, "ml-team", principal, [Role.VIEWER])


def leave_by_revocation(session: Session, principal: str) -> None:
    admin = RoleBinding.principal == principal, RoleBinding.role == Role.ADMIN
    members.revoke_binding(session, ROOT, session.scalars(select(RoleBinding.name).where(*admin)).one())


LEAVINGS = [leave_by_delete, leave_by_put, leave_by_revocation]


@pytest.fixture
def workspace(session: Session) -> Workspace:
    """A workspace administered by ann and bob."""
    made = make_workspace(session, "ml-team")
    for admin in ("ann", "bob"):
        members.add_member(session, ROOT, "ml-team", admin, [Role.ADMIN])
    session.commit()
    return made


def admins(session: Session) -> set[str]:
    return {
        member.principal
        for member in (
            members.Member(*row) for row in session.execute(members.members_of(session, ROOT, "ml-team"))
        )
        if "Admin" in member.roles
    }


@pytest.mark.usefixtures("workspace")
@pytest.mark.parametrize("ann_leaves", LEAVINGS)
@pytest.mark.parametrize("bob_leaves", LEAVINGS)
def test_two_admins_cannot_both_leave_at_once(
    database: Engine, session: Session, ann_leaves: Leave, bob_leaves: Leave
) -> None:
    def bob_goes() -> None:
        with Session(database) as second, second.begin():
            bob_leaves(second, "bob")

    with Session(database) as first:
        ann_leaves(first, "ann")
        first.flush()
        with meanwhile(bob_goes) as going:
            assert has_to_wait(database, going)
            first.commit()
    with pytest.raises(LastAdmin):
        going.result()

    assert admins(session) == {"bob"}


@pytest.mark.usefixtures("workspace")
def test_a_change_of_members_does_not_hold_up_other_creators(database: Engine) -> None:
    def create() -> None:
        with Session(database) as creator, creator.begin():
            make_project(creator, writable_workspace(creator, ROOT, "ml-team"))

    with Session(database) as changing:
        members.remove_member(changing, ROOT, "ml-team", "ann")
        changing.flush()
        with meanwhile(create) as creating:
            assert not has_to_wait(database, creating)
    creating.result()


def test_changes_in_different_workspaces_do_not_wait_for_each_other(
    database: Engine, session: Session, workspace: Workspace
) -> None:
    make_workspace(session, "other")
    session.commit()

    def add_elsewhere() -> None:
        with Session(database) as second, second.begin():
            members.add_member(second, ROOT, "other", "ann", [Role.ADMIN])

    with Session(database) as first:
        members.remove_member(first, ROOT, workspace.name, "ann")
        first.flush()
        with meanwhile(add_elsewhere) as adding:
            assert not has_to_wait(database, adding)
    adding.result()


@pytest.mark.usefixtures("workspace")
def test_the_same_grant_twice_at_once_is_one_binding(database: Engine, session: Session) -> None:
    def grant() -> None:
        with Session(database) as second, second.begin():
            members.add_member(second, ROOT, "ml-team", "eve", [Role.VIEWER])

    with Session(database) as first:
        members.add_member(first, ROOT, "ml-team", "eve", [Role.VIEWER])
        with meanwhile(grant) as granting:
            assert has_to_wait(database, granting)
            first.commit()
    granting.result()

    assert len(session.scalars(select(RoleBinding).where(RoleBinding.principal == "eve")).all()) == 1


def test_a_new_grant_forgets_the_deletion_that_revoked_the_old_one(
    session: Session, workspace: Workspace
) -> None:
    """Otherwise the restore of a later deletion could take it for one of its own."""
    query = select(RoleBinding).where(
        RoleBinding.workspace_id == workspace.id, RoleBinding.principal == "ann"
    )
    binding = session.scalars(query).one()
    binding.revoked_at = clock.now()
    binding.revoked_by_deletion = uuid4()
    revoked_at = binding.revoked_at
    session.commit()

    members.add_member(session, trusted("eve"), "ml-team", "ann", [Role.ADMIN])
    session.commit()

    renewed = session.scalars(query.execution_options(populate_existing=True)).one()
    assert (renewed.id, renewed.revoked_at, renewed.revoked_by_deletion) == (binding.id, None, None)
    assert renewed.granted_at > revoked_at
    assert renewed.granted_by == "eve"
