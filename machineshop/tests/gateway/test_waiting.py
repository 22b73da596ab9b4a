"""Requests that no replica can take yet: they wait, in order, within bounds, and are answered either way."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator

import aiohttp
import pytest
from aiohttp import web

from gateway.caller import Caller, upstream
from machineshop.config import GatewayLimits
from machineshop.models import Deployment
from machineshop.services.deployments import DeploymentService
from ports import reserve_port

HELD = 20


@pytest.fixture
def limits() -> GatewayLimits:
    return GatewayLimits(hold_seconds=100.0, held=HELD)


async def hello(request: web.Request) -> web.Response:
    return web.Response(text=await request.text())


async def held(caller: Caller, count: int) -> None:
    """Return once so many requests wait."""
    async with asyncio.timeout(60):
        while caller.held() != count:
            await asyncio.sleep(0.01)


async def test_a_request_waits_until_a_replica_is_ready(caller: Caller) -> None:
    async with upstream(hello) as port, asyncio.timeout(60):
        asking = asyncio.create_task(text_of(caller, "hello"))
        await held(caller, 1)
        caller.serve(port)
        assert await asking == "hello"
        assert caller.held() == 0


async def text_of(caller: Caller, text: str) -> str:
    async with caller.session.post("echo", data=text) as answer:
        assert answer.status == 200, await answer.text()
        return await answer.text()


async def test_no_more_wait_than_may_and_the_others_hear_so_at_once(caller: Caller) -> None:
    async with upstream(hello) as port, asyncio.timeout(60):
        waiting = [asyncio.create_task(text_of(caller, str(number))) for number in range(HELD)]
        await held(caller, HELD)
        async with caller.session.get("one-too-many") as answer:
            assert answer.status == 503
            assert int(answer.headers["Retry-After"]) > 0
            assert f"{HELD} others wait" in (await answer.json())["error"]["message"]
        caller.serve(port)
        assert await asyncio.gather(*waiting) == [str(number) for number in range(HELD)]


async def test_a_caller_that_hangs_up_waits_no_longer(caller: Caller) -> None:
    asking = asyncio.create_task(text_of(caller, "hello"))
    await held(caller, 1)
    asking.cancel()
    await held(caller, 0)


async def test_those_who_wait_are_told_when_their_deployment_is_deleted(
    caller: Caller, deployments: DeploymentService, deployment: Deployment
) -> None:
    async with asyncio.timeout(60):  # less than they would wait
        waiting = [asyncio.ensure_future(caller.session.get("hello")) for _ in range(3)]
        await held(caller, 3)
        await deployments.update(deployment.project_id, "hello", {"min_replicas": 0})
        await deployments.create(deployment.project_id, {"name": "other", "image": "i@sha256:1", "gpu_type": "none"})
        await deployments.delete(deployment.project_id, "other")
        assert caller.held() == 3
        await deployments.delete(deployment.project_id, "hello")
        for asking in waiting:
            async with await asking as answer:
                assert answer.status == 404
                assert (await answer.json())["error"]["message"] == "There is no deployment 'hello' in this project."
    assert caller.held() == 0


async def test_those_who_wait_are_told_when_the_server_ends(caller: Caller) -> None:
    async with asyncio.timeout(60):
        asking = asyncio.ensure_future(caller.session.get("hello"))
        await held(caller, 1)
        caller.gateway.close_waiting_room()
        async with await asking as answer:
            assert answer.status == 503
            assert "about to end" in (await answer.json())["error"]["message"]


async def test_a_busy_worker_gets_one_request_after_another(caller: Caller) -> None:
    busy, most = 0, 0

    async def one_at_a_time(request: web.Request) -> web.Response:
        nonlocal busy, most
        if busy:
            return web.Response(status=503, headers={"X-Sprocket-Not-Taken": "busy"}, text="busy")
        busy += 1
        most = max(most, busy)
        await asyncio.sleep(0.001)
        text = await request.text()
        busy -= 1
        return web.Response(text=text)

    async with upstream(one_at_a_time) as port, asyncio.timeout(60):
        caller.serve(port)
        texts = await asyncio.gather(*(text_of(caller, str(number)) for number in range(HELD)))
    assert texts == [str(number) for number in range(HELD)]
    assert most == 1


async def test_a_worker_that_drains_is_passed_over(caller: Caller) -> None:
    async def draining(_request: web.Request) -> web.Response:
        return web.Response(status=503, headers={"X-Sprocket-Not-Taken": "draining"})

    async with upstream(draining) as drains, upstream(hello) as port, asyncio.timeout(60):
        caller.serve(drains, port)
        assert await text_of(caller, "hello") == "hello"


async def test_a_503_of_the_models_own_is_an_answer(caller: Caller) -> None:
    async def refuse(_request: web.Request) -> web.Response:
        return web.Response(status=503, text="not today")

    async with upstream(refuse) as port:
        caller.serve(port)
        async with caller.session.post("echo", data="x") as answer:
            assert (answer.status, await answer.text()) == (503, "not today")


async def test_a_deployment_that_may_have_no_replica_is_not_waited_for(
    caller: Caller, deployments: DeploymentService, deployment: Deployment
) -> None:
    await deployments.update(deployment.project_id, "hello", {"min_replicas": 0, "max_replicas": 0})
    began = time.monotonic()
    async with caller.session.get("hello") as answer:
        assert answer.status == 503
        said = (await answer.json())["error"]["message"]
        assert said == "'hello' may have no replica: its max_replicas is 0. 'jig scale hello --max 1' lets one run."
    assert time.monotonic() - began < 60  # it did not wait to the end


@pytest.mark.parametrize("first", ["CrashLoopBackOff", None])
async def test_replicas_that_crash_again_and_again_are_not_waited_for_to_the_end(
    caller: Caller, monkeypatch: pytest.MonkeyPatch, first: str | None
) -> None:
    monkeypatch.setattr("machineshop.gateway.proxy.BROKEN_HOLD_SECONDS", 0.5)
    async with asyncio.timeout(25):  # less than a request waits at most
        caller.crash(first)
        asking = asyncio.ensure_future(caller.session.get("hello"))
        await held(caller, 1)
        caller.crash(None if first else "CrashLoopBackOff")  # what it is at a moment makes no difference
        async with await asking as answer:
            assert answer.status == 503


async def test_a_replica_that_only_starts_slowly_is_waited_for(caller: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("machineshop.gateway.proxy.BROKEN_HOLD_SECONDS", 0.05)
    async with upstream(hello) as port, asyncio.timeout(60):
        caller.crash(None)
        asking = asyncio.create_task(text_of(caller, "hello"))
        await held(caller, 1)
        while caller.replicas.asked < 2:  # when it came, and when it might have been told that it waits in vain
            await asyncio.sleep(0.01)
        caller.serve(port)
        assert await asking == "hello"


async def test_an_idempotent_request_goes_to_another_replica_when_one_breaks_off(caller: Caller) -> None:
    seen: Counter[str] = Counter()

    async def breaks(request: web.Request) -> web.Response:
        seen[request.method] += 1
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    async with upstream(breaks) as broken, upstream(hello) as port, asyncio.timeout(60):
        caller.serve(broken, port)
        async with caller.session.put("file", data="hello") as answer:
            assert (answer.status, await answer.text()) == (200, "hello")
        async with caller.session.post("file", data="hello") as answer:
            assert answer.status == 502
    assert seen == {"PUT": 1, "POST": 1}


async def test_a_request_waits_while_its_only_replica_is_started_again(caller: Caller) -> None:
    gone = reserve_port()
    async with upstream(hello) as port, asyncio.timeout(60):
        caller.serve(gone)
        asking = asyncio.create_task(text_of(caller, "hello"))
        await held(caller, 1)
        caller.serve(port)
        assert await asking == "hello"


async def test_an_upload_that_waits_is_not_read_meanwhile(caller: Caller) -> None:
    taken = 0

    async def parts() -> AsyncIterator[bytes]:
        nonlocal taken
        for _ in range(400):
            taken += 100_000
            yield b"x" * 100_000

    async def count(request: web.Request) -> web.Response:
        return web.Response(text=str(sum([len(part) async for part in request.content.iter_any()])))

    async with upstream(count) as port, asyncio.timeout(60):
        asking = asyncio.ensure_future(caller.session.post("upload", data=parts()))
        await held(caller, 1)
        caller.serve(port)
        async with await asking as answer:
            assert await answer.text() == "40000000"


class TestHoldEnds:
    @pytest.fixture
    def limits(self) -> GatewayLimits:
        return GatewayLimits(hold_seconds=0.3)

    async def test_after_its_time_the_caller_hears_why_and_when_to_come_back(self, caller: Caller) -> None:
        async with caller.session.get("hello") as answer:
            assert answer.status == 503
            assert int(answer.headers["Retry-After"]) > 0
            error = (await answer.json())["error"]
        assert error["code"] == "no_ready_replica"
        assert "0 of 1 replicas are ready" in error["message"]

    async def test_where_all_are_busy_that_is_said(self, caller: Caller) -> None:
        async def busy(_request: web.Request) -> web.Response:
            return web.Response(status=503, headers={"X-Sprocket-Not-Taken": "busy"})

        async with upstream(busy) as port:
            caller.serve(port)
            async with caller.session.get("hello") as answer:
                assert answer.status == 503
                assert "All 1 replicas of 'hello' are busy" in (await answer.json())["error"]["message"]

    async def test_a_websocket_hears_it_too(self, caller: Caller) -> None:
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await caller.session.ws_connect("talk")
        assert refused.value.status == 503
