"""The limit of open files."""

import resource
from collections.abc import Iterator

import pytest

from machineshop.open_files import MAX_OPEN_FILES, raise_open_files_limit


@pytest.fixture
def low_limit() -> Iterator[int]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    low = min(1024, hard - 1)
    resource.setrlimit(resource.RLIMIT_NOFILE, (low, hard))
    yield low
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_the_limit_of_open_files_is_raised(low_limit: int) -> None:
    assert raise_open_files_limit() > low_limit
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert soft == min(hard, MAX_OPEN_FILES)
    assert raise_open_files_limit() == soft
