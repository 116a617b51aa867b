"""Deployments in a cluster: the objects, the reported state, and the end."""

import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import delete, update
from sqlalchemy.orm import Session
from uuid_utils.compat import uuid7

from app.cleanup.kinds.base import Deleted, Pending
from app.cleanup.kinds.deployments import KIND
from app.config import Settings
from app.context import Context
from app.lifecycle import DeploymentStatus
from app.models import Deployment, DeploymentConfig
from app.runtime.deployments.contract import DeploymentSpec, InvalidDeploymentSpec, ObservedState
from tests.runtime.runs import QUICK, tuned, wait_until
from tests.runtime.test_deployments import Serving, deploy
from tests.support.aging import time_of
from tests.support.kube_api import ApiError, KubeApi

if TYPE_CHECKING:
    from app.runtime.deployments.backends.kubernetes.backend import KubernetesRuntime

READY, PENDING, ERROR = DeploymentStatus.READY, DeploymentStatus.PENDING, DeploymentStatus.ERROR
DELETING, DELETED = DeploymentStatus.DELETING, DeploymentStatus.DELETED

ID = uuid7()
NAME = f"ws-{ID.hex}"
BILLING = "example.com/billing"


MADE: "list[KubernetesRuntime]" = []


@pytest.fixture
def api() -> Iterator[KubeApi]:
    with KubeApi() as api:
        yield api
        while MADE:
            MADE.pop().kill()


def runtime(
    api: KubeApi,
    *,
    settings: dict[str, Any] | None = None,
    namespace: str = "default",
    late_s: float = 60,
    **spec: Any,
) -> "KubernetesRuntime":
    """Of a small deployment; a request may take half a second."""
    chosen: dict[str, Any] = {
        "kubernetes_api_url": api.url,
        "runtime_lease_seconds": 5,
        **(settings or {}),
    }
    usual: dict[str, Any] = {"image": "vllm:1", **spec}
    small = DeploymentSpec(id=ID, workspace="team", name="chat", version=3, **usual)
    return of(Settings(**chosen), small, namespace=namespace, late_s=late_s)


def of(
    settings: Settings, spec: DeploymentSpec, *, namespace: str = "default", late_s: float = 60
) -> "KubernetesRuntime":
    """One whose watch ends with the test."""
    # Its client takes a second to import: every process would, when it collects the tests.
    from app.runtime.deployments.backends.kubernetes.backend import KubernetesRuntime

    MADE.append(KubernetesRuntime(settings, spec, namespace=namespace, late_s=late_s))
    return MADE[-1]


def started(api: KubeApi, *, namespace: str = "default", **settings: Any) -> "KubernetesRuntime":
    """One whose objects are there."""
    made = runtime(api, settings=settings, namespace=namespace)
    made.observe()
    return made


def waiting(reason: str, message: str | None = None, **more: Any) -> dict[str, Any]:
    """The status of a pod whose container waits."""
    state = {"waiting": {"reason": reason, "message": message}}
    return {"containerStatuses": [container(state, **more)]}


def container(state: dict[str, Any], **more: Any) -> dict[str, Any]:
    usual = {"name": "server", "ready": False, "restartCount": 0, "image": "vllm:1", "imageID": ""}
    return {**usual, "state": state, **more}


def ended(code: int, reason: str = "Error", message: str | None = None) -> dict[str, Any]:
    return {"terminated": {"exitCode": code, "reason": reason, "message": message}}


# --- the objects


def test_it_makes_a_deployment_and_a_service_that_belong_together(api: KubeApi) -> None:
    observed = runtime(
        api,
        installation="ours",
        command=("serve", "--port={port}"),
        arguments=("--bind", "0.0.0.0:{port}"),
        port=9000,
        environment={"GREETING": "hello", "PORT": "1"},
        health_path="/v1/health",
        gpus=2,
    ).observe()

    assert observed == ObservedState(PENDING, "created; the cluster has yet to start it")
    deployment, service = api.one("deployments"), api.one("services")
    assert deployment["metadata"]["name"] == service["metadata"]["name"] == NAME
    labels = deployment["metadata"]["labels"]
    assert labels == service["metadata"]["labels"] == deployment["spec"]["template"]["metadata"]["labels"]
    assert labels == {
        "app.kubernetes.io/instance": NAME,
        "app.kubernetes.io/managed-by": "workspaces",
        "installation": "ours",
        "workspace": "team",
        "deployment": "chat",
        "version": "3",
    }
    assert service["spec"]["selector"].items() <= labels.items()
    assert service["spec"]["ports"] == [{"name": "http", "port": 9000, "targetPort": 9000}]
    pod = deployment["spec"]["template"]["spec"]
    assert pod["automountServiceAccountToken"] is False
    [server] = pod["containers"]
    assert (server["image"], server["command"]) == ("vllm:1", ["serve", "--port=9000"])
    assert server["args"] == ["--bind", "0.0.0.0:9000"]
    assert {one["name"]: one["value"] for one in server["env"]} == {
        "GREETING": "hello",
        "HOST": "0.0.0.0",
        "PORT": "9000",
    }
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert server[probe]["httpGet"] == {"path": "/v1/health", "port": 9000}
    assert server["resources"] == {
        "requests": {"cpu": "100m", "memory": "256Mi"},
        "limits": {"cpu": "8", "memory": "32Gi", "nvidia.com/gpu": "2"},
    }


