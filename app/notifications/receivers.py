"""URLs that can be notified, and what may be said of them."""

import ipaddress
from contextlib import suppress
from urllib.parse import urlsplit

from app.config import Settings
from app.config.values import is_address
from app.errors import BadRequest, WrongState
from app.notifications.addresses import is_public

MAILTO = "mailto:"

LONGEST = 2000


def require_receiver(settings: Settings, url: str) -> None:
    """Raise BadRequest for a URL that cannot be notified, and WrongState for e-mail without a mail server."""
    if url.lower().startswith(MAILTO):
        if not url.startswith(MAILTO) or not is_address(url.removeprefix(MAILTO)):
            raise BadRequest("url must be mailto: and one address of e-mail, such as mailto:ops@example.com.")
        if not settings.smtp_url.get_secret_value():
            raise WrongState(
                "This server sends no e-mail: its operator has to set WORKSPACES_SMTP_URL and WORKSPACES_SMTP_SENDER."
            )
        return
    schemes = {"https", "http"} if settings.webhooks_to_private_addresses else {"https"}
    if not _is_complete(url, schemes):
        raise BadRequest(
            f"url must be {' or '.join(f'{one}://host' for one in sorted(schemes, reverse=True))}, without a user or a "
            f"fragment, in printable ASCII and at most {LONGEST} characters; or mailto: and an address of e-mail."
        )
    address = _address_in(url)
    if address and not settings.webhooks_to_private_addresses and not is_public(address):
        raise BadRequest(
            "url has a private address, which no webhook may reach: its operator could allow it with "
            "WORKSPACES_WEBHOOKS_TO_PRIVATE_ADDRESSES."
        )


def receiver_of(url: str) -> str:
    """The host of a receiver, for the record: a path may be a secret, and an address of e-mail is somebody's."""
    return "e-mail" if url.startswith(MAILTO) else urlsplit(url).hostname or ""


def _is_complete(url: str, schemes: set[str]) -> bool:
    if len(url) > LONGEST or not (url.isascii() and url.isprintable()) or " " in url:
        return False
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return False
    return bool(
        parts.scheme in schemes
        and parts.hostname
        and port != 0
        and "@" not in parts.netloc
        and not parts.fragment
    )


def _address_in(url: str) -> str | None:
    host = urlsplit(url).hostname or ""
    with suppress(ValueError):
        return str(ipaddress.ip_address(host))
    return None
