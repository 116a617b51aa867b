"""Every state in the product, what it means, and who moves a row out of it.

The tables below are data: services read them to refuse a move, the docs are tested against them.
"""

from enum import StrEnum


class WorkspaceState(StrEnum):
    """Life of a workspace row."""

    ACTIVE = "ACTIVE"  #: In use. DELETE moves it to DELETING.
    DELETING = "DELETING"  #: Nobody can see it; workers remove it. The last slice deletes the row.
    FAILED = "FAILED"  #: As DELETING, but an administrator must look. Follows its deletion.


class DeletionState(StrEnum):
    """Life of a deletion record. Running, waiting and backing off are derived from lease and `next_run_at`."""

    DELETING = (
        "DELETING"  #: Work is left. A worker ends it as DONE or FAILED; restore ends it before it began.
    )
    FAILED = "FAILED"  #: No progress. The sweep (in rounds) or an administrator reopens it.
    DONE = "DONE"  #: The workspace row is gone. Final.
    RESTORED = "RESTORED"  #: Called off before anything was destroyed. Final.


class JobStatus(StrEnum):
    """Life of a job; the names and moves are the published contract."""

    CREATED = "created"  #: Accepted; the runtime worker takes it up.
    PENDING = "pending"  #: A runtime worker has it; its first process is about to start.
    ACTIVE = "active"  #: Its processes run.
    CANCELLING = "cancelling"  #: Asked to stop; the runtime confirms.
    CANCELLED = "cancelled"  #: Stopped on request. Final.
    PAUSING = "pausing"  #: Asked to pause; the runtime confirms.
    PAUSED = "paused"  #: Paused; resume or cancel moves it on.
    RESUMING = "resuming"  #: Asked to go on; the runtime confirms.
    COMPLETED = "completed"  #: Ended well. Final.
    ERROR = "error"  #: Ended badly. Final.


class DeploymentStatus(StrEnum):
    """Life of a deployment; the names are the published contract."""

    UNKNOWN = "UNKNOWN"  #: The runtime cannot tell.
    CREATED = "CREATED"  #: Accepted; the runtime worker takes it up.
    PENDING = "PENDING"  #: The runtime has it; it does not serve yet.
    READY = "READY"  #: It serves.
    ERROR = "ERROR"  #: It could not be brought up.
    DELETING = "DELETING"  #: Asked to stop; the runtime confirms with DELETED.
    DELETED = "DELETED"  #: Stopped; nothing of it runs. Final.
    LOST = "LOST"  #: Its runner is lost; its host takes it up again.


WORKSPACE_MOVES: dict[WorkspaceState, frozenset[WorkspaceState]] = {
    WorkspaceState.ACTIVE: frozenset({WorkspaceState.DELETING}),
    WorkspaceState.DELETING: frozenset({WorkspaceState.ACTIVE, WorkspaceState.FAILED}),
    WorkspaceState.FAILED: frozenset({WorkspaceState.DELETING}),
}

DELETION_MOVES: dict[DeletionState, frozenset[DeletionState]] = {
    DeletionState.DELETING: frozenset({DeletionState.FAILED, DeletionState.DONE, DeletionState.RESTORED}),
    DeletionState.FAILED: frozenset({DeletionState.DELETING}),
    DeletionState.DONE: frozenset(),
    DeletionState.RESTORED: frozenset(),
}

_J = JobStatus
JOB_MOVES: dict[JobStatus, frozenset[JobStatus]] = {
    _J.CREATED: frozenset(
        {_J.PENDING, _J.ACTIVE, _J.CANCELLING, _J.CANCELLED, _J.PAUSING, _J.PAUSED, _J.ERROR}
    ),
    _J.PENDING: frozenset(
        {_J.ACTIVE, _J.CANCELLING, _J.CANCELLED, _J.ERROR, _J.PAUSING, _J.PAUSED, _J.COMPLETED}
    ),
    _J.ACTIVE: frozenset({_J.COMPLETED, _J.ERROR, _J.CANCELLING, _J.CANCELLED, _J.PAUSING, _J.PAUSED}),
    _J.PAUSED: frozenset({_J.RESUMING, _J.ACTIVE, _J.CANCELLING}),
    _J.CANCELLING: frozenset({_J.CANCELLED, _J.ERROR}),
    # The published table has no way from pausing to cancelling; without one such a job could never be stopped.
    _J.PAUSING: frozenset({_J.PAUSED, _J.ERROR, _J.CANCELLING}),
    _J.RESUMING: frozenset({_J.PENDING, _J.ACTIVE, _J.ERROR, _J.CANCELLING}),
    _J.CANCELLED: frozenset(),
    _J.COMPLETED: frozenset(),
    _J.ERROR: frozenset(),
}
JOB_TERMINAL = frozenset(status for status, moves in JOB_MOVES.items() if not moves)

_D = DeploymentStatus
_LIVE_DEPLOYMENTS = frozenset({_D.UNKNOWN, _D.CREATED, _D.PENDING, _D.READY, _D.ERROR, _D.LOST})
DEPLOYMENT_MOVES: dict[DeploymentStatus, frozenset[DeploymentStatus]] = {
    **{status: (_LIVE_DEPLOYMENTS | {_D.DELETING}) - {status} for status in _LIVE_DEPLOYMENTS},
    _D.DELETING: frozenset({_D.DELETED}),
    _D.DELETED: frozenset(),
}


class FailureClass(StrEnum):
    """Why a resource is still there."""

    WAITING = "waiting"  #: Not an error: it was asked to stop and has not yet. Costs no attempt.
    TRANSIENT = "transient"  #: May go away by itself: time-out, connection, 5xx, anything unknown.
    PERMANENT = "permanent"  #: Will not: permission, credentials, an invalid reference. Waits for a person.
