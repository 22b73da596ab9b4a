"""Running a builder: its lines as they come, a bound on its time, and its last words where it fails."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import IO, cast

from jig.errors import ImageError
from jig.uv import clean_environment

LOOK_SECONDS_MAX = 20.0
WORK_SECONDS_MAX = 7200.0  # a build that compiles CUDA code, or a push of many gigabytes over a slow line
END_SECONDS_MAX = 10.0
LINES_KEPT = 400
LINES_SHOWN = 25
# Docker: `Step 3/9 : RUN x`; podman: `[1/2] STEP 3/9: RUN x`; buildx: `#7 [build 3/6] RUN x`.
STEP_PATTERN = re.compile(r"(?:\[\d+/\d+\] )?S(?:tep|TEP) \d+(?:/\d+)? ?: |#\d+ \[[^\]]*\d+/\d+\] ")
# Docker paints what a step writes to its error stream.
ESCAPE_PATTERN = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
LOG_IN = (
    "Log in with `jig auth login`, or with `docker login` where others run the platform's registry, and push again."
)
HINTS = (
    (
        "server gave HTTP response to HTTPS client",
        "The platform has no TLS there: add its address to insecure-registries of the engine's daemon.json.",
    ),
    (
        "certificate signed by unknown authority",
        "The engine must know the platform's authority: put its certificate at /etc/docker/certs.d/HOST:PORT/ca.crt.",
    ),
    ("no basic auth credentials", LOG_IN),
    ("unauthorized", LOG_IN),
    ("no space left on device", "The disk is full: `docker system prune`, or that of your builder, makes room."),
    ("permission denied while trying to connect to the", "Let your user use the engine: add it to the group docker."),
)


def look(argv: Sequence[str]) -> str | None:
    """What a quick command prints, or None where it is not there or does not work."""
    try:
        finished = subprocess.run(
            argv,
            env=clean_environment(os.environ),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=LOOK_SECONDS_MAX,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return finished.stdout.strip() if finished.returncode == 0 else None


def work(
    argv: Sequence[str],
    variables: Mapping[str, str],
    on_line: Callable[[str], None],
    *,
    failure: str,
    stdin: str = "",
    seconds_max: float = WORK_SECONDS_MAX,
) -> list[str]:
    """Run a builder to its end and return its last lines.

    Args:
        argv: its command line.
        variables: of its environment, beside ours.
        on_line: is told every line of its output.
        failure: what its failing means, as the error begins.
        stdin: what it reads; a password, say.
        seconds_max: how long it may take.

    Raises:
        ImageError: it failed, or took too long; the message has the output of the step that failed.
    """
    lines: list[str] = []
    with started(argv, variables, failure, seconds_max) as (process, is_late):
        # Should it have ended already, it says why.
        with suppress(BrokenPipeError):
            cast("IO[str]", process.stdin).write(stdin)
            cast("IO[str]", process.stdin).close()
        for line in cast("IO[str]", process.stdout):
            for part in ESCAPE_PATTERN.sub("", line).rstrip().split("\r"):
                lines.append(part)
                on_line(part)
            del lines[:-LINES_KEPT]
        code = process.wait()
    if is_late.is_set():
        raise ImageError(f"{failure}: {argv[0]} did not finish within {seconds_max:.0f} s.")
    if code != 0:
        raise failed(failure, lines, code)
    return lines


@contextmanager
def started(
    argv: Sequence[str], variables: Mapping[str, str], failure: str, seconds_max: float
) -> Iterator[tuple[subprocess.Popen[str], threading.Event]]:
    """A process that ends with this block at the latest, and an event that tells whether it was too slow."""
    try:
        process = subprocess.Popen(
            argv,
            env={**clean_environment(os.environ), **variables},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
    except OSError as error:
        raise ImageError(f"{failure}: cannot start {argv[0]}: {error.strerror}.") from error
    is_late = threading.Event()

    def stop() -> None:
        is_late.set()
        process.kill()

    timer = threading.Timer(seconds_max, stop)
    timer.start()
    try:
        with process:
            try:
                yield process, is_late
            except BaseException:
                end(process)
                raise
    finally:
        timer.cancel()


def end(process: subprocess.Popen[str]) -> None:
    """Let a process go, by force if it does not go by itself."""
    process.send_signal(signal.SIGINT)
    try:
        process.wait(END_SECONDS_MAX)
    except subprocess.TimeoutExpired:
        process.kill()


def failed(failure: str, lines: Sequence[str], code: int) -> ImageError:
    """The error with the output of the step that failed."""
    shown = failing_step(lines) or [f"It exited with code {code}, and said nothing."]
    whole = "\n".join(lines)
    hint = next((hint for words, hint in HINTS if words.lower() in whole.lower()), None)
    return ImageError("\n".join([f"{failure}.", *(f"  {line}" for line in shown)]), hint=hint)


def failing_step(lines: Sequence[str]) -> list[str]:
    """The last step's head and last lines; of BuildKit's, whose steps run side by side, those of the failed one."""
    lines = [line for line in lines if line.strip()]
    number = next((line.split()[0] for line in reversed(lines) if re.match(r"#\d+ ERROR", line)), None)
    if number is not None:
        lines = [line for line in lines if line.startswith(f"{number} ")]
    start = next((at for at in range(len(lines) - 1, -1, -1) if is_step(lines[at])), 0)
    head, rest = lines[start : start + 1], lines[start + 1 :]
    return [*head, *rest[-LINES_SHOWN:]]


def is_step(line: str) -> bool:
    """True for the line with which a step of a build begins."""
    return STEP_PATTERN.match(line) is not None
