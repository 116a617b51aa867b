"""The `metadata` of a fileset, by purpose."""

from typing import Annotated, Any, Self

from pydantic import AfterValidator, ConfigDict, Field, model_validator

from app.http.field_types import ShortText
from app.http.route import Body


class DatasetMetadata(Body):
    """The schemas of the rows of a dataset: JSON Schemas, or keys of `schema_defs`."""

    model_config = ConfigDict(serialize_by_alias=True)

    schema_: dict[str, Any] | str | None = Field(None, alias="schema")
    schema_defs: dict[str, dict[str, Any]] = Field(default_factory=dict)
    schemas_by_path: dict[str, dict[str, Any] | str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _refer_to_definitions(self) -> Self:
        for schema in (self.schema_, *self.schemas_by_path.values()):
            if isinstance(schema, str) and schema not in self.schema_defs:
                raise ValueError(
                    f"'{schema}' is not defined: add it to schema_defs or write the schema in its place"
                )
        return self


class ToolCalling(Body):
    """How a model calls tools."""

    chat_template: str | None = None
    tool_call_parser: str | None = None
    tool_call_plugin: str | None = None
    auto_tool_choice: bool | None = None


class ModelMetadata(Body):
    """Facts about a model beside its files."""

    tool_calling: ToolCalling | None = None


class EnvironmentMetadata(Body):
    """Where an environment for reinforcement learning comes from."""

    format: ShortText
    name: ShortText
    adapter_agent: ShortText | None = None
    hub_id: ShortText | None = None
    vf_env_id: ShortText | None = None
    config_paths: list[ShortText] = Field(default_factory=list)


class FilesetMetadata(Body):
    """Metadata by purpose."""

    dataset: DatasetMetadata | None = None
    model: ModelMetadata | None = None
    environment: EnvironmentMetadata | None = None


def of_one_purpose(metadata: FilesetMetadata | None) -> FilesetMetadata | None:
    """The same. Raises ValueError if more than one purpose has metadata, which older filesets may have."""
    if metadata and sum(value is not None for _, value in metadata) > 1:
        raise ValueError("FilesetMetadata must have at most one typed key populated")
    return metadata


NewMetadata = Annotated[FilesetMetadata | None, AfterValidator(of_one_purpose)]
"""Metadata as it may be written."""
