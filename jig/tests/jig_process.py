"""jig as a real process, run or started in a folder."""

import json
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

JIG = Path(sys.executable).parent / "jig"
SECONDS_MAX = 60
WAIT_SECONDS_MAX = 60
PAUSE_SECONDS = 0.02
OWN_TRACEBACK = re.compile(r'Traceback .*File "[^"]*/jig/[^"]*\.py"', re.DOTALL)
INTERNAL_ERROR = "Something went wrong inside jig"


@dataclass(frozen=True)
class Finished:
    """A process of jig that has ended, and not by an error that it did not foresee."""

    code: int
    out: str
    err: str

    def __post_init__(self) -> None:
        said = self.out + self.err
        assert not OWN_TRACEBACK.search(said), said
        assert INTERNAL_ERROR not in said, said

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@dataclass(frozen=True)
class Jig:
    """Runs jig in a folder, with an environment of its own."""

    folder: Path
    environment: dict[str, str]

    def __call__(self, *words: str, stdin: str | TextIO = "", **environment: str) -> Finished:
        finished = subprocess.run(
            [str(JIG), *words],
            cwd=self.folder,
            env={**self.environment, **environment},
            **({"input": stdin} if isinstance(stdin, str) else {"stdin": stdin}),
            capture_output=True,
            text=True,
            timeout=SECONDS_MAX,
            check=False,
        )
        return Finished(finished.returncode, finished.stdout, finished.stderr)

    @contextmanager
    def start(self, *words: str) -> Iterator[subprocess.Popen[str]]:
        """A run that goes on beside the test, and ends with it at the latest."""
        with subprocess.Popen(
            [str(JIG), *words],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            try:
                yield process
            finally:
                process.kill()


def wait_until(process: subprocess.Popen[str], condition: Callable[[], object], what: str) -> None:
    """Wait for what a running jig should bring about; it must happen in time, and before jig ends."""
    deadline = time.monotonic() + WAIT_SECONDS_MAX
    while not condition():
        assert process.poll() is None, f"jig has ended with {process.returncode}, not waiting until {what}"
        assert time.monotonic() < deadline, f"not within {WAIT_SECONDS_MAX} s: {what}"
        time.sleep(PAUSE_SECONDS)


def finish(process: subprocess.Popen[str]) -> Finished:
    """What a started jig came to, once it has ended by itself."""
    out, err = process.communicate(timeout=WAIT_SECONDS_MAX)
    return Finished(process.returncode, out, err)
