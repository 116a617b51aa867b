"""The logs of jobs and filesets: once the jobs are gone nothing is written to them any more."""

from app.cleanup.kinds.base import RowsKind
from app.cleanup.kinds.rows import oldest_rows_of
from app.models import JobLog

KIND = RowsKind("job_logs", JobLog, oldest_rows_of(JobLog))
"""Up to a chunk of lines at a time."""
