"""Generated names for resources that are created without one."""

import re
import secrets
import string

_LETTERS = string.ascii_lowercase + string.digits


def generated_name(text: str, *, fallback: str, random_characters: int) -> str:
    """`<text>-<random characters>`; characters that a name cannot contain are replaced or removed.

    `fallback` replaces a text of which nothing remains.
    """
    stem = re.sub(r"[^a-z0-9]+", "-", text.lower()).lstrip("-0123456789")[:50].rstrip("-") or fallback
    return f"{stem}-{''.join(secrets.choice(_LETTERS) for _ in range(random_characters))}"
