"""A runtime worker and a cluster: deployments there are supervised, whichever runtime is set by now."""

import sys
from collections.abc import Iterator

import pytest

from app.config import Settings
from app.runtime.hosts.startup import hosts_of
from tests.runtime.test_worker import SETTINGS, WORKSPACES
from tests.support.kube_api import KubeApi
from tests.support.stack import Stack


@pytest.fixture
def api() -> Iterator[KubeApi]:
    with KubeApi() as api:
        yield api


@pytest.mark.parametrize("runtime", ["kubernetes", "subprocess", "none"])
def test_every_worker_with_the_client_serves_the_cluster(
    runtime: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(deployment_runtime=runtime, runtime_host="here")

    assert hosts_of(settings) == ["here", "kubernetes"]
    monkeypatch.setitem(sys.modules, "kubernetes", None)
    assert hosts_of(settings) == ["here"]


def test_a_deployment_in_the_cluster_is_stopped_after_another_runtime_was_set(
    tmp_path_factory: pytest.TempPathFactory, api: KubeApi
) -> None:
    cluster = {"deployment_runtime": "kubernetes", "kubernetes_api_url": api.url}
    with Stack(tmp_path_factory.mktemp("switched"), **SETTINGS, **cluster) as stack:
        models = "/apis/models/v2/workspaces/team"
        stack.client.post(WORKSPACES, json={"name": "team"})
        executor = {"gpu": 0, "image_name": "vllm"}
        config = {"name": "small", "engine": "generic", "model_spec": {}, "executor_config": executor}
        assert stack.client.post(f"{models}/deployment-configs", json=config).status_code == 201
        made = stack.client.post(f"{models}/deployments", json={"name": "chat", "config": "small"})
        assert made.status_code == 201, made.text
        stack.wait_until(lambda: len(api.objects) == 2, "it is in the cluster")
        for part in stack.running("runtime"):
            part.stop()

        stack.start("runtime", WORKSPACES_DEPLOYMENT_RUNTIME="subprocess")
        deletion = stack.client.delete(f"{WORKSPACES}/team").json()["deletion_id"]

        report = f"/apis/entities/v2/deletions/{deletion}"
        stack.wait_until(lambda: stack.client.get(report).json()["state"] == "DONE", "DONE")
        assert api.objects == {}
