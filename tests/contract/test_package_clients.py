"""The package index with the programs that people install with: pip and uv."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from uv import find_uv_bin

from platform_process import PlatformProcess

COMMAND_SECONDS = 90


class Installers:
    """pip and uv in an environment of their own, which know no index but the one they are given."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._environment = {"PATH": os.environ["PATH"], "HOME": str(folder), "PIP_CONFIG_FILE": os.devnull}
        self.run(sys.executable, "-m", "venv", "venv")

    def run(self, *argv: str) -> None:
        """A command, which must succeed."""
        finished = subprocess.run(
            argv,
            cwd=self._folder,
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=COMMAND_SECONDS,
            check=False,
        )
        assert finished.returncode == 0, f"{argv}: {finished.stdout}{finished.stderr}"

    def pip(self, *arguments: str) -> None:
        self.run("venv/bin/python", "-m", "pip", "--no-cache-dir", *arguments)

    def uv(self, *arguments: str) -> None:
        self.run(find_uv_bin(), "--no-config", "--no-cache", *arguments)

    @property
    def installed(self) -> set[str]:
        return {path.name for path in self._folder.glob("venv/lib/python3*/site-packages/*") if path.is_dir()}


@pytest.fixture
def installers(tmp_path: Path) -> Installers:
    return Installers(tmp_path)


def test_pip_and_uv_get_what_the_platform_carries(
    platform: PlatformProcess, installers: Installers, tmp_path: Path
) -> None:
    index = f"{platform.base_url}/simple"
    installers.pip("download", "--no-deps", "--index-url", index, "--dest", "got", "sprocket", "jig-together")
    assert {path.name.split("-")[0] for path in (tmp_path / "got").iterdir()} == {"sprocket", "jig_together"}
    installers.pip("install", "--no-deps", "--index-url", f"{index}/", "sprocket")
    installers.uv("pip", "install", "--python", "venv", "--no-deps", "--default-index", index, "jig-together")
    assert {"sprocket", "jig"} <= installers.installed
