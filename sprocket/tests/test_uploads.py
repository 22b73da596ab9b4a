"""Outputs' files go into the storage, also when it stumbles."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sprocket_fake_platform import API_KEY, FakePlatform

from sprocket import uploads
from sprocket.backoff import Backoff
from sprocket.config import PlatformConfig
from sprocket.errors import PlatformRefusedError, StaleAttemptError
from sprocket.job import Job
from sprocket.platform import Platform
from sprocket.uploads import Uploader

PART_BYTES = 1000
CONTENT = random.Random(4).randbytes(3 * PART_BYTES + 1)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts of a size that tests can send many of, and short pauses."""
    monkeypatch.setattr(uploads, "MULTIPART_FROM_BYTES", 2 * PART_BYTES)
    monkeypatch.setattr(uploads, "PART_BYTES", PART_BYTES)
    monkeypatch.setattr(uploads, "UPLOAD_BACKOFF", Backoff(first_seconds=0.01, longest_seconds=0.05))


@pytest.fixture
async def uploader(platform: FakePlatform) -> AsyncIterator[Uploader]:
    client = Platform(PlatformConfig(platform.base_url, API_KEY, "hello", "host"))
    made = Uploader(client)
    yield made
    await made.close()
    await client.close()


@pytest.fixture
def large(tmp_path: Path) -> Path:
    path = tmp_path / "large.bin"
    path.write_bytes(CONTENT)
    return path


@pytest.fixture
def job() -> Job:
    return Job("id", {}, queued=True, attempt_token="token")


def steps(platform: FakePlatform) -> list[str]:
    return [step for step, _ in platform.multipart]


async def test_a_large_file_goes_in_parts_and_a_small_one_in_one_piece(
    platform: FakePlatform, uploader: Uploader, large: Path, job: Job, tmp_path: Path
) -> None:
    assert await uploader.upload(job, "id-large.bin", large) == f"{platform.base_url}/v1/storage/id-large.bin"
    assert platform.files == {"id-large.bin": CONTENT}
    fence = {"request_id": "id", "attempt_token": "token"}
    assert platform.multipart[0] == ("init", {"filename": "id-large.bin", "parts_count": 4, **fence})
    assert steps(platform) == ["init", "complete"]
    assert sorted(headers["Content-Length"] for headers in platform.upload_headers) == ["1", "1000", "1000", "1000"]
    assert all("Authorization" not in headers for headers in platform.upload_headers)
    for size_bytes in (0, 1, 1999):
        small = tmp_path / "small"
        small.write_bytes(CONTENT[:size_bytes])
        await uploader.upload(job, "id-small", small)
        assert platform.files["id-small"] == CONTENT[:size_bytes]
    assert steps(platform) == ["init", "complete"]


async def test_what_stumbles_is_sent_again_and_nothing_else(
    platform: FakePlatform, uploader: Uploader, large: Path, job: Job
) -> None:
    platform.multipart_statuses = {"init": [503], "complete": [500, 503]}
    platform.part_statuses = {2: [502, 429]}
    await uploader.upload(job, "id-large.bin", large)
    assert platform.files == {"id-large.bin": CONTENT}
    assert steps(platform) == ["init", "init", "complete", "complete", "complete"]
    assert len(platform.upload_headers) == 6


async def test_a_url_that_has_expired_is_replaced(
    platform: FakePlatform, uploader: Uploader, large: Path, job: Job, tmp_path: Path
) -> None:
    platform.part_statuses = {3: [403]}
    await uploader.upload(job, "id-large.bin", large)
    assert platform.files == {"id-large.bin": CONTENT}
    assert steps(platform) == ["init", "abort", "init", "complete"]
    small = tmp_path / "small"
    small.write_bytes(b"x")
    platform.upload_statuses = [403, 403]
    await uploader.upload(job, "id-small", small)
    assert platform.files["id-small"] == b"x"
    assert len(platform.upload_requests) == 3
    platform.upload_statuses = [403] * 3
    with pytest.raises(PlatformRefusedError, match="the URL has expired"):
        await uploader.upload(job, "id-small", small)


@pytest.mark.parametrize("where", ["init", "part", "complete"])
async def test_a_stale_attempt_gives_up_and_takes_its_parts_back(
    platform: FakePlatform, uploader: Uploader, large: Path, job: Job, where: str
) -> None:
    if where == "part":
        platform.part_statuses = {2: [409]}
    else:
        platform.multipart_statuses = {where: [409]}
    with pytest.raises(StaleAttemptError):
        await uploader.upload(job, "id-large.bin", large)
    assert (platform.files, platform.parts) == ({}, {})
    assert "abort" in steps(platform) or where == "init"


async def test_a_cancel_takes_the_parts_back(platform: FakePlatform, uploader: Uploader, large: Path, job: Job) -> None:
    platform.part_statuses = {2: [503] * 100_000}
    uploading = asyncio.ensure_future(uploader.upload(job, "id-large.bin", large))
    async with asyncio.timeout(60):
        while len(platform.upload_headers) <= 5:
            await asyncio.sleep(0.01)
    uploading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await uploading
    assert steps(platform)[-1] == "abort"
    assert platform.parts == {}


async def test_a_platform_without_parts_gets_one_piece(
    platform: FakePlatform, uploader: Uploader, large: Path, job: Job
) -> None:
    platform.multipart_statuses = {"init": [404]}
    await uploader.upload(job, "id-large.bin", large)
    assert platform.files == {"id-large.bin": CONTENT}
    assert len(platform.upload_requests) == 1


async def test_storage_that_is_away_for_a_while_gets_the_file_when_it_is_back(
    platform: FakePlatform, uploader: Uploader, large: Path, job: Job
) -> None:
    await platform.stop()
    uploading = asyncio.ensure_future(uploader.upload(job, "id-large.bin", large))
    await asyncio.sleep(0.1)
    assert not uploading.done()
    await platform.start()
    await asyncio.wait_for(uploading, 60)
    assert platform.files == {"id-large.bin": CONTENT}


async def test_a_file_that_is_gone_says_so(
    platform: FakePlatform, uploader: Uploader, job: Job, tmp_path: Path
) -> None:
    with pytest.raises(FileNotFoundError):
        await uploader.upload(job, "id-x", tmp_path / "gone")
