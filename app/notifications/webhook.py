"""Posting a notification to a URL: to a checked address, without redirects, within one deadline."""

import http.client
import ssl
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from app.config import Settings
from app.notifications.addresses import find_addresses
from app.notifications.attempt import AttemptFailed, Deadline
from app.notifications.connecting import connect, tls


def post(settings: Settings, url: str, body: bytes, headers: Mapping[str, str]) -> int:
    """The status of the receiver's answer, which is a success. Raises AttemptFailed.

    The body of the answer is not read: nobody is shown what the server can reach.
    """
    deadline = Deadline.after(settings.webhook_timeout_seconds)
    connection = _connection(settings, url, deadline)
    target = _target(url)
    try:
        with deadline.ending(lambda: connection.sock):
            connection.request("POST", target, body=body, headers=dict(headers))
            status = connection.getresponse().status
        if deadline.is_over:  # what was cut off is no answer, though it may look like one
            raise TimeoutError
    except ssl.SSLCertVerificationError as error:
        raise AttemptFailed(f"the receiver's certificate is not valid: {error.verify_message}") from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        if deadline.is_over:
            raise AttemptFailed(f"no answer within {settings.webhook_timeout_seconds:g} s") from None
        raise AttemptFailed(_in_words(error)) from None
    finally:
        connection.close()
    if 200 <= status < 300:
        return status
    if 300 <= status < 400:
        raise AttemptFailed(f"the receiver redirects ({status}), which is not followed", code=status)
    raise AttemptFailed(f"the receiver answers {status}", code=status)


def _target(url: str) -> str:
    """The path and the query of a URL, as they stand in it; a URL without a path has that of its host's root."""
    parts = urlsplit(url)
    return f"{parts.path or '/'}{'?' if parts.query else ''}{parts.query}"


def _connection(settings: Settings, url: str, deadline: Deadline) -> http.client.HTTPConnection:
    """A connection that is open once something is sent on it, to an address that was looked at."""
    parts = urlsplit(url)
    host, is_safe = parts.hostname or "", parts.scheme == "https"
    port = parts.port or (443 if is_safe else 80)
    addresses = find_addresses(
        host, port, within_s=deadline.left_s, is_private_allowed=settings.webhooks_to_private_addresses
    )
    if is_safe:
        return _CheckedTls(host, port, addresses, deadline)
    return _Checked(host, port, addresses, deadline)


class _Checked(http.client.HTTPConnection):
    """A connection to one of some addresses of a host, whatever its name leads to by now."""

    def __init__(
        self, host: str, port: int, addresses: list[str], deadline: Deadline, **options: Any
    ) -> None:
        super().__init__(host, port, **options)
        self._addresses, self._deadline = addresses, deadline

    def connect(self) -> None:
        """Connect to the first address that answers."""
        self.sock = connect(self._addresses, self.port, self._deadline)


class _CheckedTls(_Checked):
    """The same with TLS, for which the name counts."""

    default_port = http.client.HTTPS_PORT

    def connect(self) -> None:
        """Connect, and prove that it is the host of that name."""
        super().connect()
        # Not at once: until there is an object for it, nobody could end a handshake that never does.
        protected = tls().wrap_socket(self.sock, server_hostname=self.host, do_handshake_on_connect=False)
        self.sock = protected
        protected.do_handshake()


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
