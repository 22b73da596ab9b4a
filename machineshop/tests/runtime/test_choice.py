"""What a start makes of a container engine that answers, comes late, or does not come."""

import asyncio
import logging
from pathlib import Path

import pytest

from machineshop.errors import RuntimeUnavailable
from machineshop.runtime.base import ArtifactKind
from machineshop.runtime.choice import choose
from runtime.harness import eventually

BUNDLES = frozenset({ArtifactKind.BUNDLE})
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"


@pytest.fixture
def socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the engine should be, and nobody is."""
    path = tmp_path / "docker.sock"
    monkeypatch.setenv("DOCKER_HOST", f"unix://{path}")
    return path


@pytest.fixture
def used(tmp_path: Path) -> Path:
    """The folder of a runtime that has a container."""
    folder = tmp_path / "runtime"
    (folder / "containers" / "hello-1").mkdir(parents=True)
    (folder / "containers" / "hello-1" / "replica.json").write_text("{}")
    (folder / "containers.id").write_text("0123456789abcdef")
    return folder


@pytest.mark.usefixtures("socket")
async def test_without_an_engine_auto_runs_bundles(tmp_path: Path) -> None:
    assert (await choose("auto", tmp_path)).accepts == BUNDLES


@pytest.mark.usefixtures("socket")
async def test_without_an_engine_docker_does_not_start(tmp_path: Path) -> None:
    with pytest.raises(RuntimeUnavailable, match="use --runtime process, which needs none"):
        await choose("docker", tmp_path)


@pytest.mark.usefixtures("socket")
@pytest.mark.parametrize("asked", ["auto", "docker"])
async def test_containers_that_have_been_are_not_gone_on_without(
    asked: str, used: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(RuntimeUnavailable, match=r"has had containers\. Start it, .*--runtime process"):
        await choose(asked, used, patience_seconds=0.1)
    assert "the start waits for it, for 0 s at most" in caplog.text


@pytest.mark.usefixtures("socket")
async def test_process_leaves_containers_alone_and_says_so(used: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert (await choose("process", used)).accepts == BUNDLES
    assert "containers are left alone" in caplog.text


async def test_an_engine_that_comes_late_is_waited_for(
    used: Path, socket: Path, caplog: pytest.LogCaptureFixture
) -> None:
    choosing = asyncio.create_task(choose("auto", used, patience_seconds=60))

    async def waits() -> bool:
        return "the start waits for it" in caplog.text

    with caplog.at_level(logging.WARNING):
        await eventually(waits)
    server = await asyncio.start_unix_server(_answer, socket)
    assert (await choosing).accepts == frozenset(ArtifactKind)
    server.close()


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Be an engine with nothing to say."""
    while await reader.readline():
        await reader.readuntil(b"\r\n\r\n")
        writer.write(ANSWER)
    writer.close()
