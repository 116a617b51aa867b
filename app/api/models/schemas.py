"""The schemas of deployments and of their configurations."""

from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import BaseModel, Field, RootModel

from app.clock import Timestamp
from app.http.field_types import Description, Name, Resource, ShortText, VariableName
from app.http.paging import ListQuery
from app.http.route import Body
from app.lifecycle import DeploymentStatus


class OldestFirstQuery(ListQuery):
    """A page of a list that begins with the oldest item."""

    sort: str = Field("created_at", description="Field to sort by; a leading `-` sorts descending.")


Engine = Literal["nim", "vllm", "generic"]


class ToolCallConfig(Body):
    """How the model calls tools."""

    tool_call_parser: str | None = None
    tool_call_plugin: str | None = None
    auto_tool_choice: bool | None = None


class ModelSpec(Body):
    """The model to serve, and its options."""

    model_type: Literal["llm", "embed", "other"] | None = None
    model_namespace: str | None = None
    model_name: str | None = None
    model_revision: str | None = None
    chat_template: str | None = None
    tool_call_config: ToolCallConfig | None = None
    lora_enabled: bool = False


class ExecutorConfig(Body):
    """The container or process of the server, and its resources."""

    gpu: Annotated[int, Field(ge=0)]
    disk_size: str = "50Gi"
    image_name: str | None = None
    image_tag: str | None = None
    health_check_path: str | None = None
    run_as_user: int | None = None
    run_as_group: int | None = None
    additional_envs: dict[VariableName, str] | None = None
    additional_args: list[str] = Field(default_factory=list)
    k8s_nim_operator_config: dict[str, Any] | None = None
    override_config: dict[str, Any] | None = None


class DeploymentConfigVersionCreate(Body):
    """The next version of a configuration. It keeps the project of the last version and nothing else."""

    description: Description | None = None
    engine: Engine
    model_spec: ModelSpec
    executor_config: ExecutorConfig
    model_entity_id: ShortText | None = None


class DeploymentConfigCreate(DeploymentConfigVersionCreate):
    """The first version of a configuration."""

    name: Name
    project: ShortText | None = None


class DeploymentConfig(Resource):
    """One version of a configuration."""

    id: UUID
    name: str
    workspace: str
    project: str | None
    entity_version: int
    description: str | None
    engine: Engine
    model_spec: dict[str, Any]
    executor_config: dict[str, Any]
    model_entity_id: str | None
    created_at: Timestamp
    updated_at: Timestamp


class DeploymentConfigList(RootModel[list[DeploymentConfig]]):
    """Versions of a configuration, oldest first."""


ConfigVersion = Annotated[int, Field(ge=1, le=999_999_999)]


class DeploymentVersionCreate(Body):
    """The configuration of the next version; without `config_version`, its newest version."""

    config: ShortText
    config_version: ConfigVersion | None = None


class DeploymentCreate(DeploymentVersionCreate):
    """A deployment to create."""

    name: Name
    project: ShortText | None = None


class DeploymentStatusUpdate(Body):
    """A status to report for a deployment."""

    status: DeploymentStatus
    status_message: Description = ""
    model_provider_id: ShortText | None = Field(
        None, description="`workspace/name` of the provider that serves the deployment."
    )


class HistoryEntry(Resource):
    """A period in one status, with its last message."""

    timestamp: Timestamp
    status: DeploymentStatus
    status_message: str


class Deployment(Resource):
    """One version of a deployment."""

    id: UUID
    name: str
    workspace: str
    project: str | None
    entity_version: int
    config: str
    config_version: int
    status: DeploymentStatus
    status_message: str
    status_history: list[HistoryEntry]
    model_provider_id: str | None
    auth_context: None = None
    created_at: Timestamp
    updated_at: Timestamp


class DeploymentList(RootModel[list[Deployment]]):
    """Versions of a deployment, oldest first."""


class ServedModels(BaseModel):
    """The models that a deployment serves. Always empty: the platform does not query the server."""

    workspace: str
    name: str
    models: list[str]
