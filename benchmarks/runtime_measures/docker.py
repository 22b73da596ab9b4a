"""The engine by its command line, as the peer uses it, and the clock of both sides: the first healthy answer."""

import http.client
import subprocess
import time

from harness.errors import BenchmarkError

COMMAND_LIMIT_SECONDS = 300.0
ANSWER_LIMIT_SECONDS = 120.0
POLL_SECONDS = 0.01


def docker(*arguments: str) -> str:
    """What a command of docker prints.

    Raises:
        BenchmarkError: there is no engine, or it refuses.
    """
    try:
        finished = subprocess.run(
            ["docker", *arguments], capture_output=True, text=True, timeout=COMMAND_LIMIT_SECONDS, check=False
        )
    except (FileNotFoundError, subprocess.TimeoutExpired) as error:
        raise BenchmarkError(f"docker {arguments[0]} could not be run: {error}") from error
    if finished.returncode != 0:
        raise BenchmarkError(f"docker {arguments[0]} ended with {finished.returncode}:\n{finished.stderr}")
    return finished.stdout.strip()


def wait_until_healthy(port: int, path: str, headers: dict[str, str]) -> float:
    """The time (monotonic) of the first 200.

    Raises:
        BenchmarkError: none came.
    """
    deadline = time.monotonic() + ANSWER_LIMIT_SECONDS
    while time.monotonic() < deadline:
        if _status(port, path, headers) == 200:
            return time.monotonic()
        time.sleep(POLL_SECONDS)
    raise BenchmarkError(f"{path} on port {port} did not answer within {ANSWER_LIMIT_SECONDS:.0f} s.")


def _status(port: int, path: str, headers: dict[str, str]) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path, headers=headers)
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return 0
    finally:
        connection.close()
