"""A fake platform, a project folder, and jig as a real process."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from .fake_platform import KEY, FakeServer

JIG = Path(sys.executable).parent / "jig"
SECONDS_MAX = 60


@dataclass(frozen=True)
class Finished:
    """A process of jig that has ended."""

    code: int
    out: str
    err: str

    @property
    def json(self):
        return json.loads(self.out)


@dataclass(frozen=True)
class Jig:
    """Runs jig in a folder, with an environment of its own."""

    folder: Path
    environment: dict

    def __call__(self, *words, stdin="", **environment):
        finished = subprocess.run(
            [str(JIG), *words],
            cwd=self.folder,
            env={**self.environment, **environment},
            input=stdin,
            capture_output=True,
            text=True,
            timeout=SECONDS_MAX,
            check=False,
        )
        assert "Traceback" not in finished.stdout + finished.stderr
        return Finished(finished.returncode, finished.stdout, finished.stderr)

    def start(self, *words):
        return subprocess.Popen(
            [str(JIG), *words],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )


@pytest.fixture
def platform():
    server = FakeServer()
    yield server.start()
    server.stop()


@pytest.fixture
def folder(tmp_path):
    """An empty project folder."""
    path = tmp_path / "hello"
    path.mkdir()
    return path


@pytest.fixture
def bare_jig(tmp_path, folder):
    """jig in the project folder, knowing no platform and no key."""
    kept = {key: os.environ[key] for key in ("PATH", "HOME", "LANG", "UV_CACHE_DIR") if key in os.environ}
    return Jig(folder, {**kept, "JIG_CONTEXTS": str(tmp_path / "contexts.json")})


@pytest.fixture
def jig(bare_jig, platform):
    """jig in the project folder, told the platform by its environment."""
    told = {"TOGETHER_BASE_URL": platform.url, "TOGETHER_API_KEY": KEY}
    return Jig(bare_jig.folder, {**bare_jig.environment, **told})


@pytest.fixture
def project(folder):
    """A project in the short form, without requirements."""
    (folder / "worker.py").write_text("class Hello: ...\n")
    (folder / "jig.toml").write_text('name = "hello"\nworker = "worker:Hello"\n')
    return folder
