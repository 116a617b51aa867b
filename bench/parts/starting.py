"""Imports and starts."""

import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial

from bench.figures import Figure, Row
from bench.product import Program
from bench.run import Part, Run, alternate
from devstack.__main__ import CHECKOUT, READY_WORDS, is_healthy
from devstack.processes import HOST, end, free_port

_IMPORTS = {
    Row("import of the web application", "s CPU", "its libraries alone"): (
        "import app.api.application as it; it.all_routes()",
        "import flask, pydantic, sqlalchemy.orm, psycopg, celery, fsspec, prometheus_client, structlog",
    ),
    Row("import of the workers", "s CPU", "their libraries alone"): (
        "import workers.celery_app",
        "import celery.bin.worker, sqlalchemy.orm, psycopg, pydantic, fsspec, structlog",
    ),
}
_WEB = Row("start of web until it is ready", "s", "gunicorn with an empty application")
_WORKER = Row("start of worker until it is ready", "s", "Celery without tasks")
_EMPTY_WEB = f"exec gunicorn -b {HOST}:$PORT -k gthread -w 2 --threads 8 bench.nothing:application"
_EMPTY_WORKER = "exec celery -A bench.nothing:celery worker -Q nothing -n nothing@%h --concurrency 2 -l INFO"
_EACH_S = 9


def _measure(run: Run) -> Iterator[Figure]:
    for row, (ours, theirs) in _IMPORTS.items():
        found = alternate(
            run, {"ours": partial(_import, ours), "theirs": partial(_import, theirs)}, within_s=_EACH_S
        )
        yield Figure(row, found["ours"]["s"], found["theirs"]["s"])
    for row, name, empty in ((_WEB, "web", _EMPTY_WEB), (_WORKER, "worker", _EMPTY_WORKER)):
        things = {
            kind: partial(_start, run, name, line) for kind, line in (("ours", None), ("theirs", empty))
        }
        found = alternate(run, things, within_s=_EACH_S)
        yield Figure(row, found["ours"]["s"], found["theirs"]["s"])


def _import(code: str) -> dict[str, float]:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", code], check=True, cwd=CHECKOUT)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {"s": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime}


def _start(run: Run, name: str, line: str | None) -> dict[str, float]:
    product, port = run.product, free_port()
    began = time.monotonic()
    program = product.spawn(name, line=line, log_name=f"{name}-started", PORT=str(port))
    try:
        product.wait_until(_is_ready(name, program, port), until=run.deadline)
        return {"s": time.monotonic() - began}
    finally:
        end(program.process, signal.SIGTERM, grace_s=10)


def _is_ready(name: str, program: Program, port: int) -> Callable[[], bool]:
    if words := READY_WORDS.get(name):
        return lambda: words in program.log.read_text(errors="replace")
    return lambda: is_healthy(port, "/health/ready")


PART = Part("starting", (*_IMPORTS, _WEB, _WORKER), _measure, usual_s=60)
