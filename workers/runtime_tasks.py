"""The tasks of the runtime queue. Each supervises one job or deployment for as long as its processes live."""

from uuid import UUID

from app.dispatch import TaskName
from app.runtime.deployments import supervisor as deployments
from app.runtime.jobs import supervisor as jobs
from workers.celery_app import celery, context
from workers.host import draining, running_jobs, stopping, supervised


# Acknowledged on receipt: the row records the work, and the sweep enqueues it again if need be, whereas Redis would
# redeliver the message of a long job again and again. These tasks run in a thread pool, which has no time limits.
@celery.task(name=TaskName.JOB_RUN.value, acks_late=False, max_retries=0)
def run_job(job_id: str, workspace_id: str, job: str) -> str:
    """Run a job, or apply its requested state."""
    del workspace_id  # shown in Flower
    with supervised, running_jobs:
        summary = jobs.supervise(
            context(), UUID(job_id), stopping=stopping, draining=draining, crowded=supervised.are_many
        )
        return f"{job}: {summary}"


@celery.task(name=TaskName.DEPLOYMENT_RUN.value, acks_late=False, max_retries=0)
def run_deployment(deployment_id: str, workspace_id: str, deployment: str) -> str:
    """Serve a deployment, or apply its requested state."""
    del workspace_id  # shown in Flower
    with supervised:
        summary = deployments.supervise(
            context(), UUID(deployment_id), stopping=stopping, draining=draining, crowded=supervised.are_many
        )
    return f"{deployment}: {summary}"
