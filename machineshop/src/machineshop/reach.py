"""How everybody reaches this server: its clients, replicas in containers, the container engine, other servers."""

import contextlib
import ipaddress
import logging
import socket
from urllib.parse import urlsplit

from machineshop.config import Settings
from machineshop.runtime.choice import Choice, is_loopback, url_in_containers
from machineshop.server import EVERYWHERE, HttpServer, PortTaken

log = logging.getLogger(__name__)

# An address that is nobody's (RFC 5737): the way to it is the way to other machines. Nothing is sent there.
ELSEWHERE = ("192.0.2.1", 9)


class Reach:
    """The addresses of one server, from the moment on at which it has its port."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._server: HttpServer
        self.base_url: str
        """Where clients reach it."""
        self._has_containers = False
        self.address_of_machine: str | None = None
        """Where other machines find this one, once that is known."""

    def opened(self, server: HttpServer) -> None:
        """The server has its port."""
        self._server = server
        self.base_url = self._settings.public_url or server.url()

    @property
    def is_everywhere(self) -> bool:
        """Whether it listens on all addresses of this machine."""
        return self._settings.host in EVERYWHERE

    @property
    def is_in_the_clear(self) -> bool:
        """Whether keys of other machines come over the network as they are, unless somebody puts TLS in front."""
        hears_others = self.is_everywhere or not is_loopback(self._settings.host)
        return hears_others and urlsplit(self.base_url).scheme == "http"

    def url_from_others(self) -> str | None:
        """Where other machines find it, as far as this one can tell, where it listens on all addresses."""
        address = self.address_of_machine
        if address is None or is_loopback(address):  # the database is on this machine, too
            address = outward_address()
        return self._server.url(address) if self.is_everywhere and address else None

    @property
    def port(self) -> int:
        """The port that the server listens on."""
        return self._server.port

    def let_containers_in(self, choice: Choice) -> None:
        """Listen where containers look for this machine, when the server would only hear what runs on it itself."""
        self._has_containers = choice.endpoint is not None
        hears_itself_alone = is_loopback(self._settings.host) and not self.is_everywhere
        if not self._has_containers or not hears_itself_alone:
            return
        if choice.gateway is None:
            log.warning("containers of this engine cannot reach a platform on the loopback: use --host 0.0.0.0")
            return
        try:
            self._server.listen_also(choice.gateway)
        except PortTaken as error:
            log.warning("containers may not reach the platform: %s With --host 0.0.0.0 they do.", error.message)

    def url_in_containers(self) -> str:
        """Where containers reach it."""
        return url_in_containers(self.base_url, self._server.url())

    def address_inside(self) -> str | None:
        """Where workers in containers find it; None where there are none."""
        return self.url_in_containers() if self._has_containers else None

    def registry_host(self) -> str:
        """Where the container engine, which is on this machine, finds the registry."""
        # Engines take what is on the loopback for safe without TLS, and nothing else.
        host = self._settings.host
        return f"127.0.0.1:{self.port}" if is_loopback(host) else urlsplit(self._server.url()).netloc

    def server_url(self) -> str:
        """Where other servers on the same database reach this one."""
        return self._settings.server_url or self._server.url(self.address_of_machine)


def outward_address() -> str | None:
    """The address that this machine has for others; None where there is no way to them."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.connect(ELSEWHERE)
        address = str(asking.getsockname()[0])
        return None if ipaddress.ip_address(address).is_loopback else address
    return None
