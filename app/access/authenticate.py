"""Who is calling. Authentication is off for now: a caller is whom the headers say, and nobody is refused."""

import re
from collections.abc import Callable

from app.access.principal import Principal
from app.config import Settings
from app.errors import BadRequest

_ID = re.compile(r"[a-zA-Z0-9@._\-:+/]{1,256}\Z")

Header = Callable[[str, str], str]
"""Reads one request header: `(name, default)`."""


class Authenticator:
    """Tells who sent a request. One per process: it holds the keys of the token issuers."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def principal(self, header: Header) -> Principal:
        """The caller whom the headers prove.

        Raises BadRequest when a header is malformed, Unauthorized when nobody is proved.
        """
        claimed = header("X-NMP-Principal-Id", "")
        if claimed and not _ID.match(claimed):
            raise BadRequest(
                "X-NMP-Principal-Id must be at most 256 characters; allowed: letters, digits and @ . _ - : + /"
            )
        return Principal(claimed, is_platform_admin=True)