def test_without_a_choice_the_port_is_8000_and_there_is_no_gpu(api: KubeApi) -> None:
    runtime(api).observe()

    [server] = api.one("deployments")["spec"]["template"]["spec"]["containers"]
    assert server["readinessProbe"]["httpGet"]["port"] == 8000
    assert "nvidia.com/gpu" not in server["resources"]["limits"]
    assert server["command"] == server["args"] == []


def test_names_that_no_label_can_carry_are_made_to_fit(api: KubeApi) -> None:
    spec = DeploymentSpec(id=ID, workspace="a@b+c.", name="x_", version=1, image="vllm:1")

    of(Settings(kubernetes_api_url=api.url), spec).observe()

    labels = api.one("deployments")["metadata"]["labels"]
    assert (labels["workspace"], labels["deployment"]) == ("a_b_c", "x")


def test_what_is_there_already_is_not_made_again(api: KubeApi) -> None:
    started(api)
    before = dict(api.objects)

    started(api).observe()  # another worker's

    assert api.objects == before
    assert [one for one in api.asked if one.startswith("POST")] == ["POST deployments", "POST services"]


def test_somebody_who_makes_it_at_the_same_moment_does_no_harm(api: KubeApi) -> None:
    started(api)
    before = dict(api.objects)
    api.unseen = True

    observed = runtime(api).observe()

    assert observed.status is PENDING
    assert api.asked[-2:] == ["POST deployments", "POST services"]
    assert api.objects == before


def test_a_service_that_somebody_removed_is_made_again(api: KubeApi) -> None:
    running = started(api)
    api.report(available=1)
    del api.objects["services", "default", NAME]

    assert running.observe().status is PENDING
    wait_until(lambda: running.observe().status is READY, "it serves again")


# --- the reported state


def test_it_is_ready_with_its_address_as_soon_as_a_replica_is_available(api: KubeApi) -> None:
    api.namespaces.add("models")
    running = started(api, namespace="models")

    assert running.observe().status is PENDING
    api.report(available=1)

    address = f"http://{NAME}.models.svc:8000"
    assert running.observe() == ObservedState(READY, f"Serving at {address}", address)
    assert running.observe().is_healthy
    api.report(available=0)
    wait_until(lambda: running.observe().status is PENDING, "it sees that none is available")
    assert not running.observe().is_healthy


UNAVAILABLE = {
    "type": "Available",
    "status": "False",
    "reason": "MinimumReplicasUnavailable",
    "message": "Deployment does not have minimum availability.",
}
QUOTA = {
    "type": "ReplicaFailure",
    "status": "True",
    "reason": "FailedCreate",
    "message": "pods is forbidden: exceeded quota: gpus",
}
NO_GPU = {
    "type": "PodScheduled",
    "status": "False",
    "reason": "Unschedulable",
    "message": "0/3 nodes are available: 3 Insufficient nvidia.com/gpu.",
}


