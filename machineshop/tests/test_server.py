"""The HTTP server's address."""

import socket

import pytest

from machineshop.server import HttpServer, PortTaken


def close(server: HttpServer) -> None:
    server._socket.close()


@pytest.mark.parametrize(
    ("host", "address", "expected"),
    [
        ("127.0.0.1", "10.0.0.7", "http://127.0.0.1"),
        ("0.0.0.0", "10.0.0.7", "http://10.0.0.7"),
        ("0.0.0.0", "fd00::7", "http://[fd00::7]"),
        ("0.0.0.0", None, "http://127.0.0.1"),
        ("localhost", None, "http://localhost"),
    ],
)
def test_the_url_says_where_it_is_reached(host: str, address: str | None, expected: str) -> None:
    server = HttpServer(host, 0)
    assert server.url(address) == f"{expected}:{server.port}"
    close(server)


def test_a_port_that_is_taken_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(PortTaken, match=str(port)):
            HttpServer("127.0.0.1", port)
