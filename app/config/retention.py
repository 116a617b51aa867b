"""The settings of the ends of records: how long is kept what tells of the past."""

from typing import Annotated, Self

from pydantic import Field, PositiveInt, model_validator

from app.config.section import Section

DaysOrZero = Annotated[int, Field(ge=0, le=36500)]


class RetentionSettings(Section):
    """Retention. By default everything is kept."""

    deletion_retention_days: DaysOrZero = 0
    """Age in days, since its end, at which the record of a deletion that is DONE or RESTORED is removed, with its
    failures and events; 0 to keep all. One with skipped failures always stays. `workspaces db upgrade` writes it into
    the database, and no other process can change it there."""
    audit_retention_days: DaysOrZero = 0
    """Age in days at which a line of the audit log is removed; 0 to keep all. `workspaces db upgrade` writes it into
    the database, and no other process can change it there."""
    job_retention_days: DaysOrZero = 0
    """Age in days, since its last change, at which a job that has ended is deleted as if by DELETE, with its log, its
    results and its own fileset; 0 to keep all. What it has stored in an `output_location` stays."""
    backup_retention_days: PositiveInt = 90
    """Age in days of the oldest backup that may still be restored. No deletion that is younger may be removed, so
    `WORKSPACES_DELETION_RETENTION_DAYS` cannot be less."""

    @model_validator(mode="after")
    def _outlive_backups(self) -> Self:
        if 0 < self.deletion_retention_days < self.backup_retention_days:
            raise ValueError(
                f"deletion_retention_days must be 0 or at least backup_retention_days ({self.backup_retention_days}): "
                "a restored backup may bring back what a deletion that is on record has deleted"
            )
        return self
