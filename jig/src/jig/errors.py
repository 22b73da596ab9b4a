"""Everything that jig reports as an error.

JigError                what a user is told: one message, perhaps a hint, an exit code
├── UsageError          the command line asks for something that does not exist (exit code 2)
├── ConfigError         a key of the config file is wrong
├── ContextError        the contexts file, or what it should hold
├── BundleError         the project cannot be packed
├── ImageError          a container image cannot be built, run or pushed
├── VolumeError         a folder cannot become a volume, or a volume is not what is needed
├── DeployError         the deployment did not get ready, or did not go away
├── DevError            `jig dev` has no platform to run on, or no code that can run
├── TrialError          a job that ran on this machine, with `jig run`, came to nothing
├── JobError            a watched job ended without a result
├── DoctorError         something that a deploy needs is missing
├── IncompleteError     of several jobs, not every one came to what was asked for
├── WatchInterruptedError  Ctrl-C while jig watched something that goes on without it (exit code 130)
└── PlatformError       the platform said no
    ├── UnreachableError   nobody answered
    ├── UnauthorizedError  the key is missing or wrong
    ├── NotFoundError      no such thing
    │   └── UnsupportedError  no such route: the platform is older than jig
    ├── ConflictError      the thing is in another state than the call needs
    └── QueueFullError     the queue takes no more jobs for now
"""

from __future__ import annotations

from typing import ClassVar

EXIT_ERROR = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130  # 128 + SIGINT, as shells count it


class JigError(Exception):
    """An error that a user can do something about.

    Args:
        message: what went wrong and where, in one or more sentences.
        hint: how to mend it, if that is not said already.
    """

    exit_code: ClassVar[int] = EXIT_ERROR
    type: ClassVar[str] = "error"

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def document(self) -> dict[str, object]:
        """The error as `--json` prints it: message, type, param, code, and the hint where there is one."""
        document: dict[str, object] = {"message": self.message, "type": self.type, "param": None, "code": None}
        return document | ({"hint": self.hint} if self.hint else {})


class UsageError(JigError):
    """The command line asks for something that does not exist, or leaves out what is needed."""

    exit_code = EXIT_USAGE
    type = "usage_error"


class ConfigError(JigError):
    """A key of the config file is unknown, has the wrong type, or contradicts another.

    Args:
        message: the file, the key, what was expected and what was found.
        hint: how to mend it.
        is_absent: there is no config at all.
    """

    type = "config_error"

    def __init__(self, message: str, *, hint: str | None = None, is_absent: bool = False) -> None:
        super().__init__(message, hint=hint)
        self.is_absent = is_absent


class ContextError(JigError):
    """The contexts file is unreadable, or holds no key for the platform in question."""

    type = "context_error"


class BundleError(JigError):
    """The project's files or requirements cannot be packed into a bundle."""

    type = "bundle_error"


class ImageError(JigError):
    """A container image cannot be built, run or pushed."""

    type = "image_error"


class VolumeError(JigError):
    """A folder cannot become a volume, or a volume is not there, or not what is needed."""

    type = "volume_error"


class DeployError(JigError):
    """The deployment did not reach the state that was waited for."""

    type = "deploy_error"


class DevError(JigError):
    """`jig dev` has no platform to run on, or no code that can run."""

    type = "dev_error"


class TrialError(JigError):
    """A job that ran on this machine came to nothing.

    Args:
        message: what went wrong.
        hint: how to mend it.
        traceback: the model's, where it raised.
    """

    type = "trial_error"

    def __init__(self, message: str, *, hint: str | None = None, traceback: str | None = None) -> None:
        super().__init__(message, hint=hint or traceback)
        self.traceback = traceback

    def document(self) -> dict[str, object]:
        """As any error, with the traceback in a field of its own."""
        return super().document() | ({"hint": None, "traceback": self.traceback} if self.traceback else {})


class JobError(JigError):
    """A watched job failed or was canceled.

    Args:
        message: how the job ended.
        job: the job as the platform tells it.
    """

    type = "job_error"

    def __init__(self, message: str, *, job: dict[str, object]) -> None:
        super().__init__(message)
        self.job = job

    def document(self) -> dict[str, object]:
        """The error, and with it the job."""
        return super().document() | {"job": self.job}


class DoctorError(JigError):
    """Something that a deploy needs is missing.

    Args:
        message: what.
        details: the findings, by the names under which `--json` prints them.
    """

    type = "doctor_error"

    def __init__(self, message: str, *, details: dict[str, object] | None = None) -> None:
        super().__init__(message)
        self.details = details or {}

    def document(self) -> dict[str, object]:
        """The error, and with it the findings."""
        return super().document() | self.details


class IncompleteError(JigError):
    """Of several jobs, not every one came to what was asked for.

    Args:
        message: how many, and why.
        hint: how to go on.
        details: what else `--json` prints, by its names.
    """

    type = "incomplete_error"

    def __init__(self, message: str, *, hint: str | None = None, details: dict[str, object] | None = None) -> None:
        super().__init__(message, hint=hint)
        self.details = details or {}

    def document(self) -> dict[str, object]:
        """The error, and with it the details."""
        return super().document() | self.details


class PlatformError(JigError):
    """The platform answered with an error.

    Args:
        message: the platform's own words, or ours where it had none.
        status: the HTTP status, None when there was no answer.
        body: the four fields of the platform's error, as far as it sent them.
        hint: how to mend it.
    """

    type = "server_error"

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        body: dict[str, object] | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message, hint=hint)
        self.status = status
        self.body = body or {}

    def document(self) -> dict[str, object]:
        """The platform's own fields win, so that scripts see one error whichever client they use."""
        own = super().document() | {"status": self.status}
        return own | {key: self.body[key] for key in ("type", "param", "code") if self.body.get(key) is not None}


class UnreachableError(PlatformError):
    """Nobody answered at the platform's address, or not in time."""

    type = "connection_error"


class UnauthorizedError(PlatformError):
    """The API key is missing, unknown or revoked."""

    type = "authentication_error"


class NotFoundError(PlatformError):
    """The platform knows no such thing under this key."""

    type = "not_found_error"


class UnsupportedError(NotFoundError):
    """The platform has no such route."""

    type = "unsupported_error"


class ConflictError(PlatformError):
    """The thing is in another state than the call needs."""

    type = "conflict_error"


class QueueFullError(PlatformError):
    """A deployment's queue holds as many jobs as it may.

    Args:
        message: the platform's own words.
        retry_after_seconds: when it asks to be asked again.
        body: the four fields of the platform's error.
    """

    type = "rate_limit_error"
    code: ClassVar[str] = "queue_full"

    def __init__(self, message: str, *, retry_after_seconds: float, body: dict[str, object]) -> None:
        hint = f"Try again in {retry_after_seconds:.0f} s, or raise its limit: jig queue-settings --max-pending N"
        super().__init__(message, status=429, body=body, hint=hint)
        self.retry_after_seconds = retry_after_seconds


class WatchInterruptedError(JigError):
    """Ctrl-C while jig watched something that goes on without it."""

    exit_code = EXIT_INTERRUPTED
    type = "interrupted"
