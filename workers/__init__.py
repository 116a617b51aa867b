"""The Celery side: tasks are thin doors to `app`, which never imports this package."""
