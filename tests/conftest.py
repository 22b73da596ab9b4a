"""What the tests of the whole share: one real platform for those that leave it as they found it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from object_storage import ObjectStorage, make_object_storage
from platform_process import PlatformProcess
from postgres_cluster import PostgresCluster, make_cluster
from worker_image import forget_first_layers


def pytest_sessionfinish(session: pytest.Session) -> None:
    if not hasattr(session.config, "workerinput"):  # once, when all processes of the session have ended
        forget_first_layers()


@pytest.fixture(scope="session")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PlatformProcess]:
    """A platform that the whole session shares."""
    process = PlatformProcess(tmp_path_factory.mktemp("platform"))
    process.start()
    yield process
    process.close()


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresCluster]:
    """A Postgres server; where there is none, what needs it is skipped, but not in CI."""
    cluster = make_cluster()
    yield cluster
    cluster.remove()


@pytest.fixture(scope="session")
def objects() -> Iterator[ObjectStorage]:
    """An object storage; where there is none, what needs it is skipped, but not in CI."""
    storage = make_object_storage()
    yield storage
    storage.stop()


@pytest.fixture
def own_platform(tmp_path: Path) -> Iterator[PlatformProcess]:
    """A platform for one test, which may break it."""
    process = PlatformProcess(tmp_path)
    process.start()
    yield process
    process.close()
