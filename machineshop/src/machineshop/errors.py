"""Everything that can go wrong, in one tree.

    MachineshopError
    ├── InvalidRequest            400  the caller's input is wrong
    │   ├── MalformedBody
    │   ├── InsufficientCapacity
    │   ├── BodyTooSlow           408
    │   ├── DigestMismatch
    │   ├── SecretMissing
    │   ├── VolumeUnusable
    │   └── RangeNotSatisfiable   416
    ├── PayloadTooLarge           413
    │   └── AnswerTooLarge
    ├── NotAuthenticated          401
    ├── NotPermitted              403
    │   └── SignatureInvalid
    ├── NotFound                  404
    │   └── ArtifactMissing
    ├── MethodNotAllowed          405
    ├── Conflict                  409  the request is sound, the state of things forbids it
    │   ├── AlreadyExists
    │   ├── ChangedMeanwhile
    │   ├── IdempotencyConflict
    │   ├── IdempotencyKeyReused
    │   ├── NotCancelable
    │   ├── NotResubmittable
    │   ├── StaleAttempt
    │   ├── VolumeMounted
    │   └── VolumeSealed
    ├── QueueFull                 429
    ├── TooManyStreams            429
    ├── TooManyRequests           429
    ├── TooManyFailures           429
    ├── ReplicaUnreachable        502
    │   └── ReplicaSilent         504
    └── Unavailable               503  try again later
        ├── NoReadyReplica
        ├── StoreUnavailable
        │   └── CommitUnknown
        ├── ServerStopped
        ├── LeaseLost
        ├── RegistryAway
        ├── HolderAway
        ├── SecretsKeyMissing
        ├── RuntimeUnavailable
        ├── StorageUnavailable
        ├── BodiesTooMany
        └── DiskFull              507

A docstring is the message, filled in with the facts that the exception was raised with; each fact is an attribute too.
`STATUSES` at the end is the one table from an error to its HTTP status and the type that clients know.
"""

from inspect import cleandoc
from typing import Any

# Where things are, unless said otherwise.
IN_PROJECT = " in this project"


class MachineshopError(Exception):
    """Something went wrong inside the platform; its log says what."""

    param: str | None = None
    retry_after_seconds: int | None = None

    def __init__(self, **facts: Any) -> None:
        self.facts = facts
        for name, value in facts.items():
            setattr(self, name, value)
        self.message = " ".join(cleandoc(type(self).__doc__ or "").split()).format(**facts)
        super().__init__(self.message)

    @property
    def code(self) -> str:
        """The class's name in snake case: what programs compare."""
        name = type(self).__name__
        return "".join("_" + letter.lower() if letter.isupper() else letter for letter in name).lstrip("_")


class InvalidRequest(MachineshopError):
    """{message}"""

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message=message, param=param)


class MalformedBody(InvalidRequest):
    """{message}"""


class InsufficientCapacity(InvalidRequest):
    """{message}"""


class BodyTooSlow(InvalidRequest):
    """{message}"""

    def __init__(self, seconds: float, *, whole: bool = False) -> None:
        trouble = "The request's body was not whole after" if whole else "Nothing of the request's body came for"
        super().__init__(f"{trouble} {seconds:g} s. Send it again.")


class DigestMismatch(InvalidRequest):
    """The bytes of '{path}' have another SHA-256 than is said of them. Nothing of this was stored: read it anew."""

    param = "files"

    def __init__(self, path: str) -> None:
        MachineshopError.__init__(self, path=path)


class SecretMissing(InvalidRequest):
    """{message}"""

    def __init__(self, missing: dict[str, str]) -> None:
        self.missing = missing
        """The names of secrets, by the variables that are to hold them."""
        named = ", ".join(f"'{secret}' (for the variable {variable})" for variable, secret in sorted(missing.items()))
        plural = "s" if len(missing) > 1 else ""
        super().__init__(
            f"There is no secret{plural} {named} in this project, or no longer: set it first, "
            "for example with `jig secrets set`.",
            param="environment_variables",
        )


