"""Every error that sprocket raises.

SprocketError
├── ConfigError          the environment, a flag or an argument
│   └── GpuError             the GPUs are not there, or not sound
├── LoadError            module:Class does not name a worker
├── InfoError            emit_info got what it cannot send
├── InputError           an input file could not be fetched
│   └── InvalidInputError      the input does not fit what predict's parameters say
├── TimeLimitError       predict took longer than it may
├── OutputError          predict returned what cannot be a result
├── ChannelError         between the worker and the model's process
├── PlatformError        the platform's answer
│   ├── PlatformAwayError      no usable answer: worth another try
│   ├── StaleAttemptError      this attempt is no longer the job's
│   ├── OlderPlatformError     it does not know this route yet
│   └── PlatformRefusedError   a definite no: another try changes nothing
└── WorkerTestError      what a test of a worker, with `sprocket.testing`, runs into
    ├── JobFailedError         the job failed
    ├── JobCanceledError       the job was cancelled
    ├── JobTimeoutError        the job is not where it should be by now
    └── WorkerEndedError       the worker has ended by itself, or does not end
"""

from __future__ import annotations


class SprocketError(Exception):
    """Base of all errors that sprocket raises; its text is written for people."""


class ConfigError(SprocketError):
    """A setting is missing or wrong; the text names it and says how to mend it."""


class GpuError(ConfigError):
    """The machine's GPUs are not what the model needs; the text says what is wrong with which."""


class LoadError(SprocketError):
    """The target of `python -m sprocket` does not name a worker."""


class InfoError(SprocketError, ValueError):
    """`emit_info` was given something that is not a small JSON object."""


class InputError(SprocketError):
    """An input file could not be fetched; the job fails with this text."""


class InvalidInputError(InputError):
    """The input does not fit what predict's parameters say; the job fails with this text, which says where and why.

    Attributes:
        path: where in the input the (first) mistake is, names and list indexes; empty: the input as a whole.
    """

    def __init__(self, message: str, path: tuple[str | int, ...]) -> None:
        super().__init__(message)
        self.path = path


class TimeLimitError(SprocketError):
    """`predict` took longer than its `time_limit_seconds`; the job fails with this text."""


class OutputError(SprocketError, TypeError):
    """`predict` returned something that cannot be a job's outputs; the job fails with this text."""


class ChannelError(SprocketError):
    """The worker and the process of its model do not understand one another."""


class PlatformError(SprocketError):
    """The platform did not do what was asked of it."""


class PlatformAwayError(PlatformError):
    """The platform did not answer, or not in a way that can be understood; trying again may help."""


class StaleAttemptError(PlatformError):
    """The job has ended or was given to another worker: this attempt's updates count for nothing."""


class OlderPlatformError(PlatformError):
    """The platform does not take several updates at once: it is older than this worker."""


class PlatformRefusedError(PlatformError):
    """The platform answered with a definite no.

    Attributes:
        status: the HTTP status of the answer.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class WorkerTestError(SprocketError):
    """What a test of a worker, with `sprocket.testing`, runs into."""


class JobFailedError(WorkerTestError):
    """The job failed; the text is its error, as `status` would show it.

    Attributes:
        traceback: the end of the model's traceback; None where the model has not raised.
    """

    def __init__(self, error: str, traceback: str | None) -> None:
        super().__init__(error)
        self.traceback = traceback

    def __str__(self) -> str:
        text = super().__str__()
        return f"{text}\n{self.traceback}" if self.traceback else text


class JobCanceledError(WorkerTestError):
    """The job was cancelled."""


class JobTimeoutError(WorkerTestError, TimeoutError):
    """The job is not where it should be by now."""


class WorkerEndedError(WorkerTestError):
    """The worker has ended by itself, or does not end.

    Attributes:
        exit_code: of its process, if it had one; None where it does not end.
    """

    def __init__(self, message: str, exit_code: int | None) -> None:
        super().__init__(message)
        self.exit_code = exit_code
