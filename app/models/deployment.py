"""Deployments (long-lived servers) and their configurations, both versioned."""

from datetime import datetime
from typing import Any

from sqlalchemy import DateTime, Index, Integer, Text, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from app.db import Base
from app.lifecycle import DeploymentStatus
from app.models.columns import InWorkspace, Json, Stamped, String, Supervised, project_index, state_column

CLUSTER = "kubernetes"
"""The host of everything that runs in the cluster."""


class DeploymentConfig(InWorkspace, Stamped, Base):
    """One version of a deployment's configuration."""

    __tablename__ = "deployment_configs"
    __table_args__ = (
        Index("ix_deployment_configs_workspace_id_id", "workspace_id", "id"),
        Index("uq_deployment_configs_version", "workspace_id", "name", "entity_version", unique=True),
        project_index("deployment_configs"),
    )

    name: Mapped[String]
    entity_version: Mapped[int] = mapped_column(Integer)
    project: Mapped[str | None] = mapped_column(Text)
    description: Mapped[str | None] = mapped_column(Text)
    engine: Mapped[String]
    model_spec: Mapped[Json]
    executor_config: Mapped[Json]
    model_entity_id: Mapped[str | None] = mapped_column(Text)


class Deployment(InWorkspace, Stamped, Supervised, Base):
    """One version of a deployment. The row is removed only after the runtime has reported DELETED."""

    __tablename__ = "deployments"
    __table_args__ = (
        Index("ix_deployments_workspace_id_id", "workspace_id", "id"),
        Index("uq_deployments_version", "workspace_id", "name", "entity_version", unique=True),
        project_index("deployments"),
        Index("ix_deployments_status_updated_at", "status", "updated_at"),
        # Of what runs or was lost: few rows, however many have ended.
        Index("ix_deployments_host", "host", postgresql_where=text("host IS NOT NULL")),
    )

    name: Mapped[String]
    entity_version: Mapped[int] = mapped_column(Integer)
    project: Mapped[str | None] = mapped_column(Text)
    config: Mapped[String]
    config_version: Mapped[int] = mapped_column(Integer)
    status: Mapped[DeploymentStatus] = mapped_column(
        state_column(DeploymentStatus), default=DeploymentStatus.CREATED
    )
    status_message: Mapped[str] = mapped_column(Text, default="")
    status_history: Mapped[list[dict[str, Any]]] = mapped_column(
        JSONB, default=list, server_default=text("'[]'::jsonb")
    )
    """Newest last, at most 100: `{timestamp, status, status_message}`."""
    model_provider_id: Mapped[str | None] = mapped_column(Text)
    """`workspace/name` of the model provider, as reported by its controller."""
    became_ready_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    """When it first served. From then on it is never given up for being unavailable."""
    healthy_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    """When its last health check passed, as its supervisor notes every few seconds."""
    address: Mapped[str | None] = mapped_column(Text)
    """URL of the server while the deployment is READY."""
    namespace: Mapped[str | None] = mapped_column(Text)
    """The Kubernetes namespace in which its objects may exist; None while none can."""
