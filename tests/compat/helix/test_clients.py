"""Each resource through the typed clients: what is made is found, listed, changed and deleted."""

import time

import pytest
from conftest import Helix
from nemo_helix_plugin.client.errors import ConflictError, NotFoundError, UnprocessableEntityError
from nemo_helix_plugin.entities.types import EntityCreateInput, EntityUpdate
from nemo_helix_plugin.files.types import CreateFilesetRequest, UpdateFilesetRequest
from nemo_helix_plugin.jobs.types import CreateHelixJobRequest
from nemo_helix_plugin.models.types import (
    CreateModelDeploymentConfigRequest,
    CreateModelDeploymentRequest,
)
from nemo_helix_plugin.projects.types import CreateProjectRequest, UpdateProjectRequest
from nemo_helix_plugin.workspaces.types import (
    CreateWorkspaceMemberRequest,
    CreateWorkspaceRequest,
    UpdateWorkspaceMemberRequest,
    UpdateWorkspaceRequest,
)

DEADLINE_S = 60


def test_workspaces(helix: Helix) -> None:
    name = helix.workspace
    found = helix.ask("workspaces", "get_workspace", name=name)
    with pytest.raises(ConflictError, match="already exists"):
        helix.ask("workspaces", "create_workspace", body=CreateWorkspaceRequest(name=name))
    same = helix.ask("workspaces", "create_workspace", body=CreateWorkspaceRequest(name=name), exist_ok=True)
    assert same == found

    body = UpdateWorkspaceRequest(description="second")
    assert helix.ask("workspaces", "update_workspace", name=name, body=body).description == "second"
    listed = helix.ask("workspaces", "list_workspaces", query_params={"page_size": 2})
    assert [one.id for one in listed if one.name == name] == [found.id]


def test_members(helix: Helix) -> None:
    body = CreateWorkspaceMemberRequest(principal="ann@example.com", roles=["Viewer"])
    assert helix.ask("workspaces", "create_workspace_member", body=body).roles == ["Viewer"]
    update = UpdateWorkspaceMemberRequest(roles=["Editor"])
    changed = helix.ask(
        "workspaces",
        "update_workspace_member",
        principal_id="ann@example.com",
        body=update,
        query_params={"wait_role_propagation": True},
    )
    assert changed.roles == ["Editor"]

    helix.ask("workspaces", "delete_workspace_member", principal_id="ann@example.com")

    members = helix.ask("workspaces", "list_workspace_members").data
    assert "ann@example.com" not in {one.principal for one in members}


def test_projects(helix: Helix) -> None:
    helix.ask("projects", "create_project", body=CreateProjectRequest(name="apollo", description="moon"))
    helix.ask("projects", "update_project", name="apollo", body=UpdateProjectRequest(description="mars"))
    assert [one.description for one in helix.ask("projects", "list_projects")] == ["mars"]

    helix.ask("projects", "delete_project", name="apollo")

    with pytest.raises(NotFoundError):
        helix.ask("projects", "get_project", name="apollo")


def test_entities(helix: Helix) -> None:
    made = helix.ask(
        "entities",
        "create_entity",
        entity_type="recipe",
        body=EntityCreateInput(name="soup", data={"salt": 1}),
    )
    changed = helix.ask(
        "entities",
        "update_entity_by_name",
        entity_type="recipe",
        name="soup",
        body=EntityUpdate(data={"salt": 2}),
    )
    assert (made.id, changed.data) == (changed.id, {"salt": 2})
    assert helix.ask("entities", "get_entity_by_id", entity_id=made.id) == changed
    with pytest.raises(ConflictError, match="modified by another request"):
        helix.ask(
            "entities",
            "delete_entity_by_name",
            entity_type="recipe",
            name="soup",
            query_params={"expected_db_version": made.db_version},
        )

    helix.ask("entities", "delete_entity_by_name", entity_type="recipe", name="soup")

    assert helix.ask("entities", "list_entities", entity_type="recipe") == []


