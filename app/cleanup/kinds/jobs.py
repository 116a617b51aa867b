"""Jobs: cancelled, seen ended, then removed. First, because running code makes files and holds deployments."""

from app.cleanup.kinds.base import Gone, ResourceKind, Waiting
from app.context import Context
from app.db import session_scope
from app.dispatch import job_ring, notify_after_commit
from app.models import Job
from app.services import jobs as service


def _delete(context: Context, job: Job) -> Gone | Waiting:
    with session_scope(context.sessions) as session:
        present = service.request_stop(session, job.id)
        if present is None or service.has_ended(present):
            return Gone()
        ring = job_ring(present.id, present.workspace_id, present.name, present.host)
        # Rung on every poll: a lost ring costs one poll, not the job.
        notify_after_commit(session, context.bell, ring)
    whom = f"host '{present.host}'" if present.host else "the runtime worker"
    return Waiting(f"{present.status.value}: waiting for {whom} to confirm that its processes are gone")


KIND = ResourceKind("jobs", Job, _delete)
