"""Traces: what is in them, what is not, and that no collector is ever waited for."""

import base64
import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID

import pytest
from celery.app.trace import build_tracer
from celery.signals import worker_process_shutdown
from flask import Flask
from flask.testing import FlaskClient
from pydantic import ValidationError
from sqlalchemy.orm import Session
from structlog.contextvars import bound_contextvars, clear_contextvars

from app.cleanup import engine
from app.config import Settings
from app.context import Context
from app.dispatch import Message, cleanup_message
from app.lifecycle import JobStatus
from app.logs import configure_logs, get_logger
from app.tracing import current_traceparent, span, start_tracing, stop_tracing
from devstack.processes import free_port
from tests import factories
from tests.support.collector import Collector, running_collector
from tests.support.deadlines import DEADLINE_S
from tests.support.publisher import RecordingPublisher
from workers import celery_app
from workers.celery_app import celery
from workers.envelope import executable

TRACE, CALLER = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
TRACEPARENT = f"00-{TRACE}-{CALLER}-01"
WORKSPACE = "/apis/entities/v2/workspaces/<workspace>"
DELETION = UUID("01a20aef-a8b0-7202-a731-b66b5e2bb8e2")


@pytest.fixture
def collector(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    """A collector to which this process sends its spans at once."""
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "20")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", str(DEADLINE_S))
    with running_collector() as collector:
        start_tracing(settings.model_copy(update={"traces_url": collector.url}))
        yield collector
        collector.answers.set()
        stop_tracing()
        for thread in _last_threads():
            thread.join(DEADLINE_S)
    clear_contextvars()


def _last_threads() -> list[threading.Thread]:
    return [one for one in threading.enumerate() if one.name == "last spans"]


@pytest.fixture
def carry_out(context: Context, monkeypatch: pytest.MonkeyPatch) -> Callable[[Message], Any]:
    """Carry out a message as a worker would that takes it from the broker."""
    monkeypatch.setattr(celery_app, "_context", context)
    celery.loader.import_default_modules()

    def run(message: Message) -> Any:
        made = celery.amqp.as_task_v2("7c1f", message.task, kwargs=message.facts)
        sent = {
            "body": base64.b64encode(json.dumps(made.body).encode()).decode(),
            "content-type": "application/json",
            "content-encoding": "utf-8",
            "headers": {**made.headers, **message.headers},
            "properties": {
                **made.properties,
                "body_encoding": "base64",
                "delivery_tag": "1",
                "delivery_info": {},
            },
        }
        headers = executable(sent)["headers"]
        task = celery.tasks[headers["task"]]
        return build_tracer(task.name, task, app=celery)(headers["id"], [], message.facts, headers)

    return run


# --- what is in a trace ---------------------------------------------------------------------------------------


