"""The switch that pauses destruction, and the breaker's holds, over HTTP."""

from typing import Self

from pydantic import Field, model_validator
from sqlalchemy.orm import Session

from app.access.permissions import Permission
from app.cleanup import control
from app.clock import Timestamp
from app.errors import NotFound
from app.http.field_types import Resource
from app.http.route import Body, RequestContext, Routes

routes = Routes("deletions")
_CONTROL = "/apis/entities/v2/cleanup-control"


class HeldDeletions(Resource):
    """The deletions of one requester that the breaker holds."""

    requested_by: str
    count: int
    since: Timestamp


class CleanupControl(Resource):
    """Whether destruction is paused, whose deletions are held, and when the sweep last ran."""

    paused: bool
    paused_by: str | None
    paused_at: Timestamp | None
    reason: str | None
    last_sweep_at: Timestamp | None
    held: list[HeldDeletions]


class CleanupControlUpdate(Body):
    """A request to pause or resume destruction, or to release the deletions of a requester."""

    paused: bool | None = None
    release: str | None = Field(None, max_length=256, description="The `requested_by` of held deletions.")

    @model_validator(mode="after")
    def _say_something(self) -> Self:
        if self.paused is None and self.release is None:
            raise ValueError("one of paused and release is required")
        return self


@routes.add(
    "GET",
    _CONTROL,
    permission=Permission.CLEANUP_READ,
    returns=CleanupControl,
)
def get_cleanup_control(call: RequestContext) -> CleanupControl:
    """Get the state of destruction: running, paused, or held for some requesters."""
    return _describe(call.session)


@routes.add(
    "PUT",
    _CONTROL,
    permission=Permission.CLEANUP_CONTROL,
    returns=CleanupControl,
    raises=(NotFound,),
    transaction=False,
)
def put_cleanup_control(call: RequestContext, body: CleanupControlUpdate) -> CleanupControl:
    """Pause or resume destruction, or release held deletions.

    Deletions are accepted and access is revoked in every state.
    """

    def change(session: Session) -> None:
        if body.paused is not None:
            control.set_paused(session, paused=body.paused, actor=call.actor)
        if body.release is not None:
            control.release(session, call.actor, body.release)

    call.transact(change)
    return call.transact(_describe)  # what is held is counted only once the change is committed


def _describe(session: Session) -> CleanupControl:
    held = [HeldDeletions.from_row(one) for one in control.held(session)]
    return CleanupControl.from_row(control.state(session), held=held)
