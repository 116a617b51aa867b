"""How long searches are: a short form inside `make test`, the long one in `make search`."""

import os

SEARCHING = os.environ.get("SEARCH") == "1"


def examples(*, short: int, long: int) -> int:
    """The number of examples that a search tries."""
    return long if SEARCHING else short
