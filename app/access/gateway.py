"""The identity headers of a gateway: one of two families of names, and whom they name."""

import re
from collections.abc import Callable
from dataclasses import dataclass

from app.access.principal import MAX_EMAIL_CHARS, MAX_ID_CHARS, Principal, is_name
from app.errors import BadRequest

Header = Callable[[str, str], str]
"""Reads one request header: `(name, default)`."""

_ABSENT = "\0"  # no header can hold it
_ID = re.compile(r"[a-zA-Z0-9@._\-:+/]{1,256}\Z")
_MAX_GROUPS = 100
_SUFFIXES = ("", "-Email", "-Groups")


@dataclass(frozen=True)
class Headers:
    """The names of one family of headers, such as `X-NMP-Principal-Id`."""

    family: str

    @property
    def principal(self) -> str:
        """What the names of the headers about the caller begin with."""
        return f"{self.family}-Principal"

    @property
    def caller(self) -> str:
        """The header with the caller's id."""
        return f"{self.principal}-Id"

    @property
    def user(self) -> str:
        """The header with the id of the user for whom a service acts; the names of all about the user begin with it."""
        return f"{self.principal}-On-Behalf-Of"

    @property
    def scopes(self) -> str:
        """The header with the scopes that restrict the caller."""
        return f"{self.family}-Scopes"

    def sent(self, header: Header) -> list[str]:
        """Those that a request has, empty ones included."""
        known = [self.caller, *(f"{self.principal}{suffix}" for suffix in _SUFFIXES[1:]), *self._of_user]
        return [name for name in (*known, self.scopes) if header(name, _ABSENT) != _ABSENT]

    def delegates(self, header: Header) -> bool:
        """Whether there is any header about a user for whom the caller acts, an empty one included."""
        return any(header(name, _ABSENT) != _ABSENT for name in self._of_user)

    def named_caller(self, header: Header) -> Principal:
        """The caller. Raises BadRequest for a malformed header."""
        return _named(header, self.caller, self.principal)

    def named_user(self, header: Header) -> Principal:
        """The user for whom the caller acts. Raises BadRequest for a malformed header."""
        return _named(header, self.user, self.user)

    @property
    def _of_user(self) -> list[str]:
        return [f"{self.user}{suffix}" for suffix in _SUFFIXES]


FAMILIES = {"nmp": Headers("X-NMP"), "nhx": Headers("X-NHX")}
"""By their names in the settings."""


def identifier(header: Header, name: str) -> str:
    """The id in a header, which may be empty. Raises BadRequest for a malformed one."""
    value = header(name, "")
    if value and not _ID.match(value):
        raise BadRequest(
            f"{name} contains invalid characters or is longer than {MAX_ID_CHARS}; "
            "allowed: letters, digits and @ . _ - : + /"
        )
    return value


def _named(header: Header, id_header: str, prefix: str) -> Principal:
    email = header(f"{prefix}-Email", "")
    if len(email) > MAX_EMAIL_CHARS or not (email.isprintable() or not email):
        raise BadRequest(f"{prefix}-Email must be at most {MAX_EMAIL_CHARS} printable characters.")
    groups = [one.strip() for one in header(f"{prefix}-Groups", "").split(",") if one.strip()]
    if len(groups) > _MAX_GROUPS or not all(is_name(one, MAX_ID_CHARS) for one in groups):
        raise BadRequest(
            f"{prefix}-Groups must list at most {_MAX_GROUPS} names, separated by commas, "
            f"each of at most {MAX_ID_CHARS} printable characters."
        )
    return Principal(identifier(header, id_header), email=email, groups=frozenset(groups))
