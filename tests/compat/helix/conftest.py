"""The unmodified typed clients of NeMo Helix against our server, run by their interpreter: see ../test_helix.py."""

import asyncio
import os
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from nemo_helix_plugin.client.response import (
    AsyncNemoPaginatedResponse,
    NemoPaginatedResponse,
)
from nemo_helix_plugin.entities.client import AsyncEntitiesClient, EntitiesClient
from nemo_helix_plugin.files.client import AsyncFilesClient, FilesClient
from nemo_helix_plugin.jobs.client import AsyncJobsClient, JobsClient
from nemo_helix_plugin.models.client import AsyncModelsClient, ModelsClient
from nemo_helix_plugin.projects.client import AsyncProjectsClient, ProjectsClient
from nemo_helix_plugin.workspaces.client import AsyncWorkspacesClient, WorkspacesClient

CLIENTS: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "workspaces": (WorkspacesClient, AsyncWorkspacesClient),
    "projects": (ProjectsClient, AsyncProjectsClient),
    "entities": (EntitiesClient, AsyncEntitiesClient),
    "files": (FilesClient, AsyncFilesClient),
    "jobs": (JobsClient, AsyncJobsClient),
    "models": (ModelsClient, AsyncModelsClient),
}


class Helix:
    """The clients of one kind, at home in one workspace; the answers of either kind are alike."""

    def __init__(self, workspace: str, *, is_async: bool) -> None:
        self.workspace = workspace
        self._loop = asyncio.Runner() if is_async else None
        base_url = os.environ["NHX_BASE_URL"]
        self._clients = {
            name: kinds[is_async](base_url=base_url, workspace=workspace) for name, kinds in CLIENTS.items()
        }

    def ask(self, client: str, method: str, **arguments: Any) -> Any:
        """What a method answers: the data, the items of all pages or the content."""
        call = getattr(self._clients[client], method)
        if self._loop:
            return self._loop.run(self._read_async(call, arguments))
        response = call(**arguments)
        if isinstance(response, NemoPaginatedResponse):
            return list(response.items())
        return response.read() if hasattr(response, "stream") else response.data()

    async def _read_async(self, call: Callable[..., Any], arguments: dict[str, Any]) -> Any:
        response = call(**arguments)
        if hasattr(response, "__await__"):
            response = await response
        if isinstance(response, AsyncNemoPaginatedResponse):
            items: AsyncIterator[Any] = response.items()
            return [item async for item in items]
        return await response.read() if hasattr(response, "stream") else response.data()

    def close(self) -> None:
        """End the event loop, if there is one."""
        if self._loop:
            self._loop.close()


@pytest.fixture(params=["sync", "async"])
def helix(request: pytest.FixtureRequest) -> Iterator[Helix]:
    """The clients as documented, at home in a new workspace."""
    from nemo_helix_plugin.workspaces.types import CreateWorkspaceRequest

    name = f"helix-{uuid.uuid4().hex[:12]}"
    helix = Helix(name, is_async=request.param == "async")
    helix.ask("workspaces", "create_workspace", body=CreateWorkspaceRequest(name=name))
    yield helix
    helix.ask("workspaces", "delete_workspace", name=name)
    helix.close()
