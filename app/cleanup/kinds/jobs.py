"""Jobs: cancelled, seen ended, then removed. First, because running code makes files and holds deployments."""

from app.cleanup.kinds.base import Deleted, Pending, ResourceKind
from app.context import Context
from app.db import session_scope
from app.dispatch import job_message, notify_after_commit
from app.models import Job
from app.services import jobs as service


def _delete(context: Context, job: Job) -> Deleted | Pending:
    with session_scope(context.sessions) as session:
        present, is_requested_now = service.request_stop(session, job.id)
        if present is None or service.has_ended(present):
            return Deleted()
        if is_requested_now:
            # Once: the sweep sends it again as long as nobody looks after the row. To do so at every poll would fill
            # the queue where thousands wait.
            message = job_message(present.id, present.workspace_id, present.name, present.host)
            notify_after_commit(session, context.publisher, message)
    whom = f"host '{present.host}'" if present.host else "the runtime worker"
    return Pending(f"{present.status.value}: waiting for {whom} to confirm that its processes are gone")


KIND = ResourceKind("jobs", Job, _delete)
