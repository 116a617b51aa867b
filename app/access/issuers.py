"""Token issuers: their discovery documents and signing keys, fetched over HTTP and cached."""

import threading
import time
from collections.abc import Callable
from http.client import HTTPException
from typing import Any, Generic, TypeVar
from urllib.parse import urlsplit

from jwt import PyJWK

from app.access.exchange import TIMEOUT_S, Document, fetch
from app.config import Settings, is_protected
from app.errors import Busy
from app.logs import get_logger

log = get_logger(__name__)

ALGORITHMS = ("RS256", "ES256")
"""Asymmetric algorithms only: a key that verifies tokens cannot sign them."""

_LONGEST_S = 24 * 3600.0
"""Limit on the use of cached keys: an attacker who blocks the issuer must not keep a revoked key valid for ever."""

T = TypeVar("T")


class _CachedFetch(Generic[T]):
    """The last answer of an issuer. Thread-safe.

    It is fetched again once it is older than `jwks_cache_seconds` or lacks the key asked for, but at most once per
    `jwks_cooldown_seconds`, whether or not the issuer answered.
    """

    def __init__(
        self, issuer: str, fetch: Callable[[], T], settings: Settings, monotonic: Callable[[], float]
    ) -> None:
        self._issuer = issuer
        self._fetch = fetch
        self._lifetime_s = settings.jwks_cache_seconds
        self._cooldown_s = settings.jwks_cooldown_seconds
        self._monotonic = monotonic
        self._last: tuple[T, float] | None = None
        self._cooldown_until = float("-inf")
        self._lock = threading.Lock()

    def latest(self, suffices: Callable[[T], bool] = lambda _: True) -> T | None:
        """The current answer or, while the issuer does not answer, the last one of the past day."""
        if not self._is_fresh(suffices):
            self._refresh(suffices)
        return self._last[0] if self._last and self._age_s(self._last) < _LONGEST_S else None

    def _refresh(self, suffices: Callable[[T], bool]) -> None:
        # A request that can use a cached answer does not wait: a slow issuer would block every thread of the server.
        if not self._lock.acquire(timeout=0 if self._last else 2 * TIMEOUT_S):
            return
        try:
            if self._is_fresh(suffices) or self._monotonic() < self._cooldown_until:
                return  # another thread has just fetched
            try:
                self._last = (self._fetch(), self._monotonic())
            finally:
                self._cooldown_until = self._monotonic() + self._cooldown_s
        except (OSError, HTTPException, ValueError, RecursionError) as error:
            log.warning(
                "issuer.unusable",
                issuer=self._issuer,
                error=type(error).__name__,
                reason=str(error)[:200],
            )
        finally:
            self._lock.release()

    def _is_fresh(self, suffices: Callable[[T], bool]) -> bool:
        last = self._last
        return last is not None and self._age_s(last) < self._lifetime_s and suffices(last[0])

    def _age_s(self, last: tuple[T, float]) -> float:
        return self._monotonic() - last[1]


class Issuer:
    """An identity provider, by its URL. Thread-safe."""

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
        self._document = _CachedFetch(url, self._fetch_document, settings, monotonic)
        self._keys = _CachedFetch(url, self._fetch_keys, settings, monotonic)

    def key(self, kid: str) -> PyJWK | None:
        """The key published under that id, or None.

        While the issuer does not answer, the keys that it published last stay valid for a day. Raises Busy if there
        are none.
        """
        keys = self._keys.latest(lambda known: kid in known)
        if keys is None:
            raise Busy(f"The keys of the token issuer {self.url} could not be fetched; try again.")
        return keys.get(kid)

    def document(self) -> Document:
        """The discovery document; empty while it cannot be fetched."""
        return self._document.latest() or {}

    def endpoint(self, name: str) -> str:
        """The URL that the discovery document has under that name. Raises Busy while there is none that can be used."""
        try:
            url = self._published(name)
        except ValueError as error:
            log.warning("issuer.unusable", issuer=self.url, error="ValueError", reason=str(error)[:200])
            url = ""
        if not url:
            raise Busy(
                f"The discovery document of the token issuer {self.url} names no usable {name}; try again."
            )
        return url

    def _fetch_document(self) -> Document:
        document = fetch(f"{self.url.rstrip('/')}/.well-known/openid-configuration")
        if document.get("issuer") != self.url:
            raise ValueError(f"the discovery document of {self.url} names another issuer")
        return document

    def _published(self, name: str) -> str:
        uri = str(self.document().get(name))
        # Otherwise an issuer elsewhere could have us ask servers of this machine.
        if urlsplit(self.url).scheme == "https" and urlsplit(uri).scheme != "https":
            raise ValueError(f"{name} of {self.url} must be an https URL, not {uri[:200]}")
        if not is_protected(uri):
            raise ValueError(f"{name} of {self.url} is neither an https URL nor on this host: {uri[:200]}")
        return uri

    def _fetch_keys(self) -> dict[str, PyJWK]:
        published = fetch(self._jwks_uri or self._published("jwks_uri")).get("keys")
        if not isinstance(published, list):
            raise ValueError(f"{self.url} publishes no list of keys")  # noqa: TRY004 -- the answer's type, not ours
        keys: dict[str, PyJWK] = {}
        for one in published:
            if key := _signing_key(one):
                keys.setdefault(str(key.key_id), key)
        return keys


def _signing_key(published: Any) -> PyJWK | None:
    """The published key, or None if it cannot sign tokens. An invalid entry does not affect the others."""
    if not isinstance(published, dict) or not isinstance(published.get("kid"), str):
        return None
    try:
        key = PyJWK.from_dict(published)
        signs_tokens = key.public_key_use in (None, "sig") and key.algorithm_name in ALGORITHMS
        return key if signs_tokens and not key.Algorithm.check_key_length(key.key) else None
    except Exception as error:  # noqa: BLE001 -- PyJWT raises whatever a key of another sort happens to lead to
        log.info("issuer.key_ignored", kid=published["kid"][:100], reason=type(error).__name__)
        return None
