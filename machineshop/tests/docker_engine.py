"""A real container engine for tests: found, never started here."""

import os
import subprocess

import msgspec
import pytest

from machineshop.runtime.docker.api import endpoint_here

BASE_IMAGE = "python:3.11-slim"
COMMAND_SECONDS = 300


def docker_engine() -> str:
    """Where the engine is; it has an image of Python. Without it the test is skipped; in CI it fails."""
    if run_docker("info").returncode != 0:
        _missing("no Docker engine answers at DOCKER_HOST, or /var/run/docker.sock")
    if run_docker("image", "inspect", BASE_IMAGE).returncode and run_docker("pull", "-q", BASE_IMAGE).returncode:
        _missing(f"the Docker engine has no {BASE_IMAGE} and cannot pull it")
    return endpoint_here()


class Finished(msgspec.Struct, frozen=True):
    """A command that has ended."""

    returncode: int
    stdout: str
    stderr: str


def run_docker(*arguments: str, stdin: bytes = b"") -> Finished:
    """Run a command of docker."""
    try:
        done = subprocess.run(
            ["docker", *arguments], input=stdin, capture_output=True, timeout=COMMAND_SECONDS, check=False
        )
    except FileNotFoundError:
        return Finished(127, "", "docker is not installed")
    return Finished(done.returncode, done.stdout.decode(), done.stderr.decode())


def _missing(what: str) -> None:
    if os.environ.get("CI"):
        pytest.fail(what)
    pytest.skip(what)
