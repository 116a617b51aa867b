"""Where this process can be reached from: the addresses of hosts, and of its own sockets."""

import os
import socket
from contextlib import suppress
from ipaddress import IPv6Address, ip_address
from pathlib import Path
from socket import getaddrinfo

_OPEN_FILES = Path("/proc/self/fd")


def is_loopback(host: str) -> bool:
    """Whether every address of `host` is a loopback address."""
    try:
        found = {ip_address(str(address[0])) for *_, address in getaddrinfo(host, None)}
    except (OSError, ValueError):
        return False
    return all(
        (one.ipv4_mapped if isinstance(one, IPv6Address) and one.ipv4_mapped else one).is_loopback
        for one in found
    )


def listens_beyond_loopback() -> bool:
    """Whether a socket of this process accepts connections from other machines, whoever has opened it. Linux only.

    Read from the process itself: a server can be told in many ways where to listen, and can inherit its sockets.
    """
    return any(not is_loopback(host) for host in _hosts_listened_on())


def _hosts_listened_on() -> list[str]:
    hosts = []
    for path in _OPEN_FILES.iterdir():
        with suppress(OSError):  # other threads close files meanwhile
            if host := _host_listened_on(int(path.name)):
                hosts.append(host)
    return hosts


def _host_listened_on(number: int) -> str | None:
    """The address of the file with that number, if it is a socket that accepts connections over a network."""
    copy = os.dup(number)
    try:
        one = socket.socket(fileno=copy)
    except OSError:  # it is no socket
        os.close(copy)
        return None
    with one:
        is_of_network = one.family in {socket.AF_INET, socket.AF_INET6}
        if is_of_network and one.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            return str(one.getsockname()[0])
    return None
