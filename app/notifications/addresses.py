"""Which addresses a webhook may reach: those of the internet, unless the settings allow those of the own network."""

import ipaddress
import socket
from ipaddress import IPv4Address, IPv6Address

from app.health.asking import ask
from app.notifications.attempt import AttemptFailed

_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_SEARCHES = object()
"""What unfinished searches belong to: who asks for the same host meanwhile waits for the same one."""


def find_addresses(host: str, port: int, *, within_s: float, is_private_allowed: bool) -> list[str]:
    """The addresses of a host that may be reached. Raises AttemptFailed if there are none, or it takes too long.

    A connection must be made to one of these: a second search could find another address.
    """

    def search() -> list[str]:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        return list(dict.fromkeys(str(address[0]) for *_, address in found))

    # A search cannot be interrupted, so it has a thread of its own.
    found = ask({f"{host}:{port}": search}, of=_SEARCHES, within_s=within_s)[f"{host}:{port}"]
    match found:
        case TimeoutError():
            raise AttemptFailed("the search for the host's address took too long")
        case OSError() | UnicodeError():
            raise AttemptFailed("the host has no address")
        case Exception():
            raise found
    allowed = [address for address in found if is_private_allowed or is_public(address)]
    if not allowed:
        raise AttemptFailed(
            "the receiver's address is private; WORKSPACES_WEBHOOKS_TO_PRIVATE_ADDRESSES would allow it"
        )
    return allowed


def is_public(text: str) -> bool:
    """Whether an address is one of the internet: neither private, nor of this host or link, nor of many hosts."""
    address = _within(ipaddress.ip_address(text))
    if isinstance(address, IPv6Address) and address.is_site_local:  # `is_global` all the same
        return False
    return address.is_global and not (address.is_multicast or address.is_reserved or address.is_unspecified)


def _within(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    """The IPv4 address that a packet for an IPv6 address may end at, if there is one in it."""
    if isinstance(address, IPv4Address):
        return address
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or (address.teredo and address.teredo[1]) or address
