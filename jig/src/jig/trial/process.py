"""The worker's process of a trial: what it runs, and in which surroundings (pure); and the run, which is bounded."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jig.config.model import Config
from jig.errors import TrialError
from jig.uv import clean_environment

TRIAL_VARIABLE = "SPROCKET_TRIAL"
STOP_SECONDS = 5.0
PYTHONS = ("python", "python3")
NOT_PASSED_ON = ("RUN_AND_EXIT", "PYTHONHOME", "PYTHONPATH")


@dataclass(frozen=True)
class WorkerProcess:
    """What runs."""

    command: tuple[str, ...]
    folder: Path
    environment: Mapping[str, str]


def worker_process(
    config: Config, python: Path, trial: Path, environment: Mapping[str, str], prefix: Path | None
) -> WorkerProcess:
    """The worker of a config, as a replica would run it.

    Args:
        config: the project's.
        python: what `python` in the command stands for.
        trial: the folder with the jobs.
        environment: that of this process, most of which is passed on.
        prefix: the environment that was made for the worker, if one was.
    """
    first, *rest = config.command
    command = (str(python), *rest) if first in PYTHONS else config.command
    passed_on = {name: value for name, value in clean_environment(environment).items() if name not in NOT_PASSED_ON}
    paths = [str(python.parent), *([environment["PATH"]] if environment.get("PATH") else [])]
    return WorkerProcess(
        command=command,
        folder=config.directory,
        environment={
            **passed_on,
            "WORLD_SIZE": str(max(1, config.deploy.gpu_count)),
            **config.image.environment,
            **chosen_variables(config, environment),
            **({"VIRTUAL_ENV": str(prefix)} if prefix else {}),
            "PATH": os.pathsep.join(paths),
            "PYTHONUNBUFFERED": "1",
            "PYTHONFAULTHANDLER": "1",  # a crash in native code says where the Python code was
            TRIAL_VARIABLE: str(trial),
        },
    )


def chosen_variables(config: Config, environment: Mapping[str, str]) -> dict[str, str]:
    """The deployment's own variables; a secret is taken from a variable of the same name, where that is set."""
    given = {variable.name: variable for variable in config.deploy.environment_variables}
    values = {
        name: environment.get(name) if variable.secret is not None else variable.value or ""
        for name, variable in given.items()
    }
    return {name: value for name, value in values.items() if value is not None}


def missing_secrets(config: Config, environment: Mapping[str, str]) -> list[str]:
    """The variables that hold a secret on a platform, and nothing here."""
    wanted = [variable.name for variable in config.deploy.environment_variables if variable.secret is not None]
    return [name for name in wanted if name not in environment]


def run_worker(process: WorkerProcess, timeout_seconds: float) -> int:
    """Run the worker to its end; what it writes goes to stderr. Returns its exit code, negative for a signal.

    Raises:
        TrialError: it cannot be started, or does not end in time.
    """
    with started(process.command, process) as running:
        try:
            return running.wait(timeout_seconds)
        except subprocess.TimeoutExpired as error:
            hint = "Give it more time with --timeout, such as --timeout 2h."
            raise TrialError(f"The worker had not finished after {timeout_seconds:g} s.", hint=hint) from error
        finally:
            end_group(running)


def started(command: Sequence[str], process: WorkerProcess) -> subprocess.Popen[bytes]:
    """The worker, in a process group of its own.

    Raises:
        TrialError: there is no such program.
    """
    try:
        return subprocess.Popen(
            command,
            cwd=process.folder,
            env=process.environment,
            stdin=subprocess.DEVNULL,
            stdout=sys.stderr.fileno(),
            start_new_session=True,
        )
    except OSError as error:
        raise TrialError(f"The command {command[0]!r} cannot be started: {error.strerror}.") from error


def end_group(running: subprocess.Popen[bytes]) -> None:
    """End what is left of the worker and of its children."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(running.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            running.wait(STOP_SECONDS)
