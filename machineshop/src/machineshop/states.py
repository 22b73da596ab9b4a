"""The life of a job: its states, the verbs that move it, and the one table of legal moves; and other things' states.

The store builds each transition's guard from this table, the documentation draws its diagram from it, and a test
walks every state with every verb.
"""

from enum import StrEnum


class JobState(StrEnum):
    """Where a job is in its life."""

    PENDING = "pending"
    """Waits in the queue for a worker."""
    RUNNING = "running"
    """A worker holds a claim on it."""
    DONE = "done"
    """The worker's result is stored."""
    FAILED = "failed"
    """The model failed it, or its workers were lost too often."""
    CANCELED = "canceled"
    """Taken back before it finished."""


class JobVerb(StrEnum):
    """What can happen to a job."""

    CLAIM = "claim"
    """A worker takes it: a new attempt."""
    RENEW = "renew"
    """The attempt's worker says that it is at work, with or without progress."""
    FINISH = "finish"
    """The attempt's worker delivers the result."""
    FAIL = "fail"
    """The attempt's worker reports that the model failed."""
    RELEASE = "release"
    """The attempt's worker hands it back unharmed, because it has to stop."""
    LOSE = "lose"
    """The claim expired or the replica is gone: it will be tried again."""
    GIVE_UP = "give_up"
    """The claim expired or the replica is gone, once too often."""
    CANCEL = "cancel"
    """The user takes it back while it waits."""
    ABANDON = "abandon"
    """The attempt's worker took up the user's cancel."""
    FORCE = "force"
    """The user's cancel was not taken up in time: its replica is replaced."""
    MISS = "miss"
    """Its deadline passed while it waited."""
    OVERRUN = "overrun"
    """Its deadline passed while a worker had it."""


JOB_MOVES: dict[tuple[JobState, JobVerb], JobState] = {
    (JobState.PENDING, JobVerb.CLAIM): JobState.RUNNING,
    (JobState.PENDING, JobVerb.CANCEL): JobState.CANCELED,
    (JobState.RUNNING, JobVerb.RENEW): JobState.RUNNING,
    (JobState.RUNNING, JobVerb.FINISH): JobState.DONE,
    (JobState.RUNNING, JobVerb.FAIL): JobState.FAILED,
    (JobState.RUNNING, JobVerb.RELEASE): JobState.PENDING,
    (JobState.RUNNING, JobVerb.LOSE): JobState.PENDING,
    (JobState.RUNNING, JobVerb.GIVE_UP): JobState.FAILED,
    (JobState.RUNNING, JobVerb.ABANDON): JobState.CANCELED,
    (JobState.RUNNING, JobVerb.FORCE): JobState.CANCELED,
    (JobState.PENDING, JobVerb.MISS): JobState.FAILED,
    (JobState.RUNNING, JobVerb.OVERRUN): JobState.FAILED,
}

TERMINAL_STATES = frozenset({JobState.DONE, JobState.FAILED, JobState.CANCELED})


def source(verb: JobVerb) -> JobState:
    """The one state from which a verb is legal."""
    return next(state for state, move in JOB_MOVES if move is verb)


def target(verb: JobVerb) -> JobState:
    """The state that a verb leads to."""
    return JOB_MOVES[source(verb), verb]


class WebhookState(StrEnum):
    """How far the telling of a job's end is."""

    PENDING = "pending"
    """Waits for its first send, or is on its way."""
    RETRYING = "retrying"
    """The receiver did not take it, and is sent it again."""
    DELIVERED = "delivered"
    """The receiver took it."""
    GIVEN_UP = "given_up"
    """The receiver wants it no more, or did not take it for a day: nothing is sent again."""


class VolumeState(StrEnum):
    """Where a version of a volume is in its life: it begins in one of the first two, and ends in one of the last."""

    OPEN = "open"
    """Its files are uploaded, and may still change."""
    PENDING = "pending"
    """Its files will be copied from elsewhere."""
    SYNCING = "syncing"
    """They are being copied."""
    READY = "ready"
    """Sealed: its files are what they will ever be."""
    FAILED = "failed"
    """It will never be ready; its message says why."""


VOLUME_MOVES: dict[VolumeState, frozenset[VolumeState]] = {
    VolumeState.OPEN: frozenset({VolumeState.READY, VolumeState.FAILED}),
    VolumeState.PENDING: frozenset({VolumeState.SYNCING, VolumeState.FAILED}),
    VolumeState.SYNCING: frozenset({VolumeState.READY, VolumeState.FAILED}),
    VolumeState.READY: frozenset(),
    VolumeState.FAILED: frozenset(),
}


class DeploymentStatus(StrEnum):
    """How a deployment is doing, in the words that clients know."""

    UPDATING = "Updating"
    """A rollout is under way: its current revision is not ready everywhere yet."""
    SCALING = "Scaling"
    """The current revision serves, and its number of replicas is changing."""
    READY = "Ready"
    """All replicas asked for are ready."""
    FAILED = "Failed"
    """The current revision crashes, or never got ready."""
    SCALED_TO_ZERO = "ScaledToZero"
    """No replica is asked for."""
