"""Before a version is sealed its paths are looked at: nobody waits for that, and what changes meanwhile is seen."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Sequence

import pytest

from factory import eventually
from machineshop.errors import Conflict
from machineshop.services.volume_checks import MAX_LOOKS
from machineshop.services.volume_paths import PathCheck
from volumes.conftest import VOLUMES, Volumes

Deed = Callable[[Volumes], Awaitable[object]]


class Look:
    """Stops each look at paths before its first ones, until it may go on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begun = 0
        self._go_on = threading.Semaphore(0)
        monkeypatch.setattr(PathCheck, "add", self._wrapped())

    def _wrapped(self) -> Callable[[PathCheck, Sequence[str]], None]:
        add = PathCheck.add

        def add_late(check: PathCheck, paths: Sequence[str]) -> None:
            self.begun += 1
            assert self._go_on.acquire(timeout=60)
            add(check, paths)

        return add_late

    async def at(self, number: int) -> None:
        """Until so many have begun."""
        await eventually(lambda: self.begun == number)

    def go_on(self) -> None:
        self._go_on.release()


@pytest.fixture
def look(monkeypatch: pytest.MonkeyPatch) -> Look:
    return Look(monkeypatch)


async def prewarm(team: Volumes) -> object:
    await team.seal()
    return None


async def mount(team: Volumes) -> object:
    return await team.mount("user", {"name": "weights", "mount_path": "/m"})


async def next_version(team: Volumes) -> object:
    return await team.update("weights", 1)


DEEDS = [prewarm, mount, next_version]


@pytest.mark.parametrize("deed", DEEDS)
async def test_others_write_while_a_seal_looks(team: Volumes, look: Look, deed: Deed) -> None:
    await team.create(a=b"x", b=b"y")
    sealing = asyncio.ensure_future(deed(team))
    await look.at(1)
    async with asyncio.timeout(60):
        await team.create("other", a=b"x")
        assert (await team.describe("other"))["content"]["files_count"] == 1
    assert not sealing.done()
    assert (await team.describe(number=0))["sealed_at"] is None
    look.go_on()
    await sealing
    assert (await team.describe(number=0))["sealed_at"] is not None
    assert look.begun == 1


@pytest.mark.parametrize("deed", DEEDS)
@pytest.mark.parametrize("change", ["upload", "batch", "link", "parts", "delete"])
async def test_what_changes_while_a_seal_looks_is_looked_at(team: Volumes, look: Look, deed: Deed, change: str) -> None:
    """What comes makes no folder, and what goes is why none could be made."""
    await team.create(a=b"x", c=b"z")
    if change == "delete":
        await team.upload("weights/0/a/b", b"y")
    sealing = asyncio.ensure_future(deed(team))
    await look.at(1)
    if change == "upload":
        await team.upload("weights/0/a/b", b"y")
    elif change == "batch":
        assert (await team.batch(0, {"a/b": b"y"})).status_code == 200
    elif change == "link":
        assert await team.claim(0, {"a/b": b"z"}) == {"a/b": "linked"}
    elif change == "parts":
        assert (await team.upload_in_parts("weights/0/a/b", b"y")).status_code == 200
    else:
        assert (await team.client.delete("/v1/storage/weights/0/a")).status_code == 200
    look.go_on()
    await look.at(2)
    look.go_on()
    await asyncio.wait([sealing])
    seen = await team.describe(number=0)
    told = f"{sealing.exception()} {seen['status_message']}"
    assert ("at once" in told) == (change != "delete")
    assert seen["status"] == ("failed" if change != "delete" and deed is not mount else "ready")
    assert (seen["sealed_at"] is None) == (change != "delete" and deed is mount), (
        "a deploy that is refused seals nothing"
    )


async def test_a_version_that_changes_all_the_time_is_not_sealed(team: Volumes, look: Look) -> None:
    await team.create(a=b"x")
    sealing = asyncio.ensure_future(team.seal())
    for number in range(1, MAX_LOOKS + 1):
        await look.at(number)
        await team.upload("weights/0/a", b"%d" % number)
        look.go_on()
    with pytest.raises(Conflict, match="let the uploads end"):
        await sealing
    await team.upload("weights/0/last", b"x")
    look.go_on()
    await team.seal()
    assert (await team.describe())["content"]["files_count"] == 2


async def test_two_who_seal_look_once(team: Volumes, look: Look) -> None:
    await team.create(a=b"x")
    both = [asyncio.ensure_future(team.seal()) for _ in range(2)]
    await look.at(1)
    look.go_on()
    await asyncio.gather(*both)
    assert look.begun == 1


async def test_a_look_holds_until_something_changes(team: Volumes, look: Look) -> None:
    """Also where what it was for came to nothing."""
    await team.create(a=b"x")
    await team.mount("user")
    look.go_on()
    with pytest.raises(Conflict, match="already exists"):
        await mount(team)
    with pytest.raises(Conflict, match="already exists"):
        await mount(team)
    assert look.begun == 1
    assert (await team.describe())["sealed_at"] is None
    await team.upload("weights/0/a/b", b"y")
    look.go_on()
    status, _, message = await team.refused("PATCH", f"{VOLUMES}/weights", {"content": {"source_prefix": "weights/9"}})
    assert (status, look.begun) == (400, 1), message
    with pytest.raises(Conflict, match="at once"):
        await team.seal()
    assert look.begun == 2
