"""A row while its runner holds the lease: refreshed often, changed under the fencing token, kept from lapsing."""

import time
from collections.abc import Callable
from threading import Event
from typing import Generic, TypeVar, cast

from sqlalchemy.orm import Session

from app import lease
from app.clock import seconds_from_now
from app.context import Context
from app.db import session_scope
from app.lease import LeaseLost
from app.models import Deployment, Job
from app.models.columns import without_documents
from app.runtime.joint_reads import DatabaseAway, JointReads
from app.runtime.lease import DATABASE_AWAY, Lease

_AGAIN_S = 0.2  # Between two attempts to reach a database that is away.

R = TypeVar("R", Job, Deployment)
S = TypeVar("S")  # The type of `status` in R; the type checker cannot derive it.
T = TypeVar("T")


class LeasedRow(Generic[R, S]):
    """A job or a deployment, with the status it was claimed in and the lease of its claim.

    No other host can claim it, so a database that is away is waited for, however long: the lease is still ours
    afterwards, unless somebody took it meanwhile. Once `stopping` is set, only for as long as the lease lasts.
    `on_renewal` runs in the transaction of each renewal that `refresh` makes, every `renew_within_s` seconds at least.
    """

    def __init__(
        self,
        context: Context,
        row: R,
        status: S,
        held: Lease,
        *,
        stopping: Event,
        on_renewal: Callable[[Session, R], None] = lambda _session, _row: None,
        renew_within_s: float = float("inf"),
    ) -> None:
        self._context, self.row_id, self._fence = context, row.id, held.fence
        self._model: type[R] = type(row)
        self._reads = JointReads.of(context.sessions, self._model)
        self._read = self._reads.add(row.id, held.fence)
        self._fresh_s = context.settings.runtime_poll_seconds / 2
        self._written_at = time.monotonic()
        self._on_renewal: Callable[[Session, R], None] = on_renewal
        self._lease_s = context.settings.runtime_lease_seconds
        self._renewal_s = min(self._lease_s / 3, renew_within_s)
        self._held_until = held.until
        self._stopping = stopping
        self.status: S = status
        """As read last."""

    def refresh(self) -> S:
        """Read the status, which is also the request: with those of all other rows, at most half a poll ago.

        Renews the lease after a third of its time, or sooner as `renew_within_s` says. Raises LeaseLost.
        """
        if time.monotonic() > self._held_until - self._lease_s + self._renewal_s:
            self.write(self._on_renewal)
            return self.status
        try:
            status = cast(
                S | None, self._reads.status(self._read, after=self._written_at, within_s=self._fresh_s)
            )
        except DatabaseAway:
            return self.status
        if status is None:
            raise LeaseLost(self._model, self.row_id, self._fence)
        self.status = status
        return status

    def write(
        self, change: Callable[[Session, R], T], *, first: Callable[[Session], None] | None = None
    ) -> T:
        """Change the row and renew the lease in one transaction. Waits for a database that is away.

        `first` takes the locks that come before the row's. Both may be called again after a commit of which nobody
        knows whether it succeeded, so both must be idempotent. Raises LeaseLost; then nothing has changed.
        """
        while True:
            asked_at = time.monotonic()
            try:
                with session_scope(self._context.sessions) as session:
                    if first:
                        first(session)
                    until = seconds_from_now(self._lease_s)
                    row = lease.write(
                        session,
                        self._model,
                        self.row_id,
                        self._fence,
                        options=without_documents(self._model),
                        lease_until=until,
                    )
                    outcome = change(session, row)
            except DATABASE_AWAY as error:
                if self._stopping.is_set() and asked_at > self._held_until:
                    raise LeaseLost(self._model, self.row_id, self._fence) from error
                time.sleep(_AGAIN_S)
                continue
            self._held_until = asked_at + self._lease_s
            self.status = cast(S, row.status)
            self._written_at = time.monotonic()  # what was read before does not count
            return outcome