@pytest.mark.parametrize(
    ("pod", "words"),
    [
        (
            waiting("ImagePullBackOff", 'Back-off pulling image "vllm:1"'),
            "ImagePullBackOff: Back-off pulling",
        ),
        (
            waiting("CrashLoopBackOff", "back-off 40s", lastState=ended(1, message="no such model\n")),
            "CrashLoopBackOff: back-off 40s: the server ended with exit code 1: no such model",
        ),
        (
            {"containerStatuses": [container(ended(137, "OOMKilled"))]},
            "OOMKilled: the server ended with exit code 137",
        ),
        ({"conditions": [NO_GPU]}, "Unschedulable: 0/3 nodes are available: 3 Insufficient nvidia.com/gpu."),
        ({"phase": "Failed", "reason": "Evicted", "message": "low on memory"}, "Evicted: low on memory"),
        (
            {"containerStatuses": [container({"running": {"startedAt": "2026-01-01T00:00:00Z"}})]},
            "waiting: /health does not answer with success",
        ),
        (waiting("ContainerCreating"), "ContainerCreating"),
        ({}, "MinimumReplicasUnavailable: Deployment does not have minimum availability."),
    ],
)
def test_while_it_is_not_ready_the_most_specific_reason_is_reported(
    api: KubeApi, pod: dict[str, Any], words: str
) -> None:
    running = started(api)
    api.report(available=0, conditions=[UNAVAILABLE])
    api.start_pod(**pod)

    observed = running.observe()

    assert observed.status is PENDING
    assert observed.message.startswith(words)
    assert observed.address is None


def test_the_reason_for_a_missing_pod_is_reported(api: KubeApi) -> None:
    running = started(api)

    assert running.observe().message == "waiting for the cluster to start it"
    api.report(available=0, conditions=[UNAVAILABLE, QUOTA])
    assert running.observe().message == "FailedCreate: pods is forbidden: exceeded quota: gpus"


def test_the_clusters_words_are_kept_short_and_clean(api: KubeApi) -> None:
    running = started(api)
    api.start_pod(**waiting("ErrImagePull", "x\0" + "y" * 5000))

    message = running.observe().message

    assert len(message) == 500
    assert "\0" not in message


def ready(api: KubeApi) -> "KubernetesRuntime":
    """One that serves and is watched."""
    made = started(api)
    api.report(available=1)
    assert made.observe().status is READY
    wait_until(lambda: "WATCH deployments" in api.asked, "it watches")
    return made


def test_a_server_that_is_ready_is_not_read_again_and_again(api: KubeApi) -> None:
    made = ready(api)

    def is_quiet() -> bool:
        read = api.readings
        assert {made.observe().status for _ in range(50)} == {READY}
        return api.readings == read

    wait_until(is_quiet, "the watch has told of what was made, and nothing is read any more")


def test_changes_of_it_are_seen(api: KubeApi) -> None:
    made = ready(api)

    api.report(available=0)
    wait_until(lambda: made.observe().status is PENDING, "it does not serve any more")
    api.report(available=1)
    wait_until(lambda: made.observe().status is READY, "it serves again")
    api.remove("deployments")
    wait_until(lambda: made.observe().status is PENDING, "somebody has deleted it")

    assert api.one("deployments")["metadata"]["name"] == NAME


