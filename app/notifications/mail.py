"""Sending a notification by e-mail."""

import smtplib
import socket
from collections.abc import Sequence
from contextlib import closing, suppress
from email.message import EmailMessage
from urllib.parse import SplitResult, unquote, urlsplit

from app.config import Settings
from app.config.values import SMTP_PORTS
from app.notifications.addresses import find_addresses
from app.notifications.attempt import AttemptFailed, Deadline
from app.notifications.connecting import connected, tls

_LONGEST_S = 15.0
"""How long a mail server may take: many keep their clients waiting on purpose."""

_READY = 220
_ACCEPTED = 250
"""The only answer to a message that smtplib does not raise."""


def send_mail(settings: Settings, message: EmailMessage, *, within_s: float = _LONGEST_S) -> int:
    """Hand a message to the mail server of the settings; the code with which it accepts. Raises AttemptFailed."""
    url = settings.smtp_url.get_secret_value()
    if not url:
        raise AttemptFailed("no mail server is set (WORKSPACES_SMTP_URL)")
    deadline, parts = Deadline.after(within_s), urlsplit(url)
    host, port = parts.hostname or "", parts.port or SMTP_PORTS[parts.scheme]
    addresses = find_addresses(host, port, within_s=deadline.left_s, is_private_allowed=True)
    domain = settings.smtp_sender.partition("@")[2]
    try:
        with (
            connected(addresses, port, deadline) as opened,
            closing(_server(opened, parts, host, domain=domain)) as server,
        ):
            return _hand_over(server, parts, message)
    except smtplib.SMTPAuthenticationError:
        raise AttemptFailed("the mail server does not accept the login of WORKSPACES_SMTP_URL") from None
    except smtplib.SMTPRecipientsRefused as error:
        codes: Sequence[int] = [code for code, _ in error.recipients.values()]
        raise AttemptFailed("the mail server refuses the recipient", code=codes[0]) from None
    except smtplib.SMTPResponseException as error:
        raise AttemptFailed(f"the mail server answers {error.smtp_code}", code=error.smtp_code) from None
    except (OSError, ValueError) as error:
        late = f"no answer of the mail server within {within_s:g} s"
        why = f"the mail server cannot be used ({type(error).__name__})"
        raise AttemptFailed(late if deadline.is_over else why) from None


def _server(opened: socket.socket, parts: SplitResult, host: str, *, domain: str) -> smtplib.SMTP:
    """The mail server on that connection. It is told that its client is of `domain`."""
    server = smtplib.SMTP(local_hostname=domain)
    server._host = host  # type: ignore[attr-defined]  # whom its certificate must name; it is connected by address
    server.sock = tls().wrap_socket(opened, server_hostname=host) if parts.scheme == "smtps" else opened
    return server


def _hand_over(server: smtplib.SMTP, parts: SplitResult, message: EmailMessage) -> int:
    code, text = server.getreply()
    if code != _READY:
        raise smtplib.SMTPConnectError(code, text)
    if parts.scheme == "smtp+starttls":
        server.starttls(context=tls())
    if parts.username:
        server.login(unquote(parts.username), unquote(parts.password or ""))
    server.send_message(message)
    # The server has the message: a failure of QUIT would have it sent again, for days.
    with suppress(OSError):
        server.quit()
    return _ACCEPTED
