"""Whose tokens are believed, and the keys they sign with."""

import json
import threading
import time
from collections.abc import Callable
from http.client import HTTPException
from typing import Any, Generic, TypeVar
from urllib.request import HTTPRedirectHandler, build_opener

from jwt import PyJWK, PyJWTError

from app.config import Settings, is_protected
from app.errors import Busy
from app.logs import get_logger

log = get_logger(__name__)

ALGORITHMS = ("RS256", "ES256")
"""Asymmetric both: whoever can verify a token still cannot make one."""

_TIMEOUT_S = 3.0
_MAX_BYTES = 1024 * 1024
_LONGEST_S = 24 * 3600.0
"""Who keeps us from hearing that a key was withdrawn must not make it last for ever."""

Document = dict[str, Any]
T = TypeVar("T")


class _CachedFetch(Generic[T]):
    """What an issuer was last heard to say. Safe for threads.

    It is asked when that is older than `jwks_cache_seconds` or not enough, but never again within
    `jwks_cooldown_seconds`, whatever tokens arrive and whether or not it answered.
    """

    def __init__(
        self, issuer: str, ask: Callable[[], T], settings: Settings, monotonic: Callable[[], float]
    ) -> None:
        self._issuer = issuer
        self._ask = ask
        self._lifetime_s = settings.jwks_cache_seconds
        self._cooldown_s = settings.jwks_cooldown_seconds
        self._monotonic = monotonic
        self._last: tuple[T, float] | None = None
        self._resting_until = float("-inf")
        self._lock = threading.Lock()

    def latest(self, is_enough: Callable[[T], bool] = lambda _: True) -> T | None:
        """What it says now or, while it does not answer, said within the last day."""
        if not self._is_good(is_enough):
            self._refresh(is_enough)
        return self._last[0] if self._last and self._age_s(self._last) < _LONGEST_S else None

    def _refresh(self, is_enough: Callable[[T], bool]) -> None:
        # Whoever has something to go on with does not wait for a slow issuer, or one would stop the server.
        if not self._lock.acquire(timeout=0 if self._last else 2 * _TIMEOUT_S):
            return
        try:
            if self._is_good(is_enough) or self._monotonic() < self._resting_until:
                return  # somebody else has just asked
            try:
                self._last = (self._ask(), self._monotonic())
            finally:
                self._resting_until = self._monotonic() + self._cooldown_s
        except (OSError, HTTPException, ValueError, RecursionError) as error:
            log.warning(
                "issuer.unusable",
                issuer=self._issuer,
                error=type(error).__name__,
                reason=str(error)[:200],
            )
        finally:
            self._lock.release()

    def _is_good(self, is_enough: Callable[[T], bool]) -> bool:
        last = self._last
        return last is not None and self._age_s(last) < self._lifetime_s and is_enough(last[0])

    def _age_s(self, last: tuple[T, float]) -> float:
        return self._monotonic() - last[1]


class Issuer:
    """An identity provider, by its URL. Safe for threads."""

    def __init__(
        self,
        url: str,
        settings: Settings,
        *,
        jwks_uri: str = "",
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.url = url
        self._jwks_uri = jwks_uri
        self._document = _CachedFetch(url, self._ask_for_document, settings, monotonic)
        self._keys = _CachedFetch(url, self._ask_for_keys, settings, monotonic)

    def key(self, kid: str) -> PyJWK | None:
        """The key published under that id, None if there is none.

        While the issuer does not answer, what it published last stays good for a day. Raises Busy without that.
        """
        keys = self._keys.latest(lambda known: kid in known)
        if keys is None:
            raise Busy(f"The keys of the token issuer {self.url} could not be fetched; try again.")
        return keys.get(kid)

    def document(self) -> Document:
        """What it says of itself: where to log in and so on. Empty while it cannot be had."""
        return self._document.latest() or {}

    def _ask_for_document(self) -> Document:
        document = _fetched(f"{self.url.rstrip('/')}/.well-known/openid-configuration")
        if document.get("issuer") != self.url:
            raise ValueError(f"the discovery document of {self.url} is another issuer's")
        return document

    def _ask_for_keys(self) -> dict[str, PyJWK]:
        published = _fetched(self._jwks_uri or str(self.document().get("jwks_uri"))).get("keys")
        if not isinstance(published, list):
            raise ValueError(f"{self.url} publishes no list of keys")  # noqa: TRY004 -- of what was answered
        keys: dict[str, PyJWK] = {}
        for one in published:
            if key := _usable(one):
                keys.setdefault(str(key.key_id), key)
        return keys


def _usable(published: Any) -> PyJWK | None:
    """The published key, None if it is none that tokens are signed with; it must not spoil those beside it."""
    if not isinstance(published, dict) or not isinstance(published.get("kid"), str):
        return None
    try:
        key = PyJWK.from_dict(published)
    except (PyJWTError, ValueError, TypeError):
        return None
    is_to_sign = key.public_key_use in (None, "sig") and key.algorithm_name in ALGORITHMS
    return key if is_to_sign and not key.Algorithm.check_key_length(key.key) else None


class _NoRedirects(HTTPRedirectHandler):
    """The address is what is trusted: nobody is followed elsewhere."""

    def redirect_request(self, *_: Any) -> None:
        return None


def _fetched(url: str) -> Document:
    if not is_protected(url):
        raise ValueError(f"{url[:200]} is not an address that nobody on the way can change")
    deadline = time.monotonic() + _TIMEOUT_S
    body = bytearray()
    with build_opener(_NoRedirects).open(url, timeout=_TIMEOUT_S) as answer:
        while part := answer.read1():
            body += part
            # The timeout is for each silence; this one is for all of it.
            if len(body) > _MAX_BYTES or time.monotonic() > deadline:
                raise ValueError(f"{url} answers too much or too slowly")
    document = json.loads(body)
    if not isinstance(document, dict):
        raise ValueError(f"{url} answers no JSON object")  # noqa: TRY004 -- of what was answered
    return document
