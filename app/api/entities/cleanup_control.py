"""The switch that pauses destruction, over HTTP."""

from app.access.permissions import Permission
from app.cleanup import control
from app.clock import Timestamp
from app.http.field_types import Resource
from app.http.route import Body, RequestContext, Routes

routes = Routes("deletions")
_CONTROL = "/apis/entities/v2/cleanup-control"


class CleanupControl(Resource):
    """Whether destruction is paused, and when the sweep last ran."""

    paused: bool
    paused_by: str | None
    paused_at: Timestamp | None
    reason: str | None
    last_sweep_at: Timestamp | None


class CleanupControlUpdate(Body):
    """A request to pause or resume destruction."""

    paused: bool


@routes.add(
    "GET",
    _CONTROL,
    permission=Permission.CLEANUP_READ,
    returns=CleanupControl,
)
def get_cleanup_control(call: RequestContext) -> CleanupControl:
    """Get the state of destruction: running or paused."""
    return CleanupControl.from_row(control.state(call.session))


@routes.add(
    "PUT",
    _CONTROL,
    permission=Permission.CLEANUP_CONTROL,
    returns=CleanupControl,
)
def put_cleanup_control(call: RequestContext, body: CleanupControlUpdate) -> CleanupControl:
    """Pause or resume destruction. Deletions are accepted and access is revoked in both states."""
    control.set_paused(call.session, paused=body.paused, actor=call.actor)
    return CleanupControl.from_row(control.state(call.session))
