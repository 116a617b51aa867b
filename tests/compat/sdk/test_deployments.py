"""Deployments and their configs through the SDK; the runtime worker starts and stops them for real."""

import sys

import httpx
import pytest
from conftest import Eventually
from nemo_platform import BadRequestError, ConflictError, NeMoPlatform, NotFoundError


def configure(client: NeMoPlatform, name: str = "server", **more: object) -> object:
    return client.inference.deployment_configs.create(
        name=name, engine="generic", executor_config={"gpu": 0}, model_spec={"model_name": "echo"}, **more
    )


def test_every_field_of_a_config_arrives(client: NeMoPlatform) -> None:
    created = configure(client, description="d")

    assert client.inference.deployment_configs.retrieve("server") == created
    assert (created.workspace, created.entity_version, created.engine) == (client.workspace, 1, "generic")
    assert (created.executor_config.gpu, created.model_spec.model_name) == (0, "echo")
    assert configure(client, exist_ok=True).id == created.id
    with pytest.raises(ConflictError):
        configure(client)


def test_an_updated_config_is_a_new_version(client: NeMoPlatform) -> None:
    configs = client.inference.deployment_configs
    configure(client)

    updated = configs.update("server", engine="generic", executor_config={"gpu": 1}, model_spec={})

    assert updated.entity_version == 2
    assert configs.retrieve("server").executor_config.gpu == 1
    assert [one.entity_version for one in configs.list()] == [2]
    assert sorted(one.entity_version for one in configs.versions.list("server")) == [1, 2]
    assert configs.versions.retrieve("1", config="server").executor_config.gpu == 0


def test_a_deployment_needs_a_config_that_exists(client: NeMoPlatform) -> None:
    with pytest.raises(BadRequestError):
        client.inference.deployments.create(name="serving", config="nowhere")

    assert client.inference.deployments.list().data == []


def test_a_deployment_lives_and_dies(client: NeMoPlatform, eventually: Eventually) -> None:
    deployments, configs = client.inference.deployments, client.inference.deployment_configs
    configure(client)

    created = deployments.create(name="serving", config="server")
    assert (created.config_version, created.entity_version, created.status) == (1, 1, "CREATED")
    assert [one.status for one in created.status_history] == ["CREATED"]
    assert deployments.create(name="serving", config="server", exist_ok=True).id == created.id
    assert [one.name for one in deployments.list(filter={"name": {"like": "serv"}})] == ["serving"]
    assert deployments.list_models("serving")["models"] == []
    with pytest.raises(ConflictError, match="still reference it"):
        configs.delete("server")

    assert deployments.delete("serving") is None
    eventually(lambda: is_down(client, "serving"), "the deployment is torn down")

    assert configs.delete("server") is None
    with pytest.raises(NotFoundError):
        configs.retrieve("server")


def test_a_deployment_serves_until_it_is_deleted(client: NeMoPlatform, eventually: Eventually) -> None:
    deployments = client.inference.deployments
    command = [sys.executable, "-m", "http.server", "{port}", "--bind", "127.0.0.1"]
    client.inference.deployment_configs.create(
        name="server",
        engine="generic",
        executor_config={"gpu": 0, "health_check_path": "/", "override_config": {"command": command}},
        model_spec={},
    )

    deployments.create(name="serving", config="server")
    eventually(lambda: deployments.retrieve("serving").status == "READY", "the deployment is ready")
    address = deployments.retrieve("serving").status_message.removeprefix("Serving at ")
    assert httpx.get(address).status_code == 200

    deployments.delete("serving")
    eventually(lambda: is_down(client, "serving"), "the deployment is torn down")
    with pytest.raises(httpx.ConnectError):
        httpx.get(address)


def is_down(client: NeMoPlatform, name: str) -> bool:
    try:
        return client.inference.deployments.retrieve(name).status == "DELETED"
    except NotFoundError:
        return True
