"""The HTTP server's address, and its end."""

import asyncio
import socket
from pathlib import Path

import httpx
import pytest
from starlette.types import Receive, Scope, Send

from machineshop import server as servers
from machineshop.app import Platform
from machineshop.config import Settings
from machineshop.reach import Reach, outward_address
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


@pytest.mark.parametrize("host", ["0.0.0.0", "127.0.0.1"])
def test_a_server_that_listens_everywhere_knows_where_other_machines_find_it(host: str, tmp_path: Path) -> None:
    server, reach = HttpServer(host, 0), Reach(Settings(data_dir=tmp_path, host=host))
    reach.opened(server)
    url, address = reach.url_from_others(), outward_address()
    assert reach.base_url == f"http://127.0.0.1:{server.port}"
    assert reach.is_in_the_clear is (host == "0.0.0.0")
    assert url == (f"http://{address}:{server.port}" if host == "0.0.0.0" and address else None)
    reach.address_of_machine = "127.0.0.1"  # as a database on this machine sees it
    assert reach.url_from_others() == url
    if url is not None:
        with socket.create_connection((address, server.port), timeout=60):
            pass
    close(server)


def test_a_port_that_is_taken_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(PortTaken, match=str(port)):
            HttpServer("127.0.0.1", port)


async def test_a_request_that_the_stop_cuts_off_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servers, "CONNECTIONS_GRACE_SECONDS", 0.1)
    is_asked = asyncio.Event()

    async def never(_scope: Scope, _receive: Receive, _send: Send) -> None:
        is_asked.set()
        await asyncio.Event().wait()

    server = HttpServer("127.0.0.1", 0)
    await server.start(never)
    async with httpx.AsyncClient(timeout=60) as client, asyncio.timeout(60):
        asking = asyncio.create_task(client.post(server.url()))
        await is_asked.wait()
        await server.stop()
        answer = await asking
    assert (answer.status_code, answer.headers["retry-after"], answer.headers["connection"]) == (503, "1", "close")
    assert answer.json()["error"]["code"] == "server_stopped"


@pytest.mark.parametrize("path", ["/simple/", "/simple/sprocket/"])
async def test_a_defect_in_any_route_is_answered_in_the_form_of_the_api(
    platform: Platform, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    monkeypatch.delattr(platform.parts.packages, "_wheels")
    async with httpx.AsyncClient(base_url=platform.base_url) as client:
        answer = await client.get(path)
    assert answer.status_code == 500
    assert answer.json()["error"]["code"] == "machineshop_error"
