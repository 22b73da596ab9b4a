"""A job as people read it: its line, its times, its whole page. Pure."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Any

from jig.tables import columns, fields
from jig.units import age, coarse, count, elapsed, moment, roughly, rounded, seconds_between, size
from jig.waiting import estimate_text, place_text, why_text

Job = Mapping[str, Any]
"""A job as the platform tells it."""

STATES = ("pending", "running", "done", "failed", "canceled")
TERMINAL = frozenset({"done", "failed", "canceled"})

# An error and its traceback are shown when the job has ended; the age of the progress is between worker and platform.
UNSHOWN_INFO = frozenset({"error", "traceback", "progress_age_seconds", "sprocket"})


def state_line(job: Job) -> str:
    """A job's state with what its worker says about it, in one line."""
    said = ", ".join(f"{key} {shown_value(value)}" for key, value in shown_info(job).items())
    place = place_text(job.get("queue") or {})
    waits = f", {place}" if job["status"] == "pending" and place else ""
    again = f", retry {job['retries']}" if job.get("retries") else ""
    asked = ", asked to stop" if job.get("cancel_requested") and job["status"] == "running" else ""
    return f"{job['status']}{waits}{again}{asked}{f': {said}' if said else ''}"


def watch_line(job: Job, why: str, now: datetime) -> str:
    """The line of a watched job: of one that waits also why, and until when.

    Args:
        job: the job.
        why: what keeps it from being taken, as far as that is known; maybe empty.
        now: the time.
    """
    if job["status"] != "pending":
        return state_line(job)
    estimate = estimate_text(job.get("queue") or {}, now)
    return ": ".join(part for part in (state_line(job), "; ".join(part for part in (why, estimate) if part)) if part)


def shown_info(job: Job) -> dict[str, Any]:
    """What a job's worker says of it while it runs."""
    return {key: value for key, value in (job.get("info") or {}).items() if key not in UNSHOWN_INFO}


def shown_value(value: object) -> str:
    """What a worker says, as a person reads it."""
    return value if isinstance(value, str) else json.dumps(rounded(value), ensure_ascii=False)


def ending(job: Job) -> str:
    """How a job without a result ended."""
    why = error_text(job)
    verb = "failed" if job["status"] == "failed" else f"was {job['status']}"
    return f"The job {verb}{f': {why}' if why else '.'}"


def error_text(job: Job) -> str:
    """Why the job failed, as its worker or the platform told it."""
    return str(job.get("error") or (job.get("info") or {}).get("error") or "")


def traceback_of(job: Job) -> str:
    """Where in the worker's code the job failed, if the worker told."""
    return str((job.get("info") or {}).get("traceback") or "").rstrip()


def waited_seconds(job: Job, now: datetime) -> float | None:
    """How long it has waited: until its current or last attempt began, or it ended without one."""
    return seconds_between(job.get("created_at"), job.get("claimed_at") or job.get("done_at"), now)


def ran_seconds(job: Job, now: datetime) -> float | None:
    """How long its current or last attempt has run; None where none has begun, or it waits again."""
    if not job.get("claimed_at") or job["status"] == "pending":
        return None
    return seconds_between(job.get("claimed_at"), job.get("done_at"), now)


def listing(jobs: Iterable[Job], now: datetime) -> str:
    """The table of `jig jobs list`."""
    header = ("ID", "STATUS", "PRIORITY", "KEY", "TRIES", "WAITED", "RAN", "AGE")
    return columns(header, (listing_row(job, now) for job in jobs))


def listing_row(job: Job, now: datetime) -> tuple[str, ...]:
    """One job's line of the table."""
    return (
        str(job["request_id"]),
        str(job["status"]),
        str(job.get("priority", 0)),
        one_line(str(job.get("fair_key") or "-")),
        str(job.get("attempt") or 0),
        duration(waited_seconds(job, now), coarse),
        duration(ran_seconds(job, now), coarse),
        age(job.get("created_at"), now),
    )


def steps_text(job: Job) -> str:
    """What its worker's time went into: `download 1.2 s, predict 30.1 s`; empty where that is not told."""
    measures = measures_of(job)
    steps = ((step, measures.get(f"{step}_seconds")) for step in ("download", "predict", "upload"))
    return ", ".join(f"{step} {elapsed(seconds)}" for step, seconds in steps if isinstance(seconds, int | float))


def memory_text(job: Job) -> str:
    """The most memory that its model's process had until then; empty where that is not told."""
    measures = measures_of(job)
    kinds = (("RAM", measures.get("ram_peak_bytes")), ("VRAM", measures.get("vram_peak_bytes")))
    told = ", ".join(f"{size(amount)} {kind}" for kind, amount in kinds if isinstance(amount, int))
    return f"{told} at the peak" if told else ""


def measures_of(job: Job) -> Mapping[str, Any]:
    """What sprocket has measured."""
    measures = (job.get("info") or {}).get("sprocket")
    return measures if isinstance(measures, dict) else {}


def duration(seconds: float | None, words: Callable[[float], str]) -> str:
    """A number of seconds in words, or `-` where there is none."""
    return "-" if seconds is None else words(seconds)


