"""Loads the three packages first: pytest would otherwise take the folders of the same names for them."""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

import jig
import machineshop
import sprocket

if TYPE_CHECKING:
    from object_storage import ObjectStorage
    from postgres_cluster import PostgresCluster

PACKAGES = (jig, machineshop, sprocket)

# How fast this machine is today must not decide whether a property holds.
settings.register_profile("default", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("default")


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Thousands of tests are loaded and stay: to look for garbage among them takes a third of the time meanwhile."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.collect()
        gc.freeze()
        gc.enable()


# Whoever starts us in the background has us ignore Ctrl-C, and so all that we start; some tests send it.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def torch_path() -> str:
    """Where PyTorch is, for PYTHONPATH; what needs it is skipped without it, but not in CI."""
    found = next((Path(__file__).parent / ".venv-torch").glob("lib/python*/site-packages/torch"), None)
    if found is None:
        reason = "PyTorch is not here: `make torch` gets it"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return str(found.parent)


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresCluster]:
    """A Postgres server; where there is none, what needs it is skipped, but not in CI."""
    from postgres_cluster import make_cluster  # noqa: PLC0415 - most tests need neither it nor what follows

    cluster = make_cluster()
    yield cluster
    cluster.remove()


@pytest.fixture(scope="session")
def objects() -> Iterator[ObjectStorage]:
    """An object storage; where there is none, what needs it is skipped, but not in CI."""
    from object_storage import make_object_storage  # noqa: PLC0415 - it takes a moment to load

    storage = make_object_storage()
    yield storage
    storage.stop()
