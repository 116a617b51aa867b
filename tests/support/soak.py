"""How long searches are: a short form inside `make test`, the long one in `make soak`."""

import os

SOAKING = os.environ.get("SOAK") == "1"


def examples(*, short: int, long: int) -> int:
    """The number of examples that a search tries."""
    return long if SOAKING else short
