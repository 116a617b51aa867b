"""Jobs and their logs."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import (
    Boolean,
    ColumnElement,
    DateTime,
    Index,
    Text,
    TextClause,
    false,
    literal_column,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column
from uuid_utils.compat import uuid7

from app.db import Base
from app.lifecycle import JOB_AWAITS_HOST, JOB_TAKES_SLOT, JOB_UNENDED, JobStatus
from app.models.columns import (
    InWorkspace,
    Json,
    Now,
    Stamped,
    String,
    Supervised,
    project_index,
    state_column,
)


def _status_in(also: str, statuses: frozenset[JobStatus]) -> TextClause:
    named = ", ".join(f"'{status.value}'" for status in sorted(statuses))
    return text(f"{also} AND status IN ({named})")


class Job(InWorkspace, Stamped, Supervised, Base):
    """A job. The row is removed only after the runtime has seen all its processes end."""

    __tablename__ = "jobs"
    __table_args__ = (
        Index("ix_jobs_workspace_id_id", "workspace_id", "id"),
        Index("uq_jobs_name", "workspace_id", "name", unique=True),
        Index("ix_jobs_created_at", "workspace_id", "created_at", "id"),
        # Of those that may still write there.
        Index(
            "ix_jobs_output_location",
            "workspace_id",
            "output_location",
            postgresql_where=_status_in("output_location IS NOT NULL", JOB_UNENDED),
        ),
        project_index("jobs"),
        Index("ix_jobs_status_updated_at", "status", "updated_at"),
        # Of what runs or was lost: few rows, however many have ended.
        Index("ix_jobs_host", "host", postgresql_where=text("host IS NOT NULL")),
        Index(
            "ix_jobs_waiting",
            "workspace_id",
            "id",
            postgresql_where=_status_in("host IS NULL", JOB_AWAITS_HOST),
        ),
        Index(
            "ix_jobs_slot",
            "workspace_id",
            "host",
            postgresql_where=_status_in("host IS NOT NULL", JOB_TAKES_SLOT),
        ),
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
    """Name of the fileset for the job's results, in the same workspace."""
    output_location: Mapped[str | None] = mapped_column(Text)
    """The same name, if the fileset was there before the job, and stays when that goes; None if it is the job's own."""
    status: Mapped[JobStatus] = mapped_column(state_column(JobStatus), default=JobStatus.CREATED)
    status_details: Mapped[Json]
    error_details: Mapped[dict[str, Any] | None] = mapped_column(JSONB(none_as_null=True))
    ownership: Mapped[dict[str, Any] | None] = mapped_column(JSONB(none_as_null=True))
    custom_fields: Mapped[dict[str, Any] | None] = mapped_column(JSONB(none_as_null=True))
    secret_access: Mapped[dict[str, Any] | None] = mapped_column(JSONB(none_as_null=True))
    """In whose name this attempt uses the secrets that its steps name; None if they name none. See
    `app.services.secrets.references`."""
    is_reported: Mapped[bool] = mapped_column(Boolean, default=False, server_default=false())
    """Whether a client has reported a step of this attempt while no host had the job: then it runs there, not here."""
    delete_requested_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    """Set by DELETE while the job still has to be stopped; the runtime removes the row after the job has ended."""
    steps: Mapped[list[dict[str, Any]]] = mapped_column(
        JSONB, default=list, server_default=text("'[]'::jsonb")
    )
    """The steps of this attempt that have begun, in order: `{id, name, status, status_details, error_details,
    created_at, created_by, updated_at, updated_by, db_version, tasks}`."""
    results: Mapped[list[dict[str, Any]]] = mapped_column(
        JSONB, default=list, server_default=text("'[]'::jsonb")
    )
    """The results, one per name: `{name, artifact_url, artifact_storage_type, created_at, updated_at}`.
    The URL of an artifact in the job's own workspace is `/fileset#path`: a workspace's name can change."""

    @property
    def artifact_base_path(self) -> str | None:
        """The folder of its fileset for everything that the job leaves; None for all of a fileset of its own."""
        # A name begins with a letter and has no slash, so that it is one folder, and none outside.
        return f"jobs/{self.name}" if self.output_location else None


def has_status_in(statuses: frozenset[JobStatus]) -> ColumnElement[bool]:
    """Whether a job has one of these statuses, as a condition of a query in the words of the partial indexes."""
    # The database cannot know of a parameter whether they apply.
    named: list[Any] = [literal_column(f"'{status.value}'") for status in sorted(statuses)]
    return Job.status.in_(named)


class JobLog(InWorkspace, Base):
    """One line of a log. Ids ascend in the order of the lines, so that an id is the cursor of a page.

    It is of the own log of a job, and goes with that, or of a folder of a fileset, and goes with the fileset. There is
    no foreign key to either, because a log can be long and is removed in chunks.
    """

    __tablename__ = "job_logs"
    __table_args__ = (
        Index("ix_job_logs_workspace_id_id", "workspace_id", "id"),
        Index("ix_job_logs_job_id_attempt_id_id", "job_id", "attempt_id", "id"),
        Index(
            "ix_job_logs_fileset_id",
            "fileset_id",
            "base_path",
            "id",
            postgresql_where=text("fileset_id IS NOT NULL"),
        ),
    )

    job_id: Mapped[UUID | None]
    """The job in whose log it is shown; None for a line that a client has sent of something else."""
    fileset_id: Mapped[UUID | None]
    """The fileset that it belongs to; None in the own log of a job."""
    base_path: Mapped[str | None] = mapped_column(Text)
    """The folder of the fileset, empty for its root."""
    job: Mapped[str | None] = mapped_column(Text)
    """The name of the job, as it was or as the client calls it; None in the own log of a job."""
    attempt_id: Mapped[UUID]
    step: Mapped[String]
    task: Mapped[String]
    at: Mapped[Now]
    message: Mapped[String]
