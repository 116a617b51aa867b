"""Posting a notification to a URL: to a checked address, without redirects, within one deadline."""

import http.client
import socket
import ssl
from collections.abc import Mapping
from contextlib import closing
from urllib.parse import urlsplit

from app.config import Settings
from app.notifications.addresses import find_addresses
from app.notifications.attempt import AttemptFailed, Deadline
from app.notifications.connecting import connected, tls


def post(settings: Settings, url: str, body: bytes, headers: Mapping[str, str]) -> int:
    """The status of the receiver's answer, which is a success. Raises AttemptFailed.

    The body of the answer is not read: nobody is shown what the server can reach.
    """
    deadline = Deadline.after(settings.webhook_timeout_seconds)
    try:
        status = _answer(settings, url, deadline, body, headers)
        if deadline.is_over:  # what was cut off is no answer, though it may look like one
            raise TimeoutError
    except ssl.SSLCertVerificationError as error:
        raise AttemptFailed(f"the receiver's certificate is not valid: {error.verify_message}") from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        if deadline.is_over:
            raise AttemptFailed(f"no answer within {settings.webhook_timeout_seconds:g} s") from None
        raise AttemptFailed(_in_words(error)) from None
    if 200 <= status < 300:
        return status
    if 300 <= status < 400:
        raise AttemptFailed(f"the receiver redirects ({status}), which is not followed", code=status)
    raise AttemptFailed(f"the receiver answers {status}", code=status)


def _answer(settings: Settings, url: str, deadline: Deadline, body: bytes, headers: Mapping[str, str]) -> int:
    """The status that the receiver answers, at an address that was looked at."""
    parts = urlsplit(url)
    host, is_safe = parts.hostname or "", parts.scheme == "https"
    port = parts.port or (443 if is_safe else 80)
    addresses = find_addresses(
        host, port, within_s=deadline.left_s, is_private_allowed=settings.webhooks_to_private_addresses
    )
    with (
        connected(addresses, port, deadline) as opened,
        closing(_connection(opened, host, port, is_safe=is_safe)) as connection,
    ):
        connection.request("POST", _target(url), body=body, headers=dict(headers))
        return connection.getresponse().status


def _target(url: str) -> str:
    """The path and the query of a URL, as they stand in it; a URL without a path has that of its host's root."""
    parts = urlsplit(url)
    return f"{parts.path or '/'}{'?' if parts.query else ''}{parts.query}"


def _connection(opened: socket.socket, host: str, port: int, *, is_safe: bool) -> http.client.HTTPConnection:
    """HTTP on that connection, if it is safe by TLS, for which the name counts."""
    if is_safe:
        connection: http.client.HTTPConnection = http.client.HTTPSConnection(host, port, context=tls())
        connection.sock = tls().wrap_socket(opened, server_hostname=host)
    else:
        connection = http.client.HTTPConnection(host, port)
        connection.sock = opened
    connection.auto_open = 0  # it would search for the host again, and could find another address
    return connection


def _in_words(error: Exception) -> str:
    """What went wrong, without what the receiver has sent."""
    match error:
        case TimeoutError():
            return "the receiver does not answer"
        case ConnectionRefusedError():
            return "the receiver refuses connections"
        case ssl.SSLError():
            return f"no TLS with the receiver ({error.reason or 'it speaks none'})"
        case OSError():
            return f"the receiver cannot be reached ({type(error).__name__})"
    return f"the receiver does not speak HTTP ({type(error).__name__})"
