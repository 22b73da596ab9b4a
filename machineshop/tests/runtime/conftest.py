"""The machines that runtimes are tested on; whatever runs on them is ended with the test."""

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from docker_engine import docker_engine
from machineshop.runtime.docker.body import Limits
from runtime.harness import DockerWorld, FakeWorld, ProcessWorld, World

ON_DOCKER = {
    "test_a_replica_that_was_adopted_is_started_again_with_its_secrets",
    "test_it_offers_what_the_platform_asks_of_a_runtime",
    "test_a_crashed_replica_starts_again_as_itself",
    "test_an_exit_while_the_server_was_away_is_seen_and_told",
    "test_a_deleted_deployment_ends_and_is_remembered_for_a_while",
    "test_replicas_start_once_their_volume_is_loaded_and_say_so",
}
"""What of the conformance suite runs in containers each time, as they take a second each to start. With
MACHINESHOP_TEST_ALL_ON_DOCKER=1 all of it does."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    everything = bool(os.environ.get("MACHINESHOP_TEST_ALL_ON_DOCKER"))
    items[:] = [item for item in items if everything or not _is_left_out(item)]


def _is_left_out(item: pytest.Item) -> bool:
    called = getattr(item, "callspec", None)
    if called is None or called.params.get("world") != "docker":
        return False
    return getattr(item, "originalname", "") not in ON_DOCKER


@pytest.fixture(autouse=True)
def impatience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits are as in life, only shorter; their real lengths are checked where they are computed."""
    monkeypatch.setattr("machineshop.runtime.health.STEADY_INTERVAL_SECONDS", 0.1)
    monkeypatch.setattr("machineshop.runtime.replica.FIRST_BACK_OFF_SECONDS", 0.25)
    monkeypatch.setattr("machineshop.runtime.runs.REPORT_RETRY_SECONDS", 0.1)


@pytest.fixture(scope="session")
def endpoint() -> str:
    """A container engine with an image of Python; where there is none, what needs it is skipped, but not in CI."""
    return docker_engine()


@pytest.fixture(scope="session")
def environments(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("environments")


@pytest.fixture
async def machine(tmp_path: Path, environments: Path) -> AsyncIterator[ProcessWorld]:
    world = ProcessWorld(tmp_path / "data", environments)
    await world.runtime.start()
    yield world
    await world.close()


@pytest.fixture
async def dock(tmp_path: Path, endpoint: str) -> AsyncIterator[DockerWorld]:
    """A machine with an engine, whose containers may have few processes."""
    world = DockerWorld(tmp_path / "data", endpoint, Limits(pids=40, log_bytes=256 * 1024))
    await world.runtime.start()
    yield world
    await world.close()


@pytest.fixture(params=["fake", "process", "docker"])
async def world(request: pytest.FixtureRequest, tmp_path: Path, environments: Path) -> AsyncIterator[World]:
    made: World
    if request.param == "docker":
        # It is counted from when the engine saw the end, and what came before the next start is to be seen.
        request.getfixturevalue("monkeypatch").setattr("machineshop.runtime.replica.FIRST_BACK_OFF_SECONDS", 5.0)
        made = DockerWorld(tmp_path / "data", request.getfixturevalue("endpoint"))
    else:
        made = FakeWorld() if request.param == "fake" else ProcessWorld(tmp_path / "data", environments)
    await made.runtime.start()
    yield made
    await made.close()