class VolumeUnusable(InvalidRequest):
    """{message}"""

    def __init__(self, message: str) -> None:
        super().__init__(message, param="volumes")


class RangeNotSatisfiable(InvalidRequest):
    """{message}"""

    def __init__(self, size: int) -> None:
        super().__init__(f"The range that was asked for lies outside of these {size} bytes.")
        self.size = size


class PayloadTooLarge(MachineshopError):
    """{what} is larger than {limit_bytes} bytes. {mend}"""


class AnswerTooLarge(PayloadTooLarge):
    """The answer would have more than {limit_bytes} bytes: ask for fewer jobs at a time, or with "include": "none"."""


class NotAuthenticated(MachineshopError):
    """The request carries no valid API key. {mend}"""

    def __init__(self, mend: str = "Send it as 'Authorization: Bearer <key>'; 'jig auth login' keeps one.") -> None:
        super().__init__(mend=mend)


class NotPermitted(MachineshopError):
    """This API key may not do that: it needs the scope {needed}, and has {scope}."""


class SignatureInvalid(NotPermitted):
    """This signed URL {why}: ask for another one with POST /v1/storage/upload-request."""


class NotFound(MachineshopError):
    """There is no {what} '{id}'{where}."""

    def __init__(self, where: str = IN_PROJECT, **facts: Any) -> None:
        super().__init__(where=where, **facts)


class ArtifactMissing(NotFound):
    """{message}"""

    def __init__(self, message: str) -> None:
        super().__init__(message=message)


class MethodNotAllowed(MachineshopError):
    """{method} is not allowed at {path}, which takes {allowed}."""

    def __init__(self, method: str, path: str, allowed: str) -> None:
        super().__init__(method=method, path=path, allowed=allowed)


class Conflict(MachineshopError):
    """{message}"""


class AlreadyExists(Conflict):
    """A {what} named '{name}' already exists{where}."""

    def __init__(self, where: str = IN_PROJECT, **facts: Any) -> None:
        super().__init__(where=where, **facts)


class ChangedMeanwhile(Conflict):
    """The {what} '{name}' was changed by others at the same time, again and again: nothing was changed. Try again."""


class NotCancelable(Conflict):
    """The job is {state}, no longer pending{note}."""


class NotResubmittable(Conflict):
    """The job '{id}' is {state}: only a job that has ended can be submitted again. Nothing was submitted."""


class IdempotencyConflict(Conflict):
    """The idempotency key '{key}' belongs to the job {id}, which has another payload: use another key."""


class IdempotencyKeyReused(Conflict):
    """[{first}] and [{second}] of the array have the idempotency key '{key}' and different payloads.

    Give one of them another key. Nothing was submitted.
    """


class StaleAttempt(Conflict):
    """This attempt no longer holds the job, which is {state}: nothing was changed. Drop the job."""


class VolumeSealed(Conflict):
    """Version {version} of the volume '{name}' takes no change of its files, since {why}: make a new version.

    `jig volumes update` does.
    """


class VolumeMounted(Conflict):
    """The volume '{name}' is mounted by {deployments}: delete it once that is ready without it, or destroyed."""


class QueueFull(MachineshopError):
    """The queue of '{model}' is full: {pending} jobs wait, {max_pending} may. Nothing was stored; try again later."""

    retry_after_seconds = 5


class TooManyStreams(MachineshopError):
    """{limit} streams are open {whose} already, and no more may be. Close some, or follow a whole queue with one."""

    retry_after_seconds = 5


class TooManyRequests(MachineshopError):
    """{message}"""

    retry_after_seconds = 1

    def __init__(self, message: str) -> None:
        super().__init__(message=message)


class TooManyFailures(MachineshopError):
    """Too many different keys that nobody has were tried from {address}. Try again in {seconds} s, with a valid one."""

    def __init__(self, address: str, seconds: int) -> None:
        super().__init__(address=address, seconds=seconds)
        self.retry_after_seconds = seconds


