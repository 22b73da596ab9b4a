"""Object storages that answer wrongly, slowly or without end: each ends with a reason, and takes nobody else's turn."""

import time
from typing import Any

import pytest

from factory import eventually
from machineshop.control import origin_calls, volume_sync
from volumes.elsewhere import Elsewhere, files_of
from volumes.fake_s3 import Request, Server, entry, listing


@pytest.fixture(params=["keys", "machine"])
def anyones(
    wrong: Elsewhere, origin: Server, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Elsewhere:
    """The same, and read with the machine's own rights."""
    if request.param == "machine":
        for name, value in (wrong.objects.environment | {"AWS_ENDPOINT_URL_S3": origin.endpoint}).items():
            monkeypatch.setenv(name, value)
        wrong.give_machine_rights()
    return wrong


async def test_a_page_of_folder_markers_is_not_the_end(wrong: Elsewhere, origin: Server) -> None:
    prefix = wrong.url.prefix
    pages = {
        None: listing(entry(f"{prefix}a/", 0), token="1"),
        "1": listing(entry(f"{prefix}a/b"), token="2"),
        "2": listing(entry(f"{prefix}c/", 0), token="3"),
        "3": listing(entry(f"{prefix}d")),
    }
    origin.script = lambda request: request.answer(
        pages[request.query.get("continuation-token")] if request.is_list else "x"
    )
    await wrong.create()
    assert files_of(await wrong.pass_until("ready")) == {"a/b": 1, "d": 1}


async def test_a_list_that_says_the_same_for_ever_ends(wrong: Elsewhere, origin: Server) -> None:
    def script(request: Request) -> None:
        request.answer(listing(entry(f"{wrong.url.prefix}a"), token=str(len(origin.seen))))

    origin.script = script
    await wrong.create()
    assert "pages with nothing new" in (await wrong.pass_until("failed"))["status_message"]
    assert len(origin.seen) == volume_sync.MAX_BARREN_PAGES + 2


def trickled_list(request: Request) -> None:
    request.begin(10**6)
    request.trickle(b" ")


def trickled_head(request: Request) -> None:
    request.wfile.write(b"HTTP/1.1 200 OK\r\nX: ")
    request.trickle(b"x")


def trickled_object(request: Request) -> None:
    if request.is_list:
        request.answer(listing(entry(f"{request.query['prefix']}a", 10**6)))
    else:
        request.begin(10**6)
        request.trickle(b"x")


TRICKLES = [trickled_list, trickled_head, trickled_object]


def endless_list(request: Request) -> None:
    request.begin(10**12)
    while True:
        request.wfile.write(b" " * 65536)


def endless_error(request: Request) -> None:
    if request.is_list:
        request.answer(listing(entry(f"{request.query['prefix']}a")))
    else:
        request.begin(10**12, 403)
        while True:
            request.wfile.write(b" " * 65536)


@pytest.mark.parametrize("script", [endless_list, endless_error])
async def test_an_answer_without_end_is_not_kept(anyones: Elsewhere, origin: Server, script: Any) -> None:
    origin.script = script
    await anyones.create()
    assert "more than 8 MiB" in (await anyones.pass_once("failed"))["status_message"]


BOMB = '<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa">]>' + listing(entry("&a;"))


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (listing(entry("{prefix}a", size="")), "without its Size"),
        (listing(entry("{prefix}a", modified="")), "without its LastModified"),
        (listing(entry("{prefix}a", size="many")), "malformed"),
        (listing(entry("{prefix}a", size=-1)), "Size below 0"),
        (listing(entry("{prefix}a", modified="yesterday")), "malformed"),
        (listing(entry("{prefix}a", etag="a&#10;X: b")), "an ETag that is none"),
        (listing(entry("elsewhere")), "were not asked for"),
        (listing(entry("{prefix}a", size=10**15)), "larger than"),
        (BOMB, "defines entities"),
        (listing(entry("{prefix}a"), entry("{prefix}b"))[:-90], "only the beginning"),
        ("", "no XML"),
    ],
    ids=["no-size", "no-time", "size", "negative", "time", "etag", "place", "large", "bomb", "cut", "nothing"],
)
async def test_a_anyones_list_fails_the_version_at_once(
    anyones: Elsewhere, origin: Server, body: str, says: str
) -> None:
    origin.script = lambda request: request.answer(body.replace("{prefix}", anyones.url.prefix))
    await anyones.create()
    assert says in (await anyones.pass_once("failed"))["status_message"]
    assert len(origin.seen) == 1, "nobody asks again"


