"""Text for a terminal."""

import re

_COMMANDS_TO_TERMINALS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")
"""Control characters but for tabs and line ends, and those that change the direction of text."""


def printable(text: str) -> str:
    """`text` for a console: what would be a command to the terminal stands there as an escape sequence of Python."""
    return _COMMANDS_TO_TERMINALS.sub(lambda found: found[0].encode("unicode_escape").decode(), text)
