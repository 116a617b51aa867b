"""The order of locks: a deletion before its failures, for people as for workers."""

from sqlalchemy.orm import Session

from app.cleanup import failures, operations
from app.db import session_scope
from app.lifecycle import DeletionState, FailureClass
from app.models import Deletion
from tests import factories
from tests.cleanup.conftest import the
from tests.support.actors import trusted
from tests.support.locks import has_to_wait, meanwhile


def test_a_skip_and_a_worker_that_comes_back_do_not_deadlock(
    session, context, database, delete, drive, faulty
):
    bad = factories.make_fileset(session, factories.make_workspace(session), "bad")
    session.commit()
    faulty.faults[bad.id] = PermissionError("no")
    deletion_id = delete("ml-team")
    drive(deletion_id)

    def skip():
        with session_scope(context.sessions) as administrator:
            deletion = administrator.get_one(Deletion, deletion_id)
            operations.force(administrator, context, trusted("root"), deletion, reason="ticket 7")

    with Session(database) as worker:
        worker.get_one(Deletion, deletion_id, with_for_update={"key_share": True})
        with meanwhile(skip) as skipping:
            assert has_to_wait(database, skipping)
            failures.upsert(
                worker,
                deletion_id,
                "filesets",
                resource_id=bad.id,
                name="bad",
                error_class=FailureClass.PERMANENT,
                message="seen again",
            )
            worker.commit()
        skipping.result()

    assert the(session, deletion_id).state is DeletionState.DELETING
