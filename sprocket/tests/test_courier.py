"""What goes together to the platform, and what becomes of it when that goes wrong."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest

from sprocket.config import PlatformConfig
from sprocket.courier import BATCH_LIMIT, BATCH_LIMIT_CHARS, Courier
from sprocket.errors import OlderPlatformError, PlatformAwayError, PlatformRefusedError, StaleAttemptError
from sprocket.messages import Claim, Update, Verdict
from sprocket.platform import Platform, Take


class Post(Platform):
    """Notes what it gets; answers when let through."""

    def __init__(self) -> None:
        super().__init__(PlatformConfig("http://127.0.0.1:1", "k", "hello", "host"))
        self.batches: list[tuple[list[str], int]] = []
        self.alone: list[str] = []
        self.open = asyncio.Event()
        self.open.set()
        self.poison: set[str] = set()
        self.stale: set[str] = set()
        self.claims: list[Claim] = []
        self.older = False

    async def exchange(self, updates: Sequence[Update], max_jobs: int, take: Take) -> list[Verdict]:
        names = [update.request_id for update in updates]
        self.batches.append((names, max_jobs))
        await self.open.wait()
        if self.older:
            raise OlderPlatformError("no such route")
        if self.poison & set(names):
            raise PlatformAwayError("500")
        if self.claims:
            take(self.claims[:max_jobs])
        return [StaleAttemptError("409") if name in self.stale else name.startswith("cancel") for name in names]

    async def update(self, update: Update) -> bool:
        self.alone.append(update.request_id)
        if update.request_id in self.stale:
            raise StaleAttemptError("409")
        return False


class Room:
    """A desk with room for so many jobs beside those that end."""

    def __init__(self, room: int = 0) -> None:
        self.room = room
        self.taken: list[Claim] = []
        self.told = 0
        self.looks_at: list[tuple[list[str], int]] = []
        self.seen: list[int] = []

    def room_beside(self, ending: int) -> int:
        return self.room + ending

    def take_up(self, claims: list[Claim]) -> None:
        self.taken += claims
        self.seen.append(len(self.looks_at))

    def claimed(self) -> None:
        self.told += 1


@asynccontextmanager
async def carrying(room: int = 0) -> AsyncIterator[tuple[Courier, Post, Room]]:
    post, desk = Post(), Room(room)
    yield Courier(post, desk), post, desk
    await post.close()


def done(name: str, size: int = 2) -> Update:
    return Update(name, "token", "done", {"payload": '"' + "x" * (size - 2) + '"'})


async def results(*waits: asyncio.Task[bool]) -> list[bool | BaseException]:
    return await asyncio.wait_for(asyncio.gather(*waits, return_exceptions=True), 60)


async def test_what_comes_while_a_request_is_under_way_goes_with_the_next_in_order() -> None:
    async with carrying() as (courier, post, desk):
        post.open.clear()
        first = asyncio.create_task(courier.send(done("a")))
        while not post.batches:
            await asyncio.sleep(0)
        others = [asyncio.create_task(courier.send(done(name))) for name in ("b", "cancel-c", "d")]
        await asyncio.sleep(0)
        post.open.set()
        assert await results(first, *others) == [False, False, True, False]
        # The desk does not know yet that "a" makes room as well.
        assert post.batches == [(["a"], 1), (["b", "cancel-c", "d"], 4)]
        assert (desk.told, courier.claiming, courier.under_way()) == (2, False, [])


async def test_only_what_ends_a_job_asks_for_others() -> None:
    async with carrying(room=5) as (courier, post, _):
        assert await courier.send(Update("a", None, "running", {})) is False
        await courier.send(done("a"))
        assert post.batches == [(["a"], 0), (["a"], 6)]


async def test_claims_are_taken_up_before_the_verdicts_are_known() -> None:
    async with carrying() as (courier, post, desk):
        post.claims = [Claim("new", {}, 0, {}, 1, "t")]
        sent = asyncio.create_task(courier.send(done("a")))
        while not desk.taken:
            assert not sent.done()
            await asyncio.sleep(0)
        assert await sent is False
        assert desk.taken == post.claims


async def test_under_load_the_next_request_leaves_before_the_claims_are_taken_up() -> None:
    async with carrying() as (courier, post, desk):
        post.open.clear()
        first = asyncio.create_task(courier.send(done("a")))
        while not post.batches:
            await asyncio.sleep(0)
        post.claims = [Claim("new", {}, 0, {}, 1, "t")]
        desk.looks_at = post.batches
        second = asyncio.create_task(courier.send(done("b")))
        await asyncio.sleep(0)
        post.open.set()
        assert await results(first, second) == [False, False]
        assert desk.seen[0] == len(post.batches) == 2
        assert courier.arrived == 0


async def test_what_was_not_taken_makes_no_room() -> None:
    async with carrying() as (courier, post, _):
        post.open.clear()
        post.stale = {"a"}
        first = asyncio.create_task(courier.send(done("a")))
        while not post.batches:
            await asyncio.sleep(0)
        second = asyncio.create_task(courier.send(done("b")))
        await asyncio.sleep(0)
        post.open.set()
        await results(first, second)
        assert [max_jobs for _, max_jobs in post.batches] == [1, 1]


async def test_a_batch_has_limits() -> None:
    async with carrying() as (courier, post, _):
        sizes = {"huge": BATCH_LIMIT_CHARS * 2, "big": BATCH_LIMIT_CHARS // 2, "large": BATCH_LIMIT_CHARS // 2 + 1}
        await results(*(asyncio.create_task(courier.send(done(name, size))) for name, size in sizes.items()))
        assert [names for names, _ in post.batches] == [["huge"], ["big"], ["large"]]
        post.batches.clear()
        await results(*(asyncio.create_task(courier.send(done(str(n)))) for n in range(2 * BATCH_LIMIT + 50)))
        assert [len(names) for names, _ in post.batches] == [BATCH_LIMIT, BATCH_LIMIT, 50]
        assert max(max_jobs for _, max_jobs in post.batches) == BATCH_LIMIT


async def test_one_that_is_stale_spoils_no_other() -> None:
    async with carrying() as (courier, post, _):
        post.stale = {"b"}
        a, b, c = await results(*(asyncio.create_task(courier.send(done(name))) for name in "abc"))
        assert (a, c) == (False, False)
        assert isinstance(b, StaleAttemptError)


async def test_one_that_brings_the_platform_down_holds_the_others_up_only_for_a_while() -> None:
    async with carrying() as (courier, post, _):
        post.poison = {"job-13"}

        async def insist(name: str) -> None:
            for _ in range(20):
                with contextlib.suppress(PlatformAwayError):
                    await courier.send(done(name))
                    return

        senders = {n: asyncio.create_task(insist(f"job-{n}")) for n in range(40)}
        await asyncio.wait_for(asyncio.gather(*(task for n, task in senders.items() if n != 13)), 60)
        post.poison.clear()
        await asyncio.wait_for(senders[13], 60)


async def test_a_refusal_of_many_is_nobodys_refusal() -> None:
    async with carrying() as (courier, post, _):

        async def refuse(updates: Sequence[Update], max_jobs: int, take: Take) -> list[Verdict]:
            raise PlatformRefusedError(413, "too large")

        post.exchange = refuse  # type: ignore[method-assign]
        many = await results(*(asyncio.create_task(courier.send(done(name))) for name in "ab"))
        assert [type(verdict) for verdict in many] == [PlatformAwayError, PlatformAwayError]
        with pytest.raises(PlatformRefusedError):
            await courier.send(done("c"))


async def test_a_mistake_in_taking_claims_up_leaves_no_result_lying(caplog: pytest.LogCaptureFixture) -> None:
    async with carrying() as (courier, post, desk):
        post.claims = [Claim("new", {}, 0, {}, 1, "t")]
        desk.take_up = lambda claims: 1 / 0  # type: ignore[assignment, method-assign]
        with pytest.raises(PlatformAwayError, match="ZeroDivisionError"):
            await courier.send(done("a"))
        post.claims = []
        assert await courier.send(done("a")) is False
        assert "could not be carried" in caplog.text


async def test_who_waits_no_more_is_left_out() -> None:
    async with carrying() as (courier, post, _):
        post.open.clear()
        first = asyncio.create_task(courier.send(done("a")))
        while not post.batches:
            await asyncio.sleep(0)
        gone, stays = (asyncio.create_task(courier.send(done(name))) for name in ("gone", "stays"))
        await asyncio.sleep(0)
        gone.cancel()
        await asyncio.sleep(0)
        post.open.set()
        await results(first, stays)
        assert [names for names, _ in post.batches] == [["a"], ["stays"]]


async def test_an_older_platform_is_asked_once_and_again_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    async with carrying() as (courier, post, _):
        post.older, post.stale = True, {"b"}
        a, b = await results(*(asyncio.create_task(courier.send(done(name))) for name in "ab"))
        assert (a, type(b)) == (False, StaleAttemptError)
        await courier.send(done("c"))
        assert (len(post.batches), post.alone) == (1, ["a", "b", "c"])
        post.older = False
        monkeypatch.setattr(courier, "_older_until", 0.0)
        await courier.send(done("d"))
        assert (post.batches[-1][0], post.alone) == (["d"], ["a", "b", "c"])