def test_a_cluster_without_the_watched_version_is_read_anew(
    api: KubeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.runtime.deployments.backends.kubernetes.watch._TRY_AGAIN_S", 0.01)
    made = ready(api)

    api.oldest_version = 1000  # the history of changes is cut
    wait_until(lambda: made.observe() and api.asked.count("WATCH deployments") > 2, "it goes on")

    api.report(available=0)
    wait_until(lambda: made.observe().status is PENDING, "and sees changes")


def test_a_watch_that_is_not_permitted_is_made_up_for_by_asking(api: KubeApi) -> None:
    made = started(api)
    api.unwatchable = True
    api.report(available=1)
    wait_until(lambda: made.observe().status is READY, "it serves")

    api.report(available=0)

    wait_until(lambda: made.observe().status is PENDING, "it does not serve any more")


def test_all_deployments_of_a_namespace_share_one_watch(api: KubeApi) -> None:
    made = ready(api)
    specs = [DeploymentSpec(uuid7(), "team", "x", 1, image="vllm:1") for _ in range(5)]
    others = [of(made._settings, spec) for spec in specs]
    for other in others:
        other.observe()
    wait_until(
        lambda: all(other.observe().message.startswith("waiting") for other in others), "all are there"
    )

    assert api.asked.count("WATCH deployments") == 1


def test_what_is_not_ready_is_not_read_at_every_poll(api: KubeApi) -> None:
    made = started(api)
    wait_until(lambda: made.observe() and made._observing._pause_s >= 0.4, "nothing has changed for a while")
    read = api.readings

    assert {made.observe().status for _ in range(50)} == {PENDING}

    assert api.readings < read + 50


def test_a_failure_is_repeated_for_a_moment_instead_of_asked_for_again(api: KubeApi) -> None:
    made = started(api)
    api.failure = ApiError(503, "ServiceUnavailable", "no leader")

    def ask() -> bool:
        with pytest.raises(ConnectionError, match="no leader"):
            made.observe()
        return made._observing._pause_s >= 0.4

    wait_until(ask, "it has failed for a while")
    read = api.readings
    for _ in range(50):
        ask()
    assert api.readings < read + 50


def test_no_watch_remains_once_nothing_is_served(api: KubeApi) -> None:
    made = ready(api)
    watching = [one for one in threading.enumerate() if one.name == "watch of default"]
    assert watching

    assert made.stop() or made.stop()

    for one in watching:
        one.join(10)
        assert not one.is_alive()


# --- the end


def test_it_is_gone_only_when_both_objects_and_all_pods_are(api: KubeApi) -> None:
    api.collecting = False
    running = started(api)
    api.start_pod()

    assert not running.stop()
    assert not running.stop()
    assert api.one("deployments")["metadata"]["deletionTimestamp"]
    assert api.one("services")["metadata"]["deletionTimestamp"]
    api.collect()

    wait_until(running.stop, "nothing is left")
    assert api.objects == {}
    wait_until(running.stop, "nothing is left")
    assert [one for one in api.asked if one.startswith("DELETE")] == ["DELETE deployments", "DELETE services"]


def test_a_pod_that_outlives_its_deployment_is_still_something(api: KubeApi) -> None:
    running = started(api)
    pod = api.start_pod()
    key = ("pods", "default", pod["metadata"]["name"])
    running.stop()
    api.objects[key] = pod  # its node does not answer

    assert not running.stop()
    del api.objects[key]
    wait_until(running.stop, "nothing is left")


@pytest.mark.parametrize("resource", ["deployments", "services"])
def test_a_finalizer_of_somebody_else_is_waited_for(api: KubeApi, resource: str) -> None:
    running = started(api)
    api.one(resource)["metadata"]["finalizers"] = [BILLING]

    assert not running.stop()
    assert not running.stop()
    assert [key[0] for key in api.objects] == [resource]
    api.release(BILLING)

    wait_until(running.stop, "nothing is left")


def test_nothing_is_made_while_the_former_objects_are_still_going(api: KubeApi) -> None:
    api.collecting = False
    running = started(api)
    api.report(available=1)
    running.stop()

    assert running.observe() == ObservedState(PENDING, "the former objects are still being deleted")
    api.collect()
    running.observe()

    assert "deletionTimestamp" not in api.one("deployments")["metadata"]


def test_a_runner_that_lost_its_lease_leaves_the_objects_to_its_successor(api: KubeApi) -> None:
    started(api).kill()

    assert len(api.objects) == 2


def test_a_create_request_that_is_carried_out_late_is_waited_for(api: KubeApi) -> None:
    hasty = runtime(api)
    api.silenced = "POST deployments"
    api.silent.set()
    with pytest.raises(ConnectionError, match="does not answer"):
        hasty.observe()

    with pytest.raises(ConnectionError, match="may still be carried out"):
        hasty.stop()
    api.silent.clear()
    wait_until(lambda: api.objects, "it was carried out after all")

    assert not hasty.stop()
    assert api.objects == {}


def test_a_create_request_is_not_waited_for_longer_than_the_api_works_at_one(api: KubeApi) -> None:
    usual, hasty = runtime(api), runtime(api, late_s=0.001)
    api.failure, api.failing = ApiError(500, "InternalError", "etcdserver: timeout"), "POST"
    for each in (usual, hasty):
        with pytest.raises(ConnectionError, match="etcdserver: timeout"):
            each.observe()

    with pytest.raises(ConnectionError, match="may still be carried out"):
        usual.stop()
    assert hasty.stop()


def test_a_create_request_that_was_rejected_is_not_waited_for(api: KubeApi) -> None:
    rejected = runtime(api, namespace="nowhere")
    with pytest.raises(ConnectionError, match="answers 404"):
        rejected.observe()

    assert rejected.stop()


# --- errors


def test_without_an_image_it_says_what_to_set(api: KubeApi) -> None:
    with pytest.raises(InvalidDeploymentSpec, match=r"set executor_config\.image_name"):
        runtime(api, image=None).observe()

    assert api.asked == []


@pytest.mark.parametrize(
    ("failure", "raised", "words"),
    [
        (ApiError(403, "Forbidden", "deployments.apps is forbidden"), PermissionError, "refuses: deployments.apps is"),
        (ApiError(401, "Unauthorized", "Unauthorized"), PermissionError, "refuses: Unauthorized"),
        (ApiError(500, "InternalError", "etcdserver: timeout"), ConnectionError, "answers 500: etcdserver: timeout"),
        (ApiError(503, "ServiceUnavailable", "no leader"), ConnectionError, "answers 503: no leader"),
        (ApiError(429, "TooManyRequests", "slow down"), ConnectionError, "answers 429: slow down"),
    ],
)  # fmt: skip
def test_errors_of_the_api_are_distinguished_by_whether_they_may_pass(
    api: KubeApi, failure: ApiError, raised: type[Exception], words: str
) -> None:
    running = started(api)
    api.failure = failure

    for act in (running.observe, running.stop):
        with pytest.raises(raised, match=re.escape(words)):
            act()

    api.failure = None
    assert len(api.objects) == 2
    assert running.observe().status is PENDING


def test_an_api_that_keeps_silent_is_not_waited_for(api: KubeApi) -> None:
    running = started(api)
    api.asked.clear()
    api.silent.set()

    with pytest.raises(ConnectionError, match="does not answer"):
        running.observe()

    assert api.readings == 1  # and once only
    api.silent.clear()
    assert running.observe().status is PENDING


def test_an_api_that_is_not_there_may_come_back(api: KubeApi) -> None:
    running = started(api)
    api.stop()

    for act in (running.observe, running.stop):
        with pytest.raises(ConnectionError, match="does not answer"):
            act()


@pytest.mark.parametrize("raw", [b"<html>log in</html>", b"[]", b'{"spec": 1}'])
def test_what_is_no_api_at_all_is_not_believed(api: KubeApi, raw: bytes) -> None:
    running = started(api)
    api.raw = 200, raw

    for act in (running.observe, running.stop):
        with pytest.raises(ConnectionError):
            act()


@pytest.mark.parametrize(
    "raw",
    [
        b"404 page not found",
        b"<html>no such page</html>",
        b'{"detail": "Not Found"}',
        b'["Status"]',
        b'{"kind": "Status", "reason": "NotFound", "details": null}',
    ],
)
def test_a_proxy_that_finds_nothing_at_all_does_not_prove_that_anything_is_gone(
    api: KubeApi, raw: bytes
) -> None:
    running = started(api)
    api.raw = 404, raw

    for act in (running.observe, running.stop):
        with pytest.raises(ConnectionError, match="answers 404"):
            act()


@pytest.mark.parametrize(
    ("reason", "details"),
    [
        ("NotFound", {"name": "default", "kind": "namespaces"}),
        ("NotFound", {"name": NAME, "group": "other.example.com", "kind": "toys"}),
        ("NotFound", {"name": "ws-another", "group": "apps", "kind": "deployments"}),
        ("Gone", {"name": NAME, "group": "apps", "kind": "deployments"}),
        ("NotFound", {}),
    ],
)
def test_an_error_about_another_object_does_not_prove_that_it_is_gone(
    api: KubeApi, reason: str, details: dict[str, str]
) -> None:
    running = started(api)
    api.failure, api.failing = ApiError(404, reason, "not found", **details), "GET deployments"

    for act in (running.observe, running.stop):
        with pytest.raises(ConnectionError, match="answers 404: not found"):
            act()


def test_a_wrong_url_does_not_prove_that_anything_is_gone(api: KubeApi) -> None:
    started(api)
    elsewhere = runtime(api, settings={"kubernetes_api_url": f"{api.url}/clusters/old"})

    for act in (elsewhere.observe, elsewhere.stop):
        with pytest.raises(ConnectionError, match="answers 404"):
            act()

    assert len(api.objects) == 2


def test_a_list_of_pods_that_is_not_found_does_not_prove_that_none_is_left(api: KubeApi) -> None:
    running = started(api)
    pod = api.start_pod()
    running.stop()
    api.objects["pods", "default", pod["metadata"]["name"]] = pod
    api.unlisted = True

    with pytest.raises(ConnectionError, match="answers 404"):
        running.stop()

    api.unlisted = False
    assert not running.stop()


def test_in_a_namespace_that_is_gone_nothing_is_left(api: KubeApi) -> None:
    running = started(api)
    api.drop_namespace("default")

    wait_until(running.stop, "nothing is left")


def test_a_namespace_that_is_not_there_is_named(api: KubeApi) -> None:
    with pytest.raises(ConnectionError, match='namespaces "nowhere" not found'):
        started(api, namespace="nowhere")


def test_what_the_api_does_not_accept_cannot_be_served(api: KubeApi) -> None:
    with pytest.raises(InvalidDeploymentSpec, match=r"does not accept the configuration: Deployment\.apps"):
        runtime(api, environment={"A=B": "1"}).observe()

    assert api.objects == {}


def test_without_any_cluster_configured_it_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(tmp_path / "none"))

    spec = DeploymentSpec(ID, "team", "chat", 1, image="vllm:1")

    with pytest.raises(ConnectionError, match="no cluster is configured"):
        of(Settings(), spec).observe()


