"""Jobs: work that the runtime carries out."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import DateTime, Index, Text, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column
from uuid_utils.compat import uuid7

from app.db import Base
from app.lifecycle import JobStatus
from app.models.columns import InWorkspace, Json, Now, Stamped, String, Supervised, state_column


class Job(InWorkspace, Stamped, Supervised, Base):
    """A job. Its row goes only after the runtime has seen it end."""

    __tablename__ = "jobs"
    __table_args__ = (
        Index("ix_jobs_workspace_id_id", "workspace_id", "id"),
        Index("uq_jobs_name", "workspace_id", "name", unique=True),
        Index("ix_jobs_status_updated_at", "status", "updated_at"),
        Index(
            "ix_jobs_delete_requested", "updated_at", postgresql_where=text("delete_requested_at IS NOT NULL")
        ),
    )

    name: Mapped[String]
    attempt_id: Mapped[UUID] = mapped_column(default=uuid7)
    project: Mapped[str | None] = mapped_column(Text)
    description: Mapped[str | None] = mapped_column(Text)
    source: Mapped[String]
    spec: Mapped[Json]
    platform_spec: Mapped[Json]
    fileset: Mapped[String]
    """Name of the fileset in the same workspace that keeps the job's results."""
    status: Mapped[JobStatus] = mapped_column(state_column(JobStatus), default=JobStatus.CREATED)
    status_details: Mapped[Json]
    error_details: Mapped[dict[str, Any] | None] = mapped_column(JSONB(none_as_null=True))
    ownership: Mapped[dict[str, Any] | None] = mapped_column(JSONB(none_as_null=True))
    custom_fields: Mapped[dict[str, Any] | None] = mapped_column(JSONB(none_as_null=True))
    delete_requested_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    """Set by DELETE on a job that still had to be stopped; the runtime removes the row once it has ended."""
    steps: Mapped[list[dict[str, Any]]] = mapped_column(
        JSONB, default=list, server_default=text("'[]'::jsonb")
    )
    """The steps whose turn has come, in order, of this attempt: `{id, name, status, status_details, error_details,
    created_at, updated_at}`, and whatever tasks have reported."""
    results: Mapped[list[dict[str, Any]]] = mapped_column(
        JSONB, default=list, server_default=text("'[]'::jsonb")
    )
    """What it has produced: `{name, artifact_url, artifact_storage_type, created_at, updated_at}`, one per name.
    An artifact in the job's own workspace is `/fileset#path`, without the name that the workspace has for now."""


class JobLog(InWorkspace, Base):
    """One line of a job's log. Its id, made in the order of the lines, is also the cursor of those who read on.

    No foreign key to the job: a log can be long, and goes in chunks before or after it.
    """

    __tablename__ = "job_logs"
    __table_args__ = (
        Index("ix_job_logs_workspace_id_id", "workspace_id", "id"),
        Index("ix_job_logs_job_id_attempt_id_id", "job_id", "attempt_id", "id"),
    )

    job_id: Mapped[UUID]
    attempt_id: Mapped[UUID]
    step: Mapped[String]
    task: Mapped[String]
    at: Mapped[Now]
    message: Mapped[String]
