"""Workers in the shapes that people have written for the older SDK run here as they are, from their own jig config."""

import base64
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from platform_process import PlatformProcess

SHAPES = Path(__file__).parent / "worker_shapes"

Deploy = Callable[..., Path]


@pytest.fixture
def deployed(platform: PlatformProcess, tmp_path: Path) -> Iterator[Deploy]:
    """Deploy a shape from a copy, since jig leaves a file beside the config; gives the folder."""
    folders: list[Path] = []

    def deploy(shape: str, variables: str = "") -> Path:
        folder = Path(shutil.copytree(SHAPES / shape, tmp_path / shape))
        with (folder / "pyproject.toml").open("a") as config:
            config.write(variables)
        folders.append(folder)
        platform.deploy(folder)
        return folder

    yield deploy
    for folder in folders:
        platform.jig("destroy", "--yes", cwd=folder)


def test_a_plain_worker(platform: PlatformProcess, deployed: Deploy) -> None:
    folder = deployed("plain")

    job = platform.finished("shape-plain", platform.submit("shape-plain", {"name": "Ada"}))

    assert job["outputs"] == {"message": "Good morning, Ada", "greeted": 2}, "the warm-up was the first"
    assert job["info"]["greeted"] == 2
    assert "set up" in platform.jig("logs", cwd=folder).stdout


def test_a_worker_with_a_volume_a_secret_and_files(platform: PlatformProcess, deployed: Deploy) -> None:
    folder = deployed("pantry")
    (folder / "order.txt").write_text("table 7")
    payload = {"dish": "curry", "order": "@order.txt", "bill": True}

    job = json.loads(platform.jig("submit", "--watch", "--json", "--payload", json.dumps(payload), cwd=folder).stdout)

    outputs = job["outputs"]
    assert outputs["menu"] == ["curry", "toast"]
    assert outputs["plate"] == "curry: onions, curry, coconut milk, with saffron"
    assert outputs["order"] == "table 7"
    with platform.client() as client:
        assert client.get(outputs["bill"], follow_redirects=True).text == "curry: 7.50\n"


def test_a_worker_behind_http(platform: PlatformProcess, deployed: Deploy) -> None:
    deployed("web")

    with platform.client() as client:
        answer = client.post(
            "/v1/deployment-request/shape-web/v1/tones", json={"audio_data": base64.b64encode(b"\x01\x02\xf0").decode()}
        )

    assert answer.status_code == 200, answer.text
    assert base64.b64decode(answer.json()["audio_data"]) == b"\x02\x04\xff"


def test_a_worker_in_several_ranks(platform: PlatformProcess, deployed: Deploy, torch_path: str) -> None:
    """PyTorch comes from this machine: to install it would take the test minutes."""
    deployed("ranks", f'PYTHONPATH = "{torch_path}"\n')

    job = platform.finished("shape-ranks", platform.submit("shape-ranks", {"brightness": 2}))

    assert job["status"] == "done", job
    assert job["info"]["ranks"] == 2
    with platform.client() as client:
        assert client.get(job["outputs"]["output"], follow_redirects=True).text == "6 6 6 6"


def test_run_and_exit_needs_no_platform() -> None:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("TOGETHER_")}

    finished = subprocess.run(
        [sys.executable, "greeter.py", "--queue", "--model", "some/model"],
        cwd=SHAPES / "plain",
        env={**environ, "RUN_AND_EXIT": "2"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert finished.returncode == 0, finished.stderr
    assert "greeted 2" in finished.stderr
