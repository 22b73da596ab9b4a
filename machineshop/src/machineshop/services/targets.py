"""Where webhooks may go, and from where volumes are copied: who names the place must not reach our network by it. Pure.

A URL's form is checked when a job is submitted, an address each time a connection to it is made: a name may resolve to
another address by then.
"""

import ipaddress
import re
import socket
from collections.abc import Callable, Iterable
from urllib.parse import SplitResult, urlsplit

from machineshop.config import Network, Settings, parse_networks
from machineshop.errors import InvalidRequest

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

SETTING = "--webhook-network"
PARAM = "webhook_url"
# What of IPv6 is given to anybody at all; the rest is local, reserved, or carries an IPv4 address.
_GLOBAL_UNICAST = ipaddress.ip_network("2000::/3")
# Addresses that stand for the IPv4 address in their last four bytes: mapped ones, and those of a translator.
_CARRIERS = (ipaddress.ip_network("::ffff:0:0/96"), ipaddress.ip_network("64:ff9b::/96"))
# Whatever the system's resolver takes for an IPv4 address: 127.1, 0x7f000001, 2130706433.
_NUMERIC = re.compile(r"(0x[0-9a-f]*|\d+)(\.(0x[0-9a-f]*|\d+)){0,3}\.?", re.IGNORECASE)


class Targets:
    """The rules of one server.

    Arguments:
        networks: Networks that the operator allows beside the public ones.
        loopback: The server serves this machine alone, so that its user may name this machine.
        own_port: The port that the server listens on, which is no target.
    """

    def __init__(self, networks: Iterable[Network], *, loopback: bool, own_port: Callable[[], int]) -> None:
        self._networks = tuple(networks)
        self._loopback = loopback
        self._own_port = own_port

    def check_url(self, url: str) -> None:
        """Refuse what can be no webhook's URL.

        Raises:
            InvalidRequest: It is no HTTP URL, carries credentials, or names an address that webhooks may not go to.
        """
        parts = _split(url)
        host = parts.hostname or ""
        address = _literal(host)
        port = parts.port or (443 if parts.scheme == "https" else 80)
        if address is None or self.allows(address, port):
            return
        if self._is_own(_unwrapped(address), port):
            raise InvalidRequest("'webhook_url' is the platform itself: name your own server.", param=PARAM)
        real = _unwrapped(address)
        network = f"{str(real).partition('%')[0]}/{real.max_prefixlen}"
        raise InvalidRequest(
            f"'webhook_url' names '{host[:64]}', which is no public address. Where this server is meant to reach it, "
            f"start it with {SETTING} {network}.",
            param=PARAM,
        )

    def allows(self, address: Address, port: int) -> bool:
        """Whether a connection may be made to this address and port."""
        real = _unwrapped(address)
        if self._is_own(real, port):
            return False
        if _is_public(real) or (self._loopback and real.is_loopback):
            return True
        return any(candidate in network for network in self._networks for candidate in (real, address))

    def _is_own(self, address: Address, port: int) -> bool:
        return (address.is_loopback or address.is_unspecified) and port == self._own_port()


def targets_of(settings: Settings, own_port: Callable[[], int], networks: Iterable[str] | None = None) -> Targets:
    """The rules that settings ask for: this machine is a target by itself where nobody else can use the platform.

    Arguments:
        settings: Of the server.
        own_port: The port that it listens on.
        networks: Those that are allowed beside the public ones; None: those for webhooks.
    """
    urls = [url for url in (settings.public_url, settings.server_url) if url is not None]
    hosts = [settings.host, *(urlsplit(url).hostname or "" for url in urls)]
    allowed = parse_networks(settings.webhook_networks if networks is None else networks)
    return Targets(allowed, loopback=all(map(_is_this_machine, hosts)), own_port=own_port)


def _is_this_machine(host: str) -> bool:
    address = _literal(host)
    return address is not None and address.is_loopback


def _split(url: str) -> SplitResult:
    """The parts of a URL that everybody would read alike.

    Raises:
        InvalidRequest: It is none.
    """
    if not url.isprintable() or any(character in " \\" for character in url):
        raise _malformed("holds a space, a control character or a backslash")
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as error:
        raise _malformed(f"cannot be understood ({error})") from None
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise _malformed("is no HTTP URL")
    if "@" in parts.netloc:
        raise _malformed("carries credentials, which would be kept and shown with the job")
    return parts


def _malformed(what: str) -> InvalidRequest:
    return InvalidRequest(f"'webhook_url' {what}; it must look like https://example.com/hook.", param=PARAM)


def _literal(host: str) -> Address | None:
    """The address that a host is without asking anybody."""
    name = host.lower().removesuffix(".")
    if name == "localhost" or name.endswith(".localhost"):
        return ipaddress.IPv4Address("127.0.0.1")
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        pass
    try:
        return ipaddress.IPv4Address(socket.inet_aton(name)) if _NUMERIC.fullmatch(host) else None
    except OSError:
        return None


def _unwrapped(address: Address) -> Address:
    """The IPv4 address in one of IPv6 that stands for it."""
    if isinstance(address, ipaddress.IPv6Address):
        if any(address in network for network in _CARRIERS):
            return ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
        if address.sixtofour is not None:
            return address.sixtofour
    return address


def _is_public(address: Address) -> bool:
    if address.is_multicast or address.is_reserved or not address.is_global:
        return False
    return isinstance(address, ipaddress.IPv4Address) or address in _GLOBAL_UNICAST
