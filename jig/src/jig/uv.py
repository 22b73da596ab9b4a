"""The uv that came with jig: how it is called (pure), and the call."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from uv import find_uv_bin

from jig.errors import BundleError

SECONDS_MAX = 300  # resolving a large set of packages over a slow network
INSTALL_SECONDS_MAX = 1800  # fetching gigabytes of them
# Keys of the platform are no business of a package build; a foreign VIRTUAL_ENV only makes uv warn.
HIDDEN_PREFIXES = ("TOGETHER_", "MACHINESHOP_")
HIDDEN_NAMES = ("VIRTUAL_ENV",)
STDERR_LINES_SHOWN = 12


def export_arguments(extras: Sequence[str], groups: Sequence[str]) -> list[str]:
    """Uv's arguments that print the pinned lines of a uv.lock, without the project itself and without sprocket.

    Args:
        extras: which of the project's are wanted.
        groups: of dependencies, beside the default ones.
    """
    return [
        "export",
        "--frozen",
        "--quiet",
        "--no-header",
        "--no-annotate",
        "--no-hashes",
        "--no-dev",
        "--no-emit-project",
        "--no-emit-package",
        "sprocket",
        *(word for extra in extras for word in ("--extra", extra)),
        *(word for group in groups for word in ("--group", group)),
    ]


def compile_arguments(python_version: str) -> list[str]:
    """Uv's arguments that pin the requirements on its standard input for a Python version."""
    return ["pip", "compile", "--quiet", "--no-header", "--no-annotate", "--python-version", python_version, "-"]


def venv_arguments(folder: Path, python_version: str) -> list[str]:
    """Uv's arguments that make an environment, with a Python that this machine has."""
    return ["venv", "--quiet", "--no-project", "--no-python-downloads", "--python", python_version, str(folder)]


def install_arguments(folder: Path, *wanted: str) -> list[str]:
    """Uv's arguments that install into an environment."""
    return ["pip", "install", "--quiet", "--python", str(folder / "bin" / "python"), *wanted]


def clean_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment for uv: everything but the platform's keys and what confuses it."""
    return {
        name: value
        for name, value in environment.items()
        if not name.startswith(HIDDEN_PREFIXES) and name not in HIDDEN_NAMES
    }


def run_uv(
    arguments: Sequence[str],
    folder: Path,
    stdin: str = "",
    *,
    failure: str = "The requirements cannot be locked",
    seconds_max: int = SECONDS_MAX,
) -> str:
    """Run uv in a folder and return what it printed.

    Args:
        arguments: its command line.
        folder: where it runs.
        stdin: what it reads.
        failure: what its failing means, as the error begins.
        seconds_max: how long it may take.

    Raises:
        BundleError: there is no uv, it failed, or it took too long.
    """
    try:
        finished = subprocess.run(
            [find_uv_bin(), *arguments],
            cwd=folder,
            env=clean_environment(os.environ),
            input=stdin,
            capture_output=True,
            text=True,
            timeout=seconds_max,
            check=True,
        )
    except FileNotFoundError as error:
        raise BundleError("uv is not installed.", hint="Install it with `pip install uv`.") from error
    except subprocess.TimeoutExpired as error:
        raise BundleError(f"uv did not finish within {seconds_max} s: uv {' '.join(arguments)}") from error
    except subprocess.CalledProcessError as error:
        tail = "\n".join(error.stderr.strip().splitlines()[-STDERR_LINES_SHOWN:])
        raise BundleError(f"{failure}: uv {arguments[0]} failed.\n{tail}") from error
    return finished.stdout
