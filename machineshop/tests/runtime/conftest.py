"""The machines that runtimes are tested on; whatever runs on them is ended with the test."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from runtime.harness import FakeWorld, ProcessWorld, World


@pytest.fixture(autouse=True)
def impatience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits are as in life, only shorter; their real lengths are checked where they are computed."""
    monkeypatch.setattr("machineshop.runtime.health.STEADY_INTERVAL_SECONDS", 0.1)
    monkeypatch.setattr("machineshop.runtime.replica.FIRST_BACK_OFF_SECONDS", 0.25)
    monkeypatch.setattr("machineshop.runtime.runs.REPORT_RETRY_SECONDS", 0.1)


@pytest.fixture(scope="session")
def environments(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("environments")


@pytest.fixture
async def machine(tmp_path: Path, environments: Path) -> AsyncIterator[ProcessWorld]:
    world = ProcessWorld(tmp_path / "data", environments)
    await world.runtime.start()
    yield world
    await world.close()


@pytest.fixture(params=["fake", "process"])
async def world(request: pytest.FixtureRequest, tmp_path: Path, environments: Path) -> AsyncIterator[World]:
    made: World = FakeWorld() if request.param == "fake" else ProcessWorld(tmp_path / "data", environments)
    await made.runtime.start()
    yield made
    await made.close()
