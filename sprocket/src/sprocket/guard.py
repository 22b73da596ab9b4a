"""Which addresses an input may be fetched from: a payload must not make the worker read its own network.

Names are resolved by the connector that then connects to the very addresses it was given, so what is checked here is
what is connected to; a name that answers differently the second time gains nothing.
"""

from __future__ import annotations

import ipaddress
import socket
from typing import Any

from aiohttp.abc import AbstractResolver
from aiohttp.resolver import ThreadedResolver

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


class BlockedAddressError(OSError):
    """The address belongs to a private network, this machine, or another place that is not the public internet."""


def is_public(address: str) -> bool:
    """Whether an IP address lies on the public internet, also when it is an IPv4 address in IPv6's clothes."""
    try:
        ip: IPAddress = ipaddress.ip_address(address)
    except ValueError:
        return False
    if isinstance(ip, ipaddress.IPv6Address):
        inner = _embedded_ipv4(ip)
        if inner is not None:
            return is_public(str(inner))
    return ip.is_global and not (ip.is_multicast or ip.is_reserved or ip.is_unspecified)


def is_ip_address(host: str) -> bool:
    """Whether a URL's host is an IP address rather than a name, or may be taken for one, as `127.000.000.001` is.

    Some HTTP clients hand these to the system without asking a resolver, so they must not pass for names.
    """
    if host.replace(".", "").isdigit():
        return True
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


class GuardedResolver(AbstractResolver):
    """Resolves names, and keeps only public addresses."""

    def __init__(self) -> None:
        self._resolver = ThreadedResolver()

    async def resolve(self, host: str, port: int = 0, family: Any = socket.AF_INET) -> list[Any]:
        """Resolve `host`.

        Raises:
            BlockedAddressError: it has no public address.
            OSError: it has no address at all.
        """
        found = await self._resolver.resolve(host, port, family)
        public = [entry for entry in found if is_public(entry["host"])]
        if found and not public:
            raise BlockedAddressError(f"{host} is not on the public internet")
        return public

    async def close(self) -> None:
        """Close the resolver."""
        await self._resolver.close()


def _embedded_ipv4(ip: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    if ip.ipv4_mapped is not None:
        return ip.ipv4_mapped
    if ip.sixtofour is not None:
        return ip.sixtofour
    return ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF) if ip in NAT64 else None
