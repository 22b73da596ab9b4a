"""Volumes whose files are copied from an object storage: all of them, once, and with nobody else's rights."""

import asyncio
import ipaddress
import json
import threading
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from machineshop.blobs.origin import Address, OriginKeys, OriginTrouble
from machineshop.blobs.s3_origin import S3Origin
from machineshop.config import StorageUrl
from machineshop.control.origin_calls import OriginCalls
from machineshop.errors import InvalidRequest
from machineshop.models import VolumeOrigin
from machineshop.services.secret_rules import SecretFields
from machineshop.services.secrets import SecretService
from machineshop.services.targets import Targets
from machineshop.services.volume_origins import VolumeOrigins, parse_uri
from object_storage import ObjectStorage
from volumes.conftest import VOLUMES, Volumes, refusal
from volumes.elsewhere import KEYS, Elsewhere, files_of


async def test_everything_under_the_prefix_is_copied(elsewhere: Elsewhere) -> None:
    large = bytes(range(256)) * 4096 * 5
    elsewhere.put(**{"a.bin": b"alpha", "deep/er/b": large, "empty": b"", "folder/": b""})
    await elsewhere.give_keys()
    made = await elsewhere.create()
    assert (made["status"], made["content"]["origin"]["s3"]["uri"]) == ("pending", str(elsewhere.url))
    assert "source_prefix" not in made["content"]

    seen = await elsewhere.pass_until("ready")
    assert files_of(seen) == {"a.bin": 5, "deep/er/b": len(large), "empty": 0}
    assert seen["sealed_at"] is not None
    assert all(file["sha256"] for file in seen["content"]["files"])
    assert await elsewhere.team.read("weights/0/deep/er/b") == large
    answer = await elsewhere.team.try_upload("weights/0/more", b"x")
    assert refusal(answer)[:2] == (409, "volume_sealed")
    await elsewhere.team.mount("user", {"name": "weights", "mount_path": "/m"})


async def test_nobody_else_fills_it_meanwhile(elsewhere: Elsewhere) -> None:
    elsewhere.put(a=b"alpha")
    await elsewhere.give_keys()
    await elsewhere.create()
    answer = await elsewhere.team.try_upload("weights/0/a", b"mine")
    assert refusal(answer)[:2] == (409, "volume_sealed")
    assert "copied from elsewhere" in refusal(answer)[2]
    with pytest.raises(InvalidRequest, match="still copied"):
        await elsewhere.team.mount("user", {"name": "weights", "mount_path": "/m"})


async def test_what_was_uploaded_before_a_version_that_is_copied_goes(elsewhere: Elsewhere) -> None:
    elsewhere.put(a=b"theirs")
    await elsewhere.give_keys()
    names = ["weights/0/early", "weights/1/early", "weights/1/a"]
    for name in names:  # there is no such volume yet
        await elsewhere.team.upload(name, b"mine")
    await elsewhere.create()
    assert await elsewhere.team.read(names[0]) is None
    await elsewhere.pass_until("ready")
    await elsewhere.team.answer("PATCH", f"{VOLUMES}/weights", {"content": elsewhere.content()})
    assert [await elsewhere.team.read(name) for name in names] == [None, None, None]
    await elsewhere.pass_until("ready")
    assert await elsewhere.team.read(names[2]) == b"theirs"


async def test_a_version_may_come_from_elsewhere_and_the_next_one_not(elsewhere: Elsewhere) -> None:
    elsewhere.put(a=b"theirs")
    await elsewhere.give_keys()
    await elsewhere.team.create(a=b"mine")
    await elsewhere.team.upload("weights/1/draft", b"is dropped")
    updated = await elsewhere.team.answer("PATCH", f"{VOLUMES}/weights", {"content": elsewhere.content()})
    assert (updated["current_version"], updated["status"]) == (1, "pending")
    assert files_of(await elsewhere.pass_until("ready")) == {"a": 6}
    assert files_of(await elsewhere.team.update("weights", 2, b=b"mine again")) == {"b": 10}
    assert await elsewhere.team.read("weights/1/draft") is None