def test_one_trace_leads_from_a_delete_to_what_its_slices_do(
    session: Session,
    client: FlaskClient,
    publisher: RecordingPublisher,
    collector: Collector,
    carry_out: Callable[[Message], Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(engine, "_SHARED_PART", 0)  # each kind in a task of its own
    workspace = factories.make_workspace(session)
    factories.make_job(session, workspace, status=JobStatus.COMPLETED)
    factories.make_fileset(session, workspace, "notes")
    session.commit()

    deletion_id = client.delete(
        "/apis/entities/v2/workspaces/ml-team?reason=hush", headers={"traceparent": TRACEPARENT}
    ).json["deletion_id"]
    while publisher.published:
        carry_out(publisher.published.pop())

    names = ("jobs", "filesets", "finalize")
    delete, *tasks = collector.wait_for(
        f"DELETE {WORKSPACE}", *(f"workspace.cleanup.{name}" for name in names)
    )
    steps = collector.wait_for("clean jobs", "clean filesets", "finalize")
    assert {one.trace_id for one in collector.spans} == {TRACE}
    assert (delete.kind, delete.parent_id, delete.facts["http.response.status_code"]) == (
        "SERVER",
        CALLER,
        200,
    )
    # Each slice is a part of what has enqueued it, and each kind of its slice.
    assert [one.parent_id for one in tasks] == [delete.id, steps[0].id, steps[1].id]
    assert [one.parent_id for one in steps] == [one.id for one in tasks]
    assert [one.facts["deletion_id"] for one in (*tasks, *steps)] == [deletion_id] * 6
    assert {one.facts["request_id"] for one in (delete, *tasks)} == {delete.facts["request_id"]}
    assert [one.facts["deleted"] for one in steps] == [1, 1, 0]
    assert [one.facts["state"] for one in tasks] == ["SUCCESS"] * 3
    assert not any(one.is_error for one in collector.spans)


def test_a_name_is_that_of_the_route_and_nothing_that_was_sent_is_in_a_span(
    client: FlaskClient, collector: Collector
) -> None:
    client.post(
        "/apis/entities/v2/workspaces/hush-path/projects?page=hush-query",
        json={"name": "hush-body"},
        headers={"X-Hush": "hush-header", "User-Agent": "hush-agent", "Authorization": "Bearer hush-token"},
    )

    collector.wait_for(f"POST {WORKSPACE}/projects")
    assert not [body for body in collector.raw if b"hush" in body]


def test_an_error_is_told_by_its_class_alone_and_its_line_in_the_log_has_the_trace(
    client: FlaskClient,
    app: Flask,
    collector: Collector,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(**_: object) -> None:
        raise RuntimeError("hush")

    [endpoint] = [rule.endpoint for rule in app.url_map.iter_rules() if rule.rule == "/cluster-info"]
    monkeypatch.setitem(app.view_functions, endpoint, fail)
    configure_logs(Settings(log_format="json"))

    client.get("/cluster-info")
    get_logger("tests").warning("test.over")
    with pytest.raises(LookupError), span("a kind"):
        raise LookupError("hush")

    configure_logs(Settings())
    of_request, after = map(json.loads, capsys.readouterr().err.splitlines())
    request, kind = collector.wait_for("GET /cluster-info", "a kind")
    assert (of_request["event"], of_request["trace_id"]) == ("request.failed", request.trace_id)
    assert "trace_id" not in after
    assert [(one.is_error, one.facts["error.type"]) for one in (request, kind)] == [
        (True, "500"),
        (True, "LookupError"),
    ]
    assert not [body for body in collector.raw if b"hush" in body]


def test_a_task_that_fails_is_an_error_and_ends_its_span(
    session: Session,
    collector: Collector,
    carry_out: Callable[[Message], Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("hush")

    monkeypatch.setattr("workers.cleanup_tasks.run_slice", fail)

    carry_out(cleanup_message(DELETION, "ml-team", "filesets"))

    [task] = collector.wait_for("workspace.cleanup.filesets")
    assert (task.is_error, task.facts["error.type"], task.facts["state"]) == (True, "RuntimeError", "FAILURE")
    assert current_traceparent() is None


@pytest.mark.parametrize(
    "sent",
    ["", "hush", f"00-{'0' * 32}-{CALLER}-01", f"00-{TRACE}-01", f"ff-{TRACE}-{CALLER}-01", "00-ü-é-01"],
)
def test_a_malformed_traceparent_is_ignored(client: FlaskClient, collector: Collector, sent: str) -> None:
    response = client.get("/cluster-info", headers={"traceparent": sent})

    [request] = collector.wait_for("GET /cluster-info")
    assert response.status_code == 200
    assert request.parent_id == ""
    assert request.trace_id != TRACE


def test_what_monitors_ask_and_what_has_no_route_has_no_span(
    client: FlaskClient, collector: Collector
) -> None:
    for path in ("/health/ready", "/status", "/metrics", "/nowhere"):
        client.get(path)
    client.get("/cluster-info")

    collector.wait_for("GET /cluster-info")
    assert len(collector.spans) == 1


def test_only_a_message_that_goes_back_to_a_request_continues_its_trace(collector: Collector) -> None:
    def traced(**bound: str) -> bool:
        with bound_contextvars(**bound):
            return "traceparent" in cleanup_message(DELETION, "ml-team", "filesets").headers

    with span("work"):
        assert traced(request_id="r-1")
        assert traced(request_id="r-1", deletion_id=str(DELETION))
        assert not traced()  # of a sweep
        assert not traced(request_id="r-1", deletion_id=str(UUID(int=9)))  # of another one's slice
    assert not traced(request_id="r-1")


# --- nobody waits for a collector -----------------------------------------------------------------------------


def test_a_collector_that_hangs_costs_nothing_but_spans(
    client: FlaskClient, collector: Collector, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop_tracing()
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "8")
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "4")
    start_tracing(settings.model_copy(update={"traces_url": collector.url}))
    collector.answers.clear()
    client.get("/cluster-info")
    assert collector.asked.wait(DEADLINE_S)

    answers = [client.get("/cluster-info").status_code for _ in range(50)]
    stop_tracing()

    assert answers == [200] * 50
    assert collector.raw == []
    # Nor was the end waited for.
    assert _last_threads()
    collector.answers.set()
    collector.wait_until(lambda: collector.raw, "the first batch")
    assert len(collector.spans) <= 4 + 8


def test_an_outage_is_told_once(settings: Settings, caplog: pytest.LogCaptureFixture) -> None:
    from app.tracing.spans import _Exporter

    with running_collector() as back:
        exporter = _Exporter(f"http://127.0.0.1:{free_port()}/v1/traces")
        exporter._client._timeout = 0.2
        for url in (exporter._client._endpoint,) * 3 + (back.url,) + (exporter._client._endpoint,) * 2:
            exporter._client._endpoint = url
            exporter.export([])
        exporter.shutdown()

    assert [record.levelname for record in caplog.records if "span" in record.getMessage()] == ["WARNING"] * 2


def test_a_wrong_variable_of_opentelemetry_costs_the_spans_alone_and_is_told_once(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "8")  # less than a batch

    for _ in range(2):
        start_tracing(settings.model_copy(update={"traces_url": "http://127.0.0.1:1/v1/traces"}))

    with span("work") as facts:
        facts["seen"] = 1
    stop_tracing()
    [line] = [record.msg for record in caplog.records if "traces." in str(record.msg)]
    assert line["reason"].startswith("ValueError: max_export_batch_size must be less than")


def test_what_has_ended_is_sent_before_the_process_ends(settings: Settings) -> None:
    with running_collector() as collector:
        code = (
            "from app.config import load_settings\n"
            "from app.tracing import span, spans, start_tracing\n"
            f"spans._LAST_S = {DEADLINE_S}\n"  # a slow machine needs longer
            "start_tracing(load_settings())\n"
            "with span('last'): pass\n"
        )
        subprocess.run(
            [sys.executable, "-c", code],
            env={"WORKSPACES_TRACES_URL": collector.url, "OTEL_SERVICE_NAME": "web-7"},
            check=True,
        )

        collector.wait_for("last")
        assert collector.services == {"web-7"}


def test_a_process_of_a_pool_sends_what_has_ended_before_it_ends(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ends without what Python does at exit."""
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "3600000")
    monkeypatch.setattr("app.tracing.spans._LAST_S", DEADLINE_S)
    celery.loader.import_default_modules()
    with running_collector() as collector:
        start_tracing(settings.model_copy(update={"traces_url": collector.url}))
        with span("last"):
            pass

        worker_process_shutdown.send(sender=None)

        collector.wait_for("last")


# --- without it -----------------------------------------------------------------------------------------------


def test_without_the_setting_nothing_of_opentelemetry_is_loaded_nor_needed() -> None:
    code = (
        "import sys\n"
        # As if the extra were not installed: redis loads what is there of it, by itself.
        "for name in ('context', 'exporter', 'metrics', 'sdk', 'trace'): sys.modules[f'opentelemetry.{name}'] = None\n"
        "import app\n"
        "from app.config import load_settings\n"
        "from app.context import Context\n"
        "from app.tracing import span, start_tracing\n"
        "from workers.celery_app import celery\n"
        "celery.loader.import_default_modules()\n"
        "start_tracing(load_settings())\n"
        "app.create_app(Context.open(load_settings())).test_client().get('/cluster-info')\n"
        "with span('nothing') as facts: facts['seen'] = 1\n"
        # The logs of filesets are stored in their form.
        "print([name for name, module in sys.modules.items() if module and name.startswith('opentelemetry.')"
        " and not name.startswith('opentelemetry.proto')])\n"
    )

    loaded = subprocess.run([sys.executable, "-c", code], env={}, check=True, capture_output=True, text=True)

    assert loaded.stdout == "[]\n"


def test_the_setting_without_the_extra_is_refused_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk", None)

    with pytest.raises(ValidationError, match=r"pip install '\.\[otel\]' in a checkout"):
        Settings(traces_url="http://127.0.0.1:4318/v1/traces")


@pytest.mark.parametrize(
    "url",
    [
        "collector:4318",
        "grpc://collector:4317/v1/traces",
        "http://collector:4318",
        "https://collector/",
        "https://name:hush@collector/v1/traces",
        "https://collector/v1/traces?key=hush",
        "http://collector:port/v1/traces",
    ],
)
def test_a_url_that_no_collector_has_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(ValidationError, match="the whole URL at which a collector takes traces") as refused:
        Settings(traces_url=url)

    assert "hush" not in str(refused.value)
