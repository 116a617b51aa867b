"""The metrics of requests, shared by the processes of a server: each writes a file, and who is asked reads all.

A process that takes the place of another goes on with its file, so that no number falls and no file is left over.
"""

import os
import shutil
import tempfile
from itertools import count

from gunicorn.arbiter import Arbiter
from gunicorn.workers.base import Worker
from prometheus_client import multiprocess, values

from app.health.metrics.requests import SHARED_DIRECTORY


def open_directory() -> None:
    """Make the directory for the files. To be called before any process is forked."""
    os.environ[SHARED_DIRECTORY] = tempfile.mkdtemp(prefix="workspaces-metrics-")


def remove_directory() -> None:
    """Remove it, with all files."""
    if directory := os.environ.get(SHARED_DIRECTORY):
        shutil.rmtree(directory, ignore_errors=True)


def assign_place(server: Arbiter, worker: Worker) -> None:
    """Give a process that is about to be forked the first place that no other has."""
    taken = {one.metrics_place for one in server.WORKERS.values()}
    worker.metrics_place = next(place for place in count() if place not in taken)


def take_place(worker: Worker) -> None:
    """Let this process count in the file of its place."""
    place = worker.metrics_place
    values.ValueClass = values.MultiProcessValue(lambda: place)  # type: ignore[no-untyped-call]


def leave_place(worker: Worker) -> None:
    """Forget what a process that has ended had in progress."""
    multiprocess.mark_process_dead(worker.metrics_place)  # type: ignore[no-untyped-call]
