"""The values of settings: what each may be, and what a wrong one is told."""

import re
from contextlib import suppress
from grp import getgrnam
from importlib.util import find_spec
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr

from app.config.keys import read_keys

LONGEST_DURATION_S = 10 * 365 * 86400
Duration = Annotated[float, Field(gt=0, le=LONGEST_DURATION_S, allow_inf_nan=False)]
DurationOrZero = Annotated[float, Field(ge=0, le=LONGEST_DURATION_S, allow_inf_nan=False)]


def _rate(text: str) -> str:
    if text and not re.fullmatch(r"[1-9][0-9]{0,5}/(second|minute|hour|day)", text):
        raise ValueError(
            "must be a number below a million per second, minute, hour or day, such as 100/minute, "
            "or empty for no limit"
        )
    return text


def _broker(url: str) -> str:
    scheme = url.partition("://")[0] if "://" in url else ""
    if scheme == "sentinel":
        raise ValueError(
            "Sentinel is not supported: name the address that always leads to the primary, "
            "such as that of a proxy before it, with redis:// or rediss://"
        )
    if scheme == "redis+cluster":
        raise ValueError("a cluster of Redis is not supported: name a single server with redis://")
    try:
        parts = urlsplit(url)
        is_complete = scheme in {"redis", "rediss"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_complete = False
    if not (is_complete and re.fullmatch(r"(/[0-9]*)?", parts.path)):
        raise ValueError(
            "must be redis://host:port/number, or rediss:// with TLS: no other broker is supported"
        )
    return url


def _group(name: str) -> str:
    with suppress(KeyError):
        return getgrnam(name).gr_name if name else ""
    raise ValueError(f"there is no group '{name}' on this machine")


def _key_file(file: str) -> str:
    if file:
        read_keys(file)
    return file


def _collector(url: str) -> str:
    if not url:
        return url
    try:
        parts = urlsplit(url)
        is_complete = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_complete = False
    # Without a path it is refused, too: the variables of OpenTelemetry have addresses to which one is added.
    if not is_complete or "@" in parts.netloc or parts.query or parts.fragment or parts.path in {"", "/"}:
        raise ValueError(
            "must be the whole URL at which a collector takes traces by OTLP over HTTP, such as "
            "http://127.0.0.1:4318/v1/traces, without a password: OTEL_EXPORTER_OTLP_HEADERS is for that"
        )
    if not (_is_installed("opentelemetry.sdk") and _is_installed("opentelemetry.exporter.otlp.proto.http")):
        raise ValueError("needs the SDK of OpenTelemetry: pip install '.[otel]' in a checkout")
    return url


def _is_installed(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except ModuleNotFoundError:  # What it lies in is missing, too.
        return False


def is_protected(url: str) -> bool:
    """Whether no network attacker can change the response of `url`: https, or http on this machine."""
    parts = urlsplit(url)
    if parts.scheme == "http":
        return parts.hostname in {"127.0.0.1", "::1", "localhost"}
    return parts.scheme == "https" and bool(parts.hostname)


def _protected(url: str) -> str:
    if url and not is_protected(url):
        raise ValueError("must start with https://; http:// is allowed only for 127.0.0.1, ::1 and localhost")
    return url


_HOST_NAME = r"[a-z0-9_-]+(\.[a-z0-9_-]+)*\.?"


def _host(name: str) -> str:
    if not re.fullmatch(_HOST_NAME, name.lower()):
        raise ValueError(
            f"'{name[:100]}' is no host name: give it without scheme and port, such as api.example.com"
        )
    return name.lower()


def _origin(text: str) -> str:
    if not re.fullmatch(rf"https?://({_HOST_NAME}|\[[0-9a-f:.]+\])(:[0-9]{{1,5}})?", text.lower()):
        raise ValueError(
            f"'{text[:100]}' is no origin: give scheme and host, with a port if it is not the usual one, "
            "such as https://console.example.com"
        )
    return text.lower()


def _web_address(text: str) -> str:
    origin, slash, path = text.partition("//")[2].partition("/")
    if text:
        _origin(f"{text.partition('//')[0]}//{origin}")
    if not re.fullmatch(r"[!-~]*", f"{slash}{path}") or "?" in path or "#" in path:
        raise ValueError(
            f"'{text[:100]}' is no address of a server: give it as https://flower.example.com/path"
        )
    return text.rstrip("/")


IssuerUrl = Annotated[str, AfterValidator(_protected)]
ClaimName = Annotated[str, Field(min_length=1)]


def _secret(value: SecretStr) -> SecretStr:
    text = value.get_secret_value()
    if text and not (len(text) >= 16 and text.isascii() and text.isprintable() and text == text.strip()):
        raise ValueError(
            "needs at least 16 characters, all of them printable ASCII, because it is sent in a header"
        )
    return value


def _base_url(url: str) -> str:
    parts = urlsplit(url)
    if url and not (
        parts.scheme in {"http", "https"} and parts.hostname and not parts.query + parts.fragment
    ):
        raise ValueError("must be http://host or https://host, with a path if there is one")
    return url.rstrip("/")


def _smtp(url: SecretStr) -> SecretStr:
    text = url.get_secret_value()
    try:
        parts = urlsplit(text)
        is_complete = parts.scheme in SMTP_PORTS and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_complete = False
    if text and (not is_complete or parts.path.strip("/") or parts.query or parts.fragment):
        raise ValueError(f"must be {', '.join(f'{name}://host:port' for name in SMTP_PORTS)}, without a path")
    if text and parts.scheme == "smtp" and "@" in parts.netloc:
        raise ValueError(
            "smtp:// would send its password to whoever listens: take smtps:// or smtp+starttls://"
        )
    return url


def _sender(address: str) -> str:
    if address and not is_address(address):
        raise ValueError("must be one address of e-mail, such as workspaces@example.com")
    return address


def is_address(text: str) -> bool:
    """Whether a text is one plain address of e-mail."""
    return len(text) <= 254 and bool(
        re.fullmatch(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@[A-Za-z0-9.-]+", text)
    )


SMTP_PORTS = {"smtps": 465, "smtp+starttls": 587, "smtp": 25}
"""The schemes of a mail server's URL, with their usual ports."""


Quantities = dict[
    Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9./-]*$")],
    Annotated[str, Field(pattern=r"^[0-9.]+[A-Za-z]*$")],
]
"""Resources of a pod, each with a quantity as Kubernetes writes it."""


BaseUrl = Annotated[str, AfterValidator(_base_url)]
BrokerUrl = Annotated[str, AfterValidator(_broker)]
CollectorUrl = Annotated[str, AfterValidator(_collector)]
Group = Annotated[str, AfterValidator(_group)]
KeyFile = Annotated[str, AfterValidator(_key_file)]
HostName = Annotated[str, AfterValidator(_host)]
Origin = Annotated[str, AfterValidator(_origin)]
Rate = Annotated[str, AfterValidator(_rate)]
WebAddress = Annotated[str, AfterValidator(_web_address)]
Secret = Annotated[SecretStr, AfterValidator(_secret)]
Sender = Annotated[str, AfterValidator(_sender)]
SmtpUrl = Annotated[SecretStr, AfterValidator(_smtp)]
