"""Every state of a row, what it means, and every move: from where, to where, by whom, and only if what.

The tables below are data: each change of a state takes its guard from them, and docs/cleanup.md is compared with
them by a test. The text behind `#:` is the meaning that stands in the guide.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import Generic, TypeVar

State = TypeVar("State", bound=StrEnum)


@dataclass(frozen=True)
class Move(Generic[State]):
    """A change of state. The code that makes it refuses a row in any other state than those in `before`."""

    before: tuple[State, ...]
    after: State | None
    """None: the row is removed."""
    by: str
    only_if: str = ""
    """What must be true besides the state."""


def following(states: type[State], moves: Iterable[Move[State]]) -> dict[State, frozenset[State]]:
    """The states that come after each state."""
    pairs = [(before, move.after) for move in moves for before in move.before]
    return {
        state: frozenset(after for before, after in pairs if before is state and after is not None)
        for state in states
    }


class WorkspaceState(StrEnum):
    """Life of a workspace row, which follows its deletion."""

    ACTIVE = "ACTIVE"  #: In use: the only state in which anybody can see it or write to it.
    DELETING = "DELETING"  #: Nobody can see it; workers remove it, and with the last slice the row.
    FAILED = "FAILED"  #: As DELETING, but an administrator must look.


class WorkspaceMove(Enum):
    """Made by `services.workspaces.move_workspace` alone."""

    DELETE = Move(
        (WorkspaceState.ACTIVE,),
        WorkspaceState.DELETING,
        by="a user who may delete it; an operator who replays its deletion after a restore of a backup",
        only_if="it is neither built in nor protected; a replay may be told to ignore the protection",
    )
    RESTORE = Move(
        (WorkspaceState.DELETING,),
        WorkspaceState.ACTIVE,
        by="who requested its deletion, or an administrator, with `restore` of it",
        only_if="its name is free, or another one is given",
    )
    FAIL = Move((WorkspaceState.DELETING,), WorkspaceState.FAILED, by="with `fail` of its deletion")
    REOPEN = Move((WorkspaceState.FAILED,), WorkspaceState.DELETING, by="with `reopen` of its deletion")
    REMOVE = Move(
        (WorkspaceState.DELETING,),
        None,
        by="with `finish` of its deletion",
        only_if="no row refers to it: its foreign keys say so",
    )


class DeletionState(StrEnum):
    """Life of a deletion record. Running, waiting and backing off are derived from lease and `next_run_at`."""

    DELETING = "DELETING"  #: Work is left, whether somebody is at it or not.
    FAILED = "FAILED"  #: No progress; `reason` and `failures` say why.
    DONE = "DONE"  #: The workspace row is gone. Final.
    RESTORED = "RESTORED"  #: Called off before anything was destroyed. Final.


DELETION_UNFINISHED = (DeletionState.DELETING, DeletionState.FAILED)
"""The states of a deletion that is not over."""


class DeletionMove(Enum):
    """Made by `cleanup.ledger` alone."""

    RESTORE = Move(
        (DeletionState.DELETING,),
        DeletionState.RESTORED,
        by="who requested it; an administrator",
        only_if="no slice has begun (`started_at` is null)",
    )
    FAIL = Move(
        (DeletionState.DELETING,),
        DeletionState.FAILED,
        by="the worker that holds the lease",
        only_if="too many passes were without progress, or only permanent failures are left",
    )
    REOPEN = Move(
        (DeletionState.FAILED,),
        DeletionState.DELETING,
        by="the sweep (re-attempt); an administrator (retry, skip, force)",
        only_if="for the sweep: `next_reattempt_at` has come",
    )
    FINISH = Move(
        (DeletionState.DELETING,),
        DeletionState.DONE,
        by="the worker that holds the lease",
        only_if="every kind is empty or what is left is skipped, and the database agrees",
    )


class JobStatus(StrEnum):
    """Life of a job; the names and moves are the published contract."""

    CREATED = "created"  #: Accepted; the runtime worker takes it up.
    PENDING = "pending"  #: A runtime worker has it; its first process is about to start.
    ACTIVE = "active"  #: Its processes run.
    CANCELLING = "cancelling"  #: Asked to stop; the runtime confirms.
    CANCELLED = "cancelled"  #: Stopped on request. Only a rerun moves it on.
    PAUSING = "pausing"  #: Asked to pause; the runtime confirms.
    PAUSED = "paused"  #: Paused; resume or cancel moves it on.
    RESUMING = "resuming"  #: Asked to go on; the runtime confirms.
    COMPLETED = "completed"  #: Ended well. Only a rerun moves it on.
    ERROR = "error"  #: Ended badly. Only a rerun moves it on.


_J = JobStatus
_J_REPORTER = "a client that reports its step, while no host has it"
_STEP_REPORTER = "a client that reports a step, of that step, and of its job while no host has that"


class JobMove(Enum):
    """Made by `services.jobs` alone."""

    TAKE_UP = Move(
        (_J.CREATED, _J.RESUMING),
        _J.PENDING,
        by=f"a runtime worker; {_J_REPORTER}",
        only_if="for a worker: no host has it, no client reports it, its workspace is ACTIVE, and its host has a job "
        "slot for it",
    )
    START = Move((_J.PENDING,), _J.ACTIVE, by=f"its runner; {_J_REPORTER}")
    COMPLETE = Move(
        (_J.PENDING, _J.ACTIVE),
        _J.COMPLETED,
        by=f"its runner; {_J_REPORTER}",
        only_if="no process of it is left, and none failed",
    )
    FAIL = Move(
        (_J.CREATED, _J.PENDING, _J.ACTIVE, _J.CANCELLING, _J.PAUSING, _J.RESUMING),
        _J.ERROR,
        by=f"its runner; for one whose runner is lost, the sweep or an operator who purges its host; {_J_REPORTER}",
        only_if="a paused one is moved to resuming before",
    )
    # The published table has no way from pausing to cancelling; without one such a job could never be stopped.
    CANCEL = Move(
        (_J.CREATED, _J.PENDING, _J.ACTIVE, _J.PAUSING, _J.PAUSED, _J.RESUMING),
        _J.CANCELLING,
        by=f"a user who may cancel or delete it; the cascade; {_J_REPORTER}",
    )
    CONFIRM_CANCEL = Move(
        (_J.CANCELLING,),
        _J.CANCELLED,
        by="its runner; at once, if no host has it",
        only_if="no process of it is left",
    )
    PAUSE = Move(
        (_J.CREATED, _J.PENDING, _J.ACTIVE), _J.PAUSING, by=f"a user who may pause it; {_J_REPORTER}"
    )
    CONFIRM_PAUSE = Move(
        (_J.PAUSING,),
        _J.PAUSED,
        by=f"its runner; a runtime worker, if neither a host has it nor a client reports it; {_J_REPORTER}",
    )
    RESUME = Move((_J.PAUSED,), _J.RESUMING, by=f"a user who may resume it; {_J_REPORTER}")
    CONFIRM_RESUME = Move(
        (_J.RESUMING,),
        _J.ACTIVE,
        by=f"its runner; {_J_REPORTER}",
        only_if="for a runner: its host has a job slot for it",
    )
    RERUN = Move(
        (_J.CANCELLED, _J.COMPLETED, _J.ERROR),
        _J.CREATED,
        by="a user who may run it again, as a new attempt",
        only_if="no process of it is left, and it is not about to be deleted",
    )


class StepMove(Enum):
    """Published moves that the runtime makes of no job: a client that reports a step may skip stages."""

    REPORT_ACTIVE = Move((_J.CREATED, _J.PAUSED), _J.ACTIVE, by=_STEP_REPORTER)
    REPORT_PAUSED = Move((_J.CREATED, _J.PENDING, _J.ACTIVE), _J.PAUSED, by=_STEP_REPORTER)
    REPORT_CANCELLED = Move((_J.CREATED, _J.PENDING, _J.ACTIVE), _J.CANCELLED, by=_STEP_REPORTER)


def published_move(before: JobStatus, after: JobStatus) -> JobMove | StepMove | None:
    """The move from one status to another within an attempt, if there is one."""
    moves: tuple[JobMove | StepMove, ...] = (*JobMove, *StepMove)
    for move in moves:
        if move is not JobMove.RERUN and before in move.value.before and move.value.after is after:
            return move
    return None


JOB_MOVES = following(JobStatus, [move.value for move in (*JobMove, *StepMove) if move is not JobMove.RERUN])
"""The published moves, those of one attempt: what reports of steps are held to."""
JOB_TERMINAL = frozenset(status for status, moves in JOB_MOVES.items() if not moves)
JOB_UNENDED = frozenset(_J) - JOB_TERMINAL
JOB_AWAITS_HOST = frozenset({_J.CREATED, _J.PENDING, _J.RESUMING})
"""Statuses in which a job that no host has waits for one."""
JOB_TAKES_SLOT = JOB_UNENDED - {_J.CREATED, _J.PAUSED}
"""Statuses in which a job that a host has takes one of the host's job slots."""


