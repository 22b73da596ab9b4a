"""A platform for the time of a `jig dev`: found beside jig or on the PATH, started with a data directory of its own."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from jig.contexts import Context, Target, contexts_path, read_contexts, write_contexts
from jig.dev.keeper import ENDED, LOG, OWN_CONTEXTS, STOP_SECONDS, remember_context
from jig.errors import ContextError, DevError
from jig.trust import trusting

PROGRAM = "machineshop"
KEEPER = "jig.dev.keeper"
START_SECONDS = 60.0
LOOK_SECONDS = 0.05
LOG_LINES_SHOWN = 12


def find_program() -> Path:
    """Where machineshop is.

    Raises:
        DevError: it is neither beside jig nor on the PATH.
    """
    beside = Path(sys.executable).with_name(PROGRAM)
    found = str(beside) if beside.is_file() else shutil.which(PROGRAM)
    if found is None:
        hint = "Install it there. `jig run` tries a worker without a platform."
        raise DevError(f"machineshop is not installed: it is neither in {beside.parent} nor on the PATH.", hint=hint)
    return Path(found)


class Throwaway:
    """A platform that runs.

    Args:
        folder: where everything of it lies.
        keeper: the process that ends it with this one.
    """

    def __init__(self, folder: Path, keeper: subprocess.Popen[bytes]) -> None:
        self._folder = folder
        self._keeper = keeper

    def wait(self) -> Target:
        """Wait until it answers, and give its address and key.

        Raises:
            DevError: it does not.
        """
        end = time.monotonic() + START_SECONDS
        while (target := self._target()) is None:
            if self.has_ended or time.monotonic() > end:
                raise DevError(f"The platform did not start:\n{self.last_lines()}")
            time.sleep(LOOK_SECONDS)
        return target

    def check(self) -> None:
        """Look whether it still runs.

        Raises:
            DevError: it has ended.
        """
        if self.has_ended:
            raise DevError(f"The platform has ended:\n{self.last_lines()}")

    @property
    def has_ended(self) -> bool:
        """True where its process is gone."""
        return self._keeper.poll() is not None or (self._folder / ENDED).exists()

    def last_lines(self) -> str:
        """The end of what it has written."""
        with contextlib.suppress(OSError):
            return "\n".join((self._folder / LOG).read_text(errors="replace").splitlines()[-LOG_LINES_SHOWN:])
        return ""

    def enter_context(self, target: Target) -> str:
        """Make it the current context of jig, for as long as it runs; returns the context's name.

        Raises:
            ContextError: the contexts file cannot be written.
        """
        path = contexts_path(os.environ)
        contexts = read_contexts(path)
        name = f"dev-{urlsplit(target.base_url).port}"
        remember_context(self._folder, name, contexts.current)
        write_contexts(path, contexts.with_context(name, Context(target.base_url, target.api_key or "", target.ca)))
        return name

    def _target(self) -> Target | None:
        with contextlib.suppress(OSError, ContextError, httpx.HTTPError):
            contexts = read_contexts(self._folder / OWN_CONTEXTS)
            if (own := contexts.contexts.get(contexts.current or "")) is None:
                return None
            health, timeout = f"{own.base_url}/health", LOOK_SECONDS * 20
            if httpx.get(health, timeout=timeout, verify=trusting(own.ca)).status_code == httpx.codes.OK:
                return Target(own.base_url, own.api_key, "jig dev", own.ca)
        return None


@contextmanager
def throwaway_platform(port: int) -> Iterator[Throwaway]:
    """A platform for the time of the block; nothing is left of it afterwards.

    Args:
        port: where it listens; 0 for any free one.

    Raises:
        DevError: there is no machineshop here.
    """
    program = find_program()
    folder = Path(tempfile.mkdtemp(prefix="jig-dev-"))
    serve = [str(program), "serve", "--runtime", "process", "--port", str(port), "--data-dir", str(folder / "data")]
    keeper = subprocess.Popen(
        [sys.executable, "-m", KEEPER, str(folder), *serve],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield Throwaway(folder, keeper)
    finally:
        let_go(keeper)


def let_go(keeper: subprocess.Popen[bytes]) -> None:
    """Have the keeper end everything, and wait for it."""
    if keeper.stdin is not None:
        keeper.stdin.close()
    # One that takes longer goes on by itself.
    with contextlib.suppress(subprocess.TimeoutExpired):
        keeper.wait(STOP_SECONDS * 1.5)
