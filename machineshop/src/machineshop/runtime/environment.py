"""Python environments for bundles, made by uv and shared by all bundles that ask for the same.

Place in the flow: `process.py` asks for the environment of a bundle. It is made once, under a lock; what makes it
complete is a marker written last, so that one whose making was interrupted is made anew. It always holds the platform's
own sprocket, which a bundle therefore never names.
"""

import asyncio
import contextlib
import fcntl
import hashlib
import logging
import os
import shutil
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import uv

from machineshop.runtime.engine import PreparationFailed

LONGEST_MAKING_SECONDS = 1800.0
LOCK_LOOK_SECONDS = 0.1
UNUSED_KEPT_SECONDS = 7 * 86_400.0
LINES_QUOTED = 12
"""Of uv's output in a message: enough for a resolution error, which ends with its reason."""
FORMAT = "1"
"""Part of the hash: changed when environments are made in another way."""
READY = "machineshop-ready"
_PASSED_ON = ("UV_", "XDG_", "CC", "CXX", "CFLAGS", "LDFLAGS", "CUDA_HOME", "NETRC")

logger = logging.getLogger(__name__)


class Environments:
    """The environments on this machine.

    Args:
        folder: Where they are kept.
        wheels: The folder with sprocket's wheel.
        variables: What uv gets as its environment, beside its own settings.
    """

    def __init__(self, folder: Path, wheels: Path, variables: dict[str, str]) -> None:
        self._folder, self._wheels = folder, wheels
        own = {name: value for name, value in os.environ.items() if name.startswith(_PASSED_ON)}
        self._variables = {**variables, **own, "UV_NO_PROGRESS": "1", "NO_COLOR": "1"}

    async def make(self, python_version: str, requirements: str) -> Path:
        """Get an environment with these requirements and sprocket; quick when there is one already.

        Raises:
            PreparationFailed: There is no such Python here, or uv could not install; its last lines are in the message.
        """
        wheel = self.sprocket_wheel()
        folder = self._folder / _key(python_version, requirements, wheel)
        if (folder / READY).exists():
            (folder / READY).touch()
            return folder
        self._folder.mkdir(parents=True, exist_ok=True)
        async with _locked(folder.with_suffix(".lock")) as lock:
            if not (folder / READY).exists():
                await self._make(_Uv(self._variables, lock), folder, python_version, requirements, wheel)
        return folder

    def prune(self, used: frozenset[Path], now: float) -> None:
        """Remove the environments that nobody has asked for in a long time, but for those that replicas run in."""
        for marker in self._folder.glob(f"*/{READY}"):
            if marker.parent.resolve() not in used and now - marker.stat().st_mtime > UNUSED_KEPT_SECONDS:
                shutil.rmtree(marker.parent, ignore_errors=True)

    def sprocket_wheel(self) -> Path:
        """The platform's own sprocket.

        Raises:
            PreparationFailed: The platform was installed without it.
        """
        wheels = sorted(self._wheels.glob("sprocket-*.whl"))
        if len(wheels) != 1:
            raise PreparationFailed(
                "CreateContainerConfigError",
                f"The platform's own wheel of sprocket is missing from {self._wheels}. Install the platform again.",
            )
        return wheels[0]

    async def _make(self, uv: "_Uv", folder: Path, python_version: str, requirements: str, wheel: Path) -> None:
        await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
        python = await _interpreter(uv, python_version)
        await uv.do("make an environment", "venv", "--quiet", "--no-python-downloads", "--python", python, str(folder))
        into = ("pip", "install", "--quiet", "--python", str(folder / "bin" / "python"))
        if requirements.strip():
            wanted = folder / "machineshop-requirements.txt"
            wanted.write_text(requirements)
            # They are locked, so nothing is resolved again: a dependency that the lock leaves out stays out.
            await uv.do("install the bundle's requirements", *into, "--no-deps", "--requirements", str(wanted))
        await uv.do("install sprocket", *into, str(wheel))
        (folder / READY).touch()
        logger.info("environment made: folder=%s", folder.name)


class _Uv:
    """Runs uv, which holds the lock too: should the server be killed, its successor waits for uv to end."""

    def __init__(self, variables: dict[str, str], lock: int) -> None:
        self._variables, self._lock = variables, lock

    async def do(self, purpose: str, *arguments: str) -> None:
        """Run a command that must succeed."""
        code, output = await self.run(*arguments)
        if code:
            last = "\n".join(output.splitlines()[-LINES_QUOTED:])
            raise PreparationFailed("CreateContainerConfigError", f"uv could not {purpose}:\n{last}")

    async def run(self, *arguments: str) -> tuple[int, str]:
        """Run a command; returns its exit code and what it printed."""
        process = await asyncio.create_subprocess_exec(
            uv.find_uv_bin(),
            *arguments,
            cwd="/",  # not below somebody's project, whose settings uv would take for ours
            env=self._variables,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            pass_fds=(self._lock,),
            start_new_session=True,
        )
        try:
            async with asyncio.timeout(LONGEST_MAKING_SECONDS):
                output, _ = await process.communicate()
        except TimeoutError:
            return 1, f"It took longer than {LONGEST_MAKING_SECONDS / 60:.0f} minutes."
        finally:
            if process.returncode is None:
                # uv runs build programs of its own; they go with it.
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                await process.wait()
        return process.returncode or 0, output.decode(errors="replace").strip()


async def _interpreter(uv: _Uv, version: str) -> str:
    """An interpreter of this version: the platform's own where that is one, so that nothing need be searched."""
    own = sys.version_info
    if not version or version.split(".")[:2] == [str(own.major), str(own.minor)]:
        return sys.executable
    code, output = await uv.run("python", "find", "--system", "--no-python-downloads", version)
    if code:
        raise PreparationFailed(
            "CreateContainerConfigError",
            f"The bundle asks for Python {version}, which this machine does not have; the platform's own is "
            f"{own.major}.{own.minor}. Install it there, or set another python_version in [tool.jig.image].",
        )
    return output.splitlines()[-1]


def _key(python_version: str, requirements: str, wheel: Path) -> str:
    sprocket = hashlib.sha256(wheel.read_bytes()).hexdigest()
    lines = "\n".join(line.strip() for line in requirements.strip().splitlines())
    parts = (FORMAT, sys.version, python_version, lines, sprocket)
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]


@contextlib.asynccontextmanager
async def _locked(path: Path) -> AsyncIterator[int]:
    """Hold a lock that other servers on this machine respect too; waiting for it may be cancelled."""
    with path.open("wb") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                await asyncio.sleep(LOCK_LOOK_SECONDS)
        yield file.fileno()