# --- under its supervisor


@contextmanager
def serving(context: Context, api: KubeApi, deployment_id: Any, **settings: Any) -> Iterator[Serving]:
    chosen = {**QUICK, "deployment_runtime": "kubernetes", "kubernetes_api_url": api.url, **settings}
    supervised = Serving(tuned(context, **chosen), deployment_id).start()
    try:
        yield supervised
    finally:
        api.failure = None
        api.release(BILLING)
        supervised.stopping.set()
        supervised.end()


def test_a_deployment_is_deleted_only_when_the_cluster_has_let_go_of_it(
    session: Session, context: Context, api: KubeApi
) -> None:
    deployment_id = deploy(session, [], image_name="vllm", image_tag="1")
    with serving(context, api, deployment_id) as supervised:
        supervised.wait_for(PENDING, "waiting for the cluster")
        api.one("deployments")["metadata"]["finalizers"] = [BILLING]
        api.report(available=1)

        ready = supervised.wait_for(READY)

        assert ready.address == f"http://ws-{deployment_id.hex}.default.svc:8000"
        assert ready.host == "kubernetes"

        supervised.ask(status=DELETING)
        wait_until(lambda: [key[0] for key in api.objects] == ["deployments"], "only the finalizer holds it")
        asked = len(api.asked)
        wait_until(lambda: len(api.asked) > asked + 10, "it checks again and again")

        assert (supervised.row.status, supervised.row.host) == (DELETING, "kubernetes")

        api.release(BILLING)
        gone = supervised.end()
        assert (gone.status, gone.host, gone.address) == (DELETED, None, None)
        assert api.objects == {}


