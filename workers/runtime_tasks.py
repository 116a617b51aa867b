"""The runtime queue: each task supervises one job or deployment, for as long as its processes live."""

from uuid import UUID

from app.dispatch import TaskName
from app.runtime.deployments import supervisor as deployments
from app.runtime.jobs import supervisor as jobs
from workers.celery_app import celery, context
from workers.host import stopping


# Acknowledged when it is heard: the row knows what is left to do, and the sweep rings again, while Redis would
# deliver the message of a long job again and again. The pool of threads, in which they run, has no time limits.
@celery.task(name=TaskName.JOB_RUN.value, acks_late=False, max_retries=0)
def run_job(job_id: str, workspace_id: str, job: str) -> str:
    """Run a job, or do whatever else it waits for."""
    del workspace_id  # shown in Flower
    return f"{job}: {jobs.supervise(context(), UUID(job_id), stopping=stopping)}"


@celery.task(name=TaskName.DEPLOYMENT_RUN.value, acks_late=False, max_retries=0)
def run_deployment(deployment_id: str, workspace_id: str, deployment: str) -> str:
    """Serve a deployment, or do whatever else it waits for."""
    del workspace_id  # shown in Flower
    return f"{deployment}: {deployments.supervise(context(), UUID(deployment_id), stopping=stopping)}"
