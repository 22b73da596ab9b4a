"""Reading a body: what is wrong with it is told to the caller, and names the field."""

import asyncio
from pathlib import Path

import httpx
import msgspec
import pytest

from factory import eventually
from machineshop import bodies
from machineshop.api.endpoint import decode
from machineshop.app import Platform
from machineshop.config import Settings
from machineshop.errors import MalformedBody
from machineshop.models import Scope


class Thing(msgspec.Struct):
    name: str
    payload: msgspec.Raw
    sizes: list[int] = []


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (b"", None),
        (b"[]", None),
        (b'{"name": "a", "payload": {}', None),
        (b'{"name": "a"}', "payload"),
        (b'{"name": 5, "payload": {}}', "name"),
        (b'{"name": "a", "payload": {}, "sizes": [1, "2"]}', "sizes[1]"),
        (b'{"name": "a", "payload": {"text": "\xff"}}', None),
        (b'{"name": "a", "payload": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", None),
    ],
)
def test_a_body_that_cannot_be_read_is_refused(body: bytes, param: str | None) -> None:
    with pytest.raises(MalformedBody) as raised:
        decode(body, msgspec.json.Decoder(Thing))
    assert raised.value.param == param


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"name": "a", "payloads": {}}', "You sent `payloads`: did you mean `payload`?"),
        (b'[{"name": "a", "payload": {}}, {"nmae": "a", "payload": {}}]', "You sent `nmae`: did you mean `name`?"),
        (b'{"name": "a", "pilot": {}}', "Object missing required field `payload`."),
        (b'{"payload": {}, "sizes": [], "names": "a"}', "You sent `names`: did you mean `name`?"),
        (b'{"payload": {}, "kinds": {}, "kind": {}}', "Object missing required field `name`."),
        (b"{" + b",".join(b'"name%d": 1' % n for n in range(100_000)) + b"}", "You sent `name"),
    ],
    ids=["payloads", "in an array", "far", "names", "none", "many"],
)
def test_a_field_that_is_misspelt_is_named_beside_the_one_that_is_missing(body: bytes, message: str) -> None:
    with pytest.raises(MalformedBody) as raised:
        decode(body, msgspec.json.Decoder(Thing | list[Thing]))
    assert message in raised.value.message


async def test_a_body_that_stalls_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "BODY_SILENCE_SECONDS", 0.2)
    monkeypatch.setenv("JIG_CONTEXTS", str(tmp_path / "contexts.json"))
    platform = Platform(Settings(data_dir=tmp_path / "data", port=0))
    await platform.start()
    try:
        for path, begun in (("/v1/projects", b"{"), ("/v1/projects", b""), ("/v2/token", b"g")):
            got = await _begin(platform, path, begun)
            assert got.startswith(b"HTTP/1.1 408 "), path
            assert got.lower().count(b"\r\nconnection: close\r\n") == 1
            assert b"Nothing of the request's body came for 0.2 s" in got
            assert (b'"code":"body_too_slow"' in got) == path.startswith("/v1/")
    finally:
        await platform.stop(end_replicas=True)


async def test_a_file_or_a_layer_that_stalls_is_not_waited_for_and_a_layer_goes_on(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bodies, "STREAM_SILENCE_SECONDS", 0.5)
    auth = {"Authorization": f"Bearer {platform.admin_key}"}
    async with httpx.AsyncClient(base_url=platform.base_url, headers=auth, trust_env=False) as client:
        asked = await client.post("/v1/storage/upload-request", json={"filename": "f"})
        begun = await client.post("/v1/storage/multipart/init", json={"filename": "g", "parts_count": 1})
        layer = (await client.post("/v2/default/model/blobs/uploads/")).headers["location"]
        urls = (asked.json()["upload_url"]["url"], begun.json()["part_upload_urls"][0]["url"])
        for path, method in [*((httpx.URL(url).raw_path.decode(), "PUT") for url in urls), (layer, "PATCH")]:
            got = await _begin(platform, path, b"abc", method)
            assert got.startswith(b"HTTP/1.1 408 "), got
            assert b"Nothing of the request's body came for 0.5 s" in got
        assert (await client.get("/v1/storage/f")).status_code == 404
        assert (await client.get(layer)).headers["range"] == "0-2"
        assert (await client.patch(layer, content=b"def")).headers["range"] == "0-5"


async def test_a_body_that_never_ends_is_not_waited_for(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "BODY_SECONDS", 0.5)
    reader, writer = await _begun(platform, "/v1/projects", b"{", 1_000_000)
    # Read as it comes and not to its end: what is written once the server has hung up resets the connection.
    answering = asyncio.create_task(reader.readuntil(b"The request's body was not whole after 0.5 s"))
    async with asyncio.timeout(60):
        while not answering.done():  # never silent for long
            writer.write(b" ")
            await asyncio.sleep(0.02)
        assert (await answering).startswith(b"HTTP/1.1 408 ")
    writer.close()


@pytest.mark.parametrize("limit", ["BODIES_LIMIT_BYTES", "PROJECT_LIMIT_BYTES"])
async def test_bodies_on_their_way_have_a_bound_together(
    limit: str, platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bodies, limit, 1_000_000)
    _, slow = await _begun(platform, "/v1/projects", b"{" + b" " * 900_000, 2_000_000)
    await eventually(lambda: bodies._on_their_way.size_bytes > 800_000)
    large = {"slug": "a", "name": " " * 300_000}
    headers = {"Authorization": f"Bearer {platform.admin_key}"}
    async with httpx.AsyncClient(base_url=platform.base_url, headers=headers, verify=False) as client:
        refused = await client.post("/v1/projects", json=large)
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "bodies_too_many")
        assert refused.headers["retry-after"] == "5"
        assert (await client.post("/v1/projects", json={"slug": "small"})).status_code == 200
        _, key = await platform.parts.identity.create_key("another", "ci", Scope.ADMIN)
        other = await client.post("/v1/projects", json=large, headers={"Authorization": f"Bearer {key}"})
        assert (other.status_code == 503) is (limit == "BODIES_LIMIT_BYTES")
        slow.close()
        await eventually(lambda: bodies._on_their_way.size_bytes == 0)
        assert (await client.post("/v1/projects", json=large)).status_code != 503


async def _begin(platform: Platform, path: str, begun: bytes, method: str = "POST") -> bytes:
    """All that is answered to the head and the beginning of a body, until the server closes the connection."""
    reader, writer = await _begun(platform, path, begun, 100, method)
    try:
        async with asyncio.timeout(60):
            return await reader.read()
    finally:
        writer.close()


async def _begun(
    platform: Platform, path: str, begun: bytes, length: int, method: str = "POST"
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection on which a request and the beginning of its body were sent."""
    reader, writer = await asyncio.open_connection("127.0.0.1", httpx.URL(platform.base_url).port)
    auth = f"Authorization: Bearer {platform.admin_key}"
    head = f"{method} {path} HTTP/1.1\r\nHost: x\r\n{auth}\r\nContent-Length: {length}"
    writer.write(head.encode() + b"\r\n\r\n" + begun)
    return reader, writer
