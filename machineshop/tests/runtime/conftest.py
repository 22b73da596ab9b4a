"""The machines that runtimes are tested on; whatever runs on them is ended with the test."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from runtime.harness import FakeWorld, ProcessWorld, World


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
