"""What tests of containers share: an image with a worker."""

from collections.abc import Iterator

import pytest

from contract.container_clients import need_docker
from worker_image import build, remove


@pytest.fixture(scope="module")
def worker_image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An image with a worker, in the engine alone."""
    need_docker()
    name = build(tmp_path_factory.mktemp("image"))
    yield name
    remove(name)
