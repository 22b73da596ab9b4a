"""`jig run`: the project's worker on this machine, without a platform, for one job or for all the jobs of a file."""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from jig.bundle.requirements import lock
from jig.config.model import Config
from jig.errors import IncompleteError, TrialError, UsageError
from jig.options import PROJECT_DEFAULTS, Duration, ProjectGlobals, shown_duration
from jig.output import Output
from jig.payload import parse_payload
from jig.run.job_file import JobFile, opened
from jig.run.results import STANDARD_OUTPUT, Results
from jig.session import Session
from jig.state import State
from jig.trial.environment import make_environment
from jig.trial.order import keep_files, read_outcomes, write_jobs
from jig.trial.process import missing_secrets, run_worker, worker_process
from jig.trial.sdk import find_sdk
from jig.units import count

TIMEOUT_SECONDS = 1800.0  # a model that is large may take minutes to load, and longer to fetch

PROMPT = 'A text: the payload {"prompt": TEXT}.'
PAYLOAD = 'A JSON object, @FILE, or - for standard input; a value "@PATH" in it is a file that predict gets.'
FILE = 'A file of jobs, one JSON object a line: a payload, or {"payload": {...}}; - for standard input.'
RESULTS = "With --file: write the results here, one JSON object a line, in the jobs' order; - for standard output."
FORCE = "Overwrite the file of --output."
FOLDER = "Where files that predict returns are kept. [default: a new temporary folder]"
PYTHON = "A Python that has sprocket and all that the worker needs. [default: an environment like the platform's]"


@Parameter(name="*")
@dataclass(frozen=True)
class FileOptions:
    """What only the jobs of a file have."""

    file: Annotated[str | None, Parameter(allow_leading_hyphen=True, help=FILE)] = None
    output: Annotated[str | None, Parameter(name=("--output", "-o"), allow_leading_hyphen=True, help=RESULTS)] = None
    force: Annotated[bool, Parameter(negative=(), show_default=False, help=FORCE)] = False


FILE_DEFAULTS = FileOptions()


@dataclass(frozen=True)
class Asked:
    """Where the worker runs, for how long at most, and where its files stay."""

    folder: Path | None
    python: Path | None
    timeout_seconds: float


def run(
    *,
    prompt: Annotated[str | None, Parameter(allow_leading_hyphen=True, help=PROMPT)] = None,
    payload: Annotated[str | None, Parameter(allow_leading_hyphen=True, help=PAYLOAD)] = None,
    folder: Annotated[Path | None, Parameter(help=FOLDER)] = None,
    python: Annotated[Path | None, Parameter(help=PYTHON)] = None,
    timeout: Annotated[
        Duration, Parameter(show_default=shown_duration, help="How long all of it may take, setup too.")
    ] = TIMEOUT_SECONDS,
    file: FileOptions = FILE_DEFAULTS,
    options: ProjectGlobals = PROJECT_DEFAULTS,
) -> None:
    """Run the worker here, without a platform, for one job or for all the jobs of a file."""
    session = Session(options)
    if timeout <= 0:
        raise UsageError("--timeout must be above 0.")
    asked = Asked(folder, python, timeout)
    if file.file is None:
        if file != FILE_DEFAULTS:
            raise UsageError("--output and --force go with --file.")
        run_one(session, parse_payload(prompt, payload), asked)
        return
    if prompt is not None or payload is not None:
        raise UsageError("Say what to run: --file, or one job with --prompt or --payload.")
    if file.output == STANDARD_OUTPUT and options.json:
        raise UsageError("--json and --output - would both write to standard output.", hint="Give --output a file.")
    with opened(file.file) as jobs:
        run_many(session, jobs, file, asked)


def run_one(session: Session, payload: dict[str, Any], asked: Asked) -> None:
    """Run one job, and print its outputs.

    Raises:
        TrialError: nothing came of it.
    """
    with trial_folder() as trial:
        write_jobs(trial, [payload])
        code = run_trial(session, trial, asked)
        outcome = next(read_outcomes(trial), None)
        if outcome is None:
            raise ended_early(code)
        if outcome["status"] != "done":
            raise failed(outcome)
        result = kept(outcome, trial, asked)
    session.output.result(result, json.dumps(result["outputs"], indent=2, ensure_ascii=False))