async def test_a_list_that_breaks_off_is_asked_for_again(anyones: Elsewhere, origin: Server) -> None:
    whole = listing(entry(f"{anyones.url.prefix}a"))

    def script(request: Request) -> None:
        if not request.is_list:
            request.answer("x")
        elif len(origin.seen) == 1:
            request.begin(len(whole))
            request.wfile.write(whole[:60].encode())
            request.close_connection = True
        else:
            request.answer(whole)

    origin.script = script
    await anyones.create()
    assert "cannot be reached" in (await anyones.pass_once("syncing"))["status_message"]
    assert files_of(await anyones.pass_until("ready")) == {"a": 1}


async def test_a_bomb_in_another_encoding_is_none(anyones: Elsewhere, origin: Server) -> None:
    origin.script = lambda request: request.answer(f'<?xml version="1.0" encoding="UTF-16"?>{BOMB}'.encode("utf-16"))
    await anyones.create()
    assert "defines entities" in (await anyones.pass_once("failed"))["status_message"]


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_a_redirect_fails_the_version_at_once(anyones: Elsewhere, origin: Server, status: int) -> None:
    origin.script = lambda request: request.answer("", status, Location="http://127.0.0.1:9/x")
    await anyones.create()
    assert f"answers {status}, a redirect" in (await anyones.pass_once("failed"))["status_message"]
    assert len(origin.seen) == 1


async def test_what_an_origin_says_of_its_error_is_shown_without_control_characters(
    wrong: Elsewhere, origin: Server
) -> None:
    said = "no\x85such\N{RIGHT-TO-LEFT OVERRIDE}thing\N{LINE SEPARATOR}" + "x" * 5000
    origin.script = lambda request: request.answer(
        f"<Error><Code>{'Denied' * 1000}</Code><Message>{said}</Message></Error>", 403
    )
    await wrong.create()
    message = (await wrong.pass_once("failed"))["status_message"]
    assert "such" in message
    assert message.isprintable()
    assert len(message) < 1000


CANARY = "canary-in-the-secret"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("region", f"{CANARY} x"),
        ("region", f"{CANARY}.example.com/#"),
        ("region", f"-{CANARY}"),
        ("region", "1"),
        ("endpoint_url", f"http://{CANARY}:x"),
        ("endpoint_url", f"http://{CANARY}:99999"),
        ("endpoint_url", f"ftp://{CANARY}"),
        ("endpoint_url", f"http://{CANARY} x/"),
        ("endpoint_url", f"http://{CANARY}_/"),
        ("endpoint_url", f"http://[{CANARY}]/"),
        ("endpoint_url", f"http://{CANARY * 10}/"),
        ("endpoint_url", f"http://{CANARY}..x/"),
        ("access_key_id", f"{CANARY}\nX: y"),
        ("access_key_id", ""),
        ("secret_access_key", f"{CANARY}\n"),
        ("session_token", f"{CANARY}\r\nX: y"),
    ],
)
async def test_nothing_of_a_secret_is_quoted(elsewhere: Elsewhere, field: str, value: str) -> None:
    await elsewhere.give_keys(**{field: value})
    await elsewhere.create()
    seen = await elsewhere.pass_once("failed")
    assert f"'{field}'" in seen["status_message"]
    assert "canary" not in seen["status_message"]


@pytest.mark.parametrize("script", TRICKLES)
async def test_what_comes_too_slowly_fails_after_so_many_tries(
    wrong: Elsewhere, origin: Server, script: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(origin_calls, "CALL_SECONDS", 0.3)
    monkeypatch.setattr(volume_sync, "MAX_TRIES", 2)
    origin.script = script
    await wrong.create()
    assert "sends too little" in (await wrong.pass_until("failed"))["status_message"]
    assert wrong.team.shop.blobs() == set()


async def test_the_last_trouble_is_shown_while_it_is_tried_again(wrong: Elsewhere, origin: Server) -> None:
    origin.script = lambda request: request.answer("", 503)
    await wrong.create()
    seen = await wrong.pass_once("syncing")
    assert "answers 503" in seen["status_message"]
    assert "tried again (1 of 12 tries)" in seen["status_message"]
    origin.script = lambda request: request.answer(listing(entry(f"{wrong.url.prefix}a")) if request.is_list else "x")
    assert (await wrong.pass_until("ready"))["status_message"] == ""


@pytest.mark.parametrize("script", TRICKLES)
async def test_a_stop_and_a_deletion_wait_for_nobody(anyones: Elsewhere, origin: Server, script: Any) -> None:
    origin.script = script
    for name in ("one", "two"):
        await anyones.create(name)
    await anyones.sync.run_once(anyones.clock.now)
    await eventually(lambda: len(origin.seen) >= (4 if script is trickled_object else 2))
    began = time.monotonic()
    await anyones.team.shop.volumes.delete(anyones.team.project_id, "one")
    await anyones.sync.run_once(anyones.clock.now)
    await eventually(lambda: anyones.sync.busy == 1)
    await anyones.sync.close()
    assert time.monotonic() - began < origin_calls.CALL_SECONDS / 2, "neither by a timeout"
