"""Who may follow a deletion is asked by a statement that is made once, and about the actor of each request."""

from dataclasses import replace

import pytest
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from app.access.authorize import Actor
from app.access.permissions import Permission
from app.access.principal import Principal
from app.cleanup.requests import find_deletion
from app.errors import Forbidden, NotFound
from tests.factories import make_failed_deletion
from tests.support.statements import counted

ANN = Actor(Principal("ann"), Permission.DELETIONS_READ)


def test_each_actor_finds_its_own(session: Session, engine: Engine) -> None:
    its, other = make_failed_deletion(session, "a"), make_failed_deletion(session, "b")
    its.requested_by = "ann"
    session.commit()
    bob = replace(ANN, principal=Principal("somebody"))

    with counted(engine) as sent:
        assert find_deletion(session, ANN, str(its.id)).id == its.id
        assert find_deletion(session, bob, str(other.id)).id == other.id

    assert [one.text for one in sent] == [sent[0].text] * 2
    for actor, foreign in ((ANN, other), (bob, its), (replace(ANN, is_in_scope=False), its)):
        with pytest.raises(Forbidden):
            find_deletion(session, actor, str(foreign.id))


@pytest.mark.parametrize("deletion_id", ["no-id", "00000000-0000-0000-0000-000000000007"])
def test_what_is_no_deletion_is_not_found(session: Session, deletion_id: str) -> None:
    admin = replace(ANN, principal=Principal("root", is_platform_admin=True))

    with pytest.raises(NotFound):
        find_deletion(session, admin, deletion_id)
