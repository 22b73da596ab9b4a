"""Ports for servers that are told theirs, and for those that are stopped and started again.

Whoever connects gets a port of the system's ephemeral range. So a server that has one of these may find it taken when
it comes back; and who connects to it meanwhile may be given that very port, and then talks to itself. These lie below
that range, and each process of a test session has its own.
"""

import os
import random
import socket
from pathlib import Path

SHARE = 1000
SHARES = 12
_EPHEMERAL = Path("/proc/sys/net/ipv4/ip_local_port_range")


def _shuffled() -> list[int]:
    """This process's share, in an order that another session on this machine does not have."""
    least = int(_EPHEMERAL.read_text().split()[0]) if _EPHEMERAL.exists() else 32768
    process = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % SHARES
    first = max(least - (process + 1) * SHARE, 1024)
    return random.sample(range(first, first + SHARE), SHARE)


_left = _shuffled()


def reserve_port() -> int:
    """A port that nobody listens on, and that nobody else is given for as long as the tests run."""
    while True:
        port = _left.pop()
        try:
            socket.create_server(("", port)).close()
        except OSError:  # another session's, or a service of this machine
            continue
        return port