class ReplicaUnreachable(MachineshopError):
    """A replica of '{name}' broke the connection before it answered: {cause}."""


class ReplicaSilent(ReplicaUnreachable):
    """A replica of '{name}' took the request and then was silent: {cause}."""


class Unavailable(MachineshopError):
    """{message}"""

    retry_after_seconds = 1

    def __init__(self, message: str) -> None:
        super().__init__(message=message)


class NoReadyReplica(Unavailable):
    """{message}"""

    retry_after_seconds = 5


class StoreUnavailable(Unavailable):
    """{message}"""

    is_undone = False
    """Whether nothing is left of what was asked for, for sure: no later start can find it either."""


class CommitUnknown(StoreUnavailable):
    """{message}"""


class RegistryAway(Unavailable):
    """{message}"""

    retry_after_seconds = 5


class ServerStopped(Unavailable):
    """{message}"""

    def __init__(self) -> None:
        super().__init__(
            "The server was stopped before this request had its answer: what it asked for may have been done or not."
        )


class LeaseLost(Unavailable):
    """{message}"""

    def __init__(self) -> None:
        super().__init__(
            "This server does not hold the lease on the control loops, or not for certain: another may run them by now."
        )


class HolderAway(Unavailable):
    """{message}"""


class SecretsKeyMissing(Unavailable):
    """{message}"""

    def __init__(self, key_id: str, where: str) -> None:
        super().__init__(
            f"The key {key_id}, with which secrets were sealed, is not in {where}: whoever runs this server has to "
            "bring it back from a backup. Without it the secrets' values are lost and have to be set again."
        )


class RuntimeUnavailable(Unavailable):
    """{message}"""


class StorageUnavailable(Unavailable):
    """{message}

    `cause` and `mend` are for whoever runs the platform.
    """

    retry_after_seconds = 5

    def __init__(self, cause: str, mend: str) -> None:
        super().__init__(
            "The object storage is away, or refuses the platform, whose log says why: what was sent may be lost, and "
            "nothing else is. Try again."
        )
        self.cause = cause
        self.mend = mend


class BodiesTooMany(Unavailable):
    """{limit_bytes} bytes of requests are on their way to the server already, and it takes no more. Try again later."""

    retry_after_seconds = 5

    def __init__(self, limit_bytes: int) -> None:
        MachineshopError.__init__(self, limit_bytes=limit_bytes)


class DiskFull(Unavailable):
    """{message}"""

    retry_after_seconds = 60

    def __init__(self) -> None:
        super().__init__(
            "The server's disk is full, and what was sent is not kept. Free some space there, then send it again."
        )


STATUSES: dict[type[MachineshopError], tuple[int, str]] = {
    InvalidRequest: (400, "invalid_request_error"),
    BodyTooSlow: (408, "invalid_request_error"),
    RangeNotSatisfiable: (416, "invalid_request_error"),
    PayloadTooLarge: (413, "invalid_request_error"),
    NotAuthenticated: (401, "authentication_error"),
    NotPermitted: (403, "permission_error"),
    NotFound: (404, "not_found_error"),
    MethodNotAllowed: (405, "invalid_request_error"),
    Conflict: (409, "conflict_error"),
    QueueFull: (429, "rate_limit_error"),
    TooManyStreams: (429, "rate_limit_error"),
    TooManyRequests: (429, "rate_limit_error"),
    TooManyFailures: (429, "rate_limit_error"),
    ReplicaUnreachable: (502, "server_error"),
    ReplicaSilent: (504, "server_error"),
    DiskFull: (507, "server_error"),
    Unavailable: (503, "server_error"),
    MachineshopError: (500, "server_error"),
}


def status_of(error: MachineshopError) -> tuple[int, str]:
    """The HTTP status and the client's error type, by the nearest class in the table."""
    return next(STATUSES[kind] for kind in type(error).__mro__ if kind in STATUSES)
