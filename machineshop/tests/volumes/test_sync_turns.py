"""Projects take turns at being copied: nobody has all the room, and nobody waits for ever."""

import asyncio
import threading

import msgspec
import pytest

from factory import eventually
from machineshop.control.sync_turns import (
    LAST_FILES_SECONDS,
    LEAST_BYTES_PER_SECOND,
    MAX_OF_A_PROJECT,
    MAX_VERSIONS_AT_ONCE,
    RATE_SECONDS,
    TURN_SECONDS,
    UnderWay,
    Waiting,
    is_cut_off,
    next_to_give_way,
    next_up,
)
from machineshop.services.identity import IdentityService
from machineshop.services.secret_rules import SecretFields
from machineshop.services.volume_rules import VolumeContent, VolumeFields
from volumes.elsewhere import KEYS, Elsewhere, files_of
from volumes.fake_s3 import Request, Server, entry, listing


class Others:
    """Other projects that have volumes copied from an object storage."""

    def __init__(self, place: Elsewhere, identity: IdentityService) -> None:
        self._place = place
        self._identity = identity

    async def create(self, slug: str, endpoint: str) -> str:
        """A project with a volume that is to be copied; returns its id."""
        self._place.clock.now += 1  # the oldest goes first
        project, _ = await self._identity.create_project(slug)
        keys = msgspec.json.encode(KEYS | {"endpoint_url": endpoint}).decode()
        await self._place.secrets.create(project.id, SecretFields(name="s3-keys", value=keys), "key-1")
        content = msgspec.convert(self._place.content(), VolumeContent)
        fields = VolumeFields(name="theirs", type="readOnly", content=content)
        await self._place.team.shop.volumes.create(project.id, fields)
        return project.id

    async def seen(self, project_id: str) -> tuple[str, str]:
        """Status and message of its volume."""
        shown = (await self._place.team.shop.volumes.describe(project_id, "theirs")).shown
        return shown.status, shown.message

    async def ready(self, project_id: str) -> None:
        async with asyncio.timeout(60):
            while (await self.seen(project_id))[0] != "ready":
                await asyncio.sleep(0.01)


@pytest.fixture
def others(elsewhere: Elsewhere, identity: IdentityService) -> Others:
    return Others(elsewhere, identity)


def trickled(request: Request) -> None:
    if request.is_list:
        request.answer(listing(entry(f"{request.query['prefix']}a", 10**6)))
    else:
        request.begin(10**6)
        request.trickle(b"x")


async def test_one_project_leaves_room_for_another(wrong: Elsewhere, origin: Server, others: Others) -> None:
    origin.script = trickled
    for number in range(MAX_VERSIONS_AT_ONCE + 1):
        await wrong.create(f"slow-{number}")
    assert await wrong.sync.run_once(wrong.clock.now) == MAX_OF_A_PROJECT
    wrong.put(a=b"alpha")
    theirs = await others.create("other", wrong.objects.endpoint)
    assert await wrong.sync.run_once(wrong.clock.now) == 1
    await others.ready(theirs)


async def test_slow_origins_give_way_to_those_who_wait(wrong: Elsewhere, origin: Server, others: Others) -> None:
    origin.script = trickled
    slow = [await others.create(f"slow-{number}", origin.endpoint) for number in range(MAX_VERSIONS_AT_ONCE)]
    run_once, clock = wrong.sync.run_once, wrong.clock
    assert await run_once(clock.now) == MAX_VERSIONS_AT_ONCE
    await eventually(lambda: len(origin.seen) == 2 * MAX_VERSIONS_AT_ONCE)
    clock.now += TURN_SECONDS
    await run_once(clock.now)
    assert {await others.seen(each) for each in slow} == {("syncing", "Being copied: 1 file, 1.0 MiB in all.")}, (
        "nobody waits"
    )

    wrong.put(a=b"alpha")
    theirs = await others.create("other", wrong.objects.endpoint)
    assert await run_once(clock.now) == 0
    assert [(await others.seen(each))[1].startswith("Others wait") for each in slow] == [True, False, False, False]
    await run_once(clock.now + RATE_SECONDS - 1)
    assert wrong.sync.busy == MAX_VERSIONS_AT_ONCE
    clock.now += RATE_SECONDS
    await run_once(clock.now)
    await eventually(lambda: wrong.sync.busy < MAX_VERSIONS_AT_ONCE)
    assert await run_once(clock.now) == 1, "who waited goes before who has had a turn"
    await others.ready(theirs)
    await wrong.settled_to(MAX_VERSIONS_AT_ONCE - 1)

    origin.script = lambda request: request.answer(
        listing(entry(f"{request.query['prefix']}a")) if request.is_list else "x"
    )
    assert await run_once(clock.now) == 1, "giving way is no trouble to be waited out"
    await others.ready(slow[0])
    assert (await others.seen(slow[0]))[1] == ""


