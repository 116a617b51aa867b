"""Lines of logs that clients send to a fileset, and what a fileset has of them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import NAMESPACE_OID, UUID, uuid5

from sqlalchemy import ColumnElement, Select, false, insert, select
from sqlalchemy.orm import Session
from uuid_utils.compat import uuid7

from app.access.authorize import Actor
from app.errors import BadRequest
from app.models import Fileset, Job, JobLog
from app.models.columns import without_documents
from app.services.filesets import find_fileset, owner_of, writable_fileset
from app.services.logs.order import folder_log, own_log
from app.services.workspaces import readable_workspace
from app.storage.paths import checked_path

FILTERS = ("job", "job_attempt", "job_step", "job_task")


@dataclass(frozen=True)
class Source:
    """What has printed a line: the names that a client gives it, which need not be those of a job here."""

    job: str
    attempt: str
    step: str
    task: str


@dataclass(frozen=True)
class ReportedLine:
    """A line that a client sends."""

    source: Source
    at: datetime
    message: str


@dataclass(frozen=True)
class Rejected:
    """Why a line is not stored."""

    why: str


def append(
    session: Session,
    actor: Actor,
    workspace: str,
    name: str,
    lines: Iterable[ReportedLine | Rejected],
    *,
    base_path: str,
) -> list[str]:
    """Append lines to the log of a folder of a fileset; for each that was not stored, why.

    Those of a job whose fileset and folder that is are in the log of the job as well. Raises NotFound, Forbidden for a
    service's fileset, and BadRequest for a malformed path.
    """
    folder = _folder(base_path)
    fileset = writable_fileset(session, actor, workspace, name)
    owner = _owner(session, fileset, folder)
    taken: list[ReportedLine] = []
    rejected: list[str] = []
    for line in lines:
        if isinstance(line, Rejected):
            rejected.append(line.why)
        elif owner and line.source.job != owner.name:
            rejected.append(f"the fileset '{name}' goes with job '{owner.name}', and has lines of that alone")
        else:
            taken.append(line)
    if taken:
        ids = _next_ids(session, fileset, folder, owner, taken)
        job = owner or _job_of_folder(session, fileset, folder)
        where = {} if owner else {"fileset_id": fileset.id, "base_path": folder}
        rows = [_row(line, job, is_own=owner is not None) for line in taken]
        given = {"workspace_id": fileset.workspace_id, **where}
        session.execute(
            insert(JobLog), [{**given, **row, "id": one} for one, row in zip(ids, rows, strict=True)]
        )
    return rejected


def _row(line: ReportedLine, job: Job | None, *, is_own: bool) -> dict[str, Any]:
    source = line.source
    return {
        "job_id": job.id if job and job.name == source.job else None,
        "job": None if is_own else source.job,
        "attempt_id": _attempt_id(source.attempt),
        "step": source.step,
        "task": source.task,
        "at": line.at,
        "message": line.message,
    }


def matching_lines(
    session: Session, actor: Actor, workspace: str, name: str, *, filters: Mapping[str, str], base_path: str
) -> tuple[Select[JobLog], str]:
    """The lines of a folder of a fileset that meet `filters`, and the name of the job of those that name none.

    In the fileset that goes with a job they are its own log: of its current attempt, unless a filter names another.
    Raises NotFound, and BadRequest for an unknown filter or a malformed path.
    """
    if unknown := [key for key in filters if key not in FILTERS]:
        raise BadRequest(f"Invalid filter: '{unknown[0][:50]}' is none of {', '.join(FILTERS)}.")
    folder = _folder(base_path)
    fileset = find_fileset(session, readable_workspace(session, actor, workspace), name)
    owner = _owner(session, fileset, folder)
    job, attempt = filters.get("job"), filters.get("job_attempt")
    attempt_id = _attempt_id(attempt) if attempt is not None else None
    conditions: list[ColumnElement[bool]] = []
    if owner:
        conditions += [JobLog.job_id == owner.id, JobLog.attempt_id == (attempt_id or owner.attempt_id)]
        conditions += [false()] if job not in (None, owner.name) else []
    else:
        conditions += _is_in(fileset, folder)
        conditions += [JobLog.job == job] if job is not None else []
        conditions += [JobLog.attempt_id == attempt_id] if attempt_id else []
    for key, column in (("job_step", JobLog.step), ("job_task", JobLog.task)):
        conditions += [column == filters[key]] if key in filters else []
    return select(JobLog).where(*conditions), owner.name if owner else ""


def _folder(base_path: str) -> str:
    """A folder, without a slash at its end. Raises BadRequest if it would be outside of the fileset."""
    folder = base_path.rstrip("/")
    return checked_path(folder) if base_path else ""


def _owner(session: Session, fileset: Fileset, folder: str) -> Job | None:
    """The job whose own log is that of the folder, if there is one."""
    return None if folder else owner_of(session, fileset)


def _is_in(fileset: Fileset, folder: str) -> list[ColumnElement[bool]]:
    return [JobLog.fileset_id == fileset.id, JobLog.base_path == folder]


def _job_of_folder(session: Session, fileset: Fileset, folder: str) -> Job | None:
    """The job whose folder of a fileset that others use too it is, if there is one."""
    named = select(Job).where(
        Job.workspace_id == fileset.workspace_id,
        Job.name == folder.removeprefix("jobs/"),
        Job.output_location == fileset.name,
    )
    job = session.scalars(named.options(*without_documents(Job))).one_or_none()
    return job if job and job.artifact_base_path == folder else None


def _next_ids(
    session: Session, fileset: Fileset, folder: str, owner: Job | None, lines: Sequence[ReportedLine]
) -> list[UUID]:
    """Ids behind all that the log has."""
    attempts = {_attempt_id(line.source.attempt) for line in lines}
    log = own_log(owner.id, sorted(attempts)) if owner else folder_log(fileset.id, folder)
    first = max(uuid7().int, log.next_id(session))
    return [UUID(int=first + index) for index in range(len(lines))]


def _attempt_id(text: str) -> UUID:
    """The id of an attempt; one that a client calls otherwise gets one made from that."""
    try:
        return UUID(text)
    except ValueError:
        return uuid5(NAMESPACE_OID, text)
