"""The Celery workers. A task only calls a function of `app`, which never imports this package."""
