"""Fixtures: a fake platform on a real socket, and real worker processes that talk to it."""

from __future__ import annotations

import ssl
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

# --import-mode=importlib puts no directory on the path; the modules beside this one need theirs.
sys.path.insert(0, str(Path(__file__).parent))

from sprocket_fake_platform import FakePlatform
from sprocket_file_server import FileServer, make_certificate, server_context
from sprocket_process import Launcher


@pytest.fixture
async def platform() -> AsyncIterator[FakePlatform]:
    fake = FakePlatform()
    await fake.start()
    yield fake
    await fake.stop()


@pytest.fixture
async def launch(tmp_path: Path) -> AsyncIterator[Launcher]:
    """Start worker processes: `await launch(platform, "zoo:Zoo")`; they are ended after the test."""
    launcher = Launcher(tmp_path)
    yield launcher
    await launcher.close()


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def tls(certificate: Path) -> ssl.SSLContext:
    return server_context(certificate)


@pytest.fixture
async def files(tls: ssl.SSLContext) -> AsyncIterator[FileServer]:
    """A server of files over https."""
    server = FileServer(tls)
    await server.start()
    yield server
    await server.stop()
