"""Who is calling. Authentication is off for now: a caller is whom the headers say, and nobody is refused."""

import re
from collections.abc import Callable
from dataclasses import dataclass

from app.errors import BadRequest

_ID = re.compile(r"[a-zA-Z0-9@._\-:+/]{1,256}\Z")


@dataclass(frozen=True)
class Principal:
    """The caller of a request; `id` is empty for nobody in particular."""

    id: str = ""

    def __str__(self) -> str:
        return self.id


def authenticate(header: Callable[[str, str], str]) -> Principal:
    """The principal that the headers name; `header(name, default)` reads one.

    Raises BadRequest when a header is malformed.
    """
    claimed = header("X-NMP-Principal-Id", "")
    if claimed and not _ID.match(claimed):
        raise BadRequest(
            "X-NMP-Principal-Id must be at most 256 characters; allowed: letters, digits and @ . _ - : + /"
        )
    return Principal(claimed)
