"""The task of the notify queue. It has a worker of its own: a receiver that hangs delays no sweep and no deletion."""

import os
import socket
from uuid import UUID

from celery import Task

from app.dispatch import TaskName
from app.lease import LeaseLost
from app.notifications.sending import send_due
from workers.celery_app import celery, context
from workers.log_filter import NOTHING_TO_DO


@celery.task(name=TaskName.DELIVER.value, bind=True, max_retries=0)
def deliver(task: Task, subscription_id: str) -> str:
    """Send to a subscription what is due."""
    owner = f"{socket.gethostname()}/{os.getpid()}/{task.request.id}"
    try:
        return send_due(context(), UUID(subscription_id), owner=owner) or NOTHING_TO_DO
    except LeaseLost:
        return "another worker has taken over, or the subscription was changed or deleted"
