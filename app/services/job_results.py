"""The results of a job, as stored in its row: a name and the URL of an artifact in a fileset each."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any
from uuid import UUID

from sqlalchemy.orm import Session

from app import clock
from app.access.authorize import Actor
from app.access.permissions import Permission
from app.context import Context
from app.db import read
from app.errors import BadRequest, NotFound, Unprocessable, WrongState
from app.models import Fileset, Job, Workspace
from app.services.filesets import find_fileset
from app.services.jobs import find_job, touch, writable_job
from app.services.workspaces import readable_workspace, writable_workspace
from app.storage.archive import tar_gz
from app.storage.blob_store import BlobStore, StoredFile
from app.storage.paths import checked_path
from app.storage.reading import Reading
from app.storage.tree import told_to_clients

_FOLDER = "results"

MOST_RESULTS = 1000  # They are part of the job's row.


def folder_of(job: Job) -> str:
    """The folder in its fileset for the files that the steps of a job have produced."""
    return f"{job.artifact_base_path}/{_FOLDER}" if job.artifact_base_path else _FOLDER


def note(job: Job, artifacts: Mapping[str, str]) -> None:
    """Add results, or replace those of the same names; `artifacts` maps names to `workspace/fileset#path`.

    The URL of an artifact in the job's own workspace is stored as `/fileset#path`: a restore can rename that
    workspace, and its old name can then belong to another.
    """
    now = clock.now().isoformat()
    results = {result["name"]: result for result in job.results}
    for name, url in artifacts.items():
        results[name] = {
            "name": name,
            "artifact_url": url,
            "artifact_storage_type": "fileset",
            "created_at": results.get(name, {}).get("created_at", now),
            "updated_at": now,
        }
    job.results = list(results.values())


def kept(url: str, workspace: str) -> str:
    """The URL of an artifact as a job of that workspace stores it; `shown` is the inverse."""
    return url.removeprefix(workspace) if url.startswith(f"{workspace}/") else url


def shown(url: str, workspace: str) -> str:
    """The URL of an artifact with the current name of the job's workspace."""
    return f"{workspace}{url}" if url.startswith("/") else url


def declare(session: Session, actor: Actor, workspace: str, job_name: str, name: str, *, url: str) -> Job:
    """Add a result to a job, or replace the one of that name.

    Raises NotFound, WrongState for too many results, and as `_find_artifact` does for the artifact.
    """
    workspace_row = writable_workspace(session, actor, workspace)
    _find_artifact(session, actor, workspace_row, url)
    job = writable_job(session, actor, workspace, job_name)
    if len(job.results) >= MOST_RESULTS and all(result["name"] != name for result in job.results):
        raise WrongState(f"Job '{job_name}' has {MOST_RESULTS} results, the most there can be.")
    note(job, {name: kept(url, workspace_row.name)})
    touch(session, actor, job)
    return job


def find_result(job: Job, name: str, workspace: str) -> dict[str, Any]:
    """The result of that name; its artifact has the name that the job's workspace has now. Raises NotFound."""
    for result in job.results:
        if result["name"] == name:
            return {**result, "artifact_url": shown(result["artifact_url"], workspace)}
    raise NotFound(f"Result '{name}' for job '{job.name}' not found in workspace '{workspace}'.")


@dataclass(frozen=True)
class Download:
    """The bytes of a result: a file that can be read in parts, or the chunks of an archive of a directory."""

    name: str
    content: Reading | Iterator[bytes]
    close: Callable[[], None]
    workspace_id: UUID
    artifact: str
    """The URL of the artifact."""


def open_download(context: Context, actor: Actor, workspace: str, job_name: str, name: str) -> Download:
    """Open a result of a job; a first chunk of an archive has been made. The caller closes it.

    Reads the rows by itself. Raises Busy when the store fails, NotFound, and as `_find_artifact` does.
    """

    def find(session: Session) -> tuple[Fileset, str, str]:
        workspace_row = readable_workspace(session, actor, workspace)
        job = find_job(session, workspace_row, job_name)
        url = find_result(job, name, workspace)["artifact_url"]
        # The files that its steps have left belong to the job. For any other artifact the caller needs the right
        # to read filesets.
        is_own = url.startswith(f"{workspace_row.name}/{job.fileset}#{folder_of(job)}/")
        return *_find_artifact(session, actor, workspace_row, url, is_read=not is_own), url

    fileset, path, url = read(context.sessions, find)
    with artifact_errors(url, name):
        return _open(context.store, fileset, path, name, url)


@contextmanager
def artifact_errors(url: str, name: str) -> Iterator[None]:
    """Turn an error of the store about the artifact of a result into a DomainError. Raises NotFound and Busy."""
    try:
        yield
    except FileNotFoundError:
        raise NotFound(f"The artifact '{url}' of result '{name}' does not exist any more.") from None
    except OSError as error:
        raise told_to_clients(error) from error


def _open(store: BlobStore, fileset: Fileset, path: str, name: str, url: str) -> Download:
    def read(file: StoredFile) -> Reading:
        return store.read(fileset.workspace_id, fileset.id, file.path)

    files = store.files(fileset.workspace_id, fileset.id, path)
    if not files:
        raise FileNotFoundError(path)
    if [file.path for file in files] == [path]:
        reading = read(files[0])
        return Download(name, reading, reading.close, fileset.workspace_id, url)
    archive = tar_gz(files, read, within=path, named=path.rpartition("/")[2] or fileset.name)
    # The first chunk is made now, so that a failing store fails before anything is answered.
    chunks = chain([next(archive)], archive)
    return Download(f"{name}.tar.gz", chunks, archive.close, fileset.workspace_id, url)


def _find_artifact(
    session: Session, actor: Actor, workspace_row: Workspace, url: str, *, is_read: bool = False
) -> tuple[Fileset, str]:
    """The fileset of an artifact, and the path in it. Raises Unprocessable, Forbidden and NotFound.

    For an artifact in another workspace, or with `is_read`, the caller needs the right to read filesets there.
    """
    address, _, path = url.partition("#")
    workspace, slash, name = address.partition("/")
    if not (workspace and slash and name and path):
        raise Unprocessable(f"'{url}' is no artifact; write workspace/fileset#path.")
    try:
        checked_path(path)
    except BadRequest as error:
        raise Unprocessable(f"'{url}' is no artifact. {error.message}") from None
    if is_read or workspace != workspace_row.name:
        is_in_scope = actor.principal.has_scope_for("files", "read")
        reader = replace(actor, permission=Permission.FILESETS_READ, is_in_scope=is_in_scope)
        workspace_row = readable_workspace(session, reader, workspace)
    return find_fileset(session, workspace_row, name), path
