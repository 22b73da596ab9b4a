"""Whether browsers are told to come back by HTTPS only."""

import ipaddress
from urllib.parse import urlsplit

from machineshop.config import Settings

# A year, as lists of such sites want it. Only for this very host: what lies below it is not ours to speak for.
HEADER = ("Strict-Transport-Security", "max-age=31536000")


def hsts_headers(settings: Settings, base_url: str) -> list[tuple[str, str]]:
    """The header for every answer, or none.

    A browser holds the host to it on all ports, so that other sites of the same host have to speak HTTPS too. That is
    why a certificate that the platform made for itself does not bring it about: only one that somebody gave.
    """
    wanted = settings.hsts
    if wanted is None:
        wanted = settings.tls_cert is not None and not is_loopback(urlsplit(base_url).hostname or "")
    return [HEADER] if wanted else []


def is_loopback(host: str) -> bool:
    """Whether a host is this machine, as seen from itself."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
