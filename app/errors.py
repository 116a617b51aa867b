"""The expected errors, with the HTTP status of each.

DomainError
├── BadRequest 400           invalid filter, sort or path
├── Unauthorized 401         missing or invalid credentials
├── Forbidden 403            the caller lacks the permission
├── NotFound 404             the resource does not exist
│   └── AccessKeysDisabled
├── TooSlow 408              the client stopped sending
├── Conflict 409             the current state forbids it
│   ├── NameTaken
│   ├── Protected
│   ├── LastAdmin
│   ├── WrongState
│   ├── SecretsMissing
│   ├── SecretsDisabled
│   └── SecretUnreadable
├── PreconditionFailed 412   a condition in the headers does not hold
├── TooLarge 413             the body exceeds the limit
├── RangeNotSatisfiable 416  the range lies outside the file
├── Misdirected 421          the Host is not a name of this server
├── Unprocessable 422        well-formed, but it refers to something that does not exist
├── TooManyRequests 429      the caller exceeded its rate limit
└── Busy 503                 a lock or a dependency did not answer in time; try again
"""


class DomainError(Exception):
    """An expected error, answered with `status`; the message names the thing and the remedy."""

    status = 500
    code: str | None = None
    """By which programs tell the error from others of its status; part of the answer."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class BadRequest(DomainError):
    """The request is invalid."""

    status = 400


class Unauthorized(DomainError):
    """Missing or invalid credentials."""

    status = 401


class Forbidden(DomainError):
    """The caller lacks the permission."""

    status = 403


class NotFound(DomainError):
    """The resource does not exist."""

    status = 404


class AccessKeysDisabled(NotFound):
    """This server offers no access keys."""

    code = "access_keys_disabled"


class Conflict(DomainError):
    """The current state forbids it; repeating the request does not help."""

    status = 409


class NameTaken(Conflict):
    """The name is in use."""


class Protected(Conflict):
    """The workspace is protected from deletion."""


class LastAdmin(Conflict):
    """The workspace would be left without an administrator."""


class WrongState(Conflict):
    """The current state of the resource does not allow this."""


class SecretsMissing(Conflict):
    """A secret that a step of a job names is not there, or is not the caller's to use."""


class SecretsDisabled(Conflict):
    """There are no keys by which a secret could be encrypted or decrypted."""

    code = "secrets_disabled"


class SecretUnreadable(Conflict):
    """The value of a secret cannot be decrypted: its key is missing, or its row is not as it was written."""

    code = "secret_unreadable"


class TooSlow(DomainError):
    """The client stopped sending the body."""

    status = 408


class PreconditionFailed(DomainError):
    """A condition that the client has set in its headers does not hold; nothing was changed."""

    status = 412


class TooLarge(DomainError):
    """The body, or what it would be added to, exceeds the limit."""

    status = 413


class Misdirected(DomainError):
    """The Host of the request is not a name of this server."""

    status = 421


class Unprocessable(DomainError):
    """Well-formed, but it refers to something that does not exist."""

    status = 422


class RangeNotSatisfiable(DomainError):
    """The requested range lies outside the file."""

    status = 416

    def __init__(self, message: str, *, size: int, etag: str) -> None:
        super().__init__(message)
        self.size, self.etag = size, etag


class TooManyRequests(DomainError):
    """The caller exceeded its rate limit; it may try again after `Retry-After` seconds."""

    status = 429

    def __init__(self, message: str, *, retry_after_seconds: int) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class StorageFull(DomainError):
    """The store has no space left: repeating the request would not help."""

    status = 507


class Busy(DomainError):
    """A lock or a dependency did not answer in time; the same request may succeed later."""

    status = 503
