"""The results of a job, as its row keeps them: names, and where in which fileset they are."""

from collections.abc import Mapping

from app import clock
from app.models import Job

FOLDER = "results"
"""Where in the fileset of a job is what its steps have left."""


def note(job: Job, artifacts: Mapping[str, str]) -> None:
    """Note results by their names, each with its `workspace/fileset#path`; those of other names stay.

    What is in the job's own workspace is kept as `/fileset#path`: that workspace may get another name by a restore,
    and its old one may be another's by then.
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
    """An artifact as a job of that workspace keeps it; `shown` is the way back."""
    return url.removeprefix(workspace) if url.startswith(f"{workspace}/") else url


def shown(url: str, workspace: str) -> str:
    """An artifact with the name that the job's workspace has now."""
    return f"{workspace}{url}" if url.startswith("/") else url
