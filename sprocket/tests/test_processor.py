"""Processors: files changed on their way in, outputs on their way out."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from sprocket_fake_platform import FakePlatform
from sprocket_process import Launcher

from sprocket import FileResponse
from sprocket.outputs import FileOutput, encode_outputs


def stored(platform: FakePlatform, name: str, content: bytes) -> str:
    platform.files[name] = content
    return f"{platform.base_url}/v1/storage/{name}"


@pytest.mark.parametrize("target", ["processors:Unpacked", "processors:UnpackedApart"])
async def test_a_processor_changes_inputs_and_outputs(platform: FakePlatform, launch: Launcher, target: str) -> None:
    await launch(platform, target)
    for name, content in {"a.txt.gz": gzip.compress(b"hello"), "b.txt": b"plain"}.items():
        job = await platform.run({"file": stored(platform, name, content)})
        assert job.outputs == {
            "content": "hello" if name == "a.txt.gz" else "plain",
            "files": [name],
            "frames": 3,
            "for": [job.request_id, name],
        }
    assert list(launch.temporary.glob("*/*")) == []


async def test_a_processor_may_be_asynchronous_and_has_one_thread(platform: FakePlatform, launch: Launcher) -> None:
    platform.storage_headers["X-Colour"] = "blue"
    await launch(platform, "processors:Streamed")
    job = await platform.run({"do": "read", "file": stored(platform, "in/a.txt", b"hello")})
    assert job.outputs == {"content": "200 blue /v1/storage/in/a.txt hello", "thread": True}


async def test_what_a_processor_raises_fails_the_job_and_the_worker_goes_on(
    platform: FakePlatform, launch: Launcher
) -> None:
    await launch(platform, "processors:Streamed")
    complaints = {
        "nothing": "OutputError: finalize returned None; it must return a dict",
        "raise": "KeyError: 'no bucket'",
        "exit": "RuntimeError: the processor raised SystemExit(3)",
    }
    for do, complaint in complaints.items():
        job = await platform.run({"do": do})
        assert job.status == "failed"
        assert complaint in job.info["error"]
    job = await platform.run({"do": "read", "file": stored(platform, "a.txt", b"no colour")})
    assert "KeyError: 'x-colour'" in job.info["error"]
    assert (await platform.run({"do": "fine"})).outputs == {"content": None, "thread": True}


async def test_a_processor_that_blocks_holds_up_nobody_else(
    platform: FakePlatform, launch: Launcher, tmp_path: Path
) -> None:
    worker, gate = await launch(platform, "processors:Streamed"), tmp_path / "gate"
    job = await platform.submit({"do": "block", "path": str(gate)})
    await worker.says("blocking")
    assert await worker.get("/health") == (200, '{"status": "healthy"}')
    assert job.status == "running"
    gate.touch()
    assert (await platform.finished(job)).status == "done"


async def test_a_cancel_ends_a_processor_that_waits(platform: FakePlatform, launch: Launcher) -> None:
    await launch(platform, "processors:Streamed")
    job = await platform.submit({"do": "read", "file": stored(platform, "forever", b"x")})
    await platform.until(lambda: platform.updates_of(job, "running"))
    job.cancel_requested = True
    assert (await platform.finished(job)).status == "canceled"
    assert (await platform.run({"do": "fine"})).status == "done"
    assert list(launch.temporary.glob("*/*")) == []


async def test_a_processor_works_for_requests_over_http(launch: Launcher) -> None:
    worker = await launch(None, "processors:Streamed")
    await worker.ready()
    status, text = await worker.post("/generate", b'{"do": "fine"}')
    assert (status, json.loads(text)) == (200, {"content": None, "thread": True})


async def test_what_is_no_processor_ends_the_worker(launch: Launcher) -> None:
    worker = await launch(None, "processors:Wrong")
    assert await worker.exit_code() == 2
    assert "`processor` must be a class derived from sprocket.InputOutputProcessor" in worker.stderr
    worker = await launch(None, "processors:Failed")
    assert await worker.exit_code() == 1
    assert "no bucket at all" in worker.stderr


def response(path: Path) -> FileResponse:
    path.write_bytes(b'{"a": "\xc3\xa9"}')
    return FileResponse(path, "https://example.com/a.json", {"Content-Type": "application/json"})


async def test_a_response_reads_as_httpx_has_it(tmp_path: Path) -> None:
    resp = response(tmp_path / "raw")
    whole = b'{"a": "\xc3\xa9"}'
    assert resp.raise_for_status().is_success
    assert (resp.content, resp.read(), await resp.aread(), resp.text) == (whole, whole, whole, '{"a": "é"}')
    assert resp.json() == {"a": "é"}
    assert [*resp.iter_bytes(5)] == [whole[:5], whole[5:10], whole[10:]]
    assert [chunk async for chunk in resp.aiter_raw()] == [whole]
    assert (resp.headers["content-TYPE"], resp.headers.get("etag"), dict(resp.headers)) == (
        "application/json",
        None,
        {"content-type": "application/json"},
    )


def test_saving_a_response_replaces_what_was_there(tmp_path: Path) -> None:
    resp = response(tmp_path / "raw")
    (tmp_path / "there").write_bytes(b"x" * 1000)
    for name in ("new", "there"):
        resp.save(tmp_path / name)
        assert (tmp_path / name).read_bytes() == resp.content


def test_encoded_outputs_can_be_had_back_with_their_files(tmp_path: Path) -> None:
    file = FileOutput(tmp_path / "a")
    file.write_text("x")
    outputs: dict[str, Any] = {"a": [file, {"b": file}], "c": {}, "d": "text"}
    value = encode_outputs(outputs).value()
    assert value == outputs
    assert isinstance(value["a"][1]["b"], FileOutput)
