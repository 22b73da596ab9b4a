"""What the worker and its model's process say to one another, as values and as fields of a message; pure.

The worker says `predict`, `interrupt` and `stop`, and to ranks `hold` and `settle` (see `accord`); the process says
`ready`, `news`, `outcome` and `stopped`, and a rank `held`. A predict is meant by its number, since ids come
from outside and need not differ.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .errors import ChannelError
from .job import Job
from .outcome import Canceled, Done, Exited, Failed, Fault, Outcome
from .outputs import Encoded, FileOutput


def fields_of_job(job: Job) -> dict[str, Any]:
    """Give what the model sees of a job."""
    return {
        "id": job.id,
        "payload": job.payload,
        "priority": job.priority,
        "info": job.info,
        "headers": job.headers,
        "queued": job.queued,
        "keeps_chunks": job.keeps_chunks,
    }


def job_of_fields(fields: Mapping[str, Any]) -> Job:
    """Make the model's own copy of a job."""
    job = Job(
        fields["id"],
        fields["payload"],
        priority=fields["priority"],
        info=fields["info"],
        headers=fields["headers"],
        queued=fields["queued"],
    )
    job.keeps_chunks = fields["keeps_chunks"]
    return job


def fields_of_fault(fault: Fault | None) -> dict[str, Any] | None:
    """Give what went wrong in setup or shutdown; None for nothing."""
    return None if fault is None else {"text": fault.text, "exit_code": fault.exit_code}


def fault_of_fields(fields: Mapping[str, Any] | None) -> Fault | None:
    """See `fields_of_fault`."""
    return None if fields is None else Fault(fields["text"], fields["exit_code"])


def fields_of_outcome(outcome: Outcome) -> tuple[dict[str, Any], bytes]:
    """Give how a predict ended, as fields and a tail: the outputs' texts, so that nobody has to read them."""
    if isinstance(outcome, Done):
        texts = [b"" if isinstance(piece, FileOutput) else piece.encode() for piece in outcome.outputs.pieces]
        pieces = [
            str(piece.absolute()) if isinstance(piece, FileOutput) else len(text)
            for piece, text in zip(outcome.outputs.pieces, texts, strict=True)
        ]
        return {"kind": "done", "outputs": pieces}, b"".join(texts)
    if isinstance(outcome, Failed):
        path = outcome.input_path
        return {"kind": "failed", "error": outcome.error, "traceback": outcome.traceback, "input_path": path}, b""
    if isinstance(outcome, Exited):
        return {"kind": "exited", "code": outcome.code}, b""
    return {"kind": "canceled"}, b""


def outcome_of_fields(fields: Mapping[str, Any], tail: bytes) -> Outcome:
    """See `fields_of_outcome`.

    Raises:
        ChannelError: there is no such outcome.
    """
    kind = fields["kind"]
    if kind == "done":
        return Done(_outputs_of(fields["outputs"], tail))
    if kind == "failed":
        path = fields["input_path"]
        return Failed(fields["error"], fields["traceback"], None if path is None else tuple(path))
    if kind == "exited":
        return Exited(fields["code"])
    if kind == "canceled":
        return Canceled()
    raise ChannelError(f"the model's process speaks of an outcome that is none: {kind!r}")


def _outputs_of(pieces: Sequence[int | str], tail: bytes) -> Encoded:
    found: list[str | FileOutput] = []
    at = 0
    for piece in pieces:
        if isinstance(piece, int):
            found.append(tail[at : at + piece].decode())
            at += piece
        else:
            found.append(FileOutput(piece))
    return Encoded(tuple(found))
