"""FAILED deletions over HTTP, all at once: what they have in common, and what is done with many of them."""

from dataclasses import asdict
from typing import Annotated, Any, Self

from pydantic import AwareDatetime, BaseModel, BeforeValidator, Field, model_validator
from sqlalchemy import select

from app.access.permissions import Permission
from app.cleanup import bulk
from app.cleanup.bulk import Selection
from app.cleanup.report.causes import MOST_GROUPS, FailedCause, failed_causes
from app.clock import Timestamp, database_now
from app.http.field_types import Reason, ShortText
from app.http.route import Body, Query, RequestContext, Routes
from app.lifecycle import FailureClass
from app.times import parse_time

routes = Routes("deletions")
_DELETIONS = "/apis/entities/v2/deletions"

_MAX_CAUSE = 10_000


def _parsed(value: Any) -> Any:
    # Strict mode takes no text for a time behind a validator of the whole body.
    try:
        return parse_time(value)
    except (TypeError, ValueError) as error:
        raise ValueError(f"a time is given as text, such as 2026-03-01T12:00:00Z: {error}") from None


_Look = Annotated[AwareDatetime, BeforeValidator(_parsed)]


class CausesQuery(Query):
    """When the operator looked."""

    as_of: _Look | None = Field(
        None,
        description="Only deletions that were FAILED at this time already, and have not been anything else since.",
    )


class FailedCauseList(BaseModel):
    """The causes of FAILED deletions, that of the most deletions first."""

    data: list[FailedCause] = Field(description=f"Up to {MOST_GROUPS}.")
    as_of: Timestamp = Field(description="The time of this look, for what is done with these deletions.")
    deletions: int = Field(description="The FAILED deletions, also those of causes that are not in `data`.")


class RetryManyRequest(Body):
    """Which FAILED deletions are meant. Those that failed after `as_of` never are."""

    as_of: _Look = Field(
        description="The time of your look. What was not FAILED then, or has been anything else since, is left alone."
    )
    kind: ShortText | None = Field(None, description="Only deletions with a failure of this kind.")
    error_class: FailureClass | None = Field(None, description="Only deletions with a failure of this class.")
    cause: Annotated[str, Field(max_length=_MAX_CAUSE)] | None = Field(
        None,
        description="Only deletions with a failure of this cause, as `deletion-causes` says it; without `kind` and "
        "`error_class` also those with no failure on record and this `reason`.",
    )

    def selection(self) -> Selection:
        """The deletions."""
        return Selection(self.as_of, self.kind, self.error_class, self.cause)


class ForceManyRequest(RetryManyRequest):
    """Which FAILED deletions are meant, and why everything that fails of them is given up."""

    reason: Reason


class SkipManyRequest(ForceManyRequest):
    """What is given up of which FAILED deletions, and why. What fails so is given up, and nothing else."""

    @model_validator(mode="after")
    def _say_what(self) -> Self:
        if self.kind is None and self.cause is None:
            raise ValueError("one of kind and cause is required; to give up everything that fails, use force")
        return self


class BulkOutcome(BaseModel):
    """What was done with the deletions that a request is about. Each was committed by itself."""

    asked: int = Field(description="Deletions with which it was done.")
    left_alone: int = Field(
        description="Deletions that were not as you saw them any more, or of which nothing can be given up."
    )
    left: int = Field(
        description="Deletions for which there was no time: repeat the request with the same `as_of`."
    )
    skipped: int = Field(
        description="Resources that a skip has given up. A deletion with more of them than one request gives up "
        f"({bulk.MOST_SKIPPED}) stays FAILED and is counted in `left`."
    )


@routes.add(
    "GET",
    "/apis/entities/v2/deletion-causes",
    permission=Permission.DELETIONS_OPERATE,
    returns=FailedCauseList,
)
def list_causes_of_failed_deletions(call: RequestContext, query: CausesQuery) -> FailedCauseList:
    """List what FAILED deletions have in common, with the number of deletions and the time of the oldest.

    The answer says the time of the look, which goes with a retry, skip or force of all deletions of a cause.
    """
    now = call.session.scalars(select(database_now())).one()
    as_of = min(query.as_of or now, now)
    causes = failed_causes(call.session, as_of=as_of)
    total = bulk.matching(call.session, Selection(as_of)).then
    return FailedCauseList(data=causes, as_of=as_of, deletions=total)


@routes.add(
    "POST",
    f"{_DELETIONS}/retry",
    permission=Permission.DELETIONS_OPERATE,
    returns=BulkOutcome,
    transaction=False,
)
def retry_deletions(call: RequestContext, body: RetryManyRequest) -> BulkOutcome:
    """Retry many FAILED deletions now, but none that you have not seen."""
    return _outcome(bulk.retry_all(call.context, call.actor, body.selection()))


@routes.add(
    "POST",
    f"{_DELETIONS}/skip",
    permission=Permission.DELETIONS_OPERATE,
    returns=BulkOutcome,
    transaction=False,
)
def skip_resources(call: RequestContext, body: SkipManyRequest) -> BulkOutcome:
    """Give up the resources that fail for the same cause, of many FAILED deletions, and continue with the rest.

    Their rows go; their processes or bytes are retained. Each deletion records how many, the actor and the reason.
    """
    return _outcome(bulk.skip_all(call.context, call.actor, body.selection(), reason=body.reason))


@routes.add(
    "POST",
    f"{_DELETIONS}/force",
    permission=Permission.DELETIONS_OPERATE,
    returns=BulkOutcome,
    transaction=False,
)
def force_deletions(call: RequestContext, body: ForceManyRequest) -> BulkOutcome:
    """Give up every resource that fails now of many FAILED deletions and continue with the rest.

    Also what fails for another cause than the one by which the deletions were chosen.
    """
    return _outcome(bulk.force_all(call.context, call.actor, body.selection(), reason=body.reason))


def _outcome(done: bulk.Done) -> BulkOutcome:
    return BulkOutcome(**asdict(done))
