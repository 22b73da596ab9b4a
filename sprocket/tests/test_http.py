"""HTTP mode: /generate of a worker without a platform."""

from __future__ import annotations

import asyncio
import base64
import json
from pathlib import Path

import aiohttp
from sprocket_process import Launcher


async def test_generate(launch: Launcher, tmp_path: Path) -> None:
    worker = await launch(None, "zoo:Zoo")
    await worker.ready()
    assert await worker.post("/generate", b'{"a": [1, null]}') == (200, '{"a":[1,null]}')
    status, body = await worker.post("/generate", b'{"do": "raise_"}')
    assert (status, json.loads(body)["error"]["message"]) == (500, "ValueError: no such xxxx")
    status, body = await worker.post("/generate", b'{"do": "nan"}')
    assert status == 500
    assert "JSON has no NaN" in body
    for bad in (b"", b"{", b"[1]", b'"text"', b"\xff"):
        status, body = await worker.post("/generate", bad)
        assert (status, json.loads(body)["error"]["type"]) == (400, "invalid_request_error")
    out = tmp_path / "out.txt"
    status, body = await worker.post(
        "/generate", json.dumps({"do": "write", "path": str(out), "content": "hi"}).encode()
    )
    uri = "data:text/plain;base64," + base64.b64encode(b"hi").decode()
    assert (status, json.loads(body)) == (200, {"file": uri, "note": "kept"})
    metrics = (await worker.get("/metrics"))[1]
    assert "requests_inflight 0.0\n" in metrics
    assert 'sprocket_jobs_total{outcome="done"} 2.0' in metrics
    assert 'sprocket_jobs_total{outcome="failed"} 2.0' in metrics
    assert "sprocket_predict_seconds_count 4.0" in metrics


async def test_a_busy_model_answers_503(launch: Launcher, tmp_path: Path) -> None:
    worker, gate = await launch(None, "zoo:Zoo"), tmp_path / "gate"
    await worker.ready()
    first = asyncio.create_task(worker.post("/generate", f'{{"do": "until_there", "path": "{gate}"}}'.encode()))
    await worker.is_working()
    status, body = await worker.post("/generate", b"{}")
    assert (status, json.loads(body)["error"]["code"]) == (503, "busy")
    url = f"http://127.0.0.1:{await worker.port()}/generate"
    async with aiohttp.ClientSession() as session, session.post(url, data=b"{}") as answer:
        assert answer.headers["X-Sprocket-Not-Taken"] == "busy"
    assert (await worker.get("/health"))[0] == 200
    gate.touch()
    assert await first == (200, '{"there":true}')
    assert (await worker.post("/generate", b"{}"))[0] == 200


async def test_a_client_that_hangs_up_cancels_its_request(launch: Launcher) -> None:
    worker = await launch(None, "zoo:Zoo")
    await worker.ready()
    asking = asyncio.create_task(worker.post("/generate", b'{"do": "until_cancelled"}'))
    await worker.is_working()
    asking.cancel()
    await worker.says("cancel seen")
    async with asyncio.timeout(60):  # the model is free a moment after it has seen the cancel
        while (await worker.post("/generate", b"{}"))[0] != 200:
            await asyncio.sleep(0.01)


async def test_a_sprocket_worker_sees_headers(launch: Launcher) -> None:
    worker = await launch(None, "zoo:Requests")
    await worker.ready()
    for colour in ("blue", "blue" * 15_000):  # the platform passes on heads of up to 64 KiB
        status, body = await worker.post("/generate", b"{}", {"X-Colour": colour, "X-Request-ID": "r-1"})
        seen = {"input": {}, "id": "r-1", "priority": 0, "info": {}, "header": colour}
        assert (status, json.loads(body)) == (200, seen)


async def test_a_request_id_that_is_no_file_name_is_not_taken(launch: Launcher) -> None:
    worker = await launch(None, "zoo:Requests")
    await worker.ready()
    _, body = await worker.post("/generate", b"{}", {"X-Request-ID": "../../other"})
    assert len(json.loads(body)["id"]) == 36


async def test_an_exit_in_predict_ends_the_process(launch: Launcher) -> None:
    worker = await launch(None, "zoo:Zoo")
    await worker.ready()
    status, _ = await worker.post("/generate", b'{"do": "exit", "code": 5}')
    assert status == 500
    assert await worker.exit_code() == 5


async def test_predict_has_the_path_that_the_script_says(launch: Launcher) -> None:
    worker = await launch.start("pathed.py", "--port", "0", VERSION="1.2.3")
    await worker.ready()

    assert await worker.post("/v1/images/generate", b'{"a": 1}') == (200, '{"a":1}')
    assert (await worker.post("/generate", b"{}"))[0] == 404
    assert "Pathed 1.2.3 is listening" in worker.stderr


async def test_what_a_worker_does_not_have_is_refused_in_json_with_what_it_has(launch: Launcher) -> None:
    worker = await launch(None, "zoo:Zoo")
    await worker.ready()
    url = f"http://127.0.0.1:{await worker.port()}"
    async with aiohttp.ClientSession() as session:
        async with session.get(f"{url}/nowhere") as answer:
            assert (answer.status, await answer.json()) == (
                404,
                {
                    "error": {
                        "message": "there is no path /nowhere; this worker has /generate, /health, /metrics, "
                        "/openapi.json",
                        "type": "invalid_request_error",
                        "param": None,
                        "code": "not_found",
                    }
                },
            )
        async with session.get(f"{url}/generate") as answer:
            error = (await answer.json())["error"]
            assert (answer.status, answer.headers["Allow"], error["code"]) == (405, "POST", "method_not_allowed")
            assert error["message"] == "GET is not allowed at /generate, which takes POST"
        async with session.delete(f"{url}/health") as answer:
            assert (answer.status, answer.headers["Allow"]) == (405, "GET, HEAD")


async def test_a_wrong_predict_path_is_told_in_one_line(launch: Launcher) -> None:
    worker = await launch.start("pathed.py", "--port", "0", PREDICT_AT="health")

    assert await worker.exit_code() == 2
    assert "sprocket: predict_path must be a path such as /generate" in worker.stderr