class DeploymentStatus(StrEnum):
    """Life of a deployment; the names are the published contract."""

    UNKNOWN = "UNKNOWN"  #: The runtime cannot tell.
    CREATED = "CREATED"  #: Accepted; the runtime worker takes it up.
    PENDING = "PENDING"  #: The runtime has it; it does not serve yet.
    READY = "READY"  #: It serves.
    ERROR = "ERROR"  #: It could not be brought up.
    DELETING = "DELETING"  #: Asked to stop; the runtime confirms.
    DELETED = "DELETED"  #: Stopped; nothing of it runs. Final; the sweep removes it after half a minute.
    LOST = "LOST"  #: Its runner is lost; its host looks after it as soon as a worker runs there.


_D = DeploymentStatus
_REPORTER = "a client that reports it, while no host has it"


class DeploymentMove(Enum):
    """Made by `services.deployments.move` alone."""

    REPORT_UNKNOWN = Move((_D.CREATED, _D.PENDING, _D.READY, _D.ERROR, _D.LOST), _D.UNKNOWN, by=_REPORTER)
    REPORT_CREATED = Move((_D.UNKNOWN, _D.PENDING, _D.READY, _D.ERROR, _D.LOST), _D.CREATED, by=_REPORTER)
    WAIT = Move(
        (_D.UNKNOWN, _D.CREATED, _D.READY, _D.ERROR, _D.LOST),
        _D.PENDING,
        by=f"its runner; an operator who purges its host; {_REPORTER}",
    )
    SERVE = Move(
        (_D.UNKNOWN, _D.CREATED, _D.PENDING, _D.ERROR, _D.LOST), _D.READY, by=f"its runner; {_REPORTER}"
    )
    FAIL = Move(
        (_D.UNKNOWN, _D.CREATED, _D.PENDING, _D.READY, _D.LOST), _D.ERROR, by=f"its runner; {_REPORTER}"
    )
    LOSE = Move(
        (_D.UNKNOWN, _D.CREATED, _D.PENDING, _D.READY, _D.ERROR),
        _D.LOST,
        by=f"the sweep, when its runner's lease is over; {_REPORTER}",
    )
    DELETE = Move(
        (_D.UNKNOWN, _D.CREATED, _D.PENDING, _D.READY, _D.ERROR, _D.LOST),
        _D.DELETING,
        by=f"a user who may delete it; its successor; the cascade; {_REPORTER}",
    )
    CONFIRM_DELETE = Move(
        (_D.DELETING,),
        _D.DELETED,
        by=f"its runner; at once, if no host has it; an operator who purges its host; {_REPORTER}",
        only_if="nothing of it is left",
    )