def test_an_api_that_is_away_neither_unmakes_what_is_ready_nor_ends_the_wait_for_its_end(
    session: Session, context: Context, api: KubeApi
) -> None:
    deployment_id = deploy(session, [], image_name="vllm")
    with serving(context, api, deployment_id) as supervised:
        supervised.wait_for(PENDING, "waiting for the cluster")
        api.report(available=1)
        address = supervised.wait_for(READY).address

        api.failure = ApiError(503, "ServiceUnavailable", "no leader")
        assert supervised.wait_for(READY, "503: no leader").address == address
        away_since = time_of(session)
        for _ in range(2):
            renewed = supervised.row.lease_until
            wait_until(lambda: supervised.row.lease_until != renewed, "the lease is renewed")  # noqa: B023
        assert (supervised.row.healthy_at or away_since) < away_since, "nobody has seen its health since"
        api.failure = ApiError(403, "Forbidden", "not yours")
        supervised.ask(status=DELETING)
        supervised.wait_for(DELETING, "cannot be stopped yet: PermissionError: Kubernetes refuses: not yours")
        api.failure = None

        assert supervised.end().status is DELETED
        assert api.objects == {}


def test_a_stopping_worker_leaves_it_serving_and_the_next_one_takes_it_over(
    session: Session, context: Context, api: KubeApi
) -> None:
    deployment_id = deploy(session, [], image_name="vllm")
    with serving(context, api, deployment_id) as first:
        first.wait_for(PENDING, "waiting for the cluster")
        api.report(available=1)
        first.wait_for(READY)
        made = [one["metadata"]["uid"] for one in api.objects.values()]

        first.stopping.set()

        left = first.end()
        assert (left.status, left.host, left.lease_owner) == (READY, "kubernetes", None)
        assert left.address
        assert first.summary == "version 1 READY: left to the next runtime worker"
    with serving(context, api, deployment_id) as second:
        wait_until(lambda: second.row.lease_owner, "it has a supervisor")
        assert second.row.status is READY
        assert [one["metadata"]["uid"] for one in api.objects.values()] == made
        assert "DELETE deployments" not in api.asked
        second.ask(status=DELETING)
        assert second.end().status is DELETED


