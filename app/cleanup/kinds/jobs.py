"""Jobs: cancelled, seen ended, then removed. First, because running code makes files and holds deployments."""

from app.cleanup.kinds.base import Gone, ResourceKind, Waiting
from app.context import Context
from app.db import after_commit, session_scope
from app.dispatch import job_ring
from app.lifecycle import JOB_TERMINAL
from app.models import Job
from app.services import jobs as service


def _delete(context: Context, job: Job) -> Gone | Waiting:
    with session_scope(context.sessions) as session:
        status = service.request_stop(session, job.id)
        if status is None or status in JOB_TERMINAL:
            return Gone()
        # Rung on every poll: a lost ring costs one poll, not the job.
        after_commit(session, lambda: context.bell.ring(job_ring(job.id, job.workspace_id, job.name)))
    return Waiting(f"{status.value}: waiting for the runtime worker to confirm that it ended")


KIND = ResourceKind("jobs", Job, _delete)
