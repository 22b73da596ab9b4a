"""A Python with a project's pinned requirements and sprocket, as a platform would make it; kept for the next time."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from jig.bundle.requirements import Requirements
from jig.errors import BundleError, TrialError
from jig.trial.sdk import Sdk
from jig.uv import INSTALL_SECONDS_MAX, install_arguments, run_uv, venv_arguments

FORMAT = "1"  # part of the key: changed when environments are made in another way
READY = "jig-ready"  # written last, so that one whose making was interrupted is made anew
UNUSED_KEPT_SECONDS = 14 * 86_400.0


def cache_folder(environment: Mapping[str, str]) -> Path:
    """$XDG_CACHE_HOME/jig/environments, else ~/.cache/jig/environments."""
    home = Path(environment.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return home / "jig" / "environments"


def environment_key(python_version: str, requirements: str, sdk: Sdk) -> str:
    """What an environment is known by: all that goes into it."""
    parts = (FORMAT, sys.platform, python_version, requirements, sdk.digest())
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]


def make_environment(python_version: str, requirements: Requirements, sdk: Sdk) -> Path:
    """The folder of an environment; quick where there is one already.

    Raises:
        BundleError: there is no such Python here, or uv could not install.
        TrialError: the cache cannot be written.
    """
    cache = cache_folder(os.environ)
    folder = cache / environment_key(python_version, requirements.text, sdk)
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with locked(folder.with_suffix(".lock")):
            if not (folder / READY).exists():
                shutil.rmtree(folder, ignore_errors=True)
                fill(folder, python_version, requirements, sdk)
            (folder / READY).touch()
        prune(cache, time.time())
    except OSError as error:
        raise TrialError(f"Cannot keep an environment in {cache}: {error.strerror}.") from error
    return folder


def fill(folder: Path, python_version: str, requirements: Requirements, sdk: Sdk) -> None:
    """Make it: a Python, the pinned requirements, what sprocket requires, and sprocket itself."""
    root = Path(folder.anchor)  # not below somebody's project, whose settings uv would take for ours
    try:
        run_uv(venv_arguments(folder, python_version), root, failure="The environment cannot be made")
    except BundleError as error:
        hint = "Install it, set another image.python_version, or name a Python with --python."
        raise BundleError(f"This machine has no Python {python_version}.\n{error.message}", hint=hint) from error
    if requirements.count:
        # They are pinned, so nothing is resolved again: a dependency that the lock leaves out stays out.
        wanted = folder / "jig-requirements.txt"
        wanted.write_text(requirements.text)
        install(folder, root, "--no-deps", "--requirements", str(wanted))
    if sdk.requirements:
        install(folder, root, *sdk.requirements)
    for packages in (folder / "lib").glob("python3*/site-packages"):
        shutil.copytree(sdk.folder, packages / sdk.folder.name, ignore=shutil.ignore_patterns("__pycache__"))


def install(folder: Path, root: Path, *wanted: str) -> None:
    """Install into the environment."""
    arguments = install_arguments(folder, *wanted)
    failure = "The project's requirements cannot be installed"
    run_uv(arguments, root, failure=failure, seconds_max=INSTALL_SECONDS_MAX)


def prune(cache: Path, now: float) -> None:
    """Remove the environments that nobody has asked for in a long time."""
    for marker in cache.glob(f"*/{READY}"):
        if now - marker.stat().st_mtime > UNUSED_KEPT_SECONDS:
            shutil.rmtree(marker.parent, ignore_errors=True)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock that other runs of jig respect too; who has it is busy with uv, and bounded."""
    with path.open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