async def test_what_gives_way_ends_its_files_and_goes_on_later(
    wrong: Elsewhere, origin: Server, others: Others
) -> None:
    names = [f"f{number}" for number in range(6)]
    go_on = threading.Event()

    def script(request: Request) -> None:
        if request.is_list:
            request.answer(listing(*(entry(f"{wrong.url.prefix}{name}") for name in names)))
        else:
            go_on.wait(60)
            request.answer("x")

    origin.script = script
    await wrong.create()
    run_once, clock = wrong.sync.run_once, wrong.clock
    slow = [await others.create(f"slow-{number}", origin.endpoint) for number in range(MAX_VERSIONS_AT_ONCE - 1)]
    assert await run_once(clock.now) == MAX_VERSIONS_AT_ONCE
    await eventually(lambda: len(origin.seen) == 5 * MAX_VERSIONS_AT_ONCE)
    wrong.put(a=b"alpha")
    await others.create("other", wrong.objects.endpoint)
    clock.now += TURN_SECONDS
    await run_once(clock.now)
    assert (await wrong.team.describe())["status_message"].startswith("Others wait")
    go_on.set()
    await wrong.settled()
    seen = await wrong.team.describe()
    assert (seen["status"], len(files_of(seen))) == ("syncing", 4)
    assert [await others.seen(each) for each in slow] == [("ready", "")] * len(slow)
    assert len(files_of(await wrong.pass_until("ready"))) == len(names)
    prefixes = [path for path in origin.seen if "list-type" not in path]
    assert len(prefixes) == len(names) * MAX_VERSIONS_AT_ONCE, "nothing was copied twice"


def test_projects_take_turns() -> None:
    waiting, turns = [Waiting(name) for name in "aaaaabcb"], {"c": 0}
    begun: list[str] = []
    while (at := next_up(waiting, begun[-1:], turns)) is not None:
        begun.append(waiting.pop(at).project)
        turns[begun[-1]] = len(begun)
    assert "".join(begun) == "abcabaaa"


@pytest.mark.parametrize(
    ("waiting", "under_way", "expected"),
    [
        ("a", "aa", None),
        ("a", "bbcc", None),
        ("a", "abc", None),
        ("a", "ab", 0),
        ("ab", "a", 1),
        ("d", "abc", 0),
        ("c", "aab", 0),
        ("ab", "aab", None),
    ],
)
def test_the_last_place_is_for_a_project_that_has_none(waiting: str, under_way: str, expected: int | None) -> None:
    assert next_up([Waiting(name) for name in waiting], list(under_way), {}) == expected


def test_versions_of_a_project_take_turns_too() -> None:
    assert next_up([Waiting("a", 3), Waiting("a", 1), Waiting("a", 2)], [], {"a": 3}) == 1


@pytest.mark.parametrize(
    ("waiting", "under_way", "expected"),
    [
        ("", "a0", None),
        ("e", "a0 b0 c0 d0", 0),
        ("e", "a9 b0 c0 d0", 1),
        ("e", "a9 b9 c9 d9", None),
        ("e", "a0! b0 c0 d0", None),
        ("ef", "a0! b0 c0 d0", 1),
        ("e", "b0 a1 a2 c0", 1),
        ("a", "a0 a9", 0),
        ("a", "b0 a9 a9", None),
    ],
    ids=["nobody", "oldest", "had-turn", "too-early", "enough", "more", "most", "own", "of-no-use"],
)
def test_who_has_had_a_turn_gives_way(waiting: str, under_way: str, expected: int | None) -> None:
    """Each copy: its project, when it was begun, and whether it gives way."""
    copies = [UnderWay(each[0], float(each[1]), each.endswith("!")) for each in under_way.split()]
    assert next_to_give_way([Waiting(name) for name in waiting], copies, {}, TURN_SECONDS + 5) == expected


def test_what_gives_way_ends_its_files_if_they_come_fast_enough() -> None:
    assert not is_cut_off(RATE_SECONDS - 1, 0)
    assert is_cut_off(RATE_SECONDS, int(RATE_SECONDS * LEAST_BYTES_PER_SECOND) - 1)
    assert not is_cut_off(RATE_SECONDS, int(RATE_SECONDS * LEAST_BYTES_PER_SECOND))
    assert is_cut_off(LAST_FILES_SECONDS, 10**15)
