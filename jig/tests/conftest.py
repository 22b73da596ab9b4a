"""A fake platform, a project folder, and jig as a real process."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

# --import-mode=importlib puts no directory on the path; the modules beside this one need theirs.
sys.path.insert(0, str(Path(__file__).parent))

from fake_platform import KEY, READY, FakePlatform, FakeServer
from jig_process import Jig


@pytest.fixture
def platform() -> Iterator[FakePlatform]:
    server = FakeServer()
    yield server.start()
    server.stop()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An empty project folder."""
    path = tmp_path / "hello"
    path.mkdir()
    return path


@pytest.fixture
def bare_jig(tmp_path: Path, folder: Path) -> Jig:
    """jig in the project folder, knowing no platform and no key."""
    kept = {key: os.environ[key] for key in ("PATH", "HOME", "LANG", "UV_CACHE_DIR") if key in os.environ}
    return Jig(folder, {**kept, "JIG_CONTEXTS": str(tmp_path / "contexts.json"), "TMPDIR": str(tmp_path)})


@pytest.fixture
def jig(bare_jig: Jig, platform: FakePlatform) -> Jig:
    """jig in the project folder, told the platform by its environment."""
    told = {"TOGETHER_BASE_URL": platform.url, "TOGETHER_API_KEY": KEY}
    return Jig(bare_jig.folder, {**bare_jig.environment, **told})


@pytest.fixture
def project(folder: Path) -> Path:
    """A project in the short form, without requirements."""
    (folder / "worker.py").write_text("class Hello: ...\n")
    (folder / "jig.toml").write_text('name = "hello"\nworker = "worker:Hello"\n')
    return folder


@pytest.fixture
def deployed(platform: FakePlatform, project: Path) -> FakePlatform:
    """A platform on which the project's deployment is ready."""
    platform.rollout = [READY]
    platform.deploy("hello")
    return platform
