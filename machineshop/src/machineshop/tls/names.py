"""By what names and addresses clients may reach this machine: whom its certificate is for."""

import contextlib
import fcntl
import ipaddress
import re
import socket
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

ALWAYS = ("localhost", "127.0.0.1", "::1")
# How containers on this machine call it.
FROM_CONTAINERS = ("host.docker.internal", "host.containers.internal")
# No certificate is for "all addresses".
UNSPECIFIED = ("", "0.0.0.0", "::")  # noqa: S104 - compared with, not listened on
# A machine with containers has an interface for each; a certificate is sent with every handshake.
MAX_ADDRESSES = 100
HOST_NAME = re.compile(
    r"(?=.{1,253}$)(\*\.)?[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?)*"
)

_SIOCGIFADDR = 0x8915
_IPV6_INTERFACES = Path("/proc/net/if_inet6")


class Names(NamedTuple):
    """Host names and addresses, each written in the one way that equal ones share."""

    hosts: frozenset[str]
    addresses: frozenset[str]

    def cover(self, others: "Names") -> bool:
        """Whether all of the others are among these."""
        return others.hosts <= self.hosts and others.addresses <= self.addresses


def machine_names(given: Iterable[str]) -> Names:
    """Every name and address of this machine that can be found.

    Args:
        given: More of them, as from settings; what cannot stand in a certificate is left out.
    """
    return sort([*ALWAYS, *FROM_CONTAINERS, *given, *_host_names(), *_addresses()])


def sort(texts: Iterable[str]) -> Names:
    """Host names here, addresses there."""
    hosts: set[str] = set()
    addresses: dict[str, None] = {}
    for text in texts:
        plain = text.strip("[]").lower().rstrip(".")
        if plain in UNSPECIFIED:
            continue
        try:
            addresses[str(ipaddress.ip_address(plain))] = None
        except ValueError:
            if HOST_NAME.fullmatch(plain):
                hosts.add(plain)
    return Names(frozenset(hosts), frozenset(list(addresses)[:MAX_ADDRESSES]))


def _host_names() -> list[str]:
    return [socket.gethostname()]


def _addresses() -> Iterator[str]:
    """Those of the interfaces, as far as this system tells; none that is only good with the name of an interface."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        for _, interface in socket.if_nameindex():
            with contextlib.suppress(OSError):  # it has none
                request = struct.pack("256s", interface.encode()[:15])
                yield socket.inet_ntoa(fcntl.ioctl(asking, _SIOCGIFADDR, request)[20:24])
    with contextlib.suppress(OSError, ValueError):
        for line in _IPV6_INTERFACES.read_text().splitlines():
            address = ipaddress.IPv6Address(bytes.fromhex(line.split()[0]))
            if not address.is_link_local:
                yield str(address)