async def test_it_is_said_how_much_there_is_to_copy_until_it_is_there(
    elsewhere: Elsewhere, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere.put(a=b"x" * 1024 * 1024, b=b"x" * 512 * 1024)
    await elsewhere.give_keys()
    await elsewhere.create()
    open_object, go_on = S3Origin.open, threading.Event()

    def open_later(self: S3Origin, found: Any) -> Any:
        assert go_on.wait(60)
        return open_object(self, found)

    monkeypatch.setattr(S3Origin, "open", open_later)
    await elsewhere.sync.run_once(elsewhere.clock.now)
    async with asyncio.timeout(60):
        while not (seen := await elsewhere.team.describe())["status_message"]:
            await asyncio.sleep(0.01)
    go_on.set()
    assert (seen["status"], seen["status_message"]) == ("syncing", "Being copied: 2 files, 1.5 MiB in all.")
    assert (await elsewhere.pass_until("ready"))["status_message"] == ""


async def test_what_was_cut_off_goes_on_with_what_is_missing(
    elsewhere: Elsewhere, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = {f"f{number:02}": b"%d" % number for number in range(20)}
    elsewhere.put(**names)
    await elsewhere.give_keys()
    await elsewhere.create()
    elsewhere.clock.now += 60  # the objects are older than their copies
    opened: list[str] = []
    open_object = S3Origin.open

    def open_some(self: S3Origin, found: Any) -> Any:
        if len(opened) >= 8:
            raise OriginTrouble("broke off", is_final=False)
        opened.append(found.path)
        return open_object(self, found)

    monkeypatch.setattr(S3Origin, "open", open_some)
    await elsewhere.sync.run_once(elsewhere.clock.now)
    await elsewhere.settled()
    seen = await elsewhere.team.describe()
    assert seen["status"] == "syncing"
    assert 4 <= len(files_of(seen)) <= 8, "files appear as they come"
    await elsewhere.sync.run_once(elsewhere.clock.now)
    assert not elsewhere.sync.busy, "it waits before it tries again"

    await elsewhere.sync.close()
    copied = set(files_of(seen))
    again: list[str] = []

    def open_noted(self: S3Origin, found: Any) -> Any:
        again.append(found.path)
        return open_object(self, found)

    monkeypatch.setattr(S3Origin, "open", open_noted)
    # What has changed there since is taken anew, and what is gone there goes.
    elsewhere.put(f19=b"changed")
    elsewhere.objects.client.delete_object(Bucket=elsewhere.url.bucket, Key=f"{elsewhere.url.prefix}{min(copied)}")
    elsewhere.sync = elsewhere.new_sync()
    done = await elsewhere.pass_until("ready")
    assert set(files_of(done)) == set(names) - {min(copied)}
    assert not (copied - {"f19"}) & set(again), "what was there was not copied again"
    assert await elsewhere.team.read("weights/0/f19") == b"changed"


async def test_trouble_that_does_not_pass_fails_the_version(
    elsewhere: Elsewhere, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: S3Origin, found: Any) -> Any:
        raise OriginTrouble(f"'{found.path}' cannot be had.", is_final=False)

    monkeypatch.setattr(S3Origin, "open", broken)
    elsewhere.put(a=b"x")
    await elsewhere.give_keys()
    await elsewhere.create()
    seen = await elsewhere.pass_until("failed")
    assert "cannot be had" in seen["status_message"]


@pytest.mark.parametrize(
    ("there", "says"),
    [
        ({}, "no object under"),
        ({"a": b"1", "a/b": b"2"}, "'a' is a file and the folder of 'a/b'"),
        ({"a/../b": b"1"}, "cannot be a file here"),
        ({"a//b": b"1"}, "cannot be a file here"),
        ({"y" * 300: b"1"}, "255 bytes"),
    ],
    ids=["nothing", "file-and-folder", "dots", "slashes", "long"],
)
async def test_what_makes_no_volume_fails_at_once(
    elsewhere: Elsewhere, there: dict[str, bytes], says: str, team: Volumes
) -> None:
    for path, data in there.items():
        elsewhere.objects.client.put_object(Bucket=elsewhere.url.bucket, Key=elsewhere.url.prefix + path, Body=data)
    await elsewhere.give_keys()
    await elsewhere.create()
    seen = await elsewhere.pass_until("failed")
    assert says in seen["status_message"]
    assert team.shop.blobs() == set()


@pytest.mark.parametrize("value", ["not json", "{}", '{"access_key_id": 1}', json.dumps(KEYS | {"endpoint_url": "x"})])
async def test_a_secret_that_holds_something_else_is_not_quoted(elsewhere: Elsewhere, value: str) -> None:
    await elsewhere.secrets.create(elsewhere.team.project_id, SecretFields(name="s3-keys", value=value), "key-1")
    await elsewhere.create()
    seen = await elsewhere.pass_until("failed")
    assert "secret 's3-keys'" in seen["status_message"]
    assert KEYS["secret_access_key"] not in json.dumps(seen)


async def test_a_secret_that_is_not_there_fails_the_version(elsewhere: Elsewhere) -> None:
    await elsewhere.create()
    assert "no secret 's3-keys'" in (await elsewhere.pass_until("failed"))["status_message"]


async def test_a_bucket_that_is_not_there_fails_the_version(elsewhere: Elsewhere) -> None:
    await elsewhere.give_keys()
    elsewhere.url = StorageUrl("another-bucket", "")
    await elsewhere.create()
    assert "NoSuchBucket" in (await elsewhere.pass_until("failed"))["status_message"]


async def test_an_address_that_may_not_be_reached_is_not(elsewhere: Elsewhere) -> None:
    elsewhere.put(a=b"x")
    elsewhere.allowed.clear()
    await elsewhere.give_keys()
    await elsewhere.create()
    seen = await elsewhere.pass_until("failed")
    assert "address that volumes may not be copied from" in seen["status_message"]
    assert "127.0.0.1" not in seen["status_message"]


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "[::1]", "2130706433", "0.0.0.0"])
def test_this_machine_is_no_origin_of_a_public_server(objects: ObjectStorage, host: str) -> None:
    targets = Targets([], loopback=False, own_port=lambda: 1)
    keys = json.dumps(KEYS | {"endpoint_url": f"http://{host}:{objects.port}"})
    with pytest.raises(OriginTrouble) as refused:
        _list(keys, targets)
    assert "cannot be reached" in refused.value.message or "may not be copied from" in refused.value.message
    assert "NoSuchBucket" not in refused.value.message