def run_many(session: Session, jobs: JobFile, file: FileOptions, asked: Asked) -> None:
    """Run the jobs of a file on one worker, and write their results.

    Raises:
        TrialError: setup failed.
        IncompleteError: a job has no result.
    """
    total = jobs.check()
    with trial_folder() as trial:
        write_jobs(trial, (job.fields["payload"] for job in jobs.jobs()))
        results = Results(file.output, force=file.force) if file.output else None
        code = run_trial(session, trial, asked)
        outcomes = list(read_outcomes(trial))
        if outcomes and outcomes[0].get("stage") == "setup":
            raise failed(outcomes[0])
        ended = [kept(outcome, trial, asked) for outcome in outcomes]
        if results:
            write_results(results, jobs, ended)
    summarize(session.output, total, ended, code)


def run_trial(session: Session, trial: Path, asked: Asked) -> int:
    """Have the worker work on the jobs in a folder; returns its exit code.

    Raises:
        ConfigError, BundleError, TrialError: it cannot be run.
    """
    config, output = session.config, session.output
    for name in missing_secrets(config, os.environ):
        output.warn(f"{name} is a secret of the platform; set a variable of that name to give it a value here.")
    for mount in config.deploy.volume_mounts:
        if not Path(mount.mount_path).is_dir():
            output.warn(f"`jig run` mounts no volumes, and there is no {mount.mount_path} here for {mount.name}.")
    prefix = None if asked.python else environment_of(config, output)
    python = asked.python.absolute() if asked.python else (prefix or Path()) / "bin" / "python"
    if not python.exists():
        raise TrialError(f"There is no Python at {python}.")
    return run_worker(worker_process(config, python, trial, os.environ, prefix), asked.timeout_seconds)


def environment_of(config: Config, output: Output) -> Path:
    """The environment with the project's requirements."""
    requirements = lock(config.directory, config.image, State(config.directory, config.name))
    sdk = find_sdk()
    if requirements.count:
        output.note(f"Environment: {count(requirements.count, 'package')} from {requirements.source}", "dim")
    return make_environment(config.image.python_version, requirements, sdk)


def kept(outcome: dict[str, Any], trial: Path, asked: Asked) -> dict[str, Any]:
    """The outcome with its files where they stay."""
    files: dict[str, str] = {}
    place = asked.folder or Path(tempfile.gettempdir()) / f"jig-run-{trial.name.removeprefix('jig-trial-')}"
    outputs = keep_files(outcome.get("outputs"), trial, outcome, place, files)
    return {**outcome, "outputs": outputs, "files": list(files.values())}


def write_results(results: Results, jobs: JobFile, ended: list[dict[str, Any]]) -> None:
    """Write the results' file; of jobs that have not ended it has nothing."""
    with results:
        for at, (job, outcome) in enumerate(zip(jobs.jobs(), ended, strict=False)):
            results.add(at, job.number, outcome, outcome["status"])
        results.finish()


def summarize(output: Output, total: int, ended: list[dict[str, Any]], code: int) -> None:
    """Say what came of the jobs.

    Raises:
        IncompleteError: a job has no result.
    """
    done = [outcome for outcome in ended if outcome["status"] == "done"]
    document = {"jobs": total, "done": len(done), "failed": len(ended) - len(done), "results": ended}
    text = f"{count(total, 'job')}: {len(done)} done, {len(ended) - len(done)} failed."
    if len(ended) < total:
        raise IncompleteError(f"{text} {ended_early(code).message}", details={"run": document})
    if len(done) < total:
        first = next(outcome for outcome in ended if outcome["status"] != "done")
        raise IncompleteError(f"{text} The first error: {first['error']}", details={"run": document})
    output.result(document, text)


def failed(outcome: dict[str, Any]) -> TrialError:
    """The error of a job that failed, or of setup."""
    what = "setup failed" if outcome.get("stage") == "setup" else "predict failed"
    return TrialError(f"{what}: {outcome['error']}", traceback=outcome.get("traceback"))


def ended_early(code: int) -> TrialError:
    """The error of a worker that has ended before its job had."""
    how = f"with exit code {code}" if code >= 0 else f"by {signal_name(-code)}"
    hint = "What it wrote is above." if code else "A command of your own must call sprocket.run()."
    return TrialError(f"The worker ended {how} before its job had ended.", hint=hint)


def signal_name(number: int) -> str:
    """SIGSEGV for 11."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


@contextmanager
def trial_folder() -> Iterator[Path]:
    """A folder for the jobs and their outcomes; gone afterwards."""
    sys.stdout.flush()
    with tempfile.TemporaryDirectory(prefix="jig-trial-") as folder:
        yield Path(folder).resolve()
