"""What can be refused, and with which HTTP status.

DomainError
├── BadRequest 400        a filter, sort or path that makes no sense
├── Unauthorized 401      nobody is proved to be calling
├── Forbidden 403         not yours to do
├── NotFound 404          not there, or not yours to know
├── TooSlow 408           the client has stopped sending
├── Conflict 409          the state forbids it
│   ├── NameTaken
│   ├── Protected
│   ├── LastAdmin
│   └── WrongState
├── TooLarge 413          more bytes than are accepted
├── Unprocessable 422     well-formed, but it refers to something that does not exist
├── TooManyRequests 429   the same caller has written too often just now
└── Busy 503              try again: a lock or a dependency did not answer in time
"""


class DomainError(Exception):
    """A rule of the product was broken; the message names the thing and the remedy."""

    status = 500

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class BadRequest(DomainError):
    """The request makes no sense as it is."""

    status = 400


class Unauthorized(DomainError):
    """The request does not prove who is calling."""

    status = 401


class Forbidden(DomainError):
    """The caller may not do this."""

    status = 403


class NotFound(DomainError):
    """There is no such thing, or the caller may not know of it."""

    status = 404


class Conflict(DomainError):
    """The present state forbids it; the same request can never succeed unchanged."""

    status = 409


class NameTaken(Conflict):
    """Something of that name exists already."""


class Protected(Conflict):
    """The workspace must not be deleted."""


class LastAdmin(Conflict):
    """Nobody would administer the workspace any more."""


class WrongState(Conflict):
    """The thing is in a state in which this cannot be done."""


class TooSlow(DomainError):
    """The client has stopped sending."""

    status = 408


class TooLarge(DomainError):
    """The body has more bytes than are accepted."""

    status = 413


class Unprocessable(DomainError):
    """Well-formed, but it refers to something that does not exist."""

    status = 422


class RangeNotSatisfiable(DomainError):
    """The bytes asked for lie outside the file, which has `size` of them and is known by `etag`."""

    status = 416

    def __init__(self, message: str, *, size: int, etag: str) -> None:
        super().__init__(message)
        self.size, self.etag = size, etag


class TooManyRequests(DomainError):
    """The caller has written more often than is allowed; `retry_after_seconds` later it may again."""

    status = 429

    def __init__(self, message: str, *, retry_after_seconds: int) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class Busy(DomainError):
    """A lock or a dependency did not answer in time; the same request may succeed later."""

    status = 503