def change_line(job: Job) -> str:
    """One line of a queue's changes: the job, and what it is now."""
    said = error_text(job) if job["status"] == "failed" else ""
    line = f"{job['request_id']}  {state_line(job)}"
    return one_line(f"{line}: {said}" if said else line)


def summary(job: Job, now: datetime) -> str:
    """The text of `jig job-status`."""
    pairs = [
        ("Job", str(job["request_id"])),
        ("Status", one_line(state_line(job))),
        *waiting_facts(job, now),
        ("Why", traceback_of(job) or error_text(job)),
        ("Created", f"{age(job.get('created_at'), now)} ago"),
        ("Claimed", f"{age(job['claimed_at'], now)} ago" if job.get("claimed_at") else ""),
        ("Done", f"{age(job['done_at'], now)} ago" if job.get("done_at") else ""),
        *value_facts(job),
    ]
    return fields((key, value) for key, value in pairs if value)


def page(job: Job, now: datetime) -> str:
    """The text of `jig jobs show`: all that is known about the job."""
    pairs = [
        ("Job", str(job["request_id"])),
        ("Deployment", str(job.get("model") or "")),
        ("Status", one_line(state_line(job))),
        *waiting_facts(job, now),
        ("Priority", str(job.get("priority", 0))),
        ("Fair key", one_line(str(job.get("fair_key") or ""))),
        ("Attempts", attempts_text(job)),
        ("Error", error_text(job)),
        ("Trace", traceback_of(job)),
        *time_facts(job, now),
        ("Of that", steps_text(job)),
        ("Memory", memory_text(job)),
        ("Webhook", str(job.get("webhook_url") or "")),
        ("Told", told_text(job.get("webhook") or {}, now)),
        ("Repeats", str(job.get("resubmit_of") or "")),
        *value_facts(job),
    ]
    return fields((key, value) for key, value in pairs if value)


def waiting_facts(job: Job, now: datetime) -> list[tuple[str, str]]:
    """Why a job waits, and when it may start."""
    queue = job.get("queue") or {}
    return [("Waits", why_text(queue)), ("Starts", estimate_text(queue, now, with_source=True))]


def attempts_text(job: Job) -> str:
    """How often it was claimed: `2 (1 retry)`."""
    retries = job.get("retries") or 0
    again = f" ({count(retries, 'retry', 'retries')})" if retries else ""
    return f"{job.get('attempt') or 0}{again}"


def time_facts(job: Job, now: datetime) -> list[tuple[str, str]]:
    """When what happened, and how long it took."""
    waited, ran = waited_seconds(job, now), ran_seconds(job, now)
    return [
        ("Created", clock_text(job.get("created_at"), now)),
        ("Claimed", clock_text(job.get("claimed_at"), now)),
        ("Progress", progress_text(job, now)),
        ("Ended", clock_text(job.get("done_at"), now)),
        ("Deadline", clock_text(job.get("deadline_at"), now)),
        (
            "Cancel",
            f"asked for {clock_text(job['cancel_requested_at'], now)}" if job.get("cancel_requested_at") else "",
        ),
        ("Waited", "" if waited is None else elapsed(waited)),
        ("Ran", "" if ran is None else elapsed(ran)),
    ]


def progress_text(job: Job, now: datetime) -> str:
    """How long a running job's worker has seen no progress, by the platform's own clock where it says so."""
    if job["status"] != "running":
        return ""
    age_seconds = job.get("progress_age_seconds")
    return clock_text(job.get("progress_at"), now) if age_seconds is None else f"{roughly(age_seconds)} ago"


def clock_text(timestamp: str | None, now: datetime) -> str:
    """A time in this machine's zone, and how far away it is: `2026-01-02 13:00:05, 4 min ago`."""
    then = moment(timestamp)
    if then is None:
        return ""
    ahead = (then - now).total_seconds()
    away = f"in {roughly(ahead)}" if ahead > 0 else f"{roughly(-ahead)} ago"
    return f"{then.astimezone():%Y-%m-%d %H:%M:%S}, {away}"


def told_text(webhook: Mapping[str, Any], now: datetime) -> str:
    """What became of its webhook: `given up after 34 tries: The receiver answered 500.`"""
    tries = count(webhook.get("tries") or 0, "try", "tries")
    again = clock_text(webhook.get("next_try_at"), now)
    known = {
        "pending": "being told",
        "retrying": f"not taken in {tries}, again {again}",
        "delivered": f"taken in {tries}, {clock_text(webhook.get('delivered_at'), now)}",
        "given_up": f"given up after {tries}",
    }
    state, error = str(webhook.get("state") or ""), one_line(str(webhook.get("error") or ""))
    return ": ".join(part for part in (known.get(state, state), error) if part)


def value_facts(job: Job) -> list[tuple[str, str]]:
    """What went in, and what came out."""
    outputs = job.get("outputs")
    return [
        ("Inputs", json.dumps(job.get("inputs"), ensure_ascii=False)),
        ("Outputs", json.dumps(outputs, indent=2, ensure_ascii=False) if outputs is not None else ""),
    ]


def one_line(text: str) -> str:
    """The text without what would leave its line, or make a terminal do something."""
    return "".join(letter if letter.isprintable() else " " for letter in text)