def test_a_redirect_leads_nowhere_else(objects: ObjectStorage) -> None:
    """Each connection is looked at, wherever an answer sends the client."""
    seen: list[tuple[Address, int]] = []

    def allows(address: Address, port: int) -> bool:
        seen.append((address, port))
        return True

    keys = json.dumps(KEYS | {"endpoint_url": objects.endpoint})
    origin = _open(keys, allows)
    assert list(origin.objects()) == [[]]
    origin.close()
    assert seen == [(ipaddress.ip_address("127.0.0.1"), objects.port)]


def _open(keys: str, allows: Any) -> S3Origin:
    return S3Origin(StorageUrl("the-bucket", "nowhere/"), msgspec.json.decode(keys, type=OriginKeys), allows)


def _list(keys: str, targets: Targets) -> None:
    list(_open(keys, targets.allows).objects())


def test_the_machines_rights_are_nobodys_unless_the_operator_says_so(secrets: SecretService) -> None:
    role = "arn:aws:iam::123456789012:role/reader"
    strict = VolumeOrigins(secrets, lambda *_: True)
    for origin in (VolumeOrigin(uri="s3://b123/x"), VolumeOrigin(uri="s3://b123/x", role_arn=role)):
        with pytest.raises(InvalidRequest, match="--volume-machine-credentials"):
            strict.check(origin)
    strict.check(VolumeOrigin(uri="s3://b123/x", credentials_secret="mine"))

    open_to_all = VolumeOrigins(secrets, lambda *_: True, by_machine=True, own_bucket="platform")
    open_to_all.check(VolumeOrigin(uri="s3://b123/x"))
    open_to_all.check(VolumeOrigin(uri="s3://b123/x", role_arn=role))
    with pytest.raises(InvalidRequest, match="is no role"):
        open_to_all.check(VolumeOrigin(uri="s3://b123/x", role_arn="x"))
    with pytest.raises(InvalidRequest, match="keep one"):
        open_to_all.check(VolumeOrigin(uri="s3://b123/x", role_arn=role, credentials_secret="mine"))
    with pytest.raises(InvalidRequest, match="keeps all projects' files"):
        open_to_all.check(VolumeOrigin(uri="s3://platform/files", role_arn=role))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("s3://bucket", StorageUrl("bucket", "")),
        ("s3://bucket/", StorageUrl("bucket", "")),
        ("s3://bucket/a b/c/", StorageUrl("bucket", "a b/c/")),
        ("s3://bucket/a", StorageUrl("bucket", "a/")),
        ("https://bucket/a", None),
        ("s3://", None),
        ("s3://Bucket/a", None),
        ("s3://user:key@bucket/a", None),
        ("s3://bucket/a\nb", None),
    ],
)
def test_places_in_an_object_storage(text: str, found: StorageUrl | None) -> None:
    if found is None:
        with pytest.raises(InvalidRequest, match="no place in an object storage"):
            parse_uri(text)
    else:
        assert parse_uri(text) == found