DEPLOYMENT_MOVES = following(DeploymentStatus, [move.value for move in DeploymentMove])
"""What `services.deployments.move` is held to."""


class FailureClass(StrEnum):
    """Why a resource is still there."""

    WAITING = "waiting"  #: Not an error: it was asked to stop and has not yet. Costs no attempt.
    TRANSIENT = "transient"  #: May go away by itself: time-out, connection, 5xx, anything unknown.
    PERMANENT = "permanent"  #: Will not: permission, credentials, an invalid reference. Waits for a person.


class AccessKeyStatus(StrEnum):
    """Status of an access key, which follows from its times; the names are the published contract."""

    ACTIVE = "ACTIVE"  #: Its token is accepted.
    SUSPENDED = "SUSPENDED"  #: Its token is refused until it is unsuspended.
    EXPIRED = "EXPIRED"  #: Its end has come. Final.
    REVOKED = "REVOKED"  #: Its holder or an administrator has ended it. Final.


class AccessKeyHolder(StrEnum):
    """Whom a caller with an access key is; the names are the published contract."""

    USER = "USER"  #: The user who has made it.
    SERVICE_ACCOUNT = "SERVICE_ACCOUNT"  #: A service account, for which an administrator has made it.


class DeliveryStatus(StrEnum):
    """Life of a delivery of a notification."""

    PENDING = "PENDING"  #: It has to be sent, for the first time or again.
    DELIVERED = "DELIVERED"  #: Its receiver has taken it. Only somebody who asks for it again moves it on.
    GIVEN_UP = "GIVEN_UP"  #: It was tried for too long. Only somebody who asks for it again moves it on.