def test_it_stays_in_its_namespace_whichever_is_set_by_now(
    session: Session, context: Context, api: KubeApi
) -> None:
    api.namespaces |= {"before", "now"}
    deployment_id = deploy(session, [], image_name="vllm")
    with serving(context, api, deployment_id, kubernetes_namespace="before") as first:
        first.wait_for(PENDING, "waiting for the cluster")
        api.report(available=1)
        first.wait_for(READY)
        first.stopping.set()
        assert first.end().namespace == "before"
    with serving(context, api, deployment_id, kubernetes_namespace="now") as second:
        wait_until(lambda: second.row.lease_owner, "it has a supervisor")
        second.wait_for(READY)
        assert {namespace for _, namespace, _ in api.objects} == {"before"}

        second.ask(status=DELETING)

        gone = second.end()
        assert (gone.status, gone.namespace) == (DELETED, None)
        assert api.objects == {}


def left_serving(session: Session, context: Context, api: KubeApi) -> Any:
    """The id of one that serves in the cluster without a supervisor."""
    deployment_id = deploy(session, [], image_name="vllm")
    with serving(context, api, deployment_id) as first:
        first.wait_for(PENDING, "waiting for the cluster")
        api.report(available=1)
        first.wait_for(READY)
        first.stopping.set()
        first.end()
    assert len(api.objects) == 2
    return deployment_id


@pytest.mark.parametrize("is_deleted", [True, False])
def test_one_whose_configuration_makes_no_sense_any_more_is_stopped_all_the_same(
    session: Session, context: Context, api: KubeApi, *, is_deleted: bool
) -> None:
    deployment_id = left_serving(session, context, api)
    session.execute(delete(DeploymentConfig))
    session.commit()
    if is_deleted:
        session.execute(update(Deployment).values(status=DELETING))
        session.commit()

    with serving(context, api, deployment_id) as second:
        ended = second.end()

    assert ended.status is (DELETED if is_deleted else ERROR)
    assert is_deleted or ended.status_message == "configuration 'small' version 1 is gone"
    assert api.objects == {}


def test_a_worker_without_the_client_does_not_confirm_that_nothing_is_left_in_the_cluster(
    session: Session, context: Context, api: KubeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployment_id = left_serving(session, context, api)
    session.execute(update(Deployment).values(status=DELETING))
    session.commit()
    monkeypatch.setitem(sys.modules, "kubernetes", None)

    with serving(context, api, deployment_id) as second:
        row = second.end()

    assert (row.status, row.host, row.lease_owner) == (DELETING, "kubernetes", None)
    assert second.summary == "version 1 DELETING, supervised on host 'kubernetes'"


def test_without_the_client_of_kubernetes_a_new_one_is_an_error_that_says_what_to_install(
    session: Session, context: Context, api: KubeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "kubernetes", None)

    with serving(context, api, deploy(session, [], image_name="vllm")) as only:
        row = only.end()

    assert (row.status, row.host) == (ERROR, None)
    assert "install '.[kubernetes]'" in row.status_message


@pytest.mark.parametrize(
    ("message", "causes"),
    [
        ("services is forbidden: exceeded quota: small, requested: services=1, used: 5, limited: 5", []),
        (
            "unable to create new content in namespace default because it is being terminated",
            [{"reason": "NamespaceTerminating", "field": "metadata.namespace"}],
        ),
    ],
)
def test_what_may_not_be_made_for_now_is_a_reason_to_wait(
    session: Session, context: Context, api: KubeApi, message: str, causes: list[dict[str, str]]
) -> None:
    api.failure, api.failing = ApiError(403, "Forbidden", message, causes=causes), "POST services"
    deployment_id = deploy(session, [], image_name="vllm")
    with serving(context, api, deployment_id) as supervised:
        supervised.wait_for(PENDING, message)
        api.failure = None
        wait_until(lambda: len(api.objects) == 2, "it was tried again")
        api.report(available=1)
        supervised.wait_for(READY)


def test_what_the_worker_is_not_permitted_to_make_is_an_error_at_once(
    session: Session, context: Context, api: KubeApi
) -> None:
    api.failure = ApiError(403, "Forbidden", "not yours")
    deployment_id = deploy(session, [], image_name="vllm")
    with serving(context, api, deployment_id) as supervised:
        supervised.wait_for(ERROR, "not yours")
        assert supervised.row.host == "kubernetes"  # nobody could see whether anything is there
        api.failure = None

        assert (supervised.end().status, supervised.row.host) == (ERROR, None)


def test_what_is_not_ready_in_time_is_an_error_that_says_why(
    session: Session, context: Context, api: KubeApi
) -> None:
    deployment_id = deploy(session, [], image_name="vllm")
    with serving(context, api, deployment_id, deployment_start_seconds=0.5) as supervised:
        supervised.wait_for(ERROR, "not ready within 0.5 s: waiting for the cluster to start it")

        assert supervised.end().host is None
        assert api.objects == {}


def test_what_has_served_is_left_to_the_cluster_however_long_it_is_unavailable(
    session: Session, context: Context, api: KubeApi
) -> None:
    """A node that is away for longer than a start may take: the cluster is about to move the pod."""
    deployment_id = left_serving(session, context, api)
    with serving(context, api, deployment_id, deployment_start_seconds=0.001) as second:
        api.report(available=0, conditions=[UNAVAILABLE])
        second.wait_for(PENDING, "MinimumReplicasUnavailable")
        api.failure = ApiError(403, "Forbidden", "not yours")
        second.wait_for(PENDING, "PermissionError: Kubernetes refuses: not yours")
        api.failure = None
        api.report(available=1)

        second.wait_for(READY)
        assert "DELETE deployments" not in api.asked


def test_a_cluster_that_is_not_to_be_reached_is_no_start_without_end(
    session: Session, context: Context, api: KubeApi
) -> None:
    deployment_id = deploy(session, [], image_name="vllm")
    settings = {"kubernetes_namespace": "nowhere", "deployment_start_seconds": 0.5}
    with serving(context, api, deployment_id, **settings) as supervised:
        failed = supervised.end()

    assert failed.status is ERROR
    assert failed.status_message.startswith("not ready within 0.5 s: the runtime failed: ")
    assert 'namespaces "nowhere" not found' in failed.status_message


def test_the_cascade_says_what_keeps_it_from_being_stopped(
    session: Session, context: Context, api: KubeApi
) -> None:
    deployment_id = deploy(session, [], image_name="vllm")
    with serving(context, api, deployment_id) as supervised:
        supervised.wait_for(PENDING, "waiting for the cluster")
        api.failure = ApiError(403, "Forbidden", "not yours")

        KIND.delete(context, supervised.row)

        supervised.wait_for(DELETING, "not yours")
        waiting_for = KIND.delete(context, supervised.row)
        assert isinstance(waiting_for, Pending)
        assert "not yours" in waiting_for.why
        assert "waiting for host 'kubernetes'" in waiting_for.why
        api.failure = None
        assert supervised.end().status is DELETED
        assert KIND.delete(context, supervised.row) == Deleted()


LEAST = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}