async def test_the_machines_own_rights_and_a_role_of_it(
    elsewhere: Elsewhere, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    for name, value in elsewhere.objects.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", elsewhere.objects.endpoint)
    elsewhere.put(a=b"alpha")
    elsewhere.origins = VolumeOrigins(elsewhere.secrets, lambda *_: False, by_machine=True)
    elsewhere.sync = elsewhere.new_sync()
    origin = {"s3": {"uri": str(elsewhere.url), "role_arn": "arn:aws:iam::123456789012:role/reader"}}
    by_role = {"type": "files", "origin": origin}
    by_machine = {"type": "files", "origin": {"s3": {"uri": str(elsewhere.url)}}}
    for name, content in (("by-machine", by_machine), ("by-role", by_role)):
        body = {"name": name, "type": "readOnly", "content": content}
        await elsewhere.team.answer("POST", VOLUMES, body)
        assert files_of(await elsewhere.pass_until("ready", name)) == {"a": 5}
    (tmp_path / "token").write_text("a-web-identity")
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(tmp_path / "token"))
    await elsewhere.team.answer("PATCH", f"{VOLUMES}/by-role", {"content": by_role})
    assert files_of(await elsewhere.pass_until("ready", "by-role")) == {"a": 5}


async def test_a_volume_that_is_deleted_meanwhile_gets_nothing(
    elsewhere: Elsewhere, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere.put(a=b"alpha")
    await elsewhere.give_keys()
    await elsewhere.create()
    go_on, reading = asyncio.Event(), asyncio.Event()
    chunks = OriginCalls.chunks

    async def slow(self: OriginCalls, found: Any) -> AsyncIterator[bytes]:
        async for chunk in chunks(self, found):
            yield chunk
        reading.set()
        await go_on.wait()

    monkeypatch.setattr(OriginCalls, "chunks", slow)
    await elsewhere.sync.run_once(elsewhere.clock.now)
    async with asyncio.timeout(60):
        await reading.wait()
    await elsewhere.team.answer("DELETE", f"{VOLUMES}/weights")
    await elsewhere.team.create(a=b"another of this name")
    go_on.set()
    await elsewhere.settled()
    await elsewhere.team.shop.remove_gone()
    assert await elsewhere.team.read("weights/0/a") == b"another of this name"
    elsewhere.clock.now += 120
    await elsewhere.team.shop.clean()
    assert len(elsewhere.team.shop.blobs()) == 1
