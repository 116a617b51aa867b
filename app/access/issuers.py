"""Whose tokens are believed, and the keys they sign with."""

import json
import threading
import time
from typing import Any
from urllib.request import HTTPRedirectHandler, build_opener

from jwt import PyJWK, PyJWKSet, PyJWTError

from app.config import Settings, is_protected
from app.errors import Busy
from app.logs import get_logger

log = get_logger(__name__)

_TIMEOUT_S = 3.0
_MAX_BYTES = 1024 * 1024

Document = dict[str, Any]


class Issuer:
    """An identity provider, by its URL. Safe for threads.

    It is asked when its keys are older than `jwks_cache_seconds` or a token names one that it has not published
    before, but never again within `jwks_cooldown_seconds`, whatever tokens arrive and whether or not it answered.
    """

    def __init__(self, url: str, settings: Settings, *, jwks_uri: str = "") -> None:
        self.url = url
        self._jwks_uri = jwks_uri
        self._lifetime_s = settings.jwks_cache_seconds
        self._cooldown_s = settings.jwks_cooldown_seconds
        self._keys: dict[str, PyJWK] | None = None
        self._document: Document | None = None
        self._fresh_until = 0.0
        self._resting_until = 0.0
        self._lock = threading.Lock()

    def key(self, kid: str) -> PyJWK | None:
        """The key published under that id, None if there is none.

        While the issuer does not answer, what it published last stays good. Raises Busy when that is nothing.
        """
        keys = self._keys
        if keys is None or kid not in keys or time.monotonic() >= self._fresh_until:
            self._refresh(unless_known=kid)
            keys = self._keys
        if keys is None:
            raise Busy(f"The keys of the token issuer {self.url} could not be fetched; try again.")
        return keys.get(kid)

    def document(self) -> Document:
        """What it says of itself: where to log in and so on. Empty as long as it has never answered."""
        if self._document is None:
            self._refresh(unless_known=None)
        return self._document or {}

    def _refresh(self, *, unless_known: str | None) -> None:
        with self._lock:
            now = time.monotonic()
            is_known = unless_known is not None and unless_known in (self._keys or {})
            if now < self._resting_until or (is_known and now < self._fresh_until):
                return  # somebody else has just done it
            self._resting_until = now + self._cooldown_s
            try:
                self._ask(now)
            except (OSError, ValueError, PyJWTError) as error:
                log.warning("issuer.unusable", issuer=self.url, error=type(error).__name__)

    def _ask(self, now: float) -> None:
        if self._document is None or not self._jwks_uri:
            document = _fetched(f"{self.url.rstrip('/')}/.well-known/openid-configuration")
            if document.get("issuer") != self.url:
                raise ValueError("the discovery document is another issuer's")
            self._document = document
        published = PyJWKSet.from_dict(_fetched(self._jwks_uri or str(self._document.get("jwks_uri"))))
        usable = [key for key in published.keys if key.public_key_use in (None, "sig")]
        self._keys = {str(key.key_id): key for key in usable if key.key_id}
        self._fresh_until = now + self._lifetime_s


class _Straight(HTTPRedirectHandler):
    """The address is what is trusted: nobody is followed elsewhere."""

    def redirect_request(self, *_: Any) -> None:
        return None


def _fetched(url: str) -> Document:
    if not is_protected(url):
        raise ValueError("not an address that nobody on the way can change")
    with build_opener(_Straight).open(url, timeout=_TIMEOUT_S) as answer:
        document = json.loads(answer.read(_MAX_BYTES))
    if not isinstance(document, dict):
        raise ValueError("not a JSON object")  # noqa: TRY004 -- of what was answered, not of an argument
    return document
