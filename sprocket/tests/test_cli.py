"""The command line, its errors, and what importing costs."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from sprocket_process import WORKERS, Launcher

TRIES = 5


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["nowhere:Model"], "there is no module nowhere in "),
        (["zoo"], "must be given as module:Class"),
        (["zoo:Lion"], "has no Lion; its workers are: Zoo, AsyncZoo"),
        (["zoo:NoWorker"], "the class NoWorker is no worker"),
        (["zoo:asyncio"], "an object of type module is no worker"),
        (["broken:Model"], "failed to import: ValueError: at import"),
        (["needy:Model"], "imports not_installed_anywhere, which is not installed: add its package to "),
        (["zoo:Zoo", "--queue"], "--queue needs TOGETHER_API_KEY, TOGETHER_API_BASE_URL, TOGETHER_DEPLOYMENT_NAME"),
        (["zoo:Zoo", "--port", "99999"], "--port must be a number from 0 to 65535"),
    ],
)
async def test_mistakes_are_told_in_one_line(launch: Launcher, arguments: list[str], complaint: str) -> None:
    worker = await launch.start("-m", "sprocket", *arguments)
    assert await worker.exit_code() == 2
    line = worker.stderr.strip().splitlines()[-1]
    assert line.startswith("sprocket: ")
    assert complaint in line
    if "broken" not in arguments[0]:
        assert "Traceback" not in worker.stderr
    else:
        files = [line for line in worker.stderr.splitlines() if line.startswith('  File "')]
        assert [Path(line.split('"')[1]).name for line in files] == ["broken.py"]


async def test_a_port_in_use_is_told(launch: Launcher) -> None:
    with socket.socket() as taken:
        taken.bind(("0.0.0.0", 0))
        taken.listen()
        port = taken.getsockname()[1]
        worker = await launch.start("-m", "sprocket", "zoo:Zoo", PORT=str(port))
        assert await worker.exit_code() == 2
    assert f"sprocket: port {port} is in use" in worker.stderr


async def test_the_command_finds_workers_in_its_directory(launch: Launcher) -> None:
    command = Path(sys.executable).with_name("sprocket")
    process = await asyncio.create_subprocess_exec(
        str(command), "zoo:Lion", cwd=WORKERS, stderr=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    _, stderr = await asyncio.wait_for(process.communicate(), 60)
    assert b"its workers are: Zoo" in stderr


def import_seconds(modules: str) -> float:
    code = f"import time; t = time.process_time(); import {modules}; print(time.process_time() - t)"
    return float(subprocess.check_output([sys.executable, "-c", code], env=dict(os.environ)))


def test_importing_sprocket_takes_less_than_importing_an_http_client() -> None:
    # On a machine with nothing else to do that is 0.3 s, and sprocket has half of it: less than 150 ms.
    tries = [(import_seconds("sprocket"), import_seconds("asyncio, aiohttp")) for _ in range(TRIES)]
    assert min(ours for ours, _ in tries) < 0.75 * min(theirs for _, theirs in tries)


def test_importing_sprocket_does_not_import_aiohttp() -> None:
    code = "import sprocket, sys; print('aiohttp' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "False"
