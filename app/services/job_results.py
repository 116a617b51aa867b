"""The results of a job, as stored in its row: a name and the URL of an artifact in a fileset each."""

from collections.abc import Mapping

from app import clock
from app.models import Job

FOLDER = "results"
"""The folder in a job's fileset for the files that its steps have produced."""


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
