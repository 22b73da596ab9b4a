"""What a job has come to that several ranks work on, from what it came to in each; pure."""

from __future__ import annotations

from collections.abc import Mapping

from .outcome import Canceled, Exited, Failed, Outcome

Outcomes = Mapping[int, Outcome]
"""By rank; of those in which predict has ended."""


def verdict(outcomes: Outcomes, ranks: int) -> Outcome | None:
    """Decide on a job; None: the others have to be waited for.

    Rank 0's outcome is the job's, unless another rank failed: then what rank 0 has rests on less than it should.
    """
    exited = next((outcome for outcome in outcomes.values() if isinstance(outcome, Exited)), None)
    if exited is not None or len(outcomes) < ranks:
        return exited
    if isinstance(outcomes[0], (Failed, Canceled)):
        return outcomes[0]
    return next((_named(rank, failed) for rank, failed in _failures(outcomes)), outcomes[0])


def lags(outcomes: Outcomes) -> bool:
    """Whether the ranks in which predict goes on should end soon.

    Not while rank 0 alone is at work: it may well save a film when the others have done their part.
    """
    return 0 in outcomes or bool(_failures(outcomes))


def silence(outcomes: Outcomes, ranks: int, seconds: float) -> str:
    """Say which ranks did not end, and why they should have."""
    silent = [str(rank) for rank in range(ranks) if rank not in outcomes]
    subject = f"rank {silent[0]} has" if len(silent) == 1 else f"ranks {', '.join(silent)} have"
    failures = _failures(outcomes)
    cause = f"rank {failures[0][0]} failed ({failures[0][1].error})" if failures else "rank 0 was done"
    return f"{subject} not come to an end within {seconds:g} s after {cause}"


def _failures(outcomes: Outcomes) -> list[tuple[int, Failed]]:
    return [(rank, outcome) for rank, outcome in sorted(outcomes.items()) if isinstance(outcome, Failed)]


def _named(rank: int, failed: Failed) -> Failed:
    return Failed(f"rank {rank}: {failed.error}", failed.traceback, failed.input_path)