def test_files(helix: Helix) -> None:
    helix.ask("files", "create_fileset", body=CreateFilesetRequest(name="corpus", purpose="environment"))
    content = bytes(range(256)) * 100
    helix.ask("files", "upload_file", name="corpus", path="deep/a b.bin", content=content)
    update = UpdateFilesetRequest(description="mine")
    assert helix.ask("files", "update_fileset", name="corpus", body=update).description == "mine"

    [file] = helix.ask("files", "list_files", name="corpus").data
    assert (file.path, file.size, file.cache_status) == ("deep/a b.bin", len(content), "not_cacheable")
    assert helix.ask("files", "download_file", name="corpus", path="deep/a b.bin") == content
    with pytest.raises(ConflictError, match="does not track a revision"):
        helix.ask("files", "refresh_fileset", name="corpus")

    helix.ask("files", "delete_file", name="corpus", path="deep/a b.bin")
    helix.ask("files", "delete_fileset", name="corpus")
    assert helix.ask("files", "list_filesets") == []


def submit(helix: Helix, script: str) -> None:
    step = {"name": "main", "executor": {"provider": "subprocess", "command": ["sh", "-c", script]}}
    body = CreateHelixJobRequest(name="train", source="tests", spec={}, platform_spec={"steps": [step]})
    helix.ask("jobs", "create_job", body=body)


def wait_for(helix: Helix, status: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while (now := helix.ask("jobs", "get_job_status", name="train").status) != status:
        assert time.monotonic() < deadline, f"the job is {now}"
        time.sleep(0.1)


def test_jobs(helix: Helix) -> None:
    submit(helix, "for i in 1 2 3; do echo line $i; done; echo 7 >$WORKSPACES_RESULTS_DIR/weights")
    wait_for(helix, "completed")

    log = helix.ask("jobs", "list_job_logs", name="train", query_params={"tail": 2})
    assert [line.message for line in log] == ["line 2", "line 3"]
    every = helix.ask("jobs", "list_job_logs", name="train", query_params={"limit": 2})
    assert [line.message for line in every] == ["line 1", "line 2", "line 3"]
    assert [one.name for one in helix.ask("jobs", "list_job_results", name="train").data] == ["weights"]
    assert helix.ask("jobs", "download_job_result", job="train", name="weights") == b"7\n"
    assert [step.name for step in helix.ask("jobs", "list_steps", name="-")] == ["main"]
    step = helix.ask("jobs", "get_job_step", job="train", name="main")
    assert step.status == "completed"
    [task] = helix.ask("jobs", "list_job_step_tasks", job="train", name="main").data
    assert helix.ask("jobs", "get_job_step_task", job="train", step="main", name=task.name).id == task.id

    helix.ask("jobs", "delete_job", name="train")

    assert helix.ask("jobs", "list_jobs") == []


def test_a_job_is_paused_resumed_and_cancelled(helix: Helix) -> None:
    submit(helix, "sleep 600")
    wait_for(helix, "active")
    helix.ask("jobs", "pause_job", name="train")
    wait_for(helix, "paused")
    helix.ask("jobs", "resume_job", name="train")
    wait_for(helix, "active")
    helix.ask("jobs", "cancel_job", name="train")
    wait_for(helix, "cancelled")

    with pytest.raises(UnprocessableEntityError):
        helix.ask("jobs", "list_job_logs", name="train", query_params={"limit": 0})


def test_deployments(helix: Helix) -> None:
    config = CreateModelDeploymentConfigRequest(
        name="server",
        engine="generic",
        model_spec={},
        executor_config={"gpu": 0, "override_config": {"command": ["sleep", "600"]}},
    )
    helix.ask("models", "create_deployment_config", body=config)
    helix.ask(
        "models",
        "create_deployment",
        body=CreateModelDeploymentRequest(name="serving", config="server"),
    )
    assert [one.name for one in helix.ask("models", "list_deployments")] == ["serving"]
    assert [
        one.entity_version for one in helix.ask("models", "list_deployment_versions", name="serving")
    ] == [1]
    with pytest.raises(ConflictError, match="still reference it"):
        helix.ask("models", "delete_deployment_config", name="server")

    helix.ask("models", "delete_deployment", name="serving")

    assert helix.ask("models", "get_deployment_config", name="server").name == "server"