class DeliveryMove(Enum):
    """Made by `notifications.deliveries.move` alone."""

    DELIVER = Move(
        (DeliveryStatus.PENDING,),
        DeliveryStatus.DELIVERED,
        by="the sender that holds the lease of its subscription",
        only_if="its receiver has answered 2xx, or the mail server has taken it",
    )
    GIVE_UP = Move(
        (DeliveryStatus.PENDING,),
        DeliveryStatus.GIVEN_UP,
        by="the sender that holds the lease of its subscription",
        only_if="its time is over, its receiver is gone for good (410), or its deletion is not on record any more",
    )
    REDELIVER = Move(
        (DeliveryStatus.DELIVERED, DeliveryStatus.GIVEN_UP),
        DeliveryStatus.PENDING,
        by="an administrator who asks for it again",
        only_if="its subscription is enabled",
    )


class NotificationType(StrEnum):
    """What a notification is about; the names are the contract with receivers."""

    DELETION_REQUESTED = "deletion.requested"  #: Access to the workspace is revoked.
    DELETION_STARTED = "deletion.started"  #: Destruction has begun; no restore is possible any more.
    DELETION_PAUSED = "deletion.paused"  #: The breaker holds it, and all others of its requester.
    DELETION_FAILED = "deletion.failed"  #: It makes no progress; an administrator must look.
    DELETION_FINISHED = "deletion.finished"  #: Nothing of the workspace is left but what was skipped.
    DELETION_RESTORED = "deletion.restored"  #: It was called off; the workspace is as before.
    TEST = "notification.test"  #: Somebody has asked for it; every subscription gets its own.


NOTIFIED_EVENTS = {
    "requested": NotificationType.DELETION_REQUESTED,
    "started": NotificationType.DELETION_STARTED,
    "held": NotificationType.DELETION_PAUSED,
    "failed": NotificationType.DELETION_FAILED,
    "finished": NotificationType.DELETION_FINISHED,
    "restored": NotificationType.DELETION_RESTORED,
}
"""The events of deletions of which subscriptions hear, and as what."""