@pytest.mark.parametrize(
    ("user", "must_not_be_root", "chosen"),
    [
        (None, False, {}),
        (0, False, {"runAsUser": 0}),
        (1000, False, {"runAsUser": 1000, "runAsNonRoot": True}),
        (None, True, {"runAsNonRoot": True}),
    ],
)
def test_it_runs_as_whom_the_configuration_names_and_gains_nothing_beyond_it(
    api: KubeApi, user: int | None, must_not_be_root: bool, chosen: dict[str, Any]
) -> None:
    runtime(api, settings={"kubernetes_run_as_non_root": must_not_be_root}, user=user, group=7).observe()

    pod = api.one("deployments")["spec"]["template"]["spec"]
    assert pod["containers"][0]["securityContext"] == {**LEAST, **chosen, "runAsGroup": 7}
    assert pod["securityContext"] == {"seccompProfile": {"type": "RuntimeDefault"}}


def test_root_that_is_not_allowed_is_refused_by_name(api: KubeApi) -> None:
    with pytest.raises(InvalidDeploymentSpec, match=r"run_as_user must not be 0: .*RUN_AS_NON_ROOT"):
        runtime(api, settings={"kubernetes_run_as_non_root": True}, user=0).observe()

    assert api.objects == {}


def test_what_pods_request_and_the_passwords_of_their_registries_are_settings(api: KubeApi) -> None:
    chosen = {
        "kubernetes_requests": {"memory": "1Gi"},
        "kubernetes_limits": {},
        "kubernetes_image_pull_secrets": ["registry"],
    }
    runtime(api, settings=chosen).observe()

    pod = api.one("deployments")["spec"]["template"]["spec"]
    assert pod["containers"][0]["resources"] == {"requests": {"memory": "1Gi"}, "limits": {}}
    assert pod["imagePullSecrets"] == [{"name": "registry"}]


def test_it_may_take_its_time_to_start_before_the_cluster_starts_it_anew(api: KubeApi) -> None:
    runtime(api, settings={"deployment_start_seconds": 301}).observe()

    [server] = api.one("deployments")["spec"]["template"]["spec"]["containers"]
    start_s = server["startupProbe"]["periodSeconds"] * server["startupProbe"]["failureThreshold"]
    assert start_s >= 301
    assert server["livenessProbe"]["failureThreshold"] == 3
