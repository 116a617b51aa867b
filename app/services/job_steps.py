"""The steps of a job's attempt, and their tasks: entries of `Job.steps`, added when a step begins."""

from typing import Any
from uuid import UUID, uuid5

from app import clock
from app.errors import NotFound, WrongState
from app.lifecycle import JOB_MOVES, JOB_TERMINAL, JobStatus
from app.models import Job

Entry = dict[str, Any]

TASK = "main"
"""The task that stands for the process of a step; reports can add tasks under other names."""

_MAX_TASKS = 1000  # They are part of the job's row.


def first_steps(job: Job) -> list[Entry]:
    """The steps that have begun. Before the first step begins, that step in the status of the job."""
    if job.steps or not job.platform_spec["steps"]:
        return job.steps
    times = {"created_at": job.created_at.isoformat(), "updated_at": job.updated_at.isoformat()}
    return [_entry(job, job.platform_spec["steps"][0]["name"]) | times]


def spec_of(job: Job, name: str) -> dict[str, Any]:
    """The specification of the step of that name."""
    spec: dict[str, Any] = next(step for step in job.platform_spec["steps"] if step["name"] == name)
    return spec


def profile_of(executor: dict[str, Any]) -> str:
    """The name of a step's execution profile."""
    return f"{executor['provider']}/{executor.get('profile', 'default')}"


def command_of(executor: dict[str, Any]) -> list[str]:
    """The command line of a step's process; for a container, its entry point and its command."""
    if "container" not in executor:
        return list(executor["command"])
    container = executor["container"]
    return [*container.get("entrypoint", ()), *container.get("command", ())]


def find_step(job: Job, name: str) -> Entry:
    """The step of that name. Raises NotFound, also before the step has begun."""
    for entry in first_steps(job):
        if entry["name"] == name:
            return entry
    raise NotFound(f"Step '{name}' of job '{job.name}' not found; a step appears once it has begun.")


def find_task(job: Job, step: str, name: str) -> Entry:
    """The task of that name. Raises NotFound."""
    for task in find_step(job, step).get("tasks", []):
        if task["name"] == name:
            found: Entry = task
            return found
    raise NotFound(f"Task '{name}' of step '{step}' of job '{job.name}' not found.")


def begin_step(job: Job, name: str) -> None:
    """Add a step that begins, with the task of its process."""
    entry = _entry(job, name)
    entry["tasks"] = [_task(job, entry, TASK)]
    job.steps = [*(step for step in job.steps if step["name"] != name), entry]


def settle_step(
    job: Job, name: str, status: JobStatus, *, error_details: dict[str, Any] | None = None
) -> None:
    """Set the status that the runtime has seen of a step's process; it overrides reports by others."""

    def settle(step: Entry) -> Entry:
        tasks = [
            _changed(task, status=status, error_details=error_details) if task["name"] == TASK else task
            for task in step.get("tasks", [])
        ]
        return _changed(step, status=status, error_details=error_details, tasks=tasks)

    job.steps = [settle(step) if step["name"] == name else step for step in job.steps]


def settle_last_step(job: Job, status: JobStatus, *, error_details: dict[str, Any] | None = None) -> None:
    """As `settle_step`, for the last step, unless it has ended; nothing if no step has begun."""
    if job.steps and job.steps[-1]["status"] not in JOB_TERMINAL:
        settle_step(job, job.steps[-1]["name"], status, error_details=error_details)


def begin_reported_step(job: Job, name: str) -> None:
    """Add a step that a client is about to run, as `created`; its tasks are those that are reported."""
    job.steps = [*first_steps(job), {**_entry(job, name), "status": JobStatus.CREATED, "error_details": None}]


def report_step(
    job: Job, name: str, status: JobStatus, *, by: str, **details: dict[str, Any] | None
) -> Entry:
    """Set the status of a step as `by` reports it; details that are None stay unchanged.

    Raises NotFound, and WrongState for a move that is not in `JOB_MOVES`.
    """
    entry = find_step(job, name)
    before = JobStatus(entry["status"])
    if status is not before and status not in JOB_MOVES[before]:
        raise WrongState(
            f"Cannot move step '{name}' of job '{job.name}' from '{before}' to '{status}'. "
            "Refresh the job status and try again."
        )
    given = {key: value for key, value in details.items() if value is not None}
    changed = _changed(entry, status=status, updated_by=by, **given)
    job.steps = [changed if step["name"] == name else step for step in first_steps(job)]
    return changed


def report_task(
    job: Job,
    step: str,
    name: str,
    *,
    by: str,
    status: JobStatus,
    status_details: dict[str, Any] | None,
    **more: Any,
) -> Entry:
    """Set the status of a task as `by` reports it; a new one is added. Its status details are merged into the job's.

    Raises NotFound for a step that has not begun, and WrongState for too many tasks.
    """
    entry = find_step(job, step)
    tasks: list[Entry] = entry.get("tasks", [])
    if len(tasks) >= _MAX_TASKS and name not in [task["name"] for task in tasks]:
        raise WrongState(f"Step '{step}' of job '{job.name}' already has {_MAX_TASKS} tasks, the maximum.")
    known = next((task for task in tasks if task["name"] == name), None)
    before = known or {**_task(job, entry, name), "created_by": by, "db_version": 0}
    details = {key: value for key, value in more.items() if value is not None} | {"updated_by": by}
    task = _changed(
        before, status=status, status_details=status_details or before["status_details"], **details
    )
    others = [other for other in tasks if other["name"] != name]
    changed = {**entry, "tasks": [*others, task]}
    job.steps = [changed if one["name"] == step else one for one in first_steps(job)]
    job.status_details = {**job.status_details, **(status_details or {})}
    return task


def step_id(attempt_id: UUID, name: str) -> UUID:
    """The id of a step in an attempt; known before the step begins."""
    return uuid5(attempt_id, name)


def _entry(job: Job, name: str) -> Entry:
    return _new(job, step_id(job.attempt_id, name), name, job.error_details) | {"tasks": []}


def _task(job: Job, step: Entry, name: str) -> Entry:
    return _new(job, uuid5(UUID(step["id"]), name), name, None) | {"error_stack": None}


def _new(job: Job, entry_id: UUID, name: str, error_details: dict[str, Any] | None) -> Entry:
    now = _now()
    return {
        "id": str(entry_id),
        "name": name,
        "status": job.status,
        "status_details": {},
        "error_details": error_details,
        "created_at": now,
        "created_by": job.created_by,
        "updated_at": now,
        "updated_by": job.created_by,
        "db_version": 1,
    }


def _changed(entry: Entry, **values: Any) -> Entry:
    # Entries of earlier releases have no number.
    return {**entry, **values, "updated_at": _now(), "db_version": entry.get("db_version", 1) + 1}


def _now() -> str:
    return clock.now().isoformat()
