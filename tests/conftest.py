"""What the tests of the whole share: one real platform for those that leave it as they found it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from platform_process import PlatformProcess
from worker_image import forget_first_layers


def pytest_sessionfinish(session: pytest.Session) -> None:
    if not hasattr(session.config, "workerinput"):  # once, when all processes of the session have ended
        forget_first_layers()


@pytest.fixture(scope="session")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PlatformProcess]:
    """A platform that the whole session shares."""
    process = PlatformProcess(tmp_path_factory.mktemp("platform"))
    process.make_database()
    process.start()
    yield process
    process.close()


@pytest.fixture
def own_platform(tmp_path: Path) -> Iterator[PlatformProcess]:
    """A platform for one test, which may break it."""
    process = PlatformProcess(tmp_path)
    process.make_database()
    process.start()
    yield process
    process.close()
