"""Environments made by uv: once, completely, and with a clear word when they cannot be."""

import asyncio
import json
import os
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

from machineshop.runtime.engine import PreparationFailed
from machineshop.runtime.environment import Environments
from machineshop.runtime.process import INHERITED


def wheel(folder: Path, name: str = "sprocket", version: str = "1.0") -> Path:
    """A wheel with one module and no dependencies."""
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}-{version}-py3-none-any.whl"
    info = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{name}.py", f"VERSION = '{version}'\n")
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return path


@pytest.fixture
def environments(tmp_path: Path) -> Environments:
    wheel(tmp_path / "wheels")
    inherited = {name: value for name, value in os.environ.items() if name in INHERITED}
    return Environments(tmp_path / "environments", tmp_path / "wheels", inherited)


def imported(environment: Path, name: str) -> str:
    program = f"import json, sys, {name}; print(json.dumps([{name}.VERSION, sys.version.split()[0]]))"
    output = subprocess.run([environment / "bin/python", "-c", program], capture_output=True, check=True, text=True)
    found: str = json.loads(output.stdout)[0]
    return found


async def test_the_same_wish_gives_the_same_environment_made_once(environments: Environments, tmp_path: Path) -> None:
    local = wheel(tmp_path / "local", "gadget")
    requirements = f"gadget @ {local.as_uri()}\n"
    both = await asyncio.gather(environments.make("3.11", requirements), environments.make("3.11", requirements))
    assert both[0] == both[1]
    made_at = (both[0] / "pyvenv.cfg").stat().st_mtime_ns
    assert await environments.make("3.11", f"\n{requirements}\n\n") == both[0]
    assert (both[0] / "pyvenv.cfg").stat().st_mtime_ns == made_at
    assert await environments.make("3.11", "") != both[0]
    assert (await asyncio.to_thread(imported, both[0], "gadget")) == "1.0"
    assert (await asyncio.to_thread(imported, both[0], "sprocket")) == "1.0"


async def test_another_sprocket_means_another_environment(environments: Environments, tmp_path: Path) -> None:
    before = await environments.make("", "")
    wheel(tmp_path / "wheels", version="1.0").unlink()
    wheel(tmp_path / "wheels", version="2.0")
    after = await environments.make("", "")
    assert before != after
    assert (await asyncio.to_thread(imported, after, "sprocket")) == "2.0"


async def test_an_environment_whose_making_was_interrupted_is_made_anew(environments: Environments) -> None:
    folder = await environments.make("", "")
    (folder / "machineshop-ready").unlink()
    (folder / "bin/python").unlink()
    assert await environments.make("", "") == folder
    assert (await asyncio.to_thread(imported, folder, "sprocket")) == "1.0"


async def test_a_cancelled_making_leaves_nothing_running_and_can_be_done_again(environments: Environments) -> None:
    making = asyncio.create_task(environments.make("", ""))
    await asyncio.sleep(0.03)
    making.cancel()
    with pytest.raises(asyncio.CancelledError):
        await making
    assert (await environments.make("", "") / "machineshop-ready").exists()


async def test_requirements_that_cannot_be_had_are_quoted_from_uv(environments: Environments, tmp_path: Path) -> None:
    missing = (tmp_path / "nothing-1.0-py3-none-any.whl").as_uri()
    with pytest.raises(PreparationFailed, match="uv could not install") as caught:
        await environments.make("3.11", f"nothing @ {missing}\n")
    assert caught.value.reason == "CreateContainerConfigError"
    assert "nothing-1.0-py3-none-any.whl" in caught.value.message


async def test_a_python_that_is_not_here_is_said_and_not_downloaded(environments: Environments) -> None:
    with pytest.raises(PreparationFailed) as caught:
        await environments.make("3.4", "")
    own = ".".join(str(part) for part in sys.version_info[:2])
    assert caught.value.message == (
        f"The bundle asks for Python 3.4, which this machine does not have; the platform's own is {own}. "
        "Install it there, or set another python_version in [tool.jig.image]."
    )


async def test_only_what_nobody_uses_any_more_is_removed(environments: Environments, tmp_path: Path) -> None:
    used = await environments.make("", "")
    unused = await environments.make("3.11", "")
    environments.prune(frozenset({used.resolve()}), time.time() + 6 * 86_400)
    assert (unused.exists(), used.exists()) == (True, True)
    environments.prune(frozenset({used.resolve()}), time.time() + 8 * 86_400)
    assert (unused.exists(), used.exists()) == (False, True)


async def test_without_sprockets_wheel_the_platform_says_how_to_mend_it(tmp_path: Path) -> None:
    environments = Environments(tmp_path / "environments", tmp_path / "wheels", {})
    with pytest.raises(PreparationFailed, match=r"wheel of sprocket is missing.*Install the platform again"):
        await environments.make("", "")
