"""The runtime queue: the life of jobs and deployments."""

from uuid import UUID

from app.dispatch import TaskName
from app.runtime import deployments, jobs
from workers.celery_app import celery, context


@celery.task(name=TaskName.JOB_RUN.value, max_retries=3)
def run_job(job_id: str, workspace_id: str, job: str) -> str:
    """Move a job on by what it was asked for."""
    del workspace_id  # shown in Flower
    return f"{job}: {jobs.advance(context(), UUID(job_id))}"


@celery.task(name=TaskName.DEPLOYMENT_RUN.value, max_retries=3)
def run_deployment(deployment_id: str, workspace_id: str, deployment: str) -> str:
    """Move a deployment on by what it was asked for."""
    del workspace_id  # shown in Flower
    return f"{deployment}: {deployments.advance(context(), UUID(deployment_id))}"
